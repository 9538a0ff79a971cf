//! Accept, begin, finish: every transition of a command's record.
//!
//! A store loads the rows concerned, asks here what becomes of them, and writes the answer, all in one transaction.
//! The rules are those of `docs/state-machine.md`; their numbers are given beside the code that keeps them.

use std::time::Duration;

use chrono::TimeDelta;
use uuid::Uuid;

use super::Timestamp;
use super::command::{Command, CommandId};
use super::connection::{Applied, ConnectionRecord, Quiet};
use super::error::{Reason, Refusal};
use super::message::{CommandSummary, DeadLetter, Event, EventKind, Message, Reply};
use super::record::{CommandRecord, Door, EventRef, Outcome, ReplyAddress, State};
use super::reply::Verdict;
use super::trace::TraceContext;

/// Reply addresses kept of one command, at most. Further ones get no reply of their own.
pub const REPLIES_MAX: usize = 16;

/// Spans of time that the rules need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long a claim lasts.
    pub lease: TimeDelta,
    /// How long an unanswered request may still take effect.
    pub settle: TimeDelta,
    /// How long an accepted command is left to the one who accepted it.
    pub hold: TimeDelta,
    /// How long a command is tried.
    pub give_up_after: TimeDelta,
}

/// A command that is to be accepted.
#[derive(Debug, Clone)]
pub struct Acceptance {
    /// What is asked.
    pub command: Command,
    /// The name that it gets if it is new.
    pub id: CommandId,
    /// By which door it came.
    pub door: Door,
    /// The trace that it belongs to.
    pub trace: TraceContext,
    /// The caller's name for its conversation.
    pub correlation_id: Option<String>,
    /// Where an answer is wanted, besides the caller that waits.
    pub reply: Option<ReplyAddress>,
}

/// What becomes of an [`Acceptance`].
#[derive(Debug, Clone, PartialEq)]
pub enum Accepted {
    /// It is new, or its key had failed before: work for the one who brought it. Both rows are to be written.
    Fresh(CommandRecord, ConnectionRecord),
    /// The key is known and not final. The record is to be written if it differs from the stored one.
    InProgress(CommandRecord),
    /// The key is known and its outcome final. The message, if any, goes into the outbox.
    Replayed(CommandRecord, Option<Message>),
    /// The key names a command with other parameters. Nothing is written.
    Conflict,
}

/// Decides what becomes of `request`, given the command stored under its key, if any, and its connection.
#[must_use]
pub fn accept(
    existing: Option<CommandRecord>,
    connection: &ConnectionRecord,
    request: Acceptance,
    now: Timestamp,
    terms: &Terms,
) -> Accepted {
    let Some(mut record) = existing else {
        return fresh(connection.clone(), request, now, terms);
    };
    if !record.command.same_parameters(&request.command) {
        return Accepted::Conflict;
    }
    if record.state.is_replayed() {
        let reply = request.reply.map(|address| Message::Reply(Box::new(Reply::of(&record, &address, true))));
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
            record.due_time = Some(now + terms.hold);
            record.finished_time = None;
            record.outcome = None;
            record.waiting = false;
            Accepted::Fresh(record, connection.clone())
        }
        State::Deferred if !record.waiting => {
            record.due_time = Some(now);
            Accepted::InProgress(record)
        }
        _ => Accepted::InProgress(record),
    }
}

fn fresh(mut connection: ConnectionRecord, request: Acceptance, now: Timestamp, terms: &Terms) -> Accepted {
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
        due_time: Some(now + terms.hold),
        waiting: false,
        finished_time: None,
        outcome: None,
        event: None,
    };
    Accepted::Fresh(record, connection)
}

/// What becomes of a command at the head of its lane. The rows in it are to be written.
#[derive(Debug, Clone, PartialEq)]
pub enum Begun {
    /// The claim is given, until the record's due time and under its epoch.
    Claimed(CommandRecord, ConnectionRecord),
    /// It waits for another command of its connection or for a quiet time; due when that may be over.
    Waiting(CommandRecord),
    /// It ended without a PATCH.
    Ended(Settlement),
    /// Someone else has the claim, or it is final. Nothing is written.
    Unavailable(CommandRecord),
}

/// The rows and messages of a command that became final, or deferred.
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

/// Decides whether `record` may be claimed (rules 2, 3, 5 and 6).
///
/// `blocker` is another command of the connection that [blocks](CommandRecord::blocks). `event_id` is the id of the
/// event that an end may emit.
#[must_use]
pub fn begin(
    mut record: CommandRecord,
    mut connection: ConnectionRecord,
    blocker: Option<&CommandRecord>,
    now: Timestamp,
    event_id: Uuid,
    terms: &Terms,
) -> Begun {
    if record.state.is_final() {
        return Begun::Unavailable(record);
    }
    if record.state == State::InFlight {
        if record.due_time.is_some_and(|lease_end| lease_end > now) {
            return Begun::Unavailable(record);
        }
        // A lease that ended counts as sent, and what it sent may take effect until its quiet time is over.
        record.maybe_applied = true;
        let quiet_until = connection.quiet.map(|quiet| quiet.until);
        connection.settle_until = connection.settle_until.max(quiet_until);
    }
    if !record.maybe_applied {
        if record.command.expire_time.is_some_and(|expires| expires <= now) {
            let outcome =
                unsent(&record, Reason::CommandExpired, "expire_time passed before the command was sent");
            return Begun::Ended(end(record, connection, State::Failed, outcome, now, event_id));
        }
        if connection.applied.is_some_and(|applied| record.version() < applied.version) {
            let text = "a newer command of the connection was applied, or may have been";
            let outcome = unsent(&record, Reason::Superseded, text);
            return Begun::Ended(end(record, connection, State::Superseded, outcome, now, event_id));
        }
    }
    let quiet = connection.quiet.filter(|quiet| quiet.command_id != record.id && quiet.until > now);
    let wait_until = blocker.map(|other| other.due_time.unwrap_or(now)).max(quiet.map(|quiet| quiet.until));
    if let Some(until) = wait_until {
        record.due_time = Some(until.max(now + WAIT_MIN));
        record.waiting = true;
        return Begun::Waiting(record);
    }
    record.state = State::InFlight;
    record.epoch += 1;
    record.waiting = false;
    let lease_end = now + terms.lease;
    record.due_time = Some(lease_end);
    connection.quiet = Some(Quiet { until: lease_end + terms.settle, command_id: record.id });
    Begun::Claimed(record, connection)
}

/// A waiting command is looked at again no sooner than this, unless it is woken.
const WAIT_MIN: TimeDelta = TimeDelta::milliseconds(250);

/// The end of a claim.
#[derive(Debug, Clone)]
pub struct Finish {
    /// Which command.
    pub id: CommandId,
    /// Under which claim.
    pub epoch: i64,
    /// What the last attempt came to.
    pub verdict: Verdict,
    /// PATCHes sent under this claim.
    pub attempts: u32,
    /// Whether any of them may have been applied without our knowing.
    pub maybe_applied: bool,
    /// How long ago the last PATCH that got no answer was sent.
    pub unanswered_ago: Option<Duration>,
    /// Whether a caller hears of a transient failure and decides itself: then a command that certainly was not applied
    /// becomes `failed`, not `deferred`.
    pub caller_waits: bool,
    /// The wait until a deferred command runs again.
    pub defer_delay: Duration,
    /// The id of the event, if there is one.
    pub event_id: Uuid,
}

/// What becomes of a [`Finish`].
#[derive(Debug, Clone, PartialEq)]
pub enum Finished {
    /// The outcome or the deferral is to be written.
    Settled(Settlement),
    /// The claim is no longer the finisher's: nothing is emitted, and the connection, suspect now, is to be written.
    Stale(ConnectionRecord),
}

/// Decides what becomes of `record` after `finish` (rules 5 to 8).
#[must_use]
pub fn finish(
    mut record: CommandRecord,
    mut connection: ConnectionRecord,
    finish: Finish,
    now: Timestamp,
    terms: &Terms,
) -> Finished {
    if record.state != State::InFlight || record.epoch != finish.epoch {
        if finish.attempts > 0 {
            connection.suspect_since = Some(now);
        }
        return Finished::Stale(connection);
    }
    record.attempts = record.attempts.saturating_add(finish.attempts);
    record.maybe_applied |= finish.maybe_applied;
    let unanswered_until = finish.unanswered_ago.map(|ago| now - span(ago) + terms.settle);
    connection.settle_until = connection.settle_until.max(unanswered_until).filter(|until| *until > now);
    connection.quiet = connection.settle_until.map(|until| Quiet { until, command_id: record.id });

    let (state, outcome) = match finish.verdict {
        Verdict::Applied { outcome, .. } => {
            record.maybe_applied = false;
            (State::Succeeded, outcome)
        }
        Verdict::Rejected(outcome) => (State::Rejected, outcome),
        Verdict::Refused(outcome) if record.maybe_applied => (State::Rejected, outcome),
        Verdict::Refused(outcome) => (State::Failed, outcome),
        Verdict::Transient { outcome, .. } => {
            if finish.caller_waits && record.door == Door::Grpc && !record.maybe_applied {
                (State::Failed, outcome)
            } else if now - record.accepted_time < terms.give_up_after {
                return Finished::Settled(defer(record, connection, outcome, now, span(finish.defer_delay)));
            } else {
                (State::Abandoned, abandoned(outcome))
            }
        }
    };
    Finished::Settled(end(record, connection, state, outcome, now, finish.event_id))
}

/// A span too long for the clock is as good as for ever.
fn span(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(TimeDelta::days(36_500))
}

fn abandoned(mut outcome: Outcome) -> Outcome {
    let last = outcome.refusal.map_or_else(String::new, |refusal| format!("; last failure: {refusal}"));
    let text = format!("the command could not be settled within give_up_after{last}");
    outcome.refusal = Some(Refusal::new(Reason::CommandAbandoned, text));
    outcome
}

fn defer(
    mut record: CommandRecord,
    connection: ConnectionRecord,
    outcome: Outcome,
    now: Timestamp,
    delay: TimeDelta,
) -> Settlement {
    // What was certainly not applied blocks nothing any more.
    let wake_time = (!record.maybe_applied).then(|| free_time(&connection, now));
    record.state = State::Deferred;
    record.outcome = Some(outcome);
    record.due_time = Some(now + delay);
    Settlement { record, connection, messages: Vec::new(), wake_time }
}

/// When the connection is free for other commands.
fn free_time(connection: &ConnectionRecord, now: Timestamp) -> Timestamp {
    connection.quiet.map_or(now, |quiet| quiet.until)
}

/// The outcome of a command that ends without an attempt; what an earlier attempt heard stays.
fn unsent(record: &CommandRecord, reason: Reason, text: &str) -> Outcome {
    let upstream_status = record.outcome.as_ref().and_then(|outcome| outcome.upstream_status);
    Outcome::refused(upstream_status, reason, text)
}

/// Makes `record` final and writes what others are to hear.
fn end(
    mut record: CommandRecord,
    mut connection: ConnectionRecord,
    state: State,
    outcome: Outcome,
    now: Timestamp,
    event_id: Uuid,
) -> Settlement {
    // A command with an earlier outcome was deferred: whoever waited for it was told so and may be gone.
    let unattended = record.door == Door::Amqp || record.outcome.is_some();
    record.state = state;
    record.outcome = Some(outcome);
    record.due_time = None;
    record.waiting = false;
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
    let replies =
        record.replies.iter().map(|address| Message::Reply(Box::new(Reply::of(&record, address, false))));
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
        connection.suspect_since = Some(now);
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
    wanted.then(|| DeadLetter {
        id: Uuid::new_v5(
            &record.id.0,
            format!("dead-letter/{}/{}", record.generation, record.epoch).as_bytes(),
        ),
        time: now,
        trace: record.trace.clone(),
        command: CommandSummary::from(record),
        refusal,
    })
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
