//! What becomes of a command in a store: load the rows, ask [`lifecycle`], write its answer. The same for every store; each
//! brings its [`Rows`]. A function that fails leaves it to the store to undo what it wrote.

use uuid::Uuid;

use crate::domain::Timestamp;
use crate::domain::command::{CommandId, IdempotencyKey, OrganizationId};
use crate::domain::connection::{Connection, ConnectionRecord};
use crate::domain::heal::{self, Heal, Healed};
use crate::domain::lifecycle::{self, Acceptance, Finish, PutOff, Settlement, Situation, Terms};
use crate::domain::message::Message;
use crate::domain::record::{CommandRecord, State};
use crate::domain::trace::TraceContext;
use crate::service::ports::{Accepted, Begun, Finished, PutOffAnswer};

/// A connection as it is stored: without a number it is not stored yet.
#[derive(Debug, Clone)]
pub(super) struct StoredConnection {
    pub(super) number: Option<i64>,
    pub(super) record: ConnectionRecord,
}

/// The rows of a store, within one transaction.
pub(super) trait Rows {
    /// What can go wrong.
    type Fault;

    /// The store's time, as it is kept: whole microseconds.
    fn now(&self) -> Timestamp;

    /// The spans that the rules need.
    fn terms(&self) -> Terms;

    /// A command that must be there, and is not.
    fn unknown(id: CommandId) -> Self::Fault;

    /// A command by its id.
    fn command_by_id(&mut self, id: CommandId) -> Result<Option<CommandRecord>, Self::Fault>;

    /// A command by its requester and key.
    fn command_by_key(
        &self,
        requester: OrganizationId,
        key: &IdempotencyKey,
    ) -> Result<Option<CommandRecord>, Self::Fault>;

    /// A connection, new if it is not known.
    fn connection(&self, connection: Connection) -> Result<StoredConnection, Self::Fault>;

    /// Another command of the connection that blocks `id`; of several, the one that does so longest.
    fn blocker(&self, connection: i64, id: CommandId) -> Result<Option<CommandRecord>, Self::Fault>;

    /// Whether a command that arrived before `arrival` stands in the line of the connection.
    fn is_behind(&self, connection: i64, arrival: i64) -> Result<bool, Self::Fault>;

    /// Writes `record` over `stored` where they differ. Yields the connection's number.
    fn write_connection(
        &mut self,
        stored: &StoredConnection,
        record: &ConnectionRecord,
    ) -> Result<i64, Self::Fault>;

    /// Writes a command; one without an arrival number is registered and gets it.
    fn write_command(&mut self, record: &mut CommandRecord, connection: i64) -> Result<(), Self::Fault>;

    /// Puts a message into the outbox.
    fn enqueue(&mut self, arrival: i64, message: Message) -> Result<(), Self::Fault>;

    /// Makes the first in the line of a connection due. If someone holds it for being set to work, it is due soon enough.
    fn wake(&mut self, connection: i64, wake_time: Timestamp) -> Result<(), Self::Fault>;

    /// Counts a finish that was refused.
    fn note_refused_finish(&mut self);
}

/// Who asks for a claim.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ask {
    /// The id of an event that ending the command may emit.
    pub(super) event_id: Uuid,
    /// Whether a caller hears of its end.
    pub(super) caller_waits: bool,
}

/// Registers a command, or finds what is known under its key; with `claim` a new one is begun at once.
pub(super) fn accept<R: Rows>(
    rows: &mut R,
    request: Acceptance,
    claim: Option<Uuid>,
) -> Result<Accepted, R::Fault> {
    let now = rows.now();
    let existing = rows.command_by_key(request.command.requester, &request.command.key)?;
    let stored = rows.connection(request.command.connection)?;
    let before = existing.clone();
    let terms = rows.terms();
    // Who sets it to work needs not know yet.
    let is_behind = match stored.number {
        Some(number) if !request.is_owned => {
            let arrival = existing.as_ref().map_or(i64::MAX, |record| record.arrival);
            rows.is_behind(number, arrival)?
        }
        _ => false,
    };
    match lifecycle::accept(existing, &stored.record, request, is_behind, now, &terms) {
        lifecycle::Accepted::Fresh(mut record, connection) => {
            let Some(event_id) = claim.filter(|_| record.state == State::Accepted) else {
                save(rows, &mut record, &stored, &connection)?;
                return Ok(Accepted::Fresh(record, None));
            };
            let accepted = record.clone();
            // Who accepts and begins at once has a caller that has just come, or a message.
            let ask = Ask { event_id, caller_waits: true };
            let begun = begin_record(rows, record, &stored, connection, ask, now)?;
            Ok(Accepted::Fresh(with_arrival(accepted, &begun), Some(begun)))
        }
        lifecycle::Accepted::InProgress(mut record) => {
            if before.as_ref() != Some(&record) {
                let connection = stored.record.clone();
                save(rows, &mut record, &stored, &connection)?;
            }
            Ok(Accepted::InProgress(record))
        }
        lifecycle::Accepted::Replayed(record, message) => {
            if let Some(message) = message {
                rows.enqueue(record.arrival, message)?;
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

/// Gives the claim on a command, if it may be begun.
pub(super) fn begin<R: Rows>(rows: &mut R, id: CommandId, ask: Ask) -> Result<Begun, R::Fault> {
    let now = rows.now();
    let record = rows.command_by_id(id)?.ok_or_else(|| R::unknown(id))?;
    let stored = rows.connection(record.command.connection)?;
    let connection = stored.record.clone();
    begin_record(rows, record, &stored, connection, ask, now)
}

/// `stored` is the connection as it is in the database, `connection` as it is to be before the claim.
fn begin_record<R: Rows>(
    rows: &mut R,
    record: CommandRecord,
    stored: &StoredConnection,
    connection: ConnectionRecord,
    ask: Ask,
    now: Timestamp,
) -> Result<Begun, R::Fault> {
    let is_behind = is_behind(rows, &record, stored)?;
    let blocker = match stored.number {
        Some(number) => rows.blocker(number, record.id)?,
        None => None,
    };
    let situation = Situation { blocker: blocker.as_ref(), is_behind, caller_waits: ask.caller_waits };
    let unclaimed = connection.clone();
    match lifecycle::begin(record, connection, situation, now, ask.event_id, &rows.terms()) {
        lifecycle::Begun::Claimed(mut record, connection) => {
            save(rows, &mut record, stored, &connection)?;
            Ok(Begun::Claimed(record))
        }
        lifecycle::Begun::Waiting(mut record) => {
            save(rows, &mut record, stored, &unclaimed)?;
            Ok(Begun::Waiting(record))
        }
        lifecycle::Begun::Ended(settlement) => Ok(Begun::Ended(settle(rows, settlement, stored)?)),
        lifecycle::Begun::Unavailable(record) => Ok(Begun::Unavailable(record)),
    }
}

/// Whether a command that arrived before `record` stands in the line of its connection.
fn is_behind<R: Rows>(rows: &R, record: &CommandRecord, stored: &StoredConnection) -> Result<bool, R::Fault> {
    let Some(number) = stored.number else { return Ok(false) };
    // What has no arrival number yet comes after all others.
    let arrival = if record.arrival == 0 { i64::MAX } else { record.arrival };
    rows.is_behind(number, arrival)
}

/// Puts off a command that is not to be begun now.
pub(super) fn put_off<R: Rows>(
    rows: &mut R,
    id: CommandId,
    ask: Ask,
    put_off: &PutOff,
) -> Result<PutOffAnswer, R::Fault> {
    let now = rows.now();
    let record = rows.command_by_id(id)?.ok_or_else(|| R::unknown(id))?;
    let stored = rows.connection(record.command.connection)?;
    let is_behind = is_behind(rows, &record, &stored)?;
    let situation = Situation { blocker: None, is_behind, caller_waits: ask.caller_waits };
    let connection = stored.record.clone();
    match lifecycle::put_off(record, connection, situation, put_off, now, ask.event_id) {
        lifecycle::PutOffAnswer::Settled(settlement) => {
            let record = settle(rows, settlement, &stored)?;
            let is_final = record.state.is_final();
            Ok(if is_final { PutOffAnswer::Ended(record) } else { PutOffAnswer::Waiting(record) })
        }
        lifecycle::PutOffAnswer::Unavailable(record) => Ok(PutOffAnswer::Unavailable(record)),
    }
}

/// Ends a claim: the outcome, the connection and the outbox change together or not at all.
pub(super) fn finish<R: Rows>(rows: &mut R, finish: Finish) -> Result<Finished, R::Fault> {
    let now = rows.now();
    let record = rows.command_by_id(finish.id)?.ok_or_else(|| R::unknown(finish.id))?;
    let stored = rows.connection(record.command.connection)?;
    match lifecycle::finish(record, stored.record.clone(), finish, now, &rows.terms()) {
        lifecycle::Finished::Settled(settlement) => Ok(Finished::Settled(settle(rows, settlement, &stored)?)),
        lifecycle::Finished::Stale(connection) => {
            rows.write_connection(&stored, &connection)?;
            rows.note_refused_finish();
            Ok(Finished::Stale)
        }
    }
}

fn settle<R: Rows>(
    rows: &mut R,
    settlement: Settlement,
    stored: &StoredConnection,
) -> Result<CommandRecord, R::Fault> {
    let mut record = settlement.record;
    let connection = save(rows, &mut record, stored, &settlement.connection)?;
    for message in settlement.messages {
        rows.enqueue(record.arrival, message)?;
    }
    if let Some(wake_time) = settlement.wake_time {
        rows.wake(connection, wake_time)?;
    }
    Ok(record)
}

/// Gives the right to send a suspect connection's newest applied value again, with the trace of its command as far as
/// that is kept.
pub(super) fn begin_heal<R: Rows>(
    rows: &mut R,
    connection: Connection,
) -> Result<Option<(Heal, TraceContext)>, R::Fault> {
    let stored = rows.connection(connection)?;
    let Some(number) = stored.number else { return Ok(None) };
    let blocker = rows.blocker(number, CommandId(Uuid::nil()))?;
    let (heal, record) = match heal::begin(stored.record.clone(), blocker.as_ref(), rows.now(), &rows.terms())
    {
        heal::Begun::Claimed(heal, record) => (Some(heal), record),
        heal::Begun::Waiting(record) | heal::Begun::Dropped(record) => (None, record),
        heal::Begun::Unavailable => return Ok(None),
    };
    rows.write_connection(&stored, &record)?;
    let Some(heal) = heal else { return Ok(None) };
    let command = rows.command_by_id(heal.command_id)?;
    Ok(Some((heal, command.map(|command| command.trace).unwrap_or_default())))
}

/// Ends an attempt to heal.
pub(super) fn finish_heal<R: Rows>(rows: &mut R, finish: &heal::Finish) -> Result<Healed, R::Fault> {
    let now = rows.now();
    let stored = rows.connection(finish.heal.connection)?;
    let (healed, record) = heal::finish(stored.record.clone(), finish, now, &rows.terms());
    let number = rows.write_connection(&stored, &record)?;
    if healed != Healed::Stale {
        rows.wake(number, lifecycle::free_time(&record, now))?;
    }
    Ok(healed)
}

/// Writes both rows; yields the connection's number.
fn save<R: Rows>(
    rows: &mut R,
    record: &mut CommandRecord,
    stored: &StoredConnection,
    connection: &ConnectionRecord,
) -> Result<i64, R::Fault> {
    let number = rows.write_connection(stored, connection)?;
    rows.write_command(record, number)?;
    Ok(number)
}
