//! The rows that [`operations`](crate::store::operations) change, and what the writer does besides.

use std::sync::Arc;

use chrono::TimeDelta;
use rusqlite::OptionalExtension as _;

use super::error::Fault;
use super::fresh::Row;
use super::rows::{self, micros};
use super::task::Scope;
use crate::domain::Timestamp;
use crate::domain::command::{CommandId, IdempotencyKey, OrganizationId};
use crate::domain::connection::{Connection, ConnectionRecord};
use crate::domain::lifecycle::Terms;
use crate::domain::message::Message;
use crate::domain::record::CommandRecord;
use crate::service::ports::OutboxRow;
use crate::store::operations::{Rows, StoredConnection};

impl Rows for Scope<'_> {
    type Fault = Fault;

    fn now(&self) -> Timestamp {
        Scope::now(self)
    }

    fn terms(&self) -> Terms {
        self.shared.terms
    }

    fn unknown(id: CommandId) -> Fault {
        Fault::Unknown(id)
    }

    fn command_by_id(&mut self, id: CommandId) -> Result<Option<CommandRecord>, Fault> {
        match self.kept.take_command(id) {
            Some(record) => Ok(Some(record)),
            None => rows::command_by_id(self.connection, id),
        }
    }

    fn command_by_key(
        &self,
        requester: OrganizationId,
        key: &IdempotencyKey,
    ) -> Result<Option<CommandRecord>, Fault> {
        rows::command_by_key(self.connection, requester, key)
    }

    fn connection(&self, connection: Connection) -> Result<StoredConnection, Fault> {
        match self.kept.connection(connection) {
            Some(stored) => Ok(stored),
            None => rows::connection(self.connection, connection),
        }
    }

    fn blocker(&self, connection: i64, id: CommandId) -> Result<Option<CommandRecord>, Fault> {
        rows::blocker(self.connection, connection, id)
    }

    fn is_behind(&self, connection: i64, arrival: i64) -> Result<bool, Fault> {
        rows::is_behind(self.connection, connection, arrival)
    }

    fn write_connection(
        &mut self,
        stored: &StoredConnection,
        record: &ConnectionRecord,
    ) -> Result<i64, Fault> {
        let number = match stored.number {
            Some(number) if stored.record == *record => return Ok(number),
            Some(number) => rows::update_connection(self.connection, number, record)?,
            None => rows::insert_connection(self.connection, record)?,
        };
        self.kept.note_connection(number, record);
        Ok(number)
    }

    fn write_command(&mut self, record: &mut CommandRecord, connection: i64) -> Result<(), Fault> {
        self.tally.registered += i64::from(record.arrival == 0);
        rows::write_command(self.connection, record, connection)?;
        self.kept.note_command(record);
        Ok(())
    }

    fn enqueue(&mut self, arrival: i64, message: Message) -> Result<(), Fault> {
        let event_id = match &message {
            Message::Event(event) => Some(event.id.into_bytes()),
            Message::DeadLetter(_) | Message::Reply(_) => None,
        };
        let mut statement = self
            .connection
            .prepare_cached("INSERT INTO outbox (command, event_id, message) VALUES (?1, ?2, ?3)")?;
        let text = rows::json(&message)?;
        statement.execute((arrival, event_id, &text))?;
        let row = OutboxRow { number: self.connection.last_insert_rowid(), message: Arc::new(message) };
        self.outbox.written.push(Row { row, bytes: text.len() });
        self.tally.outbox_written += 1;
        Ok(())
    }

    fn wake(&mut self, connection: i64, wake_time: Timestamp) -> Result<(), Fault> {
        // Mostly nobody stands in line: to look costs less than to change nothing.
        let mut first = self.connection.prepare_cached(
            "SELECT arrival FROM commands WHERE connection = ?1 AND in_line = 1 ORDER BY arrival LIMIT 1",
        )?;
        let first: Option<i64> = first.query_row([connection], |row| row.get(0)).optional()?;
        let Some(first) = first else { return Ok(()) };
        let mut statement = self.connection.prepare_cached(
            "UPDATE commands SET due_time = ?2
             WHERE arrival = ?1 AND due_time > ?2 AND (waiting = 1 OR due_time > ?3)",
        )?;
        let hold_end = wake_time + self.shared.terms.hold;
        statement.execute((first, micros(wake_time), micros(hold_end)))?;
        Ok(())
    }

    fn note_refused_finish(&mut self) {
        self.tally.finishes_refused += 1;
    }
}

/// Takes confirmed rows out of the outbox. Numbers that are not there any more are passed over.
pub(super) fn confirm(scope: &mut Scope<'_>, numbers: &[i64]) -> Result<(), Fault> {
    let now = micros(scope.now());
    let mut find =
        scope.connection.prepare_cached("SELECT command, event_id FROM outbox WHERE number = ?1")?;
    let mut take = scope.connection.prepare_cached("DELETE FROM outbox WHERE number = ?1")?;
    // A redrive may have given the command another event since.
    let mut note = scope.connection.prepare_cached(
        "UPDATE commands SET event_confirmed_time = ?3 WHERE arrival = ?1 AND event_id = ?2",
    )?;
    for number in numbers {
        let found: Option<(i64, Option<[u8; 16]>)> =
            find.query_row([number], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some((arrival, event_id)) = found else { continue };
        take.execute([number])?;
        scope.outbox.taken.push(*number);
        scope.tally.outbox_confirmed += 1;
        if let Some(event_id) = event_id {
            note.execute((arrival, event_id, now))?;
        }
    }
    Ok(())
}

/// Forgets what is final for longer than the retention and fully told.
pub(super) fn purge(scope: &mut Scope<'_>, limit: usize) -> Result<u64, Fault> {
    // A retention longer than time itself keeps everything.
    let Some(horizon) = scope.now().checked_sub_signed(scope.shared.retention.max(TimeDelta::zero())) else {
        return Ok(0);
    };
    let mut statement = scope.connection.prepare_cached(
        "DELETE FROM commands WHERE arrival IN (
             SELECT arrival FROM commands WHERE finished_time < ?1
                 AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.command = commands.arrival)
             ORDER BY finished_time LIMIT ?2)",
    )?;
    let purged = statement.execute((micros(horizon), i64::try_from(limit).unwrap_or(i64::MAX)))?;
    scope.tally.registered -= i64::try_from(purged).unwrap_or(i64::MAX);
    Ok(u64::try_from(purged).unwrap_or(u64::MAX))
}

/// Writes something that nobody reads.
pub(super) fn probe(scope: &mut Scope<'_>) -> Result<(), Fault> {
    let now = micros(scope.now());
    scope.connection.prepare_cached("UPDATE totals SET probe_time = ?1")?.execute([now])?;
    Ok(())
}
