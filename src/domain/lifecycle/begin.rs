//! A command at the head of its lane asks for the claim.

use chrono::TimeDelta;
use uuid::Uuid;

use super::Terms;
use super::end::{Close, Settlement, end};
use crate::domain::Timestamp;
use crate::domain::connection::{ConnectionRecord, Quiet};
use crate::domain::error::Reason;
use crate::domain::record::{CommandRecord, Outcome, State};

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

/// What matters to a command that is to be begun, besides its own record.
#[derive(Debug, Clone, Copy, Default)]
pub struct Situation<'a> {
    /// Another command of the connection that [blocks](CommandRecord::blocks).
    pub blocker: Option<&'a CommandRecord>,
    /// Whether one of the connection that arrived earlier still stands [in line](CommandRecord::in_line).
    pub is_behind: bool,
    /// Whether a caller waits for the outcome.
    pub caller_waits: bool,
}

/// Decides whether `record` may be claimed (rules 2, 3, 5 and 6).
///
/// `event_id` is the id of the event that an end may emit, `now` the store's time.
#[must_use]
pub fn begin(
    mut record: CommandRecord,
    mut connection: ConnectionRecord,
    situation: Situation<'_>,
    now: Timestamp,
    event_id: Uuid,
    terms: &Terms,
) -> Begun {
    if !take(&mut record, &mut connection, now) {
        return Begun::Unavailable(record);
    }
    if let Some((state, outcome)) = unsent_end(&record, &connection, now) {
        let close = Close { now, event_id, caller_waits: situation.caller_waits };
        return Begun::Ended(end(record, connection, state, outcome, close));
    }
    let quiet = connection.quiet.filter(|quiet| quiet.command_id != record.id && quiet.until > now);
    let blocked_until = situation.blocker.map(|other| other.due_time.unwrap_or(now));
    // One whose fate is unknown goes first: all others wait for it.
    let line_until = (situation.is_behind && !record.blocks()).then(|| now + LINE_WAIT);
    let wait_until = blocked_until.max(quiet.map(|quiet| quiet.until)).max(line_until);
    if let Some(until) = wait_until {
        record.due_time = Some(until.max(now + WAIT_MIN));
        record.waiting = true;
        return Begun::Waiting(record);
    }
    record.state = State::InFlight;
    record.epoch += 1;
    record.waiting = false;
    if let Some(since) = record.paused_since.take() {
        // The clock may have been set back meanwhile.
        record.paused += (now - since).max(TimeDelta::zero());
    }
    let lease_end = now + terms.lease;
    record.due_time = Some(lease_end);
    connection.quiet = Some(Quiet { until: lease_end + terms.settle, command_id: record.id });
    Begun::Claimed(record, connection)
}

/// Whether nobody else has the claim on `record` and there is work left. A claim that was lost is noted.
pub(super) fn take(record: &mut CommandRecord, connection: &mut ConnectionRecord, now: Timestamp) -> bool {
    if record.state.is_final() {
        return false;
    }
    if record.state == State::InFlight {
        if record.due_time.is_some_and(|lease_end| lease_end > now) {
            return false;
        }
        // A lease that ended counts as sent, and what it sent may take effect until its quiet time is over.
        record.maybe_applied = true;
        let quiet_until = connection.quiet.map(|quiet| quiet.until);
        connection.settle_until = connection.settle_until.max(quiet_until);
    }
    true
}

/// How a command ends that must not be sent any more, if that is so.
pub(super) fn unsent_end(
    record: &CommandRecord,
    connection: &ConnectionRecord,
    now: Timestamp,
) -> Option<(State, Outcome)> {
    if record.maybe_applied {
        return None;
    }
    if record.command.expire_time.is_some_and(|expires| expires <= now) {
        let text = "expire_time passed before the command was sent";
        return Some((State::Failed, unsent(record, Reason::CommandExpired, text)));
    }
    if connection.applied.is_some_and(|applied| record.version() < applied.version) {
        let text = "a newer command of the connection was applied, or may have been";
        return Some((State::Superseded, unsent(record, Reason::Superseded, text)));
    }
    None
}

/// A command behind another one in line is woken when it is the first. This is when it is looked at in any case: far off,
/// since every look reads all that is due.
pub const LINE_WAIT: TimeDelta = TimeDelta::days(1);

/// What waits is looked at again no sooner than this, unless it is woken.
pub(in crate::domain) const WAIT_MIN: TimeDelta = TimeDelta::milliseconds(250);

/// The outcome of a command that ends without an attempt; what an earlier attempt heard stays.
fn unsent(record: &CommandRecord, reason: Reason, text: &str) -> Outcome {
    let upstream_status = record.outcome.as_ref().and_then(|outcome| outcome.upstream_status);
    Outcome::refused(upstream_status, reason, text)
}
