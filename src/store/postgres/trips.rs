//! The two round trips of a batch of changes: one that locks and reads, and one that writes and commits. Statements are sent one
//! after another, without a wait for answers in between.

use std::collections::HashSet;

use chrono::TimeDelta;
use futures::future::try_join_all;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::error::Fault;
use super::rows::{
    self, INSERT_COMMANDS, INSERT_OUTBOX, Parameters, UPDATE_COMMANDS, UPDATE_CONNECTIONS, command_columns,
    given,
};
use super::session::{Session, TIME};
use super::workspace::{Changes, Loaded, Needs};
use crate::domain::connection::Connection;
use crate::store::values::micros;

/// What a batch is about, by columns.
#[derive(Default)]
pub(super) struct Wanted {
    ids: Vec<Uuid>,
    targets: Vec<Uuid>,
    guests: Vec<Uuid>,
    requesters: Vec<Uuid>,
    keys: Vec<String>,
    healed_targets: Vec<Uuid>,
    healed_guests: Vec<Uuid>,
}

impl Wanted {
    pub(super) fn of<'a>(batch: impl Iterator<Item = &'a Needs>) -> Self {
        let mut wanted = Self::default();
        let mut pairs = Vec::new();
        for needs in batch {
            wanted.ids.extend(needs.id.map(|id| id.0));
            pairs.extend(needs.connection.map(|Connection { target, guest }| (target.0, guest.0)));
            if let Some((requester, key)) = &needs.key {
                wanted.requesters.push(requester.0);
                wanted.keys.push(key.clone());
            }
            if let Some(Connection { target, guest }) = needs.connection.filter(|_| needs.is_healed) {
                wanted.healed_targets.push(target.0);
                wanted.healed_guests.push(guest.0);
            }
        }
        // All instances enter connections in the same order.
        pairs.sort_unstable();
        pairs.dedup();
        (wanted.targets, wanted.guests) = pairs.into_iter().unzip();
        wanted
    }
}

const ENTER: &str = "
    INSERT INTO connections (target, guest) SELECT * FROM unnest($1::uuid[], $2::uuid[]) ON CONFLICT DO NOTHING";

/// Commands with the pairs of their connections. As in all that is read for a batch, `OFFSET 0` and `ANY (ARRAY(…))` leave the
/// planner no choice but to look up by the index what is named, one after another.
macro_rules! of_commands {
    () => {
        " FROM commands c
         CROSS JOIN LATERAL (SELECT target, guest FROM connections WHERE number = c.connection OFFSET 0) n"
    };
}

/// The connections that a batch is about: `$1` to `$3` as in all statements that read for it.
macro_rules! numbers {
    () => {
        "SELECT n.number FROM unnest($2::uuid[], $3::uuid[]) AS p (target, guest)
            CROSS JOIN LATERAL (SELECT number FROM connections WHERE target = p.target AND guest = p.guest OFFSET 0) n
         UNION SELECT connection FROM commands WHERE id = ANY ($1::uuid[])"
    };
}

/// The commands that may be changed: of `$1` by id, of `$2` and `$3` by requester and key.
macro_rules! arrivals {
    () => {
        "SELECT arrival FROM commands WHERE id = ANY ($1::uuid[])
         UNION SELECT k.arrival FROM unnest($2::uuid[], $3::text[]) AS w (requester, key)
            CROSS JOIN LATERAL (SELECT arrival FROM commands WHERE requester = w.requester AND key = w.key OFFSET 0) k"
    };
}

/// Those that somebody else has are passed over: changes of others must not wait for them.
const CONNECTIONS: &str = concat!(
    "SELECT number, target, guest, effective_time_last, sequence, applied_time, applied_command, applied_archived,
        applied_requester, applied_certain, quiet_until, quiet_command, settle_until, suspect_since, heal_time
     FROM connections WHERE number = ANY (ARRAY(",
    numbers!(),
    ")) FOR UPDATE SKIP LOCKED"
);

/// So are these. They are read when it is known which they are, so that one that is held is not taken for one that is not there.
const LOCKED: &str = concat!(
    "SELECT arrival FROM commands WHERE arrival = ANY (ARRAY(",
    arrivals!(),
    ")) FOR UPDATE SKIP LOCKED"
);

/// Reads after the locks are held, and so what is there now. What a connection to be healed shows is only looked at.
const COMMANDS: &str = concat!(
    "SELECT ",
    command_columns!(),
    of_commands!(),
    " WHERE c.arrival = ANY (ARRAY(",
    arrivals!(),
    "    UNION SELECT h.arrival FROM unnest($4::uuid[], $5::uuid[]) AS p (target, guest)
            CROSS JOIN LATERAL (SELECT applied_command FROM connections WHERE target = p.target AND guest = p.guest OFFSET 0) m
            CROSS JOIN LATERAL (SELECT arrival FROM commands WHERE id = m.applied_command OFFSET 0) h))"
);

const BLOCKING: &str = concat!(
    "SELECT ",
    command_columns!(),
    of_commands!(),
    " WHERE c.blocking AND c.connection = ANY (ARRAY(",
    numbers!(),
    "))"
);

const LINE: &str = concat!(
    "SELECT connection, min(arrival) FROM commands WHERE in_line AND connection = ANY (ARRAY(",
    numbers!(),
    ")) GROUP BY connection"
);

const ARRIVALS: &str = "SELECT nextval('commands_arrival') FROM generate_series(1, $1::bigint)";

/// Begins a transaction and reads what a batch needs, in one round trip. Yields the server's time, too.
pub(super) async fn load(session: &mut Session, wanted: Wanted) -> Result<(Loaded, i64), Fault> {
    let mut statements = Vec::new();
    for sql in [ENTER, CONNECTIONS, LOCKED, COMMANDS, BLOCKING, LINE, ARRIVALS, TIME] {
        statements.push(session.prepare(sql).await?);
    }
    let client = &session.client;
    let Wanted { ids, targets, guests, requesters, keys, healed_targets, healed_guests } = &wanted;
    let pairs: [&(dyn ToSql + Sync); 2] = [targets, guests];
    let about: [&(dyn ToSql + Sync); 3] = [ids, targets, guests];
    let changed: [&(dyn ToSql + Sync); 3] = [ids, requesters, keys];
    let looked_at: [&(dyn ToSql + Sync); 5] = [ids, requesters, keys, healed_targets, healed_guests];
    let count = i64::try_from(keys.len()).unwrap_or(i64::MAX);
    let counted: [&(dyn ToSql + Sync); 1] = [&count];
    let asked = Box::pin(async {
        futures::try_join!(
            client.batch_execute("BEGIN"),
            client.execute(&statements[0], &pairs),
            client.query(&statements[1], &about),
            client.query(&statements[2], &changed),
            client.query(&statements[3], &looked_at),
            client.query(&statements[4], &about),
            client.query(&statements[5], &about),
            client.query(&statements[6], &counted),
            client.query_one(&statements[7], &[]),
        )
    });
    let ((), _, connections, locked, commands, blocking, line, arrivals, time) =
        session.within(asked).await?;
    let locked = locked.iter().map(|row| row.get(0)).collect();
    let mut loaded = read(&connections, &locked, &commands, &blocking)?;
    loaded.line = line.iter().map(|row| (row.get(0), row.get(1))).collect();
    loaded.arrivals = arrivals.iter().map(|row| row.get(0)).collect();
    // They are taken from the end.
    loaded.arrivals.sort_unstable_by(|a, b| b.cmp(a));
    Ok((loaded, time.get(0)))
}

fn read(
    connections: &[Row],
    locked: &HashSet<i64>,
    commands: &[Row],
    blocking: &[Row],
) -> Result<Loaded, Fault> {
    let mut loaded = Loaded::default();
    for row in connections {
        let (number, record) = rows::read_connection(row)?;
        loaded.connections.insert(record.connection, (number, record));
    }
    for row in commands {
        let record = rows::read_command(row)?;
        let key = (record.command.requester, record.command.key.as_str().to_owned());
        loaded.keys.insert(key, record.id);
        if !locked.contains(&record.arrival) {
            loaded.held.insert(record.id);
        }
        loaded.commands.insert(record.id, record);
    }
    for row in blocking {
        loaded.blocking.entry(rows::connection_of(row)).or_default().push(rows::read_command(row)?);
    }
    Ok(loaded)
}

/// Makes the first in line of each connection due. If someone holds it for being set to work, it is due soon enough.
const WAKE: &str = "
    UPDATE commands c SET due_time = w.wake_time
    FROM unnest($1::bigint[], $2::bigint[]) AS w (connection, wake_time)
    WHERE c.due_time > w.wake_time AND (c.waiting OR c.due_time > w.wake_time + $3::bigint) AND c.arrival = (
        SELECT arrival FROM commands f WHERE f.connection = w.connection AND f.in_line ORDER BY arrival LIMIT 1)";

const COUNT: &str = "
    INSERT INTO totals AS t (writer, registered, outbox_written) VALUES ($1, $2, $3)
    ON CONFLICT (writer) DO UPDATE SET registered = t.registered + excluded.registered,
        outbox_written = t.outbox_written + excluded.outbox_written";

/// Writes and commits, in one round trip. A statement that fails makes the end of the transaction its undoing.
pub(super) async fn save(
    session: &mut Session,
    hold: TimeDelta,
    writer: Uuid,
    changes: Changes,
) -> Result<(), Fault> {
    let steps = steps(hold, writer, changes)?;
    let mut statements = Vec::new();
    for (sql, _) in &steps {
        statements.push(session.prepare(sql).await?);
    }
    let client = &session.client;
    let parameters: Vec<_> = steps.iter().map(|(_, parameters)| given(parameters)).collect();
    let executed =
        statements.iter().zip(&parameters).map(|(statement, given)| client.execute(statement, given));
    // What fails first is told: what comes after it fails because of it.
    let done =
        async { futures::try_join!(try_join_all(executed), client.batch_execute("COMMIT")).map(|_| ()) };
    session.within(done).await
}

type Step = (&'static str, Parameters);

/// A statement for each table that changes.
fn steps(hold: TimeDelta, writer: Uuid, changes: Changes) -> Result<Vec<Step>, Fault> {
    let Changes { connections, inserted, updated, epochs, messages, wakes, .. } = changes;
    let registered = i64::try_from(inserted.len()).unwrap_or(i64::MAX);
    let written = i64::try_from(messages.len()).unwrap_or(i64::MAX);
    let mut steps: Vec<Step> = Vec::new();
    if !connections.is_empty() {
        steps.push((UPDATE_CONNECTIONS, rows::update_connections(&connections)?));
    }
    if !inserted.is_empty() {
        steps.push((INSERT_COMMANDS, rows::insert_commands(&inserted)?));
    }
    if !updated.is_empty() {
        steps.push((UPDATE_COMMANDS, rows::update_commands(&updated, epochs)?));
    }
    if !messages.is_empty() {
        steps.push((INSERT_OUTBOX, rows::insert_outbox(&messages)?));
    }
    if !wakes.is_empty() {
        let (numbers, times): (Vec<i64>, Vec<i64>) =
            wakes.into_iter().map(|(connection, time)| (connection, micros(time))).unzip();
        let hold = hold.num_microseconds().unwrap_or(i64::MAX);
        steps.push((WAKE, vec![Box::new(numbers), Box::new(times), Box::new(hold)]));
    }
    if registered + written > 0 {
        steps.push((COUNT, vec![Box::new(writer), Box::new(registered), Box::new(written)]));
    }
    Ok(steps)
}
