//! A command comes in: it is new, known, or in conflict with what is known.

use chrono::TimeDelta;

use super::Terms;
use super::begin::LINE_WAIT;
use super::put_off::PutOff;
use crate::domain::Timestamp;
use crate::domain::access::AskedBy;
use crate::domain::command::{Command, CommandId};
use crate::domain::connection::ConnectionRecord;
use crate::domain::message::{Message, Reply};
use crate::domain::record::{CommandRecord, Door, ReplyAddress, State};
use crate::domain::trace::TraceContext;

/// Reply addresses kept of one command, at most. Further ones get no reply of their own.
pub const REPLIES_MAX: usize = 16;

/// A command that is to be accepted.
#[derive(Debug, Clone)]
pub struct Acceptance {
    /// What is asked.
    pub command: Command,
    /// The name that it gets if it is new.
    pub id: CommandId,
    /// By which door it came.
    pub door: Door,
    /// Who asks. Kept if the key is new; a repeat by someone else changes nothing.
    pub asked_by: AskedBy,
    /// The trace that it belongs to.
    pub trace: TraceContext,
    /// The caller's name for its conversation.
    pub correlation_id: Option<String>,
    /// Where an answer is wanted, besides the caller that waits.
    pub reply: Option<ReplyAddress>,
    /// Whether the one who accepts it sets it to work. Otherwise it is recovery's as soon as it is the first in line.
    pub is_owned: bool,
    /// Its requester is paused: if it is new it is put off at once, out of the line. There is no place yet that it could
    /// keep.
    pub put_off: Option<PutOff>,
}

/// What becomes of an [`Acceptance`].
#[derive(Debug, Clone, PartialEq)]
pub enum Accepted {
    /// It is new, or its key had failed before: work for the one who brought it, unless it is put off. Both rows are to be
    /// written.
    Fresh(CommandRecord, ConnectionRecord),
    /// The key is known and not final. The record is to be written if it differs from the stored one.
    InProgress(CommandRecord),
    /// The key is known and its outcome final. The message, if any, goes into the outbox.
    Replayed(CommandRecord, Option<Message>),
    /// The key names a command with other parameters. Nothing is written.
    Conflict,
}

/// Decides what becomes of `request`, given the command stored under its key, if any, and its connection. `is_behind`
/// tells whether a command that arrived earlier stands in line there.
#[must_use]
pub fn accept(
    existing: Option<CommandRecord>,
    connection: &ConnectionRecord,
    request: Acceptance,
    is_behind: bool,
    now: Timestamp,
    terms: &Terms,
) -> Accepted {
    let due_time = match (request.is_owned, is_behind) {
        (true, _) => now + terms.hold,
        (false, true) => now + LINE_WAIT,
        (false, false) => now,
    };
    let Some(mut record) = existing else {
        return fresh(connection.clone(), request, due_time, now);
    };
    if !record.command.same_parameters(&request.command) {
        return Accepted::Conflict;
    }
    if record.state.is_replayed() {
        let reply =
            request.reply.map(|address| Message::Reply(Box::new(Reply::of(&record, &address, true, now))));
        return Accepted::Replayed(record, reply);
    }
    if let Some(address) = request.reply
        && record.replies.len() < REPLIES_MAX
        && !record.replies.contains(&address)
    {
        record.replies.push(address);
    }
    if request.door == Door::Amqp {
        // From now on nobody may be left to hear of a failure but the store.
        record.door = Door::Amqp;
    }
    match record.state {
        State::Failed => {
            // The same wish again: id and effective time stay, so that it cannot overtake a newer one (rule 6).
            record.state = State::Accepted;
            record.door = request.door;
            record.trace = request.trace;
            record.command.expire_time = request.command.expire_time;
            record.accepted_time = now;
            record.due_time = Some(due_time);
            record.finished_time = None;
            record.outcome = None;
            record.waiting = false;
            record.paused_since = None;
            record.paused = TimeDelta::zero();
            Accepted::Fresh(born(record, request.put_off.as_ref(), now), connection.clone())
        }
        State::Deferred if !record.waiting && request.put_off.is_none() => {
            record.due_time = Some(now);
            Accepted::InProgress(record)
        }
        _ => Accepted::InProgress(record),
    }
}

/// A new command whose requester is paused begins its life put off.
fn born(mut record: CommandRecord, put_off: Option<&PutOff>, now: Timestamp) -> CommandRecord {
    if let Some(put_off) = put_off {
        record.state = State::Deferred;
        put_off.apply(&mut record, now);
    }
    record
}

fn fresh(
    mut connection: ConnectionRecord,
    request: Acceptance,
    due_time: Timestamp,
    now: Timestamp,
) -> Accepted {
    // Rule 6: never later than acceptance; without a word of the caller, acceptance, and after the last one.
    let effective_time = match (request.command.issue_time, connection.effective_time_last) {
        (Some(issued), _) => issued.min(now),
        (None, Some(last)) => now.max(last + TimeDelta::microseconds(1)),
        (None, None) => now,
    };
    connection.effective_time_last = connection.effective_time_last.max(Some(effective_time));
    let record = CommandRecord {
        id: request.id,
        arrival: 0,
        command: request.command,
        door: request.door,
        asked_by: request.asked_by,
        trace: request.trace,
        correlation_id: request.correlation_id,
        replies: request.reply.into_iter().collect(),
        state: State::Accepted,
        generation: 1,
        epoch: 0,
        attempts: 0,
        maybe_applied: false,
        effective_time,
        accepted_time: now,
        due_time: Some(due_time),
        waiting: false,
        paused_since: None,
        paused: TimeDelta::zero(),
        finished_time: None,
        outcome: None,
        event: None,
    };
    Accepted::Fresh(born(record, request.put_off.as_ref(), now), connection)
}
