//! Picks the faults of a request from the scripted rules.

use std::time::Duration;

use uuid::Uuid;

use crate::faults::{Action, Rule, RuleId, ScriptedRule};
use crate::journal::Endpoint;

/// The features of a request that rules match on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Subject {
    pub(crate) endpoint: Endpoint,
    pub(crate) guest: Option<Uuid>,
    pub(crate) requester: Option<Uuid>,
    pub(crate) archived: Option<bool>,
}

/// What the rules have in store for one request.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    pub(crate) delay_before: Duration,
    pub(crate) delay_after: Duration,
    pub(crate) action: Option<Action>,
    /// The kinds of the rules used, joined by `+`.
    pub(crate) fault: Option<String>,
}

/// The rules in the order in which they were scripted.
#[derive(Debug, Default)]
pub(crate) struct Script {
    rules: Vec<ScriptedRule>,
    last_id: RuleId,
}

impl Script {
    pub(crate) fn push(&mut self, rule: Rule) -> RuleId {
        self.last_id += 1;
        self.rules.push(ScriptedRule { id: self.last_id, rule, used: 0, seen: 0 });
        self.last_id
    }

    /// Forgets one rule. Yields whether it was there.
    pub(crate) fn remove(&mut self, id: RuleId) -> bool {
        let before = self.rules.len();
        self.rules.retain(|scripted| scripted.id != id);
        self.rules.len() < before
    }

    pub(crate) fn clear(&mut self) {
        self.rules.clear();
    }

    pub(crate) fn rules(&self) -> &[ScriptedRule] {
        &self.rules
    }

    /// Takes the first rule that matches and has times left; delays are added up on the way to it.
    pub(crate) fn take(&mut self, subject: &Subject) -> Plan {
        let mut plan = Plan::default();
        for scripted in &mut self.rules {
            if !scripted.meets(subject) || !scripted.falls_due() {
                continue;
            }
            scripted.used += 1;
            let kind = scripted.rule.action.kind();
            plan.fault = Some(plan.fault.map_or_else(|| kind.to_owned(), |fault| format!("{fault}+{kind}")));
            match &scripted.rule.action {
                Action::Delay { ms, after_apply: false, .. } => {
                    plan.delay_before += Duration::from_millis(*ms);
                }
                Action::Delay { ms, after_apply: true, .. } => plan.delay_after += Duration::from_millis(*ms),
                action => {
                    plan.action = Some(action.clone());
                    break;
                }
            }
        }
        plan
    }
}

impl ScriptedRule {
    /// Counts a request that agrees, and tells whether it is one of those that are met.
    fn falls_due(&mut self) -> bool {
        self.seen += 1;
        self.rule.one_in.is_none_or(|one_in| self.seen.is_multiple_of(one_in))
    }

    fn meets(&self, subject: &Subject) -> bool {
        fn agrees<T: PartialEq + Copy>(wanted: Option<T>, given: Option<T>) -> bool {
            wanted.is_none() || wanted == given
        }
        let matching = &self.rule.matching;
        self.rule.times.is_none_or(|times| self.used < times)
            && matching.endpoint == subject.endpoint
            && agrees(matching.guest, subject.guest)
            && agrees(matching.requester, subject.requester)
            && agrees(matching.archived, subject.archived)
    }
}
