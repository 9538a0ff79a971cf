//! What a refusal looks like on the wire: one table, and the `google.rpc` details that go with each code.
//!
//! `docs/errors.md` explains every reason to callers; a test keeps it equal to [`code`] and [`retry_delay`].

use std::collections::HashMap;
use std::time::Duration;

use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

use crate::domain::Timestamp;
use crate::domain::command::{CommandId, IdempotencyKey};
use crate::domain::error::{DOMAIN, Reason, Refusal};
use crate::domain::record::{CommandRecord, State};

/// Bytes of a status message, as percent-encoded in `grpc-message`. Together with the details it stays under 6 KiB: gRPC
/// libraries take 8 KiB of metadata by default.
const MESSAGE_LENGTH_MAX: usize = 1024;

/// Bytes of all violations of one status, and of one text in them.
const VIOLATIONS_LENGTH_MAX: usize = 1536;
const VIOLATION_TEXT_LENGTH_MAX: usize = 256;

/// The trailer by which a server tells gRPC libraries when to retry.
const PUSHBACK: &str = "grpc-retry-pushback-ms";

/// The code of every reason.
#[must_use]
pub const fn code(reason: Reason) -> Code {
    match reason {
        Reason::InvalidFields
        | Reason::Undecodable
        | Reason::ContentTypeUnsupported
        | Reason::IdempotencyKeyMissing
        | Reason::UpstreamInvalid => Code::InvalidArgument,
        Reason::IdempotencyKeyReused
        | Reason::Superseded
        | Reason::CommandExpired
        // Only a redrive brings it back: a caller that tries again, as ABORTED would invite it to, hears the same.
        | Reason::CommandAbandoned
        | Reason::UpstreamConflict
        | Reason::UpstreamRejected => Code::FailedPrecondition,
        Reason::Unauthenticated => Code::Unauthenticated,
        Reason::NotPermitted | Reason::RequesterNotConfigured | Reason::UpstreamForbidden => Code::PermissionDenied,
        Reason::CommandNotFound | Reason::UpstreamNotFound => Code::NotFound,
        Reason::CommandInProgress => Code::Aborted,
        Reason::OutcomePending | Reason::DeadlineTooShort => Code::DeadlineExceeded,
        Reason::BodyTooLarge | Reason::Overloaded | Reason::UpstreamRateLimited => Code::ResourceExhausted,
        Reason::Draining
        | Reason::StoreUnavailable
        // The adapter's own credentials were not accepted, not the caller's: UNAUTHENTICATED would mislead it.
        | Reason::UpstreamUnauthenticated
        | Reason::UpstreamUnavailable
        | Reason::UpstreamUnreachable
        | Reason::UpstreamUnanswered
        | Reason::UpstreamPaused
        | Reason::RequesterPaused => Code::Unavailable,
        Reason::Internal => Code::Internal,
    }
}

/// When it makes sense to try again if nothing better is known; `None` where waiting alone mends nothing.
#[must_use]
pub const fn retry_delay(reason: Reason) -> Option<Duration> {
    match reason {
        Reason::Overloaded | Reason::CommandInProgress | Reason::OutcomePending => {
            Some(Duration::from_secs(1))
        }
        Reason::Draining => Some(Duration::from_secs(2)),
        Reason::StoreUnavailable
        | Reason::UpstreamUnavailable
        | Reason::UpstreamUnreachable
        | Reason::UpstreamUnanswered
        | Reason::UpstreamPaused
        | Reason::RequesterPaused
        | Reason::Internal => Some(Duration::from_secs(5)),
        Reason::UpstreamRateLimited => Some(Duration::from_secs(10)),
        Reason::UpstreamUnauthenticated => Some(Duration::from_secs(30)),
        // A later deadline helps at once, and nothing else does.
        Reason::DeadlineTooShort
        | Reason::InvalidFields
        | Reason::Undecodable
        | Reason::ContentTypeUnsupported
        | Reason::BodyTooLarge
        | Reason::IdempotencyKeyMissing
        | Reason::IdempotencyKeyReused
        | Reason::Unauthenticated
        | Reason::NotPermitted
        | Reason::RequesterNotConfigured
        | Reason::CommandNotFound
        | Reason::Superseded
        | Reason::CommandExpired
        | Reason::CommandAbandoned
        | Reason::UpstreamInvalid
        | Reason::UpstreamForbidden
        | Reason::UpstreamNotFound
        | Reason::UpstreamConflict
        | Reason::UpstreamRejected => None,
    }
}

/// The name of a code in the gRPC specification.
#[must_use]
pub const fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// What a refusal is about, as far as it is known when it is told.
#[derive(Debug, Clone, Default)]
pub struct Subject {
    /// The command.
    pub command_id: Option<CommandId>,
    /// Its key: also the way to look it up for a caller that got no answer.
    pub key: Option<IdempotencyKey>,
    /// Its state.
    pub state: Option<State>,
    /// A PATCH of it may have taken effect.
    pub maybe_applied: bool,
    /// The type and name of the resource that a `NOT_FOUND` speaks of.
    pub resource: Option<(&'static str, String)>,
}

impl Subject {
    /// A command that was accepted.
    #[must_use]
    pub fn of(record: &CommandRecord) -> Self {
        Self {
            command_id: Some(record.id),
            key: Some(record.command.key.clone()),
            state: Some(record.state),
            maybe_applied: record.maybe_applied,
            resource: Some((resource::GUEST_CONNECTION, record.command.connection.to_string())),
        }
    }

    fn metadata(&self) -> HashMap<String, String> {
        let mut metadata = HashMap::new();
        let mut enter = |name: &str, value: Option<String>| {
            metadata.extend(value.map(|value| (name.to_owned(), value)));
        };
        enter("command_id", self.command_id.map(|id| id.to_string()));
        enter("idempotency_key", self.key.as_ref().map(|key| key.as_str().to_owned()));
        enter("command_state", self.state.map(|state| state.as_str().to_owned()));
        enter("maybe_applied", self.maybe_applied.then(|| "true".to_owned()));
        metadata
    }
}

/// Types of resources, for `google.rpc.ResourceInfo`.
pub mod resource {
    /// A command of the adapter's; its name is its id, or the requester and the key with a slash between.
    pub const COMMAND: &str = "guestconnections.v1.Command";
    /// A connection of the upstream's; its name is the target and the guest with a slash between.
    pub const GUEST_CONNECTION: &str = "guestconnections.v1.GuestConnection";
}

/// The status of `refusal`.
#[must_use]
pub fn of(refusal: &Refusal, subject: &Subject) -> Status {
    build(code(refusal.reason), refusal, subject)
}

/// The status of a command that goes on by itself, after `refusal`.
///
/// Its code invites another try even if its last failure alone would not.
#[must_use]
pub fn deferred(refusal: &Refusal, record: &CommandRecord, now: Timestamp) -> Status {
    let mut refusal = refusal.clone();
    refusal.message = format!(
        "{}; the command goes on by itself: look it up with GetCommand by its command_id {} or its idempotency_key, \
         or repeat the call with the same key",
        cut(&refusal.message, MESSAGE_LENGTH_MAX / 2),
        record.id
    );
    let due_delay = record.due_time.and_then(|due| (due - now).to_std().ok());
    refusal.retry_after = due_delay.or(refusal.retry_after).or(Some(Duration::from_secs(5)));
    let code = if refusal.reason.is_transient() { code(refusal.reason) } else { Code::Unavailable };
    build(code, &refusal, &Subject::of(record))
}

fn build(code: Code, refusal: &Refusal, subject: &Subject) -> Status {
    let mut details = ErrorDetails::new();
    let mut metadata = subject.metadata();
    let (violations, omitted) = violations(refusal);
    if omitted > 0 {
        metadata.insert("violations_omitted".to_owned(), omitted.to_string());
    }
    if !violations.is_empty() {
        details.set_bad_request(violations);
    }
    details.set_error_info(refusal.reason.as_str(), DOMAIN, metadata);
    let delay = refusal.retry_after.or(retry_delay(refusal.reason));
    if let Some(delay) = delay {
        details.set_retry_info(Some(delay));
    }
    if code == Code::NotFound
        && let Some((kind, name)) = &subject.resource
    {
        details.set_resource_info(*kind, name, "", "");
    }
    let mut trailers = MetadataMap::new();
    if refusal.reason == Reason::Overloaded
        && let Some(delay) = delay
    {
        let delay_ms = u32::try_from(delay.as_millis()).unwrap_or(u32::MAX);
        trailers.insert(PUSHBACK, MetadataValue::from(delay_ms));
    }
    let message = cut(&refusal.message, MESSAGE_LENGTH_MAX);
    Status::with_error_details_and_metadata(code, message, details, trailers)
}

/// As many violations as there is room for, and the number of those left out.
fn violations(refusal: &Refusal) -> (Vec<FieldViolation>, usize) {
    /// Tags and lengths around two texts.
    const FRAME_LENGTH: usize = 16;
    let mut room = VIOLATIONS_LENGTH_MAX;
    let mut listed = Vec::new();
    for violation in &refusal.violations {
        let field = cut(&violation.field, VIOLATION_TEXT_LENGTH_MAX);
        let description = cut(&violation.description, VIOLATION_TEXT_LENGTH_MAX);
        let Some(rest) = room.checked_sub(field.len() + description.len() + FRAME_LENGTH) else { break };
        room = rest;
        listed.push(FieldViolation::new(field, description));
    }
    let omitted = refusal.violations.len() - listed.len();
    (listed, omitted)
}

/// The beginning of `text` that takes at most `length_max` bytes when it is percent-encoded.
fn cut(text: &str, length_max: usize) -> &str {
    let mut length = 0;
    for (start, c) in text.char_indices() {
        length += if matches!(c, ' '..='~') && c != '%' { 1 } else { 3 * c.len_utf8() };
        if length > length_max {
            return &text[..start];
        }
    }
    text
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
