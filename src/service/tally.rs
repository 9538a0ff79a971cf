//! Counts what becomes of commands, for metrics.

use opentelemetry::KeyValue;

use super::ports::Accepted;
use crate::domain::error::{Reason, Refusal};
use crate::domain::record::{CommandRecord, Door, State};
use crate::telemetry::instruments::instruments;
use crate::telemetry::metrics::listed;

/// A wish was refused, at a door or behind it.
pub fn refused(door: Door, refusal: &Refusal) {
    submitted(door, "refused");
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
