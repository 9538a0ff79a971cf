//! The rows that a batch of changes needs, read beforehand, and what becomes of them, to be written at once.

use std::collections::{HashMap, HashSet};

use super::error::Fault;
use super::rows::StoredCommand;
use crate::domain::Timestamp;
use crate::domain::command::{CommandId, IdempotencyKey, OrganizationId};
use crate::domain::connection::{Connection, ConnectionRecord};
use crate::domain::lifecycle::Terms;
use crate::domain::message::Message;
use crate::domain::record::CommandRecord;
use crate::store::operations::{Rows, StoredConnection};

/// What a change is about.
#[derive(Debug, Clone, Default)]
pub(super) struct Needs {
    /// A command that is known.
    pub(super) id: Option<CommandId>,
    /// A connection that is known or may have to be entered.
    pub(super) connection: Option<Connection>,
    /// A key of that requester.
    pub(super) key: Option<(OrganizationId, String)>,
    /// Whether the newest applied command of the connection is looked at.
    pub(super) is_healed: bool,
}

/// What a later change must not overtake others in.
#[derive(Debug, Clone, Default)]
pub(super) struct Taken {
    connections: HashSet<Connection>,
    keys: HashSet<(OrganizationId, String)>,
    ids: HashSet<CommandId>,
}

impl Taken {
    /// Adds what a change names. Whether none of it was there.
    pub(super) fn add_first(&mut self, needs: &Needs) -> bool {
        let connection = needs.connection.is_none_or(|connection| self.connections.insert(connection));
        let key = needs.key.as_ref().is_none_or(|key| self.keys.insert(key.clone()));
        let id = needs.id.is_none_or(|id| self.ids.insert(id));
        connection && key && id
    }

    fn add(&mut self, connection: Option<Connection>, key: Option<&(OrganizationId, String)>) {
        self.connections.extend(connection);
        self.keys.extend(key.cloned());
    }

    fn is_clear_of(&self, connection: Option<Connection>, key: Option<&(OrganizationId, String)>) -> bool {
        connection.is_none_or(|connection| !self.connections.contains(&connection))
            && key.is_none_or(|key| !self.keys.contains(key))
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.connections.extend(other.connections);
        self.keys.extend(other.keys);
    }
}

/// When a change may be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    Now,
    /// After another one that is about the same.
    Later,
    /// When somebody else has let go of a row.
    Held,
}

/// What was read. Connections are locked, and so are the commands that may be changed, but for those that are `held`.
#[derive(Default)]
pub(super) struct Loaded {
    pub(super) connections: HashMap<Connection, (i64, ConnectionRecord)>,
    pub(super) commands: HashMap<CommandId, CommandRecord>,
    pub(super) keys: HashMap<(OrganizationId, String), CommandId>,
    /// Commands that somebody else has, or that are only looked at.
    pub(super) held: HashSet<CommandId>,
    /// Commands that let no other one begin, by connection.
    pub(super) blocking: HashMap<i64, Vec<CommandRecord>>,
    /// The arrival number of the first in line, by connection.
    pub(super) line: HashMap<i64, i64>,
    /// Arrival numbers to be given.
    pub(super) arrivals: Vec<i64>,
}

/// What is to be written.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) connections: Vec<(i64, ConnectionRecord)>,
    pub(super) inserted: Vec<StoredCommand>,
    pub(super) updated: Vec<StoredCommand>,
    /// The epochs of those that are updated, as they were read.
    pub(super) epochs: Vec<i64>,
    pub(super) messages: Vec<(i64, Message)>,
    pub(super) wakes: Vec<(i64, Timestamp)>,
    pub(super) finishes_refused: u64,
}

impl Changes {
    fn append(&mut self, mut other: Self) {
        self.connections.append(&mut other.connections);
        self.inserted.append(&mut other.inserted);
        self.updated.append(&mut other.updated);
        self.epochs.append(&mut other.epochs);
        self.messages.append(&mut other.messages);
        self.wakes.append(&mut other.wakes);
        self.finishes_refused += other.finishes_refused;
    }
}

/// A batch at work.
pub(super) struct Workspace {
    now: Timestamp,
    terms: Terms,
    loaded: Loaded,
    changes: Changes,
    /// Of the change that is made at present.
    present: Changes,
    /// What a change of this batch was about: another one has to wait for the next batch.
    taken: Taken,
    /// What those are about that have to wait.
    owed: Taken,
}

impl Workspace {
    /// With what is `taken` already by changes that were put off.
    pub(super) fn new(now: Timestamp, terms: Terms, loaded: Loaded, taken: Taken) -> Self {
        Self {
            now,
            terms,
            loaded,
            changes: Changes::default(),
            present: Changes::default(),
            taken,
            owed: Taken::default(),
        }
    }

    /// Whether a change may be made now. What it is about is its own from then on, also if it has to wait: then those wait, too,
    /// that come after it.
    pub(super) fn take(&mut self, needs: &Needs) -> Turn {
        let by_key = needs.key.as_ref().and_then(|key| self.loaded.keys.get(key).copied());
        let id = needs.id.or(by_key);
        let command = id.and_then(|id| self.loaded.commands.get(&id));
        let connection = needs.connection.or(command.map(|record| record.command.connection));
        let is_held = id.is_some_and(|id| self.loaded.held.contains(&id))
            || connection.is_some_and(|connection| !self.loaded.connections.contains_key(&connection));
        let turn = match self.taken.is_clear_of(connection, needs.key.as_ref()) {
            _ if is_held => Turn::Held,
            true => Turn::Now,
            false => Turn::Later,
        };
        self.taken.add(connection, needs.key.as_ref());
        if turn != Turn::Now {
            self.owed.add(connection, needs.key.as_ref());
        }
        turn
    }

    /// Keeps or forgets what the present change has written.
    pub(super) fn settle(&mut self, is_good: bool) {
        let present = std::mem::take(&mut self.present);
        if is_good {
            self.changes.append(present);
        }
    }

    /// What is to be written, and what is owed to those that have to wait.
    pub(super) fn into_changes(self) -> (Changes, Taken) {
        (self.changes, self.owed)
    }
}

impl Rows for Workspace {
    type Fault = Fault;

    fn now(&self) -> Timestamp {
        self.now
    }

    fn terms(&self) -> Terms {
        self.terms
    }

    fn unknown(id: CommandId) -> Fault {
        Fault::Unknown(id)
    }

    fn command_by_id(&mut self, id: CommandId) -> Result<Option<CommandRecord>, Fault> {
        Ok(self.loaded.commands.get(&id).cloned())
    }

    fn command_by_key(
        &self,
        requester: OrganizationId,
        key: &IdempotencyKey,
    ) -> Result<Option<CommandRecord>, Fault> {
        let id = self.loaded.keys.get(&(requester, key.as_str().to_owned()));
        Ok(id.and_then(|id| self.loaded.commands.get(id)).cloned())
    }

    fn connection(&self, connection: Connection) -> Result<StoredConnection, Fault> {
        Ok(match self.loaded.connections.get(&connection) {
            Some((number, record)) => StoredConnection { number: Some(*number), record: record.clone() },
            None => StoredConnection { number: None, record: ConnectionRecord::new(connection) },
        })
    }

    fn blocker(&self, connection: i64, id: CommandId) -> Result<Option<CommandRecord>, Fault> {
        let others = self.loaded.blocking.get(&connection).into_iter().flatten();
        Ok(others.filter(|other| other.id != id).max_by_key(|other| other.due_time).cloned())
    }

    fn is_behind(&self, connection: i64, arrival: i64) -> Result<bool, Fault> {
        Ok(self.loaded.line.get(&connection).is_some_and(|first| *first < arrival))
    }

    fn write_connection(
        &mut self,
        stored: &StoredConnection,
        record: &ConnectionRecord,
    ) -> Result<i64, Fault> {
        let number = stored.number.ok_or_else(|| Fault::Other("a connection was not entered".to_owned()))?;
        if stored.record != *record {
            self.present.connections.push((number, record.clone()));
        }
        Ok(number)
    }

    fn write_command(&mut self, record: &mut CommandRecord, connection: i64) -> Result<(), Fault> {
        if record.arrival == 0 {
            let arrival = self.loaded.arrivals.pop();
            record.arrival = arrival.ok_or_else(|| Fault::Other("there is no number left".to_owned()))?;
            self.present.inserted.push(StoredCommand { record: record.clone(), connection });
        } else {
            let before = self.loaded.commands.get(&record.id).ok_or(Fault::Unknown(record.id))?;
            self.present.epochs.push(before.epoch);
            self.present.updated.push(StoredCommand { record: record.clone(), connection });
        }
        Ok(())
    }

    fn enqueue(&mut self, arrival: i64, message: Message) -> Result<(), Fault> {
        self.present.messages.push((arrival, message));
        Ok(())
    }

    fn wake(&mut self, connection: i64, wake_time: Timestamp) -> Result<(), Fault> {
        self.present.wakes.push((connection, wake_time));
        Ok(())
    }

    fn note_refused_finish(&mut self) {
        self.present.finishes_refused += 1;
    }
}
