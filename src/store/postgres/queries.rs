//! What is asked and changes nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio_postgres::types::ToSql;

use super::error::Fault;
use super::rows::{self, command_columns};
use super::worker::Desk;
use crate::domain::Timestamp;
use crate::domain::command::{CommandId, OrganizationId};
use crate::domain::connection::Connection;
use crate::domain::message::Message;
use crate::domain::record::{CommandRecord, State};
use crate::domain::trace::TraceContext;
use crate::service::ports::{Books, Due, DueCursor, Oldest, OutboxRow};
use crate::service::tenure::Slots;
use crate::store::values::{Odd, from_json, micros, time, unsigned};

/// Bytes of the outbox read at once, but for a single larger message.
const OUTBOX_LENGTH_MAX: usize = 4 * 1024 * 1024;

const BY_ID: &str = concat!(
    "SELECT ",
    command_columns!(),
    " FROM commands c JOIN connections n ON n.number = c.connection WHERE c.id = $1"
);

const BY_KEY: &str = concat!(
    "SELECT ",
    command_columns!(),
    " FROM commands c JOIN connections n ON n.number = c.connection WHERE c.requester = $1 AND c.key = $2"
);

pub(super) async fn requester(desk: Desk<'_>, id: CommandId) -> Result<Option<OrganizationId>, Fault> {
    let found = desk.session.query("SELECT requester FROM commands WHERE id = $1", &[&id.0]).await?;
    Ok(found.first().map(|row| OrganizationId(row.get(0))))
}

pub(super) async fn command(desk: Desk<'_>, id: CommandId) -> Result<Option<CommandRecord>, Fault> {
    let found = desk.session.query(BY_ID, &[&id.0]).await?;
    Ok(found.first().map(rows::read_command).transpose()?)
}

/// Those of these commands that are final.
pub(super) async fn finals(desk: Desk<'_>, ids: Vec<CommandId>) -> Result<Vec<CommandRecord>, Fault> {
    const SQL: &str = concat!(
        "SELECT ",
        command_columns!(),
        " FROM commands c JOIN connections n ON n.number = c.connection
         WHERE c.id = ANY ($1::uuid[]) AND c.finished_time IS NOT NULL"
    );
    let ids: Vec<uuid::Uuid> = ids.into_iter().map(|id| id.0).collect();
    let found = desk.session.query(SQL, &[&ids]).await?;
    Ok(found.iter().map(rows::read_command).collect::<Result<_, _>>()?)
}

pub(super) async fn command_by_key(
    desk: Desk<'_>,
    requester: OrganizationId,
    key: String,
) -> Result<Option<CommandRecord>, Fault> {
    let found = desk.session.query(BY_KEY, &[&requester.0, &key]).await?;
    Ok(found.first().map(rows::read_command).transpose()?)
}

/// Commands of this instance's seat whose due time has come, the longest due ones first.
pub(super) async fn due(desk: Desk<'_>, after: DueCursor, limit: usize) -> Result<Vec<Due>, Fault> {
    const SQL: &str = "
        SELECT c.id, n.target, n.guest, c.due_time, c.arrival, c.traceparent, c.tracestate, c.in_line, c.waiting, c.requester
        FROM commands c JOIN connections n ON n.number = c.connection
        WHERE c.due_time <= $1 AND (c.due_time, c.arrival) > ($2, $3) AND c.connection % $5 = $6
        ORDER BY c.due_time, c.arrival LIMIT $4";
    let (now, (index, count)) = (micros(desk.shared.now()), desk.shared.seat());
    let parameters: [&(dyn ToSql + Sync); 6] =
        [&now, &after.due_time, &after.arrival, &row_limit(limit), &count, &index];
    let found = desk.session.query(SQL, &parameters).await?;
    Ok(found.iter().map(read_due).collect())
}

/// The first in the line of a connection, in order of arrival.
pub(super) async fn line(desk: Desk<'_>, connection: Connection, limit: usize) -> Result<Vec<Due>, Fault> {
    const SQL: &str = "
        SELECT c.id, n.target, n.guest, c.due_time, c.arrival, c.traceparent, c.tracestate, c.in_line, c.waiting, c.requester
        FROM connections n CROSS JOIN LATERAL (
            SELECT * FROM commands WHERE connection = n.number AND in_line ORDER BY arrival LIMIT $3) c
        WHERE n.target = $1 AND n.guest = $2 ORDER BY c.arrival";
    let parameters: [&(dyn ToSql + Sync); 3] = [&connection.target.0, &connection.guest.0, &row_limit(limit)];
    let found = desk.session.query(SQL, &parameters).await?;
    Ok(found.iter().map(read_due).collect())
}

fn read_due(row: &tokio_postgres::Row) -> Due {
    Due {
        id: CommandId(row.get(0)),
        requester: OrganizationId(row.get(9)),
        connection: Connection { target: OrganizationId(row.get(1)), guest: OrganizationId(row.get(2)) },
        trace: TraceContext { traceparent: row.get(5), tracestate: row.get(6) },
        in_line: row.get(7),
        waiting: row.get(8),
        cursor: DueCursor { due_time: row.get(3), arrival: row.get(4) },
    }
}

/// Suspect connections of this instance's seat that are to be healed now, the longest due ones first.
pub(super) async fn suspects(desk: Desk<'_>, limit: usize) -> Result<Vec<Connection>, Fault> {
    const SQL: &str = "SELECT target, guest FROM connections WHERE heal_time <= $1 AND number % $3 = $4
        ORDER BY heal_time LIMIT $2";
    let (now, (index, count)) = (micros(desk.shared.now()), desk.shared.seat());
    let found = desk.session.query(SQL, &[&now, &row_limit(limit), &count, &index]).await?;
    let pair = |row: &tokio_postgres::Row| Connection {
        target: OrganizationId(row.get(0)),
        guest: OrganizationId(row.get(1)),
    };
    Ok(found.iter().map(pair).collect())
}

/// How many commands are not final, with a tenth of those that are put off.
pub(super) async fn backlog(desk: Desk<'_>) -> Result<u64, Fault> {
    const SQL: &str = "SELECT (SELECT count(*) FROM commands WHERE due_time IS NOT NULL)
        - (SELECT count(*) FROM commands WHERE paused_since IS NOT NULL) * 9 / 10";
    Ok(unsigned(one(&desk.session.query(SQL, &[]).await?)?.get(0))?)
}

/// The earliest due time of a command of this instance's seat.
pub(super) async fn due_next(desk: Desk<'_>) -> Result<Option<Timestamp>, Fault> {
    const SQL: &str = "SELECT due_time FROM commands WHERE due_time IS NOT NULL AND connection % $1 = $2
        ORDER BY due_time LIMIT 1";
    let (index, count) = desk.shared.seat();
    let found = desk.session.query(SQL, &[&count, &index]).await?;
    Ok(found.first().map(|row| time(row.get(0))).transpose()?)
}

/// Rows of the outbox above `after`, in order, of some slots. No event for whose connection there is an earlier one: that may
/// have appeared since those up to `after` were read.
pub(super) async fn outbox(
    desk: Desk<'_>,
    after: i64,
    limit: usize,
    slots: Slots,
) -> Result<Vec<OutboxRow>, Fault> {
    const SQL: &str = "
        SELECT o.number, o.message FROM outbox o WHERE o.number > $1 AND (o.connection % 64)::smallint = ANY ($3::smallint[])
            AND (o.event_id IS NULL OR NOT EXISTS (SELECT 1 FROM outbox p WHERE p.event_id IS NOT NULL
                AND p.connection = o.connection AND p.number <= $1))
        ORDER BY o.number LIMIT $2";
    let slots: Vec<i16> = slots.iter().filter_map(|slot| i16::try_from(slot).ok()).collect();
    let found = desk.session.query(SQL, &[&after, &row_limit(limit), &slots]).await?;
    let (mut outbox, mut length) = (Vec::new(), 0);
    for row in &found {
        let text: &str = row.get(1);
        length += text.len();
        if length > OUTBOX_LENGTH_MAX && !outbox.is_empty() {
            break;
        }
        outbox.push(OutboxRow { number: row.get(0), message: Arc::new(from_json("message", text)?) });
    }
    Ok(outbox)
}

/// The books, all of one moment. What is counted is counted in the rows, so that the totals are checked by it.
pub(super) async fn books(desk: Desk<'_>) -> Result<Books, Fault> {
    const TOTALS: &str =
        "SELECT coalesce(sum(registered), 0)::bigint, coalesce(sum(outbox_written), 0)::bigint,
        coalesce(sum(outbox_confirmed), 0)::bigint FROM totals";
    const STATES: &str = "SELECT state, count(*) FROM commands GROUP BY state";
    const REST: &str = "SELECT (SELECT count(*) FROM outbox),
        (SELECT count(*) FROM connections WHERE heal_time IS NOT NULL)";
    let Desk { session, shared } = desk;
    session.command("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    let totals = session.query(TOTALS, &[]).await?;
    let rest = session.query(REST, &[]).await?;
    // All rows are counted, which goes fastest without an index.
    session.command("SET LOCAL enable_seqscan = on").await?;
    let states = session.query(STATES, &[]).await?;
    session.command("COMMIT").await?;
    let (totals, rest) = (one(&totals)?, one(&rest)?);
    let mut books = Books {
        registered: unsigned(totals.get(0))?,
        outbox_written: unsigned(totals.get(1))?,
        outbox_confirmed: unsigned(totals.get(2))?,
        outbox_pending: unsigned(rest.get(0))?,
        suspect: unsigned(rest.get(1))?,
        ..Books::default()
    };
    for row in &states {
        let name: &str = row.get(0);
        let index = State::ALL.iter().position(|state| state.as_str() == name);
        let index = index.ok_or_else(|| Odd::Read(format!("no state is called {name}")))?;
        books.by_state[index] = unsigned(row.get(1))?;
    }
    books.finishes_refused = shared.finishes_refused.load(Ordering::Relaxed);
    Ok(books)
}

/// Since when what is not done yet waits.
pub(super) async fn oldest(desk: Desk<'_>) -> Result<Oldest, Fault> {
    const SQL: &str = "
        SELECT min(accepted_time) FILTER (WHERE state = 'accepted'), min(due_time) FILTER (WHERE state = 'in_flight'),
            min(accepted_time) FILTER (WHERE state = 'deferred'), min(accepted_time) FILTER (WHERE maybe_applied),
            (SELECT message FROM outbox ORDER BY number LIMIT 1)
        FROM commands WHERE due_time IS NOT NULL";
    let found = desk.session.query(SQL, &[]).await?;
    let row = one(&found)?;
    let since = |index: usize| row.get::<_, Option<i64>>(index).map(time).transpose();
    let message =
        row.get::<_, Option<&str>>(4).map(|text| from_json::<Message>("message", text)).transpose()?;
    Ok(Oldest {
        accepted: since(0)?,
        in_flight: since(1)?.map(|lease_end| lease_end - desk.shared.terms.lease),
        deferred: since(2)?,
        maybe_applied: since(3)?,
        unpublished: message.and_then(|message| message.written()),
        now: desk.shared.now(),
    })
}

fn one(rows: &[tokio_postgres::Row]) -> Result<&tokio_postgres::Row, Fault> {
    rows.first().ok_or_else(|| Fault::Other("a question has no answer".to_owned()))
}

pub(super) fn row_limit(limit: usize) -> i64 {
    i64::try_from(limit).unwrap_or(i64::MAX)
}
