//! What the writer does: load the rows, ask [`lifecycle`], write its answer. Each function runs in a savepoint.

use chrono::TimeDelta;
use rusqlite::OptionalExtension as _;
use uuid::Uuid;

use super::error::Fault;
use super::rows::{self, StoredConnection, micros};
use super::task::Scope;
use crate::domain::Timestamp;
use crate::domain::command::CommandId;
use crate::domain::connection::{Connection, ConnectionRecord};
use crate::domain::heal::{self, Heal, Healed};
use crate::domain::lifecycle::{self, Acceptance, Finish, PutOff, Settlement, Situation};
use crate::domain::message::Message;
use crate::domain::record::{CommandRecord, State};
use crate::domain::trace::TraceContext;
use crate::service::ports::{Accepted, Begun, Finished, PutOffAnswer};

/// Registers a command, or finds what is known under its key; with `claim` a new one is begun at once.
pub(super) fn accept(
    scope: &mut Scope<'_>,
    request: Acceptance,
    claim: Option<Uuid>,
) -> Result<Accepted, Fault> {
    let now = scope.now();
    let existing = rows::command_by_key(scope.connection, request.command.requester, &request.command.key)?;
    let stored = rows::connection(scope.connection, request.command.connection)?;
    let before = existing.clone();
    let terms = scope.shared.terms;
    // Who sets it to work needs not know yet.
    let is_behind = match stored.number {
        Some(number) if !request.is_owned => {
            let arrival = existing.as_ref().map_or(i64::MAX, |record| record.arrival);
            rows::is_behind(scope.connection, number, arrival)?
        }
        _ => false,
    };
    match lifecycle::accept(existing, &stored.record, request, is_behind, now, &terms) {
        lifecycle::Accepted::Fresh(mut record, connection) => {
            let Some(event_id) = claim.filter(|_| record.state == State::Accepted) else {
                save(scope, &mut record, &stored, &connection)?;
                return Ok(Accepted::Fresh(record, None));
            };
            let accepted = record.clone();
            // Who accepts and begins at once has a caller that has just come, or a message.
            let ask = Ask { event_id, caller_waits: true };
            let begun = begin_record(scope, record, &stored, connection, ask, now)?;
            Ok(Accepted::Fresh(with_arrival(accepted, &begun), Some(begun)))
        }
        lifecycle::Accepted::InProgress(mut record) => {
            if before.as_ref() != Some(&record) {
                let connection = stored.record.clone();
                save(scope, &mut record, &stored, &connection)?;
            }
            Ok(Accepted::InProgress(record))
        }
        lifecycle::Accepted::Replayed(record, message) => {
            if let Some(message) = message {
                enqueue(scope, record.arrival, &message)?;
            }
            Ok(Accepted::Replayed(record))
        }
        lifecycle::Accepted::Conflict => Ok(Accepted::Conflict),
    }
}

fn with_arrival(mut accepted: CommandRecord, begun: &Begun) -> CommandRecord {
    let (Begun::Claimed(record) | Begun::Waiting(record) | Begun::Ended(record) | Begun::Unavailable(record)) =
        begun;
    accepted.arrival = record.arrival;
    accepted
}

/// Who asks for a claim.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    /// The id of an event that ending the command may emit.
    pub(super) event_id: Uuid,
    /// Whether a caller hears of its end.
    pub(super) caller_waits: bool,
}

/// Gives the claim on a command, if it may be begun.
pub(super) fn begin(scope: &mut Scope<'_>, id: CommandId, ask: Ask) -> Result<Begun, Fault> {
    let now = scope.now();
    let record = rows::command_by_id(scope.connection, id)?.ok_or(Fault::Unknown(id))?;
    let stored = rows::connection(scope.connection, record.command.connection)?;
    let connection = stored.record.clone();
    begin_record(scope, record, &stored, connection, ask, now)
}

/// `stored` is the connection as it is in the database, `connection` as it is to be before the claim.
fn begin_record(
    scope: &mut Scope<'_>,
    record: CommandRecord,
    stored: &StoredConnection,
    connection: ConnectionRecord,
    ask: Ask,
    now: Timestamp,
) -> Result<Begun, Fault> {
    let is_behind = is_behind(scope, &record, stored)?;
    let blocker = match stored.number {
        Some(number) => rows::blocker(scope.connection, number, record.id)?,
        None => None,
    };
    let situation = Situation { blocker: blocker.as_ref(), is_behind, caller_waits: ask.caller_waits };
    let unclaimed = connection.clone();
    match lifecycle::begin(record, connection, situation, now, ask.event_id, &scope.shared.terms) {
        lifecycle::Begun::Claimed(mut record, connection) => {
            save(scope, &mut record, stored, &connection)?;
            Ok(Begun::Claimed(record))
        }
        lifecycle::Begun::Waiting(mut record) => {
            save(scope, &mut record, stored, &unclaimed)?;
            Ok(Begun::Waiting(record))
        }
        lifecycle::Begun::Ended(settlement) => Ok(Begun::Ended(settle(scope, settlement, stored)?)),
        lifecycle::Begun::Unavailable(record) => Ok(Begun::Unavailable(record)),
    }
}

/// Whether a command that arrived before `record` stands in the line of its connection.
fn is_behind(scope: &Scope<'_>, record: &CommandRecord, stored: &StoredConnection) -> Result<bool, Fault> {
    let Some(number) = stored.number else { return Ok(false) };
    // What has no arrival number yet comes after all others.
    let arrival = if record.arrival == 0 { i64::MAX } else { record.arrival };
    rows::is_behind(scope.connection, number, arrival)
}

/// Puts off a command that is not to be begun now.
pub(super) fn put_off(
    scope: &mut Scope<'_>,
    id: CommandId,
    ask: Ask,
    put_off: &PutOff,
) -> Result<PutOffAnswer, Fault> {
    let now = scope.now();
    let record = rows::command_by_id(scope.connection, id)?.ok_or(Fault::Unknown(id))?;
    let stored = rows::connection(scope.connection, record.command.connection)?;
    let is_behind = is_behind(scope, &record, &stored)?;
    let situation = Situation { blocker: None, is_behind, caller_waits: ask.caller_waits };
    let connection = stored.record.clone();
    match lifecycle::put_off(record, connection, situation, put_off, now, ask.event_id) {
        lifecycle::PutOffAnswer::Settled(settlement) => {
            let record = settle(scope, settlement, &stored)?;
            let is_final = record.state.is_final();
            Ok(if is_final { PutOffAnswer::Ended(record) } else { PutOffAnswer::Waiting(record) })
        }
        lifecycle::PutOffAnswer::Unavailable(record) => Ok(PutOffAnswer::Unavailable(record)),
    }
}

/// Ends a claim: the outcome, the connection and the outbox change together or not at all.
pub(super) fn finish(scope: &mut Scope<'_>, finish: Finish) -> Result<Finished, Fault> {
    let now = scope.now();
    let record = rows::command_by_id(scope.connection, finish.id)?.ok_or(Fault::Unknown(finish.id))?;
    let stored = rows::connection(scope.connection, record.command.connection)?;
    match lifecycle::finish(record, stored.record.clone(), finish, now, &scope.shared.terms) {
        lifecycle::Finished::Settled(settlement) => {
            Ok(Finished::Settled(settle(scope, settlement, &stored)?))
        }
        lifecycle::Finished::Stale(connection) => {
            rows::write_connection(scope.connection, &stored, &connection)?;
            scope.tally.finishes_refused += 1;
            Ok(Finished::Stale)
        }
    }
}

fn settle(
    scope: &mut Scope<'_>,
    settlement: Settlement,
    stored: &StoredConnection,
) -> Result<CommandRecord, Fault> {
    let mut record = settlement.record;
    let connection = save(scope, &mut record, stored, &settlement.connection)?;
    for message in &settlement.messages {
        enqueue(scope, record.arrival, message)?;
    }
    if let Some(wake_time) = settlement.wake_time {
        wake(scope, connection, wake_time)?;
    }
    Ok(record)
}

/// Makes the first in the line of a connection due. If someone holds it for being set to work, it is due soon enough.
fn wake(scope: &Scope<'_>, connection: i64, wake_time: Timestamp) -> Result<(), Fault> {
    let mut statement = scope.connection.prepare_cached(
        "UPDATE commands SET due_time = ?2 WHERE due_time > ?2 AND (waiting = 1 OR due_time > ?3) AND arrival = (
             SELECT arrival FROM commands WHERE connection = ?1 AND in_line = 1 ORDER BY arrival LIMIT 1)",
    )?;
    let hold_end = wake_time + scope.shared.terms.hold;
    statement.execute((connection, micros(wake_time), micros(hold_end)))?;
    Ok(())
}

/// Gives the right to send a suspect connection's newest applied value again, with the trace of its command as far as
/// that is kept.
pub(super) fn begin_heal(
    scope: &mut Scope<'_>,
    connection: Connection,
) -> Result<Option<(Heal, TraceContext)>, Fault> {
    let stored = rows::connection(scope.connection, connection)?;
    let Some(number) = stored.number else { return Ok(None) };
    let blocker = rows::blocker(scope.connection, number, CommandId(Uuid::nil()))?;
    let (heal, record) =
        match heal::begin(stored.record.clone(), blocker.as_ref(), scope.now(), &scope.shared.terms) {
            heal::Begun::Claimed(heal, record) => (Some(heal), record),
            heal::Begun::Waiting(record) | heal::Begun::Dropped(record) => (None, record),
            heal::Begun::Unavailable => return Ok(None),
        };
    rows::write_connection(scope.connection, &stored, &record)?;
    let Some(heal) = heal else { return Ok(None) };
    let command = rows::command_by_id(scope.connection, heal.command_id)?;
    Ok(Some((heal, command.map(|command| command.trace).unwrap_or_default())))
}

/// Ends an attempt to heal.
pub(super) fn finish_heal(scope: &mut Scope<'_>, finish: &heal::Finish) -> Result<Healed, Fault> {
    let now = scope.now();
    let stored = rows::connection(scope.connection, finish.heal.connection)?;
    let (healed, record) = heal::finish(stored.record.clone(), finish, now, &scope.shared.terms);
    let number = rows::write_connection(scope.connection, &stored, &record)?;
    if healed != Healed::Stale {
        wake(scope, number, lifecycle::free_time(&record, now))?;
    }
    Ok(healed)
}

/// Writes both rows; yields the connection's number.
fn save(
    scope: &mut Scope<'_>,
    record: &mut CommandRecord,
    stored: &StoredConnection,
    connection: &ConnectionRecord,
) -> Result<i64, Fault> {
    let number = rows::write_connection(scope.connection, stored, connection)?;
    if record.arrival == 0 {
        scope.tally.registered += 1;
    }
    rows::write_command(scope.connection, record, number)?;
    Ok(number)
}

fn enqueue(scope: &mut Scope<'_>, arrival: i64, message: &Message) -> Result<(), Fault> {
    let event_id = match message {
        Message::Event(event) => Some(event.id.into_bytes()),
        Message::DeadLetter(_) | Message::Reply(_) => None,
    };
    let mut statement = scope
        .connection
        .prepare_cached("INSERT INTO outbox (command, event_id, message) VALUES (?1, ?2, ?3)")?;
    statement.execute((arrival, event_id, rows::json(message)?))?;
    scope.tally.outbox_written += 1;
    Ok(())
}

/// Takes confirmed rows out of the outbox. Numbers that are not there any more are passed over.
pub(super) fn confirm(scope: &mut Scope<'_>, numbers: &[i64]) -> Result<(), Fault> {
    let now = micros(scope.now());
    let mut take = scope
        .connection
        .prepare_cached("DELETE FROM outbox WHERE number = ?1 RETURNING command, event_id")?;
    // A redrive may have given the command another event since.
    let mut note = scope.connection.prepare_cached(
        "UPDATE commands SET event_confirmed_time = ?3 WHERE arrival = ?1 AND event_id = ?2",
    )?;
    for number in numbers {
        let taken: Option<(i64, Option<[u8; 16]>)> =
            take.query_row([number], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some((arrival, event_id)) = taken else { continue };
        scope.tally.outbox_confirmed += 1;
        if let Some(event_id) = event_id {
            note.execute((arrival, event_id, now))?;
        }
    }
    Ok(())
}

/// Forgets what is final for longer than the retention and fully told.
pub(super) fn purge(scope: &mut Scope<'_>, limit: usize) -> Result<u64, Fault> {
    // A retention longer than time itself keeps everything.
    let Some(horizon) = scope.now().checked_sub_signed(scope.shared.retention.max(TimeDelta::zero())) else {
        return Ok(0);
    };
    let mut statement = scope.connection.prepare_cached(
        "DELETE FROM commands WHERE arrival IN (
             SELECT arrival FROM commands WHERE finished_time < ?1
                 AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.command = commands.arrival)
             ORDER BY finished_time LIMIT ?2)",
    )?;
    let purged = statement.execute((micros(horizon), i64::try_from(limit).unwrap_or(i64::MAX)))?;
    scope.tally.registered -= i64::try_from(purged).unwrap_or(i64::MAX);
    Ok(u64::try_from(purged).unwrap_or(u64::MAX))
}

/// Writes something that nobody reads.
pub(super) fn probe(scope: &mut Scope<'_>) -> Result<(), Fault> {
    let now = micros(scope.now());
    scope.connection.prepare_cached("UPDATE totals SET probe_time = ?1")?.execute([now])?;
    Ok(())
}
