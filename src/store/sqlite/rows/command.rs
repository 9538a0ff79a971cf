//! Rows of the table `commands`.

use chrono::TimeDelta;
use rusqlite::{CachedStatement, Connection as Database, Row};
use uuid::Uuid;

use super::super::error::Fault;
use super::{from_json, json, micros, optional_time, signed, time, unsigned, uuid};
use crate::domain::access::AskedBy;
use crate::domain::command::{Command, CommandId, IdempotencyKey, OrganizationId};
use crate::domain::connection::Connection;
use crate::domain::record::{CommandRecord, Door, EventRef, State};
use crate::domain::trace::TraceContext;
use crate::store::values::Odd;

/// A command with its connection, and the connection's number.
macro_rules! select_command {
    ($condition:literal) => {
        concat!(
            "SELECT c.arrival, c.id, c.requester, c.key, n.target, n.guest, c.archived, c.issue_time, c.expire_time,
             c.door, c.traceparent, c.tracestate, c.correlation_id, c.replies, c.state, c.generation, c.epoch,
             c.attempts, c.maybe_applied, c.effective_time, c.accepted_time, c.due_time, c.waiting, c.finished_time,
             c.outcome, c.event_id, c.event_sequence, c.event_confirmed_time, c.paused_since, c.paused,
             c.asked_principal, c.asked_address
             FROM commands c JOIN connections n ON n.number = c.connection WHERE ",
            $condition
        )
    };
}

pub(in crate::store::sqlite) fn command_by_id(
    database: &Database,
    id: CommandId,
) -> Result<Option<CommandRecord>, Fault> {
    let mut statement = database.prepare_cached(select_command!("c.id = ?1"))?;
    one_command(&mut statement, [id.0.as_bytes()])
}

/// Whose command it is. Reads nothing else of it.
pub(in crate::store::sqlite) fn requester(
    database: &Database,
    id: CommandId,
) -> Result<Option<OrganizationId>, Fault> {
    let mut statement = database.prepare_cached("SELECT requester FROM commands WHERE id = ?1")?;
    let mut rows = statement.query([id.0.as_bytes()])?;
    rows.next()?.map(|row| uuid(row, 0).map(OrganizationId)).transpose()
}

pub(in crate::store::sqlite) fn command_by_key(
    database: &Database,
    requester: OrganizationId,
    key: &IdempotencyKey,
) -> Result<Option<CommandRecord>, Fault> {
    let mut statement = database.prepare_cached(select_command!("c.requester = ?1 AND c.key = ?2"))?;
    one_command(&mut statement, (requester.0.as_bytes(), key.as_str()))
}

/// Another command of the connection that blocks `id`; of several, the one that does so longest.
pub(in crate::store::sqlite) fn blocker(
    database: &Database,
    connection: i64,
    id: CommandId,
) -> Result<Option<CommandRecord>, Fault> {
    let mut statement = database.prepare_cached(select_command!(
        "c.connection = ?1 AND c.blocking = 1 AND c.id <> ?2 ORDER BY c.due_time DESC LIMIT 1"
    ))?;
    one_command(&mut statement, (connection, id.0.as_bytes()))
}

/// Whether a command that arrived before `arrival` stands in the line of the connection.
pub(in crate::store::sqlite) fn is_behind(
    database: &Database,
    connection: i64,
    arrival: i64,
) -> Result<bool, Fault> {
    let mut statement = database.prepare_cached(
        "SELECT EXISTS (SELECT 1 FROM commands WHERE connection = ?1 AND in_line = 1 AND arrival < ?2)",
    )?;
    Ok(statement.query_row((connection, arrival), |row| row.get(0))?)
}

fn one_command(
    statement: &mut CachedStatement<'_>,
    params: impl rusqlite::Params,
) -> Result<Option<CommandRecord>, Fault> {
    let mut rows = statement.query(params)?;
    rows.next()?.map(read_command).transpose()
}

fn read_command(row: &Row<'_>) -> Result<CommandRecord, Fault> {
    let key: String = row.get(3)?;
    let state: String = row.get(14)?;
    let replies: Option<String> = row.get(13)?;
    let outcome: Option<String> = row.get(24)?;
    let event = match (row.get::<_, Option<[u8; 16]>>(25)?, row.get::<_, Option<i64>>(26)?) {
        (Some(id), Some(sequence)) => Some(EventRef {
            id: Uuid::from_bytes(id),
            sequence: unsigned(sequence)?,
            confirmed_time: optional_time(row, 27)?,
        }),
        _ => None,
    };
    let door: String = row.get(9)?;
    Ok(CommandRecord {
        arrival: row.get(0)?,
        id: CommandId(uuid(row, 1)?),
        command: Command {
            requester: OrganizationId(uuid(row, 2)?),
            connection: Connection {
                target: OrganizationId(uuid(row, 4)?),
                guest: OrganizationId(uuid(row, 5)?),
            },
            archived: row.get(6)?,
            key: IdempotencyKey::parse(&key).map_err(|rule| Odd::Read(format!("a key {rule}")))?,
            issue_time: optional_time(row, 7)?,
            expire_time: optional_time(row, 8)?,
        },
        door: match door.as_str() {
            "grpc" => Door::Grpc,
            "amqp" => Door::Amqp,
            _ => return Err(Odd::Read(format!("no door is called {door}")).into()),
        },
        asked_by: AskedBy { principal: row.get(30)?, address: row.get(31)? },
        trace: TraceContext { traceparent: row.get(10)?, tracestate: row.get(11)? },
        correlation_id: row.get(12)?,
        replies: replies.map_or_else(|| Ok(Vec::new()), |text| from_json("replies", &text))?,
        state: State::parse(&state).ok_or_else(|| Odd::Read(format!("no state is called {state}")))?,
        generation: unsigned(row.get(15)?)?,
        epoch: row.get(16)?,
        attempts: unsigned(row.get(17)?)?,
        maybe_applied: row.get(18)?,
        effective_time: time(row.get(19)?)?,
        accepted_time: time(row.get(20)?)?,
        due_time: optional_time(row, 21)?,
        waiting: row.get(22)?,
        paused_since: optional_time(row, 28)?,
        paused: TimeDelta::microseconds(row.get(29)?),
        finished_time: optional_time(row, 23)?,
        outcome: outcome.map(|text| from_json("outcome", &text)).transpose()?,
        event,
    })
}

/// Writes a command, and gives it its arrival number if it has none.
pub(in crate::store::sqlite) fn write_command(
    database: &Database,
    record: &mut CommandRecord,
    connection: i64,
) -> Result<(), Fault> {
    if record.arrival == 0 {
        insert_identity(database, record, connection)
    } else {
        update_command(database, record)
    }
}

fn insert_identity(database: &Database, record: &mut CommandRecord, connection: i64) -> Result<(), Fault> {
    let command = &record.command;
    let mut statement = database.prepare_cached(
        "INSERT INTO commands (expire_time, door, traceparent, tracestate, replies, state, generation, epoch, attempts,
             maybe_applied, blocking, waiting, in_line, paused_since, paused, accepted_time, due_time, finished_time,
             outcome, event_id, event_sequence, event_confirmed_time, id, requester, key, connection, archived,
             issue_time, correlation_id, effective_time, asked_principal, asked_address)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22,
             ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, ?32)",
    )?;
    bind_changing(&mut statement, record)?;
    statement.raw_bind_parameter(23, record.id.0.as_bytes())?;
    statement.raw_bind_parameter(24, command.requester.0.as_bytes())?;
    statement.raw_bind_parameter(25, command.key.as_str())?;
    statement.raw_bind_parameter(26, connection)?;
    statement.raw_bind_parameter(27, command.archived)?;
    statement.raw_bind_parameter(28, command.issue_time.map(micros))?;
    statement.raw_bind_parameter(29, record.correlation_id.as_deref())?;
    statement.raw_bind_parameter(30, micros(record.effective_time))?;
    statement.raw_bind_parameter(31, record.asked_by.principal.as_deref())?;
    statement.raw_bind_parameter(32, record.asked_by.address.as_deref())?;
    statement.raw_execute()?;
    record.arrival = database.last_insert_rowid();
    Ok(())
}

/// Sets only what may change, so that the indexes over the rest are left alone.
fn update_command(database: &Database, record: &CommandRecord) -> Result<(), Fault> {
    let mut statement = database.prepare_cached(
        "UPDATE commands SET expire_time = ?1, door = ?2, traceparent = ?3, tracestate = ?4, replies = ?5, state = ?6,
             generation = ?7, epoch = ?8, attempts = ?9, maybe_applied = ?10, blocking = ?11, waiting = ?12,
             in_line = ?13, paused_since = ?14, paused = ?15, accepted_time = ?16, due_time = ?17,
             finished_time = ?18, outcome = ?19, event_id = ?20, event_sequence = ?21, event_confirmed_time = ?22
         WHERE arrival = ?23",
    )?;
    bind_changing(&mut statement, record)?;
    statement.raw_bind_parameter(23, record.arrival)?;
    statement.raw_execute()?;
    Ok(())
}

/// Binds the first 22 parameters.
fn bind_changing(statement: &mut CachedStatement<'_>, record: &CommandRecord) -> Result<(), Fault> {
    let replies = if record.replies.is_empty() { None } else { Some(json(&record.replies)?) };
    let outcome = record.outcome.as_ref().map(json).transpose()?;
    let event = record.event.as_ref();
    let sequence = event.map(|event| signed(event.sequence)).transpose()?;
    statement.raw_bind_parameter(1, record.command.expire_time.map(micros))?;
    statement.raw_bind_parameter(2, record.door.as_str())?;
    statement.raw_bind_parameter(3, record.trace.traceparent.as_deref())?;
    statement.raw_bind_parameter(4, record.trace.tracestate.as_deref())?;
    statement.raw_bind_parameter(5, replies)?;
    statement.raw_bind_parameter(6, record.state.as_str())?;
    statement.raw_bind_parameter(7, record.generation)?;
    statement.raw_bind_parameter(8, record.epoch)?;
    statement.raw_bind_parameter(9, record.attempts)?;
    statement.raw_bind_parameter(10, record.maybe_applied)?;
    statement.raw_bind_parameter(11, record.blocks())?;
    statement.raw_bind_parameter(12, record.waiting)?;
    statement.raw_bind_parameter(13, record.in_line())?;
    statement.raw_bind_parameter(14, record.paused_since.map(micros))?;
    statement.raw_bind_parameter(15, record.paused.num_microseconds().unwrap_or(i64::MAX))?;
    statement.raw_bind_parameter(16, micros(record.accepted_time))?;
    statement.raw_bind_parameter(17, record.due_time.map(micros))?;
    statement.raw_bind_parameter(18, record.finished_time.map(micros))?;
    statement.raw_bind_parameter(19, outcome)?;
    statement.raw_bind_parameter(20, event.map(|event| event.id.as_bytes()))?;
    statement.raw_bind_parameter(21, sequence)?;
    statement.raw_bind_parameter(22, event.and_then(|event| event.confirmed_time).map(micros))?;
    Ok(())
}
