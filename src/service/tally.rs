//! Counts what becomes of commands, for metrics.

use opentelemetry::KeyValue;

use super::ports::Accepted;
use crate::domain::error::{Reason, Refusal};
use crate::domain::record::{CommandRecord, Door, State};
use crate::telemetry::instruments::instruments;
use crate::telemetry::metrics::listed;

/// A wish was refused, at a door or behind it.
pub fn refused(door: Door, refusal: &Refusal) {
    submitted(door, if door == Door::Amqp && left(refusal) { "left" } else { "refused" });
    counted(door, refusal.reason);
}

/// Shows every series as zero, so that the first of a kind is seen as an increase. They are few.
pub fn show() {
    for door in [Door::Grpc, Door::Amqp] {
        let door = KeyValue::new("door", door.as_str());
        for state in State::ALL.into_iter().filter(|state| *state != State::InFlight) {
            instruments().commands.add(0, &[door.clone(), KeyValue::new("state", state.as_str())]);
        }
        for result in ["accepted", "in_progress", "replayed", "conflict", "refused", "left"] {
            instruments().submissions.add(0, &[door.clone(), KeyValue::new("result", result)]);
        }
        for reason in Reason::ALL {
            instruments().refusals.add(0, &[door.clone(), KeyValue::new("reason", reason.as_str())]);
        }
    }
    for reason in ["backoff", "retry_after", "token_refused", "deferral"] {
        instruments().retries.add(0, &[KeyValue::new("reason", reason)]);
    }
    for kind in ["event", "reply"] {
        instruments().given_up.add(0, &[KeyValue::new("kind", kind)]);
    }
}

/// A message was left with the broker, since nothing can be taken in for now. It comes again.
fn left(refusal: &Refusal) -> bool {
    matches!(
        refusal.reason,
        Reason::StoreUnavailable | Reason::Draining | Reason::Overloaded | Reason::UpstreamPaused
    )
}

/// A caller was told so of a wish that was taken in.
pub(super) fn told(door: Door, refusal: &Refusal) {
    counted(door, refusal.reason);
}

fn counted(door: Door, reason: Reason) {
    let attributes = [KeyValue::new("door", door.as_str()), KeyValue::new("reason", reason.as_str())];
    instruments().refusals.add(1, &attributes);
}

fn submitted(door: Door, result: &'static str) {
    let attributes = [KeyValue::new("door", door.as_str()), KeyValue::new("result", result)];
    instruments().submissions.add(1, &attributes);
}

/// The store has answered.
pub(super) fn accepted(door: Door, accepted: &Accepted) {
    match accepted {
        Accepted::Conflict => {
            submitted(door, "conflict");
            counted(door, Reason::IdempotencyKeyReused);
        }
        Accepted::Replayed(_) => submitted(door, "replayed"),
        Accepted::InProgress(_) => submitted(door, "in_progress"),
        Accepted::Fresh(record, _) => {
            submitted(door, "accepted");
            came_to(record, State::Accepted);
            if record.state == State::Deferred {
                came_to(record, State::Deferred);
            }
        }
    }
}

/// A command has ended, or was put off.
pub(super) fn settled(record: &CommandRecord) {
    came_to(record, record.state);
    let Some(finished) = record.finished_time.filter(|_| record.state.is_final()) else { return };
    let length = (finished - record.accepted_time).to_std().unwrap_or_default().as_secs_f64();
    instruments().command_duration.record(length, &place(record, record.state));
    if let Some(organization) = listed(record.command.requester) {
        instruments().organization_duration.record(length, &[organization]);
    }
    if let Some(refusal) = record.outcome.as_ref().and_then(|outcome| outcome.refusal.as_ref()) {
        counted(record.door, refusal.reason);
    }
}

fn came_to(record: &CommandRecord, state: State) {
    instruments().commands.add(1, &place(record, state));
    if let Some(organization) = listed(record.command.requester) {
        let attributes = [organization, KeyValue::new("state", state.as_str())];
        instruments().organization_commands.add(1, &attributes);
    }
}

fn place(record: &CommandRecord, state: State) -> [KeyValue; 2] {
    [KeyValue::new("door", record.door.as_str()), KeyValue::new("state", state.as_str())]
}
