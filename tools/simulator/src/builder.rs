//! Rules written as a sentence: `Rule::patch().guest(g).times(1).status(503)`.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;
use uuid::Uuid;

use crate::connection::TimeForm;
use crate::faults::{Action, Match, Rule, Then};
use crate::journal::Endpoint;

impl Rule {
    /// Starts a rule for PATCH requests.
    pub fn patch() -> RuleBuilder {
        RuleBuilder::new(Endpoint::Patch)
    }

    /// Starts a rule for token requests.
    pub fn token() -> RuleBuilder {
        RuleBuilder::new(Endpoint::Token)
    }
}

/// A rule without its action yet; every method that is no condition completes it.
#[derive(Debug, Clone)]
#[must_use]
pub struct RuleBuilder {
    matching: Match,
    times: Option<u64>,
    one_in: Option<u64>,
}

impl RuleBuilder {
    fn new(endpoint: Endpoint) -> Self {
        Self {
            matching: Match { endpoint, guest: None, requester: None, archived: None },
            times: None,
            one_in: None,
        }
    }

    /// Only for this guest.
    pub fn guest(mut self, guest: Uuid) -> Self {
        self.matching.guest = Some(guest);
        self
    }

    /// Only for this requester.
    pub fn requester(mut self, requester: Uuid) -> Self {
        self.matching.requester = Some(requester);
        self
    }

    /// Only where this value is asked for.
    pub fn archived(mut self, archived: bool) -> Self {
        self.matching.archived = Some(archived);
        self
    }

    /// Only for the next `times` requests.
    pub fn times(mut self, times: u64) -> Self {
        self.times = Some(times);
        self
    }

    /// Only for one in so many of the requests that it would meet.
    pub fn one_in(mut self, one_in: u64) -> Self {
        self.one_in = Some(one_in);
        self
    }

    /// Completes the rule with any action.
    #[must_use]
    pub fn action(self, action: Action) -> Rule {
        Rule { matching: self.matching, times: self.times, one_in: self.one_in, action }
    }

    /// Waits before the effect, then goes on.
    #[must_use]
    pub fn delay(self, delay: Duration) -> Rule {
        self.action(Action::Delay { ms: whole_ms(delay), after_apply: false, then: Then::Continue })
    }

    /// Waits between the effect and the answer.
    #[must_use]
    pub fn delay_after_apply(self, delay: Duration) -> Rule {
        self.action(Action::Delay { ms: whole_ms(delay), after_apply: true, then: Then::Continue })
    }

    /// Answers with a status; headers, body and effect can be added.
    pub fn status(self, status: u16) -> StatusBuilder {
        StatusBuilder { rule: self, status, headers: BTreeMap::new(), body: None, applied: false }
    }

    /// See [`Action::Maintenance`].
    #[must_use]
    pub fn maintenance(self) -> Rule {
        self.action(Action::Maintenance)
    }

    /// See [`Action::ResetBeforeApply`].
    #[must_use]
    pub fn reset_before_apply(self) -> Rule {
        self.action(Action::ResetBeforeApply)
    }

    /// See [`Action::ResetAfterApply`].
    #[must_use]
    pub fn reset_after_apply(self) -> Rule {
        self.action(Action::ResetAfterApply)
    }

    /// See [`Action::ApplyLate`].
    #[must_use]
    pub fn apply_late(self, delay: Duration) -> Rule {
        self.action(Action::ApplyLate { ms: whole_ms(delay), hang: false })
    }

    /// Never answers, and takes effect later whether or not the client still waits.
    #[must_use]
    pub fn hang_and_apply_late(self, delay: Duration) -> Rule {
        self.action(Action::ApplyLate { ms: whole_ms(delay), hang: true })
    }

    /// Never answers and has no effect.
    #[must_use]
    pub fn hang(self) -> Rule {
        self.action(Action::Hang { applied: false })
    }

    /// Takes effect and never answers.
    #[must_use]
    pub fn hang_after_apply(self) -> Rule {
        self.action(Action::Hang { applied: true })
    }

    /// Drips the body.
    #[must_use]
    pub fn drip(self, interval: Duration) -> Rule {
        self.action(Action::Drip { interval_ms: whole_ms(interval), headers: false })
    }

    /// Drips the status line, the headers and the body.
    #[must_use]
    pub fn drip_headers(self, interval: Duration) -> Rule {
        self.action(Action::Drip { interval_ms: whole_ms(interval), headers: true })
    }

    /// See [`Action::EndlessBody`].
    #[must_use]
    pub fn endless_body(self) -> Rule {
        self.action(Action::EndlessBody)
    }

    /// See [`Action::MalformedJson`].
    #[must_use]
    pub fn malformed_json(self) -> Rule {
        self.action(Action::MalformedJson)
    }

    /// See [`Action::EmptyBody`].
    #[must_use]
    pub fn empty_body(self, status: u16) -> Rule {
        self.action(Action::EmptyBody { status })
    }

    /// See [`Action::WrongArchived`].
    #[must_use]
    pub fn wrong_archived(self) -> Rule {
        self.action(Action::WrongArchived)
    }

    /// See [`Action::TimeForm`].
    #[must_use]
    pub fn time_form(self, form: TimeForm) -> Rule {
        self.action(Action::TimeForm { form })
    }

    /// See [`Action::ExtraFields`].
    #[must_use]
    pub fn extra_fields(self) -> Rule {
        self.action(Action::ExtraFields)
    }

    /// See [`Action::TruncateBody`].
    #[must_use]
    pub fn truncate_body(self) -> Rule {
        self.action(Action::TruncateBody)
    }
}

/// A rule that answers with a status. It is a [`Rule`] by `From`.
#[derive(Debug, Clone)]
#[must_use]
pub struct StatusBuilder {
    rule: RuleBuilder,
    status: u16,
    headers: BTreeMap<String, String>,
    body: Option<Value>,
    applied: bool,
}

impl StatusBuilder {
    /// Adds a header to the answer.
    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Sends this JSON.
    pub fn json(mut self, body: Value) -> Self {
        self.body = Some(body);
        self
    }

    /// Sends this text as it is.
    pub fn text(mut self, body: &str) -> Self {
        self.body = Some(Value::String(body.to_owned()));
        self
    }

    /// Takes effect nevertheless.
    pub fn applied(mut self) -> Self {
        self.applied = true;
        self
    }
}

impl From<StatusBuilder> for Rule {
    fn from(builder: StatusBuilder) -> Self {
        let StatusBuilder { rule, status, headers, body, applied } = builder;
        rule.action(Action::Status { status, headers, body, applied })
    }
}

fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
