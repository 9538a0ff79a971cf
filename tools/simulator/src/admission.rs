//! The checks of a request that need the state: token, organisations, connection.

use axum::http::HeaderValue;
use uuid::Uuid;

use crate::contract::{PatchHead, TokenBody};
use crate::journal::{Endpoint, Entry};
use crate::problem::Violation;
use crate::script::{Plan, Subject};
use crate::state::{Effect, Inner};
use crate::tokens::Standing;

/// Why a request is not admitted.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// It breaks the contract.
    Violations(Vec<Violation>),
    /// It is beyond the limit. The value is that of `Retry-After`.
    Limited(Option<HeaderValue>),
}

impl Inner {
    /// Admits a PATCH whose form was checked, or adds what else is wrong with it.
    pub(crate) fn admit_patch(
        &mut self,
        seq: u64,
        head: PatchHead,
        body: Result<bool, Vec<Violation>>,
    ) -> Result<(Effect, Plan), Refusal> {
        let PatchHead { requester, target, guest, token, mut violations } = head;
        let archived = body.map_err(|faults| violations.extend(faults)).ok();
        let mut revoked = None;
        let organization = token.and_then(|token| match self.tokens.standing(&token) {
            Standing::Valid(organization) => Some(organization),
            Standing::Revoked(organization) => {
                revoked = Some(Violation::token("is revoked"));
                Some(organization)
            }
            Standing::Expired(organization) => {
                violations.push(Violation::token("is expired"));
                Some(organization)
            }
            Standing::Invalid => {
                violations.push(Violation::token("is unknown"));
                None
            }
        });
        if let (Some(organization), Some(requester)) = (organization, requester)
            && organization != requester
        {
            let loc = &["header", "requester-organization-id"];
            violations.push(Violation::access(loc, "is not the organisation of the token"));
        }
        if let (Some(requester), Some(target)) = (requester, target)
            && !self.may_act(requester, target)
        {
            let loc = &["header", "target-organization-id"];
            violations.push(Violation::access(loc, "is not connected with the requester"));
        }
        let key = target.zip(guest);
        if key.is_some_and(|key| !self.auto_create && !self.connections.contains_key(&key)) {
            violations.push(Violation::unknown_connection());
        }
        self.note(seq, &violations, |entry| {
            entry.archived = archived;
            entry.client_organization = organization;
        });
        violations.extend(revoked);
        match (key, archived) {
            (Some(key), Some(archived)) if violations.is_empty() => {
                self.pass(seq, requester)?;
                let subject =
                    Subject { endpoint: Endpoint::Patch, guest, requester, archived: Some(archived) };
                Ok((Effect::Patch { key, archived }, self.plan(seq, &subject)))
            }
            _ => Err(Refusal::Violations(violations)),
        }
    }

    /// Lets a PATCH pass that keeps to the limit.
    fn pass(&mut self, seq: u64, requester: Option<Uuid>) -> Result<(), Refusal> {
        let Some(limiter) = &mut self.limiter else { return Ok(()) };
        limiter.take(requester).map_err(|retry_after| {
            if let Some(entry) = self.journal.get_mut(seq) {
                entry.fault = Some("limit".to_owned());
            }
            Refusal::Limited(retry_after)
        })
    }

    /// Self, or the two ends of a connection that exists.
    fn may_act(&self, requester: Uuid, target: Uuid) -> bool {
        requester == target
            || self.connections.contains_key(&(requester, target))
            || self.connections.contains_key(&(target, requester))
    }

    /// Admits a token request whose form was checked, or adds what else is wrong with it.
    pub(crate) fn admit_token(
        &mut self,
        seq: u64,
        mut violations: Vec<Violation>,
        body: Result<TokenBody, Vec<Violation>>,
    ) -> Result<(Effect, Plan), Refusal> {
        let body = body.map_err(|faults| violations.extend(faults)).ok();
        let organization = body.and_then(|body| {
            let organization = self.tokens.authenticate(&body.client_id, &body.client_secret);
            if organization.is_none() {
                violations.push(Violation::credentials());
            }
            organization
        });
        self.note(seq, &violations, |entry| {
            entry.requester = organization;
            entry.client_organization = organization;
        });
        match organization {
            Some(organization) if violations.is_empty() => {
                let (endpoint, requester) = (Endpoint::Token, Some(organization));
                let plan = self.plan(seq, &Subject { endpoint, guest: None, requester, archived: None });
                Ok((Effect::Token { organization }, plan))
            }
            _ => Err(Refusal::Violations(violations)),
        }
    }

    /// Writes down what was learnt about a request.
    pub(crate) fn note(&mut self, seq: u64, violations: &[Violation], change: impl FnOnce(&mut Entry)) {
        self.stats.violations += violations.len() as u64;
        if let Some(entry) = self.journal.get_mut(seq) {
            entry.violations = violations.iter().map(Violation::summary).collect();
            change(entry);
        }
    }

    fn plan(&mut self, seq: u64, subject: &Subject) -> Plan {
        let plan = self.script.take(subject);
        if let Some(entry) = self.journal.get_mut(seq) {
            entry.fault.clone_from(&plan.fault);
        }
        plan
    }
}
