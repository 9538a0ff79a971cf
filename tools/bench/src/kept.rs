//! A store that keeps many commands which were ended long ago, made in bulk after one that the adapter itself has written.
//! Keys rise, since nothing that is measured with it looks for one.

use std::fs::File;
use std::path::Path;
use std::time::{Duration, Instant};

use harness::Upstream;
use rusqlite::types::Value;
use rusqlite::{Connection, Statement};

use crate::Outcome;
use crate::calls::{self, Whom};

/// How many are kept, unless it is said otherwise.
pub const USUAL: usize = 10_000_000;

/// Commands of a connection.
const COMMANDS_PER_CONNECTION: usize = 10;

/// Commands of one transaction.
const CHUNK: usize = 100_000;

/// Over what time their ends are spread, up to now: less than the retention, so that none is to be forgotten.
const SPAN_MICROS: usize = 6 * 24 * 3600 * 1_000_000;

/// Bytes of an id.
const ID_LENGTH: usize = 16;

/// Makes the command that the others are made after.
pub async fn call(address: &str, upstream: &Upstream) -> Outcome {
    let clients = calls::clients(address).await?;
    let times =
        calls::at_once(&clients, &upstream.organizations[0], 1, Whom::Anew, Duration::from_millis(100))
            .await?;
    if times.is_empty() { Err("no call was made".into()) } else { Ok(()) }
}

/// Adds `count` commands to a store that no process has open.
pub fn fill(store: &Path, count: usize) -> Outcome {
    let began = Instant::now();
    let connection = Connection::open(store)?;
    // Nothing of this has to outlive a crash.
    connection.execute_batch(
        "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA foreign_keys = OFF; PRAGMA cache_size = -262144",
    )?;
    let now: i64 = connection.query_row("SELECT max(finished_time) FROM commands", [], |row| row.get(0))?;
    let (mut commands, mut connections) = (
        Copies::new(&connection, "commands", "arrival")?,
        Copies::new(&connection, "connections", "number")?,
    );
    for start in (0..count).step_by(CHUNK) {
        connection.execute_batch("BEGIN")?;
        for number in start..count.min(start + CHUNK) {
            if number.is_multiple_of(COMMANDS_PER_CONNECTION) {
                connections.next(&[("guest", Value::Blob(id(number)))])?;
            }
            let ended = now - (SPAN_MICROS / count * (count - number)) as i64;
            commands.next(&[
                ("id", Value::Blob(id(number))),
                ("key", Value::Text(format!("{number:036}"))),
                ("connection", Value::Integer(connections.last)),
                ("event_id", Value::Blob(id(number))),
                ("effective_time", Value::Integer(ended - 1_000_000)),
                ("accepted_time", Value::Integer(ended - 1_000_000)),
                ("finished_time", Value::Integer(ended)),
                ("event_confirmed_time", Value::Integer(ended + 1_000_000)),
            ])?;
        }
        connection.execute_batch("COMMIT")?;
    }
    connection.execute(
        "UPDATE totals SET registered = registered + ?1, outbox_written = outbox_written + ?1,
             outbox_confirmed = outbox_confirmed + ?1",
        [count as i64],
    )?;
    drop((commands, connections));
    connection.close().map_err(|(_, error)| error)?;
    // Or the disk would be busy with it while the adapter starts.
    let file = File::open(store)?;
    file.sync_all()?;
    let size = file.metadata()?.len() as f64 / f64::from(1 << 30);
    eprintln!("  {count} commands kept: {size:.1} GiB, made in {:.0} s", began.elapsed().as_secs_f64());
    Ok(())
}

/// Ids that rise, before any that is made now.
fn id(number: usize) -> Vec<u8> {
    let mut id = vec![0; ID_LENGTH - size_of::<usize>()];
    id.extend(number.to_be_bytes());
    id
}

/// Copies of the last row of a table.
struct Copies<'c> {
    insert: Statement<'c>,
    columns: Vec<String>,
    /// The number of the last one.
    last: i64,
}

impl<'c> Copies<'c> {
    fn new(connection: &'c Connection, table: &str, number: &str) -> Outcome<Self> {
        let sql = format!("SELECT {number}, * FROM {table} ORDER BY {number} DESC LIMIT 1");
        let mut select = connection.prepare(&sql)?;
        let columns: Vec<String> = select.column_names().into_iter().skip(1).map(str::to_owned).collect();
        let values: Vec<Value> =
            select.query_row([], |row| (0..=columns.len()).map(|index| row.get(index)).collect())?;
        let Some((Value::Integer(last), template)) = values.split_first() else {
            return Err(format!("{table} has no row to copy").into());
        };
        let marks = vec!["?"; columns.len()].join(", ");
        let mut insert =
            connection.prepare(&format!("INSERT INTO {table} ({}) VALUES ({marks})", columns.join(", ")))?;
        for (index, value) in template.iter().enumerate() {
            insert.raw_bind_parameter(index + 1, value)?;
        }
        let mut copies = Self { insert, columns, last: *last };
        copies
            .columns
            .iter_mut()
            .filter(|column| *column == number)
            .for_each(|column| "number".clone_into(column));
        Ok(copies)
    }

    /// Adds the next one, with values of its own. The others stay bound.
    fn next(&mut self, own: &[(&str, Value)]) -> Outcome {
        self.last += 1;
        let number = ("number", Value::Integer(self.last));
        for (name, value) in own.iter().chain([&number]) {
            let index = self.columns.iter().position(|column| column == name).ok_or("no such column")?;
            self.insert.raw_bind_parameter(index + 1, value)?;
        }
        self.insert.raw_execute()?;
        Ok(())
    }
}
