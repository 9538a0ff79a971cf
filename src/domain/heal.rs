//! Healing a suspect connection: the newest applied value is sent once more, and no event tells of it (rule 7).
//!
//! An attempt is one more attempt of the command that was applied last. It holds the connection's quiet time, so that
//! no other command is begun meanwhile, and it is named by the end of its lease, so that a late one is found out.

use std::time::Duration;

use super::Timestamp;
use super::command::{CommandId, OrganizationId};
use super::connection::{Connection, ConnectionRecord, Quiet, Suspicion};
use super::lifecycle::{self, Terms};
use super::record::CommandRecord;
use super::reply::Verdict;

/// The right to send the newest applied value once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heal {
    /// Where.
    pub connection: Connection,
    /// The value.
    pub archived: bool,
    /// With whose credentials.
    pub requester: OrganizationId,
    /// The command that set it.
    pub command_id: CommandId,
    /// When the right ends.
    pub lease_end: Timestamp,
}

/// What becomes of a suspect connection. Unless it is left alone, its record is to be written.
#[derive(Debug, Clone, PartialEq)]
pub enum Begun {
    /// The value may be sent.
    Claimed(Heal, ConnectionRecord),
    /// Another command, or a quiet time, comes first.
    Waiting(ConnectionRecord),
    /// No value is known that could be sent: none was applied, or the newest one may not have been.
    Dropped(ConnectionRecord),
    /// It is not suspect, or not due.
    Unavailable,
}

/// Decides whether `connection` may be healed now. `blocker` is a command that [blocks](CommandRecord::blocks) it.
#[must_use]
pub fn begin(
    mut connection: ConnectionRecord,
    blocker: Option<&CommandRecord>,
    now: Timestamp,
    terms: &Terms,
) -> Begun {
    let Some(suspicion) = connection.suspicion.filter(|suspicion| suspicion.due <= now) else {
        return Begun::Unavailable;
    };
    let blocked_until = blocker.map(|other| other.due_time.unwrap_or(now));
    let newest = connection.applied.filter(|applied| applied.certain);
    let command_id = newest.map(|applied| applied.version.command_id);
    let quiet = connection.quiet.filter(|quiet| quiet.until > now);
    let foreign = quiet.filter(|quiet| Some(quiet.command_id) != command_id).map(|quiet| quiet.until);
    if let Some(until) = blocked_until.max(foreign) {
        let due = until.max(now + lifecycle::WAIT_MIN);
        connection.suspicion = Some(Suspicion { due, ..suspicion });
        return Begun::Waiting(connection);
    }
    let Some(applied) = newest else {
        connection.suspicion = None;
        return Begun::Dropped(connection);
    };
    // An earlier attempt to heal may have been lost with its process.
    connection.settle_until = connection.settle_until.max(quiet.map(|quiet| quiet.until));
    let lease_end = now + terms.lease;
    let command_id = applied.version.command_id;
    connection.quiet = Some(Quiet { until: lease_end + terms.settle, command_id });
    connection.suspicion = Some(Suspicion { due: lease_end, ..suspicion });
    let heal = Heal {
        connection: connection.connection,
        archived: applied.archived,
        requester: applied.requester,
        command_id,
        lease_end,
    };
    Begun::Claimed(heal, connection)
}

/// The end of an attempt to heal.
#[derive(Debug, Clone)]
pub struct Finish {
    /// Which.
    pub heal: Heal,
    /// What it came to.
    pub verdict: Verdict,
    /// Whether a PATCH was sent.
    pub sent: bool,
    /// How long ago it was sent, if it got no answer.
    pub unanswered_ago: Option<Duration>,
    /// The wait until the next attempt, if there is to be one.
    pub retry_delay: Duration,
}

/// What an attempt to heal led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Healed {
    /// The upstream shows the newest applied value.
    Yes,
    /// It is tried again.
    Later,
    /// The upstream refuses the value for good, or it was tried for `give_up_after`.
    GivenUp,
    /// The right had ended before the attempt did; the connection stays suspect.
    Stale,
}

/// Decides what becomes of the connection after an attempt. Its record is to be written; what waits on the connection
/// becomes due at [`lifecycle::free_time`].
#[must_use]
pub fn finish(
    mut connection: ConnectionRecord,
    finish: &Finish,
    now: Timestamp,
    terms: &Terms,
) -> (Healed, ConnectionRecord) {
    let heal = &finish.heal;
    let current = connection.suspicion.filter(|suspicion| {
        let newest = connection.applied.map(|applied| applied.version.command_id);
        suspicion.due == heal.lease_end && newest == Some(heal.command_id)
    });
    let Some(suspicion) = current else {
        if finish.sent {
            let since = connection.suspicion.map_or(now, |suspicion| suspicion.since);
            connection.suspicion = Some(Suspicion { since, due: now + terms.settle });
        }
        return (Healed::Stale, connection);
    };
    lifecycle::end_claim(&mut connection, heal.command_id, finish.unanswered_ago, now, terms);
    let healed = match finish.verdict {
        Verdict::Applied { .. } => Healed::Yes,
        Verdict::Rejected(_) => Healed::GivenUp,
        _ if now - suspicion.since >= terms.give_up_after => Healed::GivenUp,
        Verdict::Refused(_) | Verdict::Transient { .. } => Healed::Later,
    };
    let due = now + lifecycle::span(finish.retry_delay);
    connection.suspicion = (healed == Healed::Later).then_some(Suspicion { due, ..suspicion });
    (healed, connection)
}

#[cfg(test)]
#[path = "heal_tests.rs"]
mod tests;
