//! Connections to the database file, and its schema.

use std::path::Path;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, OptionalExtension as _, TransactionBehavior};

use super::error::{self, Fault, OpenError};

/// How long a statement waits for another program that has the database locked, a backup for example.
pub(super) const BUSY_TIME_MAX: Duration = Duration::from_secs(5);

/// Marks the file as ours: "gcad".
const APPLICATION_ID: i64 = 0x6763_6164;

/// The schema's steps, forward only. The version of a database is the number of steps it has taken.
pub(super) const MIGRATIONS: &[&str] = &[
    include_str!("../migrations/sqlite/0001_commands.sql"),
    include_str!("../migrations/sqlite/0002_line.sql"),
    include_str!("../migrations/sqlite/0003_pauses.sql"),
    include_str!("../migrations/sqlite/0004_audit.sql"),
    include_str!("../migrations/sqlite/0005_checks.sql"),
];

/// A file up to this length is looked through at start, which takes about a second for each GiB. For a larger one that
/// is left to `PRAGMA integrity_check` in an operator's hands.
const LOOK_THROUGH_LENGTH_MAX: i64 = 1 << 30;

/// Statements kept prepared by a connection; more than there are.
const STATEMENTS_MAX: usize = 64;

/// A connection that writes durably, and leaves nothing readable of what it deletes: that holds personal data.
pub(super) fn connect_writer(path: &Path) -> rusqlite::Result<Connection> {
    let connection = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
    connection.execute_batch(
        "PRAGMA synchronous = FULL;
         PRAGMA foreign_keys = ON;
         PRAGMA secure_delete = ON;
         PRAGMA temp_store = MEMORY;
         PRAGMA wal_autocheckpoint = 0;
         PRAGMA cache_size = -16384;",
    )?;
    Ok(connection)
}

/// A connection that only reads.
pub(super) fn connect_reader(path: &Path) -> rusqlite::Result<Connection> {
    connect(path, OpenFlags::SQLITE_OPEN_READ_ONLY)
}

/// The file must be there: a new one is made by [`files`](super::files) alone, with its permissions.
fn connect(path: &Path, mode: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, mode | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.busy_timeout(BUSY_TIME_MAX)?;
    connection.set_prepared_statement_cache_capacity(STATEMENTS_MAX);
    Ok(connection)
}

/// Brings the database at `path` to the present schema. Nothing is written to a file that is not ours or newer.
pub(super) fn prepare(path: &Path) -> Result<Connection, OpenError> {
    let fail = |source| open_error(path, source);
    let mut connection = connect_writer(path).map_err(fail)?;
    // What is refused stays as it is: to close it would copy its log into it.
    keep_log(&connection, true).map_err(fail)?;
    let version = check(&connection, path)?;
    if length(&connection).map_err(fail)? <= LOOK_THROUGH_LENGTH_MAX
        && let Some(reason) = find_damage(&connection).map_err(fail)?
    {
        return Err(OpenError::Corrupt { path: path.to_owned(), reason });
    }
    let mode: String =
        connection.query_row("PRAGMA journal_mode = WAL", [], |row| row.get(0)).map_err(fail)?;
    if mode != "wal" {
        let reason = format!("its journal mode stays {mode}");
        return Err(OpenError::Corrupt { path: path.to_owned(), reason });
    }
    migrate(&mut connection, version).map_err(fail)?;
    touch(&connection).map_err(fail)?;
    keep_log(&connection, false).map_err(fail)?;
    Ok(connection)
}

fn keep_log(connection: &Connection, kept: bool) -> rusqlite::Result<bool> {
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, kept)
}

/// Looks at every page of the file at `path`.
pub(super) fn look_through(path: &Path) -> Result<(), Fault> {
    match find_damage(&connect_reader(path)?)? {
        None => Ok(()),
        Some(found) => Err(Fault::Damage(found)),
    }
}

/// What is wrong with a database that can be opened, if anything is.
fn find_damage(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let found: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0))?;
    Ok((found != "ok").then(|| found.split_whitespace().collect::<Vec<_>>().join(" ")))
}

fn length(connection: &Connection) -> rusqlite::Result<i64> {
    let number = |sql: &str| -> rusqlite::Result<i64> { connection.query_row(sql, [], |row| row.get(0)) };
    Ok(number("PRAGMA page_count")? * number("PRAGMA page_size")?)
}

/// The schema version of a database that this program may use.
fn check(connection: &Connection, path: &Path) -> Result<usize, OpenError> {
    let number = |sql: &str| -> Result<i64, OpenError> {
        connection.query_row(sql, [], |row| row.get(0)).map_err(|source| open_error(path, source))
    };
    let tables = number("SELECT count(*) FROM sqlite_schema")?;
    let application_id = number("PRAGMA application_id")?;
    let version = number("PRAGMA user_version")?;
    let empty = tables == 0 && application_id == 0 && version == 0;
    if !empty && application_id != APPLICATION_ID {
        return Err(OpenError::Foreign { path: path.to_owned() });
    }
    match usize::try_from(version) {
        Ok(version) if version <= MIGRATIONS.len() => Ok(version),
        _ => Err(OpenError::TooNew { path: path.to_owned(), found: version, known: known_version() }),
    }
}

/// The version that this program brings a database to.
fn known_version() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

fn migrate(connection: &mut Connection, version: usize) -> rusqlite::Result<()> {
    if version == MIGRATIONS.len() {
        return Ok(());
    }
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    for step in &MIGRATIONS[version..] {
        transaction.execute_batch(step)?;
    }
    transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
    transaction.pragma_update(None, "user_version", known_version())?;
    transaction.commit()
}

/// Reads both ends of every table, which finds a file that was cut or overwritten, however large it is.
fn touch(connection: &Connection) -> rusqlite::Result<()> {
    ends().try_for_each(|sql| connection.query_row(&sql, [], |_| Ok(())).optional().map(drop))
}

/// One end at a time: asked for both at once, SQLite reads everything between them.
fn ends() -> impl Iterator<Item = String> {
    const ENDS: [(&str, &str, &str); 6] = [
        ("commands", "arrival", "id"),
        ("commands", "due_time", "due_time"),
        ("commands", "finished_time", "finished_time"),
        ("connections", "number", "target"),
        ("outbox", "number", "message"),
        ("totals", "number", "registered"),
    ];
    ENDS.into_iter().flat_map(|(table, by, column)| {
        ["ASC", "DESC"].map(|order| {
            format!("SELECT {column} FROM {table} WHERE {by} IS NOT NULL ORDER BY {by} {order} LIMIT 1")
        })
    })
}

/// Work whose owner is dead, as the lock proves, is due at once; of a line the first.
pub(super) fn release_orphans(connection: &Connection, now_micros: i64) -> rusqlite::Result<usize> {
    connection.execute(
        "UPDATE commands SET due_time = ?1 WHERE due_time > ?1 AND (state = 'in_flight' OR (state = 'accepted'
             AND NOT EXISTS (SELECT 1 FROM commands AS ahead WHERE ahead.connection = commands.connection
                 AND ahead.in_line = 1 AND ahead.arrival < commands.arrival)))",
        [now_micros],
    )
}

pub(super) fn open_error(path: &Path, source: rusqlite::Error) -> OpenError {
    let path = path.to_owned();
    if error::is_damage(&source) {
        OpenError::Corrupt { path, reason: source.to_string() }
    } else {
        OpenError::Sqlite { path, error: source }
    }
}

#[cfg(test)]
#[path = "schema_tests.rs"]
mod tests;
