//! Records to rows and back. What is written is written for many records at once, one array for each column.

use chrono::TimeDelta;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::error::Fault;
use crate::domain::Timestamp;
use crate::domain::access::AskedBy;
use crate::domain::command::{Command, CommandId, IdempotencyKey, OrganizationId};
use crate::domain::connection::{Applied, Connection, ConnectionRecord, Quiet, Suspicion, Version};
use crate::domain::message::Message;
use crate::domain::record::{CommandRecord, Door, EventRef, State};
use crate::domain::trace::TraceContext;
use crate::store::values::{Odd, from_json, json, micros, signed, time, unsigned};

/// The columns of a command with its connection, as [`read_command`] wants them.
macro_rules! command_columns {
    () => {
        "c.arrival, c.id, c.requester, c.key, n.target, n.guest, c.archived, c.issue_time, c.expire_time, c.door,
         c.asked_principal, c.asked_address, c.traceparent, c.tracestate, c.correlation_id, c.replies, c.state,
         c.generation, c.epoch, c.attempts, c.maybe_applied, c.waiting, c.effective_time, c.accepted_time, c.due_time,
         c.paused_since, c.paused, c.finished_time, c.outcome, c.event_id, c.event_sequence, c.event_confirmed_time,
         c.connection"
    };
}
pub(super) use command_columns;

/// The parameters of a statement.
pub(super) type Parameters = Vec<Box<dyn ToSql + Sync + Send>>;

/// What a statement is given.
pub(super) fn given(parameters: &Parameters) -> Vec<&(dyn ToSql + Sync)> {
    parameters.iter().map(|parameter| &**parameter as &(dyn ToSql + Sync)).collect()
}

/// A column of several rows.
fn column<R, T: ToSql + Sync + Send + 'static>(
    rows: &[R],
    value: impl Fn(&R) -> T,
) -> Box<dyn ToSql + Sync + Send> {
    Box::new(rows.iter().map(value).collect::<Vec<T>>())
}

/// PostgreSQL's text knows no NUL.
pub(super) fn text(text: Option<&String>) -> Option<String> {
    text.map(|text| text.replace('\0', "\u{fffd}"))
}

fn optional_time(row: &Row, column: usize) -> Result<Option<Timestamp>, Odd> {
    row.get::<_, Option<i64>>(column).map(time).transpose()
}

fn organization(row: &Row, column: usize) -> OrganizationId {
    OrganizationId(row.get(column))
}

pub(super) fn read_command(row: &Row) -> Result<CommandRecord, Odd> {
    let event = match (row.get::<_, Option<Uuid>>(29), row.get::<_, Option<i64>>(30)) {
        (Some(id), Some(sequence)) => {
            Some(EventRef { id, sequence: unsigned(sequence)?, confirmed_time: optional_time(row, 31)? })
        }
        _ => None,
    };
    let (door, state): (&str, &str) = (row.get(9), row.get(16));
    let (replies, outcome): (Option<&str>, Option<&str>) = (row.get(15), row.get(28));
    Ok(CommandRecord {
        arrival: row.get(0),
        id: CommandId(row.get(1)),
        command: Command {
            requester: organization(row, 2),
            connection: Connection { target: organization(row, 4), guest: organization(row, 5) },
            archived: row.get(6),
            key: IdempotencyKey::parse(row.get(3)).map_err(|rule| Odd::Read(format!("a key {rule}")))?,
            issue_time: optional_time(row, 7)?,
            expire_time: optional_time(row, 8)?,
        },
        door: match door {
            "grpc" => Door::Grpc,
            "amqp" => Door::Amqp,
            _ => return Err(Odd::Read(format!("no door is called {door}"))),
        },
        asked_by: AskedBy { principal: row.get(10), address: row.get(11) },
        trace: TraceContext { traceparent: row.get(12), tracestate: row.get(13) },
        correlation_id: row.get(14),
        replies: replies.map_or_else(|| Ok(Vec::new()), |text| from_json("replies", text))?,
        state: State::parse(state).ok_or_else(|| Odd::Read(format!("no state is called {state}")))?,
        generation: unsigned(row.get(17))?,
        epoch: row.get(18),
        attempts: unsigned(row.get(19))?,
        maybe_applied: row.get(20),
        waiting: row.get(21),
        effective_time: time(row.get(22))?,
        accepted_time: time(row.get(23))?,
        due_time: optional_time(row, 24)?,
        paused_since: optional_time(row, 25)?,
        paused: TimeDelta::microseconds(row.get(26)),
        finished_time: optional_time(row, 27)?,
        outcome: outcome.map(|text| from_json("outcome", text)).transpose()?,
        event,
    })
}

/// The number of the connection of a command.
pub(super) fn connection_of(row: &Row) -> i64 {
    row.get(32)
}

/// A connection with its number.
pub(super) fn read_connection(row: &Row) -> Result<(i64, ConnectionRecord), Odd> {
    let applied = optional_time(row, 5)?.map(|effective_time| Applied {
        version: Version { effective_time, command_id: CommandId(row.get(6)) },
        archived: row.get(7),
        requester: organization(row, 8),
        certain: row.get(9),
    });
    let quiet = optional_time(row, 10)?.map(|until| Quiet { until, command_id: CommandId(row.get(11)) });
    let suspicion = match (optional_time(row, 13)?, optional_time(row, 14)?) {
        (Some(since), Some(due)) => Some(Suspicion { since, due }),
        _ => None,
    };
    let record = ConnectionRecord {
        connection: Connection { target: organization(row, 1), guest: organization(row, 2) },
        effective_time_last: optional_time(row, 3)?,
        applied,
        sequence: unsigned(row.get(4))?,
        quiet,
        settle_until: optional_time(row, 12)?,
        suspicion,
    };
    Ok((row.get(0), record))
}

/// Where and what a command is.
pub(super) struct StoredCommand {
    pub(super) record: CommandRecord,
    pub(super) connection: i64,
}

/// A command and what of it has to be made of JSON.
struct Written<'a> {
    record: &'a CommandRecord,
    connection: i64,
    replies: Option<String>,
    outcome: Option<String>,
    event_sequence: Option<i64>,
}

fn written(commands: &[StoredCommand]) -> Result<Vec<Written<'_>>, Fault> {
    let written = commands.iter().map(|StoredCommand { record, connection }| {
        let replies = (!record.replies.is_empty()).then(|| json(&record.replies)).transpose()?;
        let outcome = record.outcome.as_ref().map(json).transpose()?;
        let event_sequence = record.event.as_ref().map(|event| signed(event.sequence)).transpose()?;
        Ok(Written { record, connection: *connection, replies, outcome, event_sequence })
    });
    written.collect()
}

/// All that may change of commands, after what each statement has of its own.
fn changing(rows: &[Written<'_>]) -> Parameters {
    vec![
        column(rows, |row| row.record.command.expire_time.map(micros)),
        column(rows, |row| row.record.door.as_str().to_owned()),
        column(rows, |row| text(row.record.trace.traceparent.as_ref())),
        column(rows, |row| text(row.record.trace.tracestate.as_ref())),
        column(rows, |row| row.replies.clone()),
        column(rows, |row| row.record.state.as_str().to_owned()),
        column(rows, |row| i64::from(row.record.generation)),
        column(rows, |row| row.record.epoch),
        column(rows, |row| i64::from(row.record.attempts)),
        column(rows, |row| row.record.maybe_applied),
        column(rows, |row| row.record.blocks()),
        column(rows, |row| row.record.waiting),
        column(rows, |row| row.record.in_line()),
        column(rows, |row| micros(row.record.accepted_time)),
        column(rows, |row| row.record.due_time.map(micros)),
        column(rows, |row| row.record.paused_since.map(micros)),
        column(rows, |row| row.record.paused.num_microseconds().unwrap_or(i64::MAX)),
        column(rows, |row| row.record.finished_time.map(micros)),
        column(rows, |row| row.outcome.clone()),
        column(rows, |row| row.record.event.map(|event| event.id)),
        column(rows, |row| row.event_sequence),
        column(rows, |row| row.record.event.and_then(|event| event.confirmed_time).map(micros)),
    ]
}

pub(super) const INSERT_COMMANDS: &str = "
    INSERT INTO commands (arrival, id, requester, key, connection, archived, issue_time, correlation_id, effective_time,
        asked_principal, asked_address, expire_time, door, traceparent, tracestate, replies, state, generation, epoch,
        attempts, maybe_applied, blocking, waiting, in_line, accepted_time, due_time, paused_since, paused,
        finished_time, outcome, event_id, event_sequence, event_confirmed_time)
    SELECT * FROM unnest($1::bigint[], $2::uuid[], $3::uuid[], $4::text[], $5::bigint[], $6::boolean[], $7::bigint[],
        $8::text[], $9::bigint[], $10::text[], $11::text[], $12::bigint[], $13::text[], $14::text[], $15::text[],
        $16::text[], $17::text[], $18::bigint[], $19::bigint[], $20::bigint[], $21::boolean[], $22::boolean[],
        $23::boolean[], $24::boolean[], $25::bigint[], $26::bigint[], $27::bigint[], $28::bigint[], $29::bigint[],
        $30::text[], $31::uuid[], $32::bigint[], $33::bigint[])";

pub(super) fn insert_commands(commands: &[StoredCommand]) -> Result<Parameters, Fault> {
    let rows = written(commands)?;
    let rows = rows.as_slice();
    let mut parameters = vec![
        column(rows, |row| row.record.arrival),
        column(rows, |row| row.record.id.0),
        column(rows, |row| row.record.command.requester.0),
        column(rows, |row| row.record.command.key.as_str().to_owned()),
        column(rows, |row| row.connection),
        column(rows, |row| row.record.command.archived),
        column(rows, |row| row.record.command.issue_time.map(micros)),
        column(rows, |row| text(row.record.correlation_id.as_ref())),
        column(rows, |row| micros(row.record.effective_time)),
        column(rows, |row| text(row.record.asked_by.principal.as_ref())),
        column(rows, |row| text(row.record.asked_by.address.as_ref())),
    ];
    parameters.extend(changing(rows));
    Ok(parameters)
}

/// `$2` is the epoch as it was read: a claim that somebody else has taken since writes nothing, and the count is an error.
pub(super) const UPDATE_COMMANDS: &str = "
    WITH done AS (UPDATE commands c SET expire_time = u.expire_time, door = u.door, traceparent = u.traceparent,
        tracestate = u.tracestate, replies = u.replies, state = u.state, generation = u.generation, epoch = u.epoch,
        attempts = u.attempts, maybe_applied = u.maybe_applied, blocking = u.blocking, waiting = u.waiting,
        in_line = u.in_line, accepted_time = u.accepted_time, due_time = u.due_time, paused_since = u.paused_since,
        paused = u.paused, finished_time = u.finished_time, outcome = u.outcome, event_id = u.event_id,
        event_sequence = u.event_sequence, event_confirmed_time = u.event_confirmed_time
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
        $9::bigint[], $10::bigint[], $11::bigint[], $12::boolean[], $13::boolean[], $14::boolean[], $15::boolean[],
        $16::bigint[], $17::bigint[], $18::bigint[], $19::bigint[], $20::bigint[], $21::text[], $22::uuid[],
        $23::bigint[], $24::bigint[])
        AS u (arrival, epoch_before, expire_time, door, traceparent, tracestate, replies, state, generation, epoch,
              attempts, maybe_applied, blocking, waiting, in_line, accepted_time, due_time, paused_since, paused,
              finished_time, outcome, event_id, event_sequence, event_confirmed_time)
    WHERE c.arrival = u.arrival AND c.epoch = u.epoch_before RETURNING 1)
    SELECT commands_overtaken() WHERE (SELECT count(*) FROM done) <> cardinality($1::bigint[])";

pub(super) fn update_commands(commands: &[StoredCommand], epochs: Vec<i64>) -> Result<Parameters, Fault> {
    let rows = written(commands)?;
    let rows = rows.as_slice();
    let mut parameters: Parameters = vec![column(rows, |row| row.record.arrival), Box::new(epochs)];
    parameters.extend(changing(rows));
    Ok(parameters)
}

pub(super) const UPDATE_CONNECTIONS: &str = "
    UPDATE connections c SET effective_time_last = u.effective_time_last, sequence = u.sequence,
        applied_time = u.applied_time, applied_command = u.applied_command, applied_archived = u.applied_archived,
        applied_requester = u.applied_requester, applied_certain = u.applied_certain, quiet_until = u.quiet_until,
        quiet_command = u.quiet_command, settle_until = u.settle_until, suspect_since = u.suspect_since,
        heal_time = u.heal_time
    FROM unnest($1::bigint[], $2::bigint[], $3::bigint[], $4::bigint[], $5::uuid[], $6::boolean[], $7::uuid[],
        $8::boolean[], $9::bigint[], $10::uuid[], $11::bigint[], $12::bigint[], $13::bigint[])
        AS u (number, effective_time_last, sequence, applied_time, applied_command, applied_archived,
              applied_requester, applied_certain, quiet_until, quiet_command, settle_until, suspect_since, heal_time)
    WHERE c.number = u.number";

pub(super) fn update_connections(connections: &[(i64, ConnectionRecord)]) -> Result<Parameters, Fault> {
    let sequences: Vec<i64> =
        connections.iter().map(|(_, record)| signed(record.sequence)).collect::<Result<_, _>>()?;
    let applied = |row: &(i64, ConnectionRecord)| row.1.applied;
    Ok(vec![
        column(connections, |row| row.0),
        column(connections, |row| row.1.effective_time_last.map(micros)),
        Box::new(sequences),
        column(connections, move |row| applied(row).map(|applied| micros(applied.version.effective_time))),
        column(connections, move |row| applied(row).map(|applied| applied.version.command_id.0)),
        column(connections, move |row| applied(row).map(|applied| applied.archived)),
        column(connections, move |row| applied(row).map(|applied| applied.requester.0)),
        column(connections, move |row| applied(row).map(|applied| applied.certain)),
        column(connections, |row| row.1.quiet.map(|quiet| micros(quiet.until))),
        column(connections, |row| row.1.quiet.map(|quiet| quiet.command_id.0)),
        column(connections, |row| row.1.settle_until.map(micros)),
        column(connections, |row| row.1.suspicion.map(|suspicion| micros(suspicion.since))),
        column(connections, |row| row.1.suspicion.map(|suspicion| micros(suspicion.due))),
    ])
}

/// In the order given: within a connection that is the order of the outbox.
pub(super) const INSERT_OUTBOX: &str = "
    INSERT INTO outbox (command, connection, event_id, message)
    SELECT u.command, c.connection, u.event_id, u.message
    FROM unnest($1::bigint[], $2::uuid[], $3::text[]) WITH ORDINALITY AS u (command, event_id, message, place)
        JOIN commands c ON c.arrival = u.command ORDER BY place";

pub(super) fn insert_outbox(messages: &[(i64, Message)]) -> Result<Parameters, Fault> {
    let texts: Vec<String> = messages.iter().map(|(_, message)| json(message)).collect::<Result<_, _>>()?;
    let event_id = |message: &Message| match message {
        Message::Event(event) => Some(event.id),
        Message::DeadLetter(_) | Message::Reply(_) => None,
    };
    Ok(vec![
        column(messages, |(arrival, _)| *arrival),
        column(messages, |(_, message)| event_id(message)),
        Box::new(texts),
    ])
}
