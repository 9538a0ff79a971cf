//! Scripted faults: which requests they meet, how often, and what happens to those.

use std::collections::BTreeMap;
use std::fmt;

use axum::http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::connection::TimeForm;
use crate::journal::Endpoint;

/// One scripted fault.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// The requests it meets.
    #[serde(rename = "match")]
    pub matching: Match,
    /// How many requests it meets; none means for ever.
    #[serde(default)]
    pub times: Option<u64>,
    /// Of those that it could meet it meets one in so many; none means each.
    #[serde(default)]
    pub one_in: Option<u64>,
    /// What happens to them.
    pub action: Action,
}

/// The requests that a rule meets: those that agree in all that is given.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Match {
    /// `patch` or `token`
    pub endpoint: Endpoint,
    /// The guest of the path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest: Option<Uuid>,
    /// The requester, which for a token is the organisation of its client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requester: Option<Uuid>,
    /// The value asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived: Option<bool>,
}

/// What happens to a request. Where a token is asked for, *applied* means that it was issued.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// Waits, then goes on with the next rule that matches, or else plainly.
    Delay {
        /// How long, in milliseconds.
        ms: u64,
        /// Waits after the effect instead of before it.
        #[serde(default)]
        after_apply: bool,
        /// Always `continue`; may be left out.
        #[serde(default)]
        then: Then,
    },
    /// Answers with this status.
    Status {
        /// 200 to 599.
        status: u16,
        /// Added to the answer; a `content-type` replaces the one of the body.
        #[serde(default)]
        headers: BTreeMap<String, String>,
        /// A string is sent as it is, any other value as JSON. None: an error of the contract's form from 400
        /// on, else nothing.
        #[serde(default)]
        body: Option<Value>,
        /// Whether the request takes effect nevertheless.
        #[serde(default)]
        applied: bool,
    },
    /// Answers 503 `service_under_maintenance`, not applied.
    Maintenance,
    /// Resets the TCP connection without an effect or an answer.
    ResetBeforeApply,
    /// Resets the TCP connection after the effect, without an answer.
    ResetAfterApply,
    /// The effect comes later, whether or not the client still waits. The TCP connection is reset at once.
    ApplyLate {
        /// How much later, in milliseconds.
        ms: u64,
        /// Never answers instead of resetting.
        #[serde(default)]
        hang: bool,
    },
    /// Never answers, until the client closes.
    Hang {
        /// Whether the request takes effect nevertheless.
        #[serde(default)]
        applied: bool,
    },
    /// Applied; answers with a byte per interval.
    Drip {
        /// The interval, in milliseconds.
        interval_ms: u64,
        /// Drips the status line and the headers as well; the connection closes afterwards.
        #[serde(default)]
        headers: bool,
    },
    /// Applied; a 200 whose body never ends.
    EndlessBody,
    /// Applied; a 200 with a well-framed body whose JSON is cut.
    MalformedJson,
    /// Applied; no body.
    EmptyBody {
        /// 200 (with length 0) or 204.
        #[serde(default = "no_content")]
        status: u16,
    },
    /// Applied; a 200 that shows the other value. For PATCH only.
    WrongArchived,
    /// Applied; a 200 with times of this form. For PATCH only.
    TimeForm {
        /// The form.
        form: TimeForm,
    },
    /// Applied; a 200 with unknown fields and enum values. For PATCH only.
    ExtraFields,
    /// Applied; a 200 whose `content-length` promises more than is sent before the connection closes.
    TruncateBody,
}

/// What follows a delay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Then {
    /// The next rule that matches, or the plain answer.
    #[default]
    Continue,
}

fn no_content() -> u16 {
    204
}

impl Action {
    /// The name of the action in JSON and in the journal.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Delay { .. } => "delay",
            Self::Status { .. } => "status",
            Self::Maintenance => "maintenance",
            Self::ResetBeforeApply => "reset_before_apply",
            Self::ResetAfterApply => "reset_after_apply",
            Self::ApplyLate { .. } => "apply_late",
            Self::Hang { .. } => "hang",
            Self::Drip { .. } => "drip",
            Self::EndlessBody => "endless_body",
            Self::MalformedJson => "malformed_json",
            Self::EmptyBody { .. } => "empty_body",
            Self::WrongArchived => "wrong_archived",
            Self::TimeForm { .. } => "time_form",
            Self::ExtraFields => "extra_fields",
            Self::TruncateBody => "truncate_body",
        }
    }
}

/// Why a rule can't be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidRule(String);

impl fmt::Display for InvalidRule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for InvalidRule {}

impl Rule {
    /// Checks what the types do not: that the rule can meet a request and that its answer can be sent.
    ///
    /// # Errors
    /// Says in one sentence what is wrong.
    pub fn validate(&self) -> Result<(), InvalidRule> {
        let fail = |text: String| Err(InvalidRule(text));
        let for_patch =
            matches!(self.action, Action::WrongArchived | Action::TimeForm { .. } | Action::ExtraFields)
                || self.matching.guest.is_some()
                || self.matching.archived.is_some();
        match self.matching.endpoint {
            Endpoint::Other => return fail("endpoint is neither patch nor token".to_owned()),
            Endpoint::Token if for_patch => {
                return fail(format!("{}: this match or action is for PATCH only", self.action.kind()));
            }
            Endpoint::Token | Endpoint::Patch => {}
        }
        if self.one_in == Some(0) {
            return fail("one_in is 0, must be 1 or more".to_owned());
        }
        match &self.action {
            Action::Status { status, headers, .. } => {
                if !(200..600).contains(status) {
                    return fail(format!("status {status} is not within 200 to 599"));
                }
                for (name, value) in headers {
                    if HeaderName::try_from(name).is_err() || HeaderValue::try_from(value).is_err() {
                        return fail(format!("header {name} can't be sent"));
                    }
                }
                Ok(())
            }
            Action::EmptyBody { status } if ![200, 204].contains(status) => {
                fail(format!("empty_body: status {status} is neither 200 nor 204"))
            }
            _ => Ok(()),
        }
    }
}

/// Names a rule that was scripted; it is not used again.
pub type RuleId = u64;

/// A rule and how often it was used.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ScriptedRule {
    /// Its name.
    pub id: RuleId,
    /// The rule as it was given.
    pub rule: Rule,
    /// How many requests it met.
    pub used: u64,
    /// How many it could have met, where it meets one in so many.
    #[serde(default)]
    pub seen: u64,
}
