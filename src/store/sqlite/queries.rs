//! What the readers do: everything that changes nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use rusqlite::OptionalExtension as _;

use super::error::Fault;
use super::rows::{self, micros};
use super::task::Scope;
use crate::domain::Timestamp;
use crate::domain::command::{CommandId, OrganizationId};
use crate::domain::connection::Connection;
use crate::domain::message::Message;
use crate::domain::record::State;
use crate::domain::trace::TraceContext;
use crate::service::ports::{Books, Due, DueCursor, Oldest, OutboxRow};
use crate::store::values::Odd;

/// Commands whose due time has come, the longest due ones first.
pub(super) fn due(scope: &Scope<'_>, after: DueCursor, limit: usize) -> Result<Vec<Due>, Fault> {
    let mut statement = scope.connection.prepare_cached(
        "SELECT c.id, n.target, n.guest, c.due_time, c.arrival, c.traceparent, c.tracestate, c.in_line, c.waiting,
             c.requester
         FROM commands c JOIN connections n ON n.number = c.connection
         WHERE c.due_time <= ?1 AND (c.due_time, c.arrival) > (?2, ?3)
         ORDER BY c.due_time, c.arrival LIMIT ?4",
    )?;
    let now = micros(scope.now());
    read_due(statement.query((now, after.due_time, after.arrival, row_limit(limit)))?)
}

/// The first in the line of a connection, in order of arrival.
pub(super) fn line(scope: &Scope<'_>, connection: Connection, limit: usize) -> Result<Vec<Due>, Fault> {
    let mut statement = scope.connection.prepare_cached(
        "SELECT c.id, n.target, n.guest, c.due_time, c.arrival, c.traceparent, c.tracestate, c.in_line, c.waiting,
             c.requester
         FROM connections n JOIN commands c ON c.connection = n.number
         WHERE n.target = ?1 AND n.guest = ?2 AND c.in_line = 1 ORDER BY c.arrival LIMIT ?3",
    )?;
    let (target, guest) = (connection.target.0.into_bytes(), connection.guest.0.into_bytes());
    read_due(statement.query((target, guest, row_limit(limit)))?)
}

fn read_due(mut found: rusqlite::Rows<'_>) -> Result<Vec<Due>, Fault> {
    let mut due = Vec::new();
    while let Some(row) = found.next()? {
        due.push(Due {
            id: CommandId(rows::uuid(row, 0)?),
            requester: OrganizationId(rows::uuid(row, 9)?),
            connection: read_connection(row, 1)?,
            trace: TraceContext { traceparent: row.get(5)?, tracestate: row.get(6)? },
            in_line: row.get(7)?,
            waiting: row.get(8)?,
            cursor: DueCursor { due_time: row.get(3)?, arrival: row.get(4)? },
        });
    }
    Ok(due)
}

fn read_connection(row: &rusqlite::Row<'_>, column: usize) -> Result<Connection, Fault> {
    Ok(Connection {
        target: OrganizationId(rows::uuid(row, column)?),
        guest: OrganizationId(rows::uuid(row, column + 1)?),
    })
}

/// Suspect connections that are to be healed now, the longest due ones first.
pub(super) fn suspects(scope: &Scope<'_>, limit: usize) -> Result<Vec<Connection>, Fault> {
    let mut statement = scope.connection.prepare_cached(
        "SELECT target, guest FROM connections WHERE heal_time <= ?1 ORDER BY heal_time LIMIT ?2",
    )?;
    let mut found = statement.query((micros(scope.now()), row_limit(limit)))?;
    let mut suspects = Vec::new();
    while let Some(row) = found.next()? {
        suspects.push(read_connection(row, 0)?);
    }
    Ok(suspects)
}

/// How many commands are not final, with a tenth of those that are put off.
pub(super) fn backlog(scope: &Scope<'_>) -> Result<u64, Fault> {
    let mut statement = scope.connection.prepare_cached(
        "SELECT (SELECT count(*) FROM commands WHERE due_time IS NOT NULL)
                  - (SELECT count(*) FROM commands WHERE paused_since IS NOT NULL) * 9 / 10",
    )?;
    Ok(rows::unsigned(statement.query_row([], |row| row.get(0))?)?)
}

/// The earliest due time.
pub(super) fn due_next(scope: &Scope<'_>) -> Result<Option<Timestamp>, Fault> {
    let mut statement =
        scope.connection.prepare_cached("SELECT min(due_time) FROM commands WHERE due_time IS NOT NULL")?;
    let micros: Option<i64> = statement.query_row([], |row| row.get(0))?;
    Ok(micros.map(rows::time).transpose()?)
}

/// Bytes of the outbox read at once, but for a single larger message.
const OUTBOX_LENGTH_MAX: usize = 4 * 1024 * 1024;

/// Rows of the outbox above `after`, in order.
pub(super) fn outbox(scope: &Scope<'_>, after: i64, limit: usize) -> Result<Vec<OutboxRow>, Fault> {
    let mut statement = scope
        .connection
        .prepare_cached("SELECT number, message FROM outbox WHERE number > ?1 ORDER BY number LIMIT ?2")?;
    let mut found = statement.query((after, row_limit(limit)))?;
    let (mut outbox, mut length) = (Vec::new(), 0);
    while let Some(row) = found.next()? {
        let text: String = row.get(1)?;
        length += text.len();
        if length > OUTBOX_LENGTH_MAX && !outbox.is_empty() {
            break;
        }
        outbox.push(OutboxRow { number: row.get(0)?, message: Arc::new(rows::from_json("message", &text)?) });
    }
    Ok(outbox)
}

/// The books, all of one moment. What is counted is counted in the rows, so that the totals are checked by it.
pub(super) fn books(scope: &Scope<'_>) -> Result<Books, Fault> {
    let moment = scope.connection.unchecked_transaction()?;
    let mut books = moment
        .prepare_cached("SELECT registered, outbox_written, outbox_confirmed FROM totals")?
        .query_row([], |row| {
            Ok(Books {
                registered: row.get::<_, i64>(0)?.cast_unsigned(),
                outbox_written: row.get::<_, i64>(1)?.cast_unsigned(),
                outbox_confirmed: row.get::<_, i64>(2)?.cast_unsigned(),
                ..Books::default()
            })
        })?;
    {
        let mut statement = moment.prepare_cached(
            "SELECT state, count(*) FROM commands WHERE due_time IS NOT NULL GROUP BY state
             UNION ALL SELECT state, count(*) FROM commands WHERE finished_time IS NOT NULL GROUP BY state",
        )?;
        let mut found = statement.query([])?;
        while let Some(row) = found.next()? {
            let name: String = row.get(0)?;
            let index = State::ALL.iter().position(|state| state.as_str() == name);
            let index = index.ok_or_else(|| Odd::Read(format!("no state is called {name}")))?;
            books.by_state[index] += rows::unsigned::<u64>(row.get(1)?)?;
        }
        let count = |sql| -> Result<u64, Fault> {
            Ok(rows::unsigned(moment.prepare_cached(sql)?.query_row([], |row| row.get(0))?)?)
        };
        books.outbox_pending = count("SELECT count(*) FROM outbox")?;
        books.suspect = count("SELECT count(*) FROM connections WHERE heal_time IS NOT NULL")?;
    }
    moment.finish()?;
    books.finishes_refused = scope.shared.finishes_refused.load(Ordering::Relaxed);
    Ok(books)
}

/// Since when what is not done yet waits, all of one moment.
pub(super) fn oldest(scope: &Scope<'_>) -> Result<Oldest, Fault> {
    const COMMANDS: &str = "
        SELECT min(accepted_time) FILTER (WHERE state = 'accepted'), min(due_time) FILTER (WHERE state = 'in_flight'),
             min(accepted_time) FILTER (WHERE state = 'deferred'), min(accepted_time) FILTER (WHERE maybe_applied)
        FROM commands WHERE due_time IS NOT NULL";
    let moment = scope.connection.unchecked_transaction()?;
    let now = scope.now();
    let found: [Option<i64>; 4] = moment
        .prepare_cached(COMMANDS)?
        .query_row([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]))?;
    let first: Option<String> = moment
        .prepare_cached("SELECT message FROM outbox ORDER BY number LIMIT 1")?
        .query_row([], |row| row.get(0))
        .optional()?;
    moment.finish()?;
    let [accepted, in_flight, deferred, maybe_applied] =
        found.map(|micros| micros.map(rows::time).transpose());
    let message = first.map(|text| rows::from_json::<Message>("message", &text)).transpose()?;
    Ok(Oldest {
        accepted: accepted?,
        in_flight: in_flight?.map(|lease_end| lease_end - scope.shared.terms.lease),
        deferred: deferred?,
        maybe_applied: maybe_applied?,
        unpublished: message.and_then(|message| message.written()),
        now,
    })
}

fn row_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
