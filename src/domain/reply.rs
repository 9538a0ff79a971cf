//! What an upstream answer means: one table, for one PATCH.
//!
//! The status decides, the body only explains: whatever a 2xx carries, the PATCH took effect.

use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::drift::{Drift, DriftKind};
use super::error::{FieldViolation, Reason, Refusal, public_text};
use super::guest_connection;
use super::obstacle::Obstacle;
use super::record::{JsonText, Outcome};

/// What came back of one PATCH.
#[derive(Debug, Clone)]
pub enum Reply {
    /// A status line came, and as much of the body as could be read.
    Answered(Answer),
    /// It was not processed: certainly not applied.
    Unreachable(Obstacle),
    /// The request went out, at least in part, and no status line came.
    Unanswered,
    /// No attempt was made: there is no token to send.
    Unauthorized(Unauthorized),
}

/// An answer with a status line.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The wait that `Retry-After` asks for.
    pub retry_after: Option<Duration>,
    /// The body, or `None` if it was cut, too large or too slow.
    pub body: Option<Vec<u8>>,
}

/// Why there is no token.
#[derive(Debug, Clone)]
pub enum Unauthorized {
    /// The requester has no credentials here.
    NotConfigured,
    /// The token endpoint refused the credentials.
    Refused,
    /// The token endpoint could not serve.
    Unavailable {
        /// The wait that it asked for.
        retry_after: Option<Duration>,
    },
    /// The token endpoint could not be reached.
    Unreachable {
        /// Why.
        obstacle: Obstacle,
        /// When it is asked again.
        retry_after: Option<Duration>,
    },
}

/// What a [`Reply`] means for its command.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The value is set.
    Applied {
        /// For the record and the event.
        outcome: Outcome,
    },
    /// Refused for good, and remembered.
    Rejected(Outcome),
    /// Refused, and not remembered: what refuses may be mended without a change of the command.
    Refused(Outcome),
    /// May be tried again.
    Transient {
        /// The failure as it stands.
        outcome: Outcome,
        /// The request may have taken effect all the same.
        maybe_applied: bool,
        /// Nothing came back: the request may still be on its way.
        unanswered: bool,
        /// The token was not accepted.
        token_refused: bool,
    },
}

/// The error body of the contract. Entries are read each on its own: an odd one spoils no other.
#[derive(Debug, Deserialize)]
struct ErrorBody {
    detail: Vec<Value>,
}

/// An entry of it, as far as it is there.
#[derive(Debug)]
struct ErrorDetail {
    loc: Vec<Value>,
    msg: String,
    code: String,
}

/// An error body to the letter of the contract.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StrictErrorBody {
    detail: Vec<StrictErrorDetail>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StrictErrorDetail {
    loc: Vec<Value>,
    #[serde(rename = "msg")]
    _msg: String,
    #[serde(rename = "type")]
    _type: String,
    #[serde(rename = "code")]
    _code: String,
}

/// Entries of an error body that are read, at most.
const DETAILS_MAX: usize = 32;

/// Decides what `reply` means for a command that asked for `archived`.
#[must_use]
pub fn classify(reply: &Reply, archived: bool) -> Verdict {
    examine(reply, archived).0
}

/// The same, and how the answer differs from the contract: its body is read once for both.
#[must_use]
pub fn examine(reply: &Reply, archived: bool) -> (Verdict, Vec<Drift>) {
    let verdict = match reply {
        Reply::Answered(answer) if (200..300).contains(&answer.status) => return applied(answer, archived),
        Reply::Answered(answer) => return (refused(answer), error_drifts(answer)),
        Reply::Unreachable(obstacle) => {
            transient(Outcome::refused(None, Reason::UpstreamUnreachable, obstacle.public_text()), false)
        }
        Reply::Unanswered => Verdict::Transient {
            outcome: Outcome::refused(
                None,
                Reason::UpstreamUnanswered,
                "the upstream gave no answer; the request may have taken effect",
            ),
            maybe_applied: true,
            unanswered: true,
            token_refused: false,
        },
        Reply::Unauthorized(why) => unauthorized(why),
    };
    (verdict, Vec::new())
}

/// What a command is told that came to nothing by `reply`.
#[must_use]
pub fn refusal(reply: &Reply) -> Option<Refusal> {
    match classify(reply, true) {
        Verdict::Applied { .. } => None,
        Verdict::Rejected(outcome) | Verdict::Refused(outcome) | Verdict::Transient { outcome, .. } => {
            outcome.refusal
        }
    }
}

/// How an answer that is no 2xx differs from the contract.
#[must_use]
pub fn error_drifts(answer: &Answer) -> Vec<Drift> {
    if answer.status >= 400 && !has_error_form(answer.body.as_deref()) {
        vec![Drift::whole(DriftKind::ErrorForm)]
    } else {
        Vec::new()
    }
}

fn object(answer: &Answer) -> Option<JsonText> {
    answer.body.as_deref().and_then(|body| std::str::from_utf8(body).ok()).and_then(JsonText::object)
}

fn applied(answer: &Answer, archived: bool) -> (Verdict, Vec<Drift>) {
    let text = object(answer);
    let (shown, mut drifts) = match &text {
        Some(text) => {
            let (connection, drifts) = guest_connection::read(text);
            (connection.archived, drifts)
        }
        None => (None, vec![Drift::whole(DriftKind::Unreadable)]),
    };
    if shown.is_some_and(|shown| shown != archived) {
        drifts.push(Drift::new("archived", DriftKind::OtherValue));
    }
    let outcome = Outcome {
        refusal: None,
        upstream_status: Some(answer.status),
        guest_connection: text,
        incomplete: shown != Some(archived),
    };
    (Verdict::Applied { outcome }, drifts)
}

fn refused(answer: &Answer) -> Verdict {
    let details = error_details(answer.body.as_deref());
    let maintenance = details.iter().any(|detail| detail.code == "service_under_maintenance");
    let outcome = |reason: Reason, text: &str| {
        let mut outcome =
            Outcome::refused(Some(answer.status), reason, &describe(text, answer.status, &details));
        if let Some(refusal) = &mut outcome.refusal {
            refusal.retry_after = answer.retry_after;
        }
        outcome
    };
    match answer.status {
        400 | 422 => {
            let mut outcome = outcome(Reason::UpstreamInvalid, "the upstream refused the request's fields");
            if let Some(refusal) = &mut outcome.refusal {
                refusal.violations = details.iter().map(ErrorDetail::violation).collect();
            }
            Verdict::Rejected(outcome)
        }
        401 => Verdict::Transient {
            outcome: outcome(Reason::UpstreamUnauthenticated, "the upstream does not accept the credentials"),
            maybe_applied: false,
            unanswered: false,
            token_refused: true,
        },
        403 => Verdict::Refused(outcome(Reason::UpstreamForbidden, "the upstream forbids it")),
        404 | 410 => {
            Verdict::Rejected(outcome(Reason::UpstreamNotFound, "the upstream does not know the connection"))
        }
        409 => Verdict::Rejected(outcome(Reason::UpstreamConflict, "the upstream reports a conflict")),
        425 => transient(outcome(Reason::UpstreamUnavailable, "the upstream cannot serve now"), false),
        // Only a proxy may say so, and it has not passed the request on.
        407 => {
            transient(outcome(Reason::UpstreamUnreachable, "a proxy on the way asks for credentials"), false)
        }
        429 => transient(outcome(Reason::UpstreamRateLimited, "the upstream asks for fewer requests"), false),
        503 if maintenance => {
            transient(outcome(Reason::UpstreamUnavailable, "the upstream is under maintenance"), false)
        }
        // What is no status of HTTP counts as a 5xx (RFC 9110, 15).
        ..200 | 408 | 500.. => {
            transient(outcome(Reason::UpstreamUnavailable, "the upstream cannot serve now"), true)
        }
        _ => Verdict::Rejected(outcome(Reason::UpstreamRejected, "the upstream refused the request")),
    }
}

fn unauthorized(why: &Unauthorized) -> Verdict {
    let (reason, text, delay) = match why {
        Unauthorized::NotConfigured => {
            (Reason::RequesterNotConfigured, "the requester organisation has no credentials here", None)
        }
        Unauthorized::Refused => {
            (Reason::UpstreamUnauthenticated, "the upstream does not accept the credentials", None)
        }
        Unauthorized::Unavailable { retry_after } => {
            (Reason::UpstreamUnavailable, "the upstream gives no token now", *retry_after)
        }
        Unauthorized::Unreachable { obstacle, retry_after } => {
            (Reason::UpstreamUnreachable, obstacle.public_text(), *retry_after)
        }
    };
    let mut outcome = Outcome::refused(None, reason, text);
    if let Some(refusal) = &mut outcome.refusal {
        refusal.retry_after = delay;
    }
    match why {
        // To try again is of no use until the configuration is another one; then the key can come again.
        Unauthorized::NotConfigured => Verdict::Refused(outcome),
        Unauthorized::Refused | Unauthorized::Unavailable { .. } | Unauthorized::Unreachable { .. } => {
            transient(outcome, false)
        }
    }
}

const fn transient(outcome: Outcome, maybe_applied: bool) -> Verdict {
    Verdict::Transient { outcome, maybe_applied, unanswered: false, token_refused: false }
}

fn has_error_form(body: Option<&[u8]>) -> bool {
    let read = body.and_then(|body| serde_json::from_slice::<StrictErrorBody>(body).ok());
    read.is_some_and(|body| {
        let mut places = body.detail.iter().flat_map(|detail| &detail.loc);
        places.all(|place| place.is_string() || place.is_number())
    })
}

fn error_details(body: Option<&[u8]>) -> Vec<ErrorDetail> {
    let body = body.and_then(|body| serde_json::from_slice::<ErrorBody>(body).ok());
    let details = body.map(|body| body.detail).unwrap_or_default();
    details.iter().take(DETAILS_MAX).map(ErrorDetail::read).collect()
}

/// `text`, the status, and what the upstream itself says, made fit to be shown.
fn describe(text: &str, status: u16, details: &[ErrorDetail]) -> String {
    let said: Vec<_> =
        details.iter().map(|detail| detail.msg.as_str()).filter(|msg| !msg.is_empty()).collect();
    if said.is_empty() {
        format!("{text} (status {status})")
    } else {
        format!("{text} (status {status}): {}", public_text(&said.join("; ")))
    }
}

impl ErrorDetail {
    fn read(entry: &Value) -> Self {
        let text = |name: &str| entry[name].as_str().unwrap_or_default().to_owned();
        let loc = entry["loc"].as_array().cloned().unwrap_or_default();
        Self { loc, msg: text("msg"), code: text("code") }
    }

    /// The field is the last name in `loc`; numbers and the place (`body`, `path`, `header`) say less.
    fn violation(&self) -> FieldViolation {
        let names = self.loc.iter().map(|part| match part {
            Value::String(name) => name.clone(),
            other => other.to_string(),
        });
        let field = public_text(&names.collect::<Vec<_>>().join("."));
        FieldViolation::new(field, public_text(&self.msg))
    }
}

impl Outcome {
    /// The outcome of a command that did not succeed.
    #[must_use]
    pub fn refused(upstream_status: Option<u16>, reason: Reason, message: &str) -> Self {
        Self { refusal: Some(Refusal::new(reason, message)), upstream_status, ..Self::default() }
    }
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
