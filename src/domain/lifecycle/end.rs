//! What an end writes: the outcome, the connection's version and sequence, and what others are to hear (rules 7 and 8).

use uuid::Uuid;

use crate::domain::Timestamp;
use crate::domain::connection::{Applied, ConnectionRecord, Suspicion};
use crate::domain::message::{CommandSummary, DeadLetter, Event, EventKind, Message, Reply};
use crate::domain::record::{CommandRecord, Door, EventRef, Outcome, State};

/// The rows and messages of a command that became final, was deferred or put off.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// The command.
    pub record: CommandRecord,
    /// Its connection.
    pub connection: ConnectionRecord,
    /// For the outbox, in order.
    pub messages: Vec<Message>,
    /// Commands that wait on the connection become due at this time.
    pub wake_time: Option<Timestamp>,
}

/// When the connection is free for other commands.
#[must_use]
pub fn free_time(connection: &ConnectionRecord, now: Timestamp) -> Timestamp {
    connection.quiet.map_or(now, |quiet| quiet.until)
}

/// The circumstances of an end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Close {
    pub(super) now: Timestamp,
    pub(super) event_id: Uuid,
    /// Whether a caller hears of it.
    pub(super) caller_waits: bool,
}

/// Makes `record` final and writes what others are to hear.
pub(super) fn end(
    mut record: CommandRecord,
    mut connection: ConnectionRecord,
    state: State,
    outcome: Outcome,
    close: Close,
) -> Settlement {
    let Close { now, event_id, caller_waits } = close;
    // A message may have asked for it as well, and who was told earlier that it goes on may be gone.
    let unattended = record.door == Door::Amqp || record.outcome.is_some() || !caller_waits;
    record.state = state;
    record.outcome = Some(outcome);
    record.due_time = None;
    record.waiting = false;
    record.paused_since = None;
    record.finished_time = Some(now);
    let kind = match (state, record.command.archived) {
        (State::Succeeded, true) => Some(EventKind::Archived),
        (State::Succeeded, false) => Some(EventKind::Unarchived),
        _ if record.maybe_applied => Some(EventKind::Indeterminate),
        _ => None,
    };
    let mut messages = Vec::new();
    if let Some(kind) = kind {
        advance(&mut connection, &record, state == State::Succeeded, now);
        connection.sequence += 1;
        record.event = Some(EventRef { id: event_id, sequence: connection.sequence, confirmed_time: None });
        messages.push(Message::Event(Box::new(event(&record, kind, event_id, connection.sequence, now))));
    }
    if let Some(letter) = dead_letter(&record, unattended, now) {
        messages.push(Message::DeadLetter(Box::new(letter)));
    }
    let replies = record
        .replies
        .iter()
        .map(|address| Message::Reply(Box::new(Reply::of(&record, address, false, now))));
    messages.extend(replies);
    record.replies.clear();
    let wake_time = Some(free_time(&connection, now));
    Settlement { record, connection, messages, wake_time }
}

/// Moves the connection's version on. That it never moves back is the point of rules 2 to 6; should it happen all the
/// same, the newest stays and the connection is suspect, since the upstream may show the older value.
fn advance(connection: &mut ConnectionRecord, record: &CommandRecord, certain: bool, now: Timestamp) {
    let version = record.version();
    if connection.applied.is_some_and(|applied| applied.version > version) {
        connection.suspicion = Some(Suspicion { since: now, due: free_time(connection, now) });
        return;
    }
    connection.applied = Some(Applied {
        version,
        archived: record.command.archived,
        requester: record.command.requester,
        certain,
    });
}

fn event(record: &CommandRecord, kind: EventKind, id: Uuid, sequence: u64, now: Timestamp) -> Event {
    let outcome = record.outcome.as_ref();
    Event {
        id,
        kind,
        sequence,
        time: now,
        trace: record.trace.clone(),
        correlation_id: record.correlation_id.clone().unwrap_or_else(|| record.id.to_string()),
        command: CommandSummary::from(record),
        guest_connection: outcome.and_then(|outcome| outcome.guest_connection.clone()),
        incomplete: kind == EventKind::Indeterminate || outcome.is_some_and(|outcome| outcome.incomplete),
    }
}

/// A command that will not be tried again is a dead letter, unless a call hears of its refusal itself. To be
/// superseded is no failure.
fn dead_letter(record: &CommandRecord, unattended: bool, now: Timestamp) -> Option<DeadLetter> {
    let wanted = match record.state {
        State::Rejected | State::Failed => unattended,
        State::Abandoned => true,
        _ => false,
    };
    let refusal = record.outcome.as_ref().and_then(|outcome| outcome.refusal.clone())?;
    // One that failed may come again by its key and fail anew.
    let accepted_time = record.accepted_time.timestamp_micros();
    let name = format!("dead-letter/{}/{}/{accepted_time}", record.generation, record.epoch);
    wanted.then(|| DeadLetter {
        id: Uuid::new_v5(&record.id.0, name.as_bytes()),
        time: now,
        trace: record.trace.clone(),
        command: CommandSummary::from(record),
        refusal,
    })
}
