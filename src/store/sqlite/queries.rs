//! What the readers do: everything that changes nothing.

use std::sync::atomic::Ordering;

use super::error::Fault;
use super::rows::{self, micros};
use super::task::Scope;
use crate::domain::Timestamp;
use crate::domain::command::{CommandId, OrganizationId};
use crate::domain::connection::Connection;
use crate::domain::record::State;
use crate::service::ports::{Books, Due, OutboxRow};

/// Commands whose due time has come: the longest due ones, in order of arrival.
pub(super) fn due(scope: &Scope<'_>, limit: usize) -> Result<Vec<Due>, Fault> {
    let mut statement = scope.connection.prepare_cached(
        "SELECT c.id, n.target, n.guest
         FROM (SELECT arrival FROM commands WHERE due_time <= ?1 ORDER BY due_time LIMIT ?2) d
         JOIN commands c ON c.arrival = d.arrival JOIN connections n ON n.number = c.connection
         ORDER BY d.arrival",
    )?;
    let mut found = statement.query((micros(scope.now()), row_limit(limit)))?;
    let mut due = Vec::new();
    while let Some(row) = found.next()? {
        due.push(Due {
            id: CommandId(rows::uuid(row, 0)?),
            connection: Connection {
                target: OrganizationId(rows::uuid(row, 1)?),
                guest: OrganizationId(rows::uuid(row, 2)?),
            },
        });
    }
    Ok(due)
}

/// The earliest due time.
pub(super) fn due_next(scope: &Scope<'_>) -> Result<Option<Timestamp>, Fault> {
    let mut statement =
        scope.connection.prepare_cached("SELECT min(due_time) FROM commands WHERE due_time IS NOT NULL")?;
    let micros: Option<i64> = statement.query_row([], |row| row.get(0))?;
    micros.map(rows::time).transpose()
}

/// Rows of the outbox above `after`, in order.
pub(super) fn outbox(scope: &Scope<'_>, after: i64, limit: usize) -> Result<Vec<OutboxRow>, Fault> {
    let mut statement = scope
        .connection
        .prepare_cached("SELECT number, message FROM outbox WHERE number > ?1 ORDER BY number LIMIT ?2")?;
    let mut found = statement.query((after, row_limit(limit)))?;
    let mut outbox = Vec::new();
    while let Some(row) = found.next()? {
        let text: String = row.get(1)?;
        outbox.push(OutboxRow { number: row.get(0)?, message: rows::from_json("message", &text)? });
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
            let index = index.ok_or_else(|| Fault::Row(format!("no state is called {name}")))?;
            books.by_state[index] += rows::unsigned::<u64>(row.get(1)?)?;
        }
        let count = |sql| -> Result<u64, Fault> {
            rows::unsigned(moment.prepare_cached(sql)?.query_row([], |row| row.get(0))?)
        };
        books.outbox_pending = count("SELECT count(*) FROM outbox")?;
        books.suspect = count("SELECT count(*) FROM connections WHERE suspect_since IS NOT NULL")?;
    }
    moment.finish()?;
    books.finishes_refused = scope.shared.finishes_refused.load(Ordering::Relaxed);
    Ok(books)
}

fn row_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
