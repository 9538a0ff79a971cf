//! A claim ends: the command is final, or deferred.

use std::time::Duration;

use chrono::TimeDelta;
use uuid::Uuid;

use super::Terms;
use super::end::{Close, Settlement, end, free_time};
use crate::domain::Timestamp;
use crate::domain::command::CommandId;
use crate::domain::connection::{ConnectionRecord, Quiet, Suspicion};
use crate::domain::error::{Reason, Refusal};
use crate::domain::record::{CommandRecord, Door, Outcome, State};
use crate::domain::reply::Verdict;

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
    /// Whether a caller hears of a failure and decides itself: then there is no dead letter, and a command that certainly
    /// was not applied becomes `failed` after a transient one, not `deferred`.
    pub caller_waits: bool,
    /// The wait until a deferred command runs again.
    pub defer_delay: Duration,
    /// Whether that is a pause: nothing of its requester's is sent meanwhile, so that it does not count towards giving up.
    pub is_paused: bool,
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
            connection.suspicion = Some(Suspicion { since: now, due: now + terms.settle });
        }
        return Finished::Stale(connection);
    }
    record.attempts = record.attempts.saturating_add(finish.attempts);
    record.maybe_applied |= finish.maybe_applied;
    end_claim(&mut connection, record.id, finish.unanswered_ago, now, terms);

    let close = Close { now, event_id: finish.event_id, caller_waits: finish.caller_waits };
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
            } else if now - record.accepted_time - record.paused < terms.give_up_after {
                record.paused_since = finish.is_paused.then_some(now);
                return Finished::Settled(defer(record, connection, outcome, now, span(finish.defer_delay)));
            } else {
                (State::Abandoned, abandoned(outcome))
            }
        }
    };
    Finished::Settled(end(record, connection, state, outcome, close))
}

/// Clears the quiet time of a claim, but for what an unanswered attempt asks for (rule 5).
pub(in crate::domain) fn end_claim(
    connection: &mut ConnectionRecord,
    command_id: CommandId,
    unanswered_ago: Option<Duration>,
    now: Timestamp,
    terms: &Terms,
) {
    let unanswered_until = unanswered_ago.map(|ago| now - span(ago) + terms.settle);
    connection.settle_until = connection.settle_until.max(unanswered_until).filter(|until| *until > now);
    connection.quiet = connection.settle_until.map(|until| Quiet { until, command_id });
}

/// A century: added to any time of ours it is still a time.
const SPAN_MAX: TimeDelta = TimeDelta::days(36_500);

/// A span too long for the clock is as good as for ever.
#[must_use]
pub fn span(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or(SPAN_MAX).min(SPAN_MAX)
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
