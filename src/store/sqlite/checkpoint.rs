//! Keeps the write-ahead log short without making commits wait for it more than needed.
//!
//! A thread of its own copies the log into the database while the writer goes on. The writer itself only starts
//! the log anew once little is left to copy, and cuts it when there is nothing to do.

use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use rusqlite::Connection;

use super::files::Lock;
use super::schema::BUSY_TIME_MAX;
use crate::store::records;

/// Pages of the log that are not in the database yet, past which a copy is asked for (8 MiB).
const UNCOPIED_PAGES_MAX: i64 = 2_048;

/// Pages of the log past which it is started anew if little is left to copy (32 MiB).
const LOG_PAGES_MAX: i64 = 8_192;

/// Pages of the log past which it is started anew in any case (256 MiB).
const LOG_PAGES_LIMIT: i64 = 65_536;

/// Whether the log asks for a copy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wal {
    Short,
    Long,
}

/// Looks at the log after a commit of the writer.
pub(super) fn after_commit(connection: &Connection) -> Wal {
    let Some((log, copied)) = checkpoint(connection, "PRAGMA wal_checkpoint(NOOP)") else {
        return Wal::Short;
    };
    let uncopied = log - copied;
    if log > LOG_PAGES_LIMIT || (log > LOG_PAGES_MAX && uncopied < UNCOPIED_PAGES_MAX) {
        // Does not wait for readers: then it copies what it can and is tried again.
        let _ = connection.busy_timeout(Duration::ZERO);
        checkpoint(connection, "PRAGMA wal_checkpoint(RESTART)");
        let _ = connection.busy_timeout(BUSY_TIME_MAX);
        return Wal::Short;
    }
    if uncopied > UNCOPIED_PAGES_MAX { Wal::Long } else { Wal::Short }
}

/// Copies the log and cuts it to nothing, without waiting for readers. Yields whether it is cut.
pub(super) fn truncate(connection: &Connection) -> bool {
    let _ = connection.busy_timeout(Duration::ZERO);
    let left = checkpoint(connection, "PRAGMA wal_checkpoint(TRUNCATE)");
    let _ = connection.busy_timeout(BUSY_TIME_MAX);
    left == Some((0, 0))
}

/// Copies whenever it is asked to, until nobody can ask any more.
pub(super) fn run(connection: Connection, requests: &Receiver<()>, lock: Arc<Lock>) {
    while requests.recv().is_ok() {
        checkpoint(&connection, "PRAGMA wal_checkpoint(PASSIVE)");
    }
    drop(connection);
    drop(lock);
}

/// Pages in the log, and how many of them are in the database. A failure is no harm: the log only stays longer.
fn checkpoint(connection: &Connection, sql: &str) -> Option<(i64, i64)> {
    let pages = connection
        .prepare_cached(sql)
        .and_then(|mut statement| statement.query_row([], |row| Ok((row.get(1)?, row.get(2)?))));
    match pages {
        Ok(pages) => Some(pages),
        Err(error) => {
            records::LogUncopied { error: &error }.log();
            None
        }
    }
}
