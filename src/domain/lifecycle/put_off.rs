//! A command is put off: its requester is paused, or the API as a whole is down. No attempt is counted.

use std::time::Duration;

use uuid::Uuid;

use super::begin::{LINE_WAIT, Situation, take, unsent_end};
use super::end::{Close, Settlement, end, free_time};
use super::finish::span;
use crate::domain::Timestamp;
use crate::domain::connection::ConnectionRecord;
use crate::domain::error::Refusal;
use crate::domain::record::{CommandRecord, Outcome, State};

/// Why a command is not to be begun now, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PutOff {
    /// The wait until it is looked at again.
    pub delay: Duration,
    /// Whether it stays in the line of its connection: the API as a whole is down, so that nobody behind it could be begun
    /// either. Otherwise its requester is paused, and those of others go on without it.
    pub keeps_place: bool,
    /// What is known of it, for those who ask; what an attempt heard says more and stays.
    pub refusal: Refusal,
}

impl PutOff {
    /// Moves the due time of `record`, starts the clock of its pause unless that runs, and says why.
    pub(super) fn apply(&self, record: &mut CommandRecord, now: Timestamp) {
        record.due_time = Some(now + span(self.delay));
        record.paused_since = record.paused_since.or(Some(now));
        if record.outcome.is_none() {
            record.outcome = Some(Outcome { refusal: Some(self.refusal.clone()), ..Outcome::default() });
        }
    }
}

/// What becomes of a command that is to be put off.
#[derive(Debug, Clone, PartialEq)]
pub enum PutOffAnswer {
    /// It is put off, or it ended since it must not be sent any more. The rows are to be written.
    Settled(Settlement),
    /// Someone else has the claim, or it is final. Nothing is written.
    Unavailable(CommandRecord),
}

/// Puts off `record`, which is at the head of its lane and has no claim. Of `situation` no blocker is needed: what is put
/// off waits in any case.
///
/// `event_id` is the id of the event that an end may emit, `now` the store's time.
#[must_use]
pub fn put_off(
    mut record: CommandRecord,
    mut connection: ConnectionRecord,
    situation: Situation<'_>,
    put_off: &PutOff,
    now: Timestamp,
    event_id: Uuid,
) -> PutOffAnswer {
    if !take(&mut record, &mut connection, now) {
        return PutOffAnswer::Unavailable(record);
    }
    if let Some((state, outcome)) = unsent_end(&record, &connection, now) {
        let close = Close { now, event_id, caller_waits: situation.caller_waits };
        return PutOffAnswer::Settled(end(record, connection, state, outcome, close));
    }
    put_off.apply(&mut record, now);
    let mut wake_time = None;
    if record.in_line() && put_off.keeps_place {
        record.waiting = true;
        if situation.is_behind && !record.blocks() {
            // It is woken when it is the first, and must not be looked at out of turn.
            record.due_time = Some(now + LINE_WAIT);
        }
    } else {
        // Those behind it go on, unless they wait for a command whose fate is unknown.
        wake_time = (record.in_line() && !record.maybe_applied).then(|| free_time(&connection, now));
        record.state = State::Deferred;
        record.waiting = false;
    }
    PutOffAnswer::Settled(Settlement { record, connection, messages: Vec::new(), wake_time })
}
