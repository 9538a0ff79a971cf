//! What the writer need not read again, since it has written it last.

use std::collections::HashMap;

use rusqlite::Connection as Database;

use super::error::Fault;
use crate::domain::command::CommandId;
use crate::domain::connection::{Connection, ConnectionRecord};
use crate::domain::record::{CommandRecord, State};
use crate::store::operations::StoredConnection;

/// Rows of each kind that are kept, at most.
const LENGTH_MAX: usize = 4_096;

/// Rows as they are in the database: a claim ends soon after it began, and its command and connection are looked at again then.
///
/// Whoever changes such a row by other means than [`Kept::note_command`] and [`Kept::note_connection`] has to
/// [clear](Kept::clear) it, and so does whoever takes back what was written.
#[derive(Debug, Default)]
pub(super) struct Kept {
    /// Those under a claim that have no event yet: nobody changes them but who begins and ends claims.
    commands: HashMap<CommandId, CommandRecord>,
    connections: HashMap<Connection, StoredConnection>,
    /// Changes when another program has changed the database.
    version: i64,
}

impl Kept {
    pub(super) fn clear(&mut self) {
        self.commands.clear();
        self.connections.clear();
    }

    /// Clears what another program has changed since, and tells whether one has. To be called within a transaction.
    pub(super) fn refresh(&mut self, database: &Database) -> Result<bool, Fault> {
        let version = database.prepare_cached("PRAGMA data_version")?.query_row([], |row| row.get(0))?;
        let is_changed = version != self.version;
        if is_changed {
            self.clear();
            self.version = version;
        }
        Ok(is_changed)
    }

    /// Gives a command out; whoever writes it notes it anew.
    pub(super) fn take_command(&mut self, id: CommandId) -> Option<CommandRecord> {
        self.commands.remove(&id)
    }

    pub(super) fn connection(&self, connection: Connection) -> Option<StoredConnection> {
        self.connections.get(&connection).cloned()
    }

    pub(super) fn note_command(&mut self, record: &CommandRecord) {
        if record.state == State::InFlight && record.event.is_none() {
            make_room(&mut self.commands);
            self.commands.insert(record.id, record.clone());
        } else {
            self.commands.remove(&record.id);
        }
    }

    pub(super) fn note_connection(&mut self, number: i64, record: &ConnectionRecord) {
        make_room(&mut self.connections);
        let stored = StoredConnection { number: Some(number), record: record.clone() };
        self.connections.insert(record.connection, stored);
    }
}

fn make_room<K, V>(rows: &mut HashMap<K, V>) {
    if rows.len() >= LENGTH_MAX {
        rows.clear();
    }
}
