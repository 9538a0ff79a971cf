//! Every reason for which a command can be refused or end without success.
//!
//! Each protocol maps [`Reason`] once, in one table of its own (`grpc::status`, `amqp::settle`). The text of a
//! [`Refusal`] is public: it is shown to callers and put into dead letters, so it holds no secrets, no personal data
//! and no internals.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The domain that goes with every reason, as `google.rpc.ErrorInfo` wants one.
pub const DOMAIN: &str = "guest-connection-adapter";

/// The greatest length of an upstream's text that is passed on, in characters.
pub const UPSTREAM_TEXT_LENGTH_MAX: usize = 512;

macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// Why. Each variant has a stable name and a section in `docs/errors.md`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        pub enum Reason { $($(#[$doc])* #[serde(rename = $name)] $variant,)+ }

        impl Reason {
            /// Every reason.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The stable name, in capitals.
            #[must_use]
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The reason with this stable name.
            #[must_use]
            pub fn parse(name: &str) -> Option<Self> {
                match name { $($name => Some(Self::$variant),)+ _ => None }
            }
        }
    };
}

reasons! {
    /// One or more fields break a rule.
    InvalidFields = "INVALID_FIELDS",
    /// A message that cannot be read as a command at all.
    Undecodable = "UNDECODABLE",
    /// A message in a format that is not read here.
    ContentTypeUnsupported = "CONTENT_TYPE_UNSUPPORTED",
    /// A message larger than the limit.
    BodyTooLarge = "BODY_TOO_LARGE",
    /// A message from which no idempotency key can be taken.
    IdempotencyKeyMissing = "IDEMPOTENCY_KEY_MISSING",
    /// The key names a command with other parameters.
    IdempotencyKeyReused = "IDEMPOTENCY_KEY_REUSED",
    /// The caller has not proved who it is.
    Unauthenticated = "UNAUTHENTICATED",
    /// The caller may not ask for this.
    NotPermitted = "NOT_PERMITTED",
    /// The requester organisation has no credentials here.
    RequesterNotConfigured = "REQUESTER_NOT_CONFIGURED",
    /// No command is known by that id or key.
    CommandNotFound = "COMMAND_NOT_FOUND",
    /// The first call with this key is still under way.
    CommandInProgress = "COMMAND_IN_PROGRESS",
    /// The command goes on; the caller's deadline comes first.
    OutcomePending = "OUTCOME_PENDING",
    /// The caller's deadline leaves no time to begin.
    DeadlineTooShort = "DEADLINE_TOO_SHORT",
    /// Too much is in flight.
    Overloaded = "OVERLOADED",
    /// The adapter is shutting down.
    Draining = "DRAINING",
    /// The store does not take or give data.
    StoreUnavailable = "STORE_UNAVAILABLE",
    /// A newer command of the connection was applied, or may have been.
    Superseded = "SUPERSEDED",
    /// `expire_time` passed before the command was sent.
    CommandExpired = "COMMAND_EXPIRED",
    /// It could not be settled within `give_up_after`.
    CommandAbandoned = "COMMAND_ABANDONED",
    /// The upstream refused the fields (400, 422).
    UpstreamInvalid = "UPSTREAM_INVALID",
    /// The upstream does not accept the requester's credentials (401).
    UpstreamUnauthenticated = "UPSTREAM_UNAUTHENTICATED",
    /// The upstream forbids it (403).
    UpstreamForbidden = "UPSTREAM_FORBIDDEN",
    /// The upstream does not know the connection (404, 410).
    UpstreamNotFound = "UPSTREAM_NOT_FOUND",
    /// The upstream reports a conflict (409).
    UpstreamConflict = "UPSTREAM_CONFLICT",
    /// The upstream answered with a redirect or another refusal.
    UpstreamRejected = "UPSTREAM_REJECTED",
    /// The upstream asks for fewer requests (429).
    UpstreamRateLimited = "UPSTREAM_RATE_LIMITED",
    /// The upstream cannot serve now (408, 425, 5xx).
    UpstreamUnavailable = "UPSTREAM_UNAVAILABLE",
    /// No connection to the upstream could be made.
    UpstreamUnreachable = "UPSTREAM_UNREACHABLE",
    /// The upstream gave no answer: the request may have taken effect.
    UpstreamUnanswered = "UPSTREAM_UNANSWERED",
    /// The upstream as a whole fails: nothing is sent until it is back.
    UpstreamPaused = "UPSTREAM_PAUSED",
    /// The upstream fails for the requester organisation: its commands wait until it is served again.
    RequesterPaused = "REQUESTER_PAUSED",
    /// A fault of the adapter itself.
    Internal = "INTERNAL",
}

impl Reason {
    /// Whether the same command may succeed later without a change on the caller's side.
    #[must_use]
    pub const fn is_transient(self) -> bool {
        matches!(
            self,
            Self::CommandInProgress
                | Self::OutcomePending
                | Self::DeadlineTooShort
                | Self::Overloaded
                | Self::Draining
                | Self::StoreUnavailable
                | Self::UpstreamUnauthenticated
                | Self::UpstreamRateLimited
                | Self::UpstreamUnavailable
                | Self::UpstreamUnreachable
                | Self::UpstreamUnanswered
                | Self::UpstreamPaused
                | Self::RequesterPaused
                | Self::Internal
        )
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A field that breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FieldViolation {
    /// The field's name as the door spells it.
    pub field: String,
    /// The rule, as a sentence without a subject.
    pub description: String,
}

impl FieldViolation {
    /// Names a field and the rule that it breaks.
    pub fn new(field: impl Into<String>, description: impl Into<String>) -> Self {
        Self { field: field.into(), description: description.into() }
    }
}

/// A refusal, or an end without success, as a caller hears of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{reason}: {message}")]
pub struct Refusal {
    /// Why.
    pub reason: Reason,
    /// Public text, short.
    pub message: String,
    /// The fields concerned, all of them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<FieldViolation>,
    /// When it makes sense to try again, if that is known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Duration>,
}

impl Refusal {
    /// A refusal without further details.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), violations: Vec::new(), retry_after: None }
    }

    /// A refusal for the sake of some fields; its message names them all.
    #[must_use]
    pub fn invalid(violations: Vec<FieldViolation>) -> Self {
        let list: Vec<_> = violations.iter().map(|v| format!("{} {}", v.field, v.description)).collect();
        Self { violations, ..Self::new(Reason::InvalidFields, list.join("; ")) }
    }

    /// Adds when to try again.
    #[must_use]
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }
}

/// Makes a foreign text fit to be shown: no control characters, nothing that looks like an e-mail address, at most
/// [`UPSTREAM_TEXT_LENGTH_MAX`] characters.
#[must_use]
pub fn public_text(text: &str) -> String {
    let mut shown = String::new();
    for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !shown.is_empty() {
            shown.push(' ');
        }
        shown.push_str(if word.contains('@') { "[redacted]" } else { word });
        if shown.len() > 4 * UPSTREAM_TEXT_LENGTH_MAX {
            break;
        }
    }
    match shown.char_indices().nth(UPSTREAM_TEXT_LENGTH_MAX) {
        Some((end, _)) => shown[..end].to_owned(),
        None => shown,
    }
}
