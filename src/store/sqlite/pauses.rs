//! Many commands put off, or resumed, in one statement. Only what is deferred or put off is read, however much is final.

use std::time::Duration;

use super::error::Fault;
use super::rows::micros;
use super::task::Scope;
use crate::domain::command::{CommandId, OrganizationId};
use crate::domain::lifecycle;
use crate::service::ports::BULK_LENGTH_MAX;

/// `?1` is the present, `?2` the limit, `?3` the new due time, and `?4` the requester if there is one.
macro_rules! put_off_due {
    ($of:literal) => {
        concat!(
            "UPDATE commands SET paused_since = coalesce(paused_since, due_time), due_time = ?3 WHERE arrival IN (
                 SELECT arrival FROM commands WHERE state = 'deferred' AND waiting = 0 AND due_time <= ?1",
            $of,
            " LIMIT ?2)"
        )
    };
}

/// `?1` is the present, `?2` the limit, and `?3` the requester if there is one. One that stands behind another in line is
/// woken when it is the first. Left to itself SQLite would read all that is due later, however little of it is put off.
macro_rules! resume {
    ($of:literal) => {
        concat!(
            "UPDATE commands SET due_time = ?1 WHERE arrival IN (
                 SELECT arrival FROM commands AS c INDEXED BY commands_paused WHERE paused_since IS NOT NULL AND due_time > ?1
                     AND (in_line = 0 OR NOT EXISTS (SELECT 1 FROM commands AS ahead
                         WHERE ahead.connection = c.connection AND ahead.in_line = 1 AND ahead.arrival < c.arrival))",
            $of,
            " LIMIT ?2)"
        )
    };
}

const PUT_OFF_DUE: &str = put_off_due!("");
const PUT_OFF_DUE_OF: &str = put_off_due!(" AND requester = ?4");
const RESUME: &str = resume!("");
const RESUME_OF: &str = resume!(" AND requester = ?3");

/// Puts off deferred commands that are due.
pub(super) fn put_off_due(
    scope: &Scope<'_>,
    requester: Option<OrganizationId>,
    delay: Duration,
) -> Result<u64, Fault> {
    let now = scope.now();
    let due_time = micros(now + lifecycle::span(delay));
    let changed = match requester {
        None => scope.connection.prepare_cached(PUT_OFF_DUE)?.execute((micros(now), limit(), due_time)),
        Some(requester) => scope.connection.prepare_cached(PUT_OFF_DUE_OF)?.execute((
            micros(now),
            limit(),
            due_time,
            requester.0.as_bytes(),
        )),
    };
    Ok(changed? as u64)
}

/// Makes what is put off due now.
pub(super) fn resume(scope: &Scope<'_>, requester: Option<OrganizationId>) -> Result<u64, Fault> {
    let now = micros(scope.now());
    let changed = match requester {
        None => scope.connection.prepare_cached(RESUME)?.execute((now, limit())),
        Some(requester) => {
            scope.connection.prepare_cached(RESUME_OF)?.execute((now, limit(), requester.0.as_bytes()))
        }
    };
    Ok(changed? as u64)
}

/// Makes those due now that nobody has begun.
pub(super) fn release(scope: &Scope<'_>, ids: &[CommandId]) -> Result<(), Fault> {
    let mut statement = scope.connection.prepare_cached(
        "UPDATE commands SET due_time = ?2 WHERE id = ?1 AND state = 'accepted' AND waiting = 0 AND due_time > ?2",
    )?;
    let now = micros(scope.now());
    for id in ids {
        statement.execute((id.0.as_bytes(), now))?;
    }
    Ok(())
}

const fn limit() -> i64 {
    BULK_LENGTH_MAX.cast_signed()
}

#[cfg(test)]
#[path = "pauses_tests.rs"]
mod tests;
