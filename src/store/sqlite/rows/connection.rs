//! Rows of the table `connections`.

use rusqlite::{CachedStatement, Connection as Database};

use super::super::error::Fault;
use super::{micros, optional_time, signed, unsigned, uuid};
use crate::domain::command::{CommandId, OrganizationId};
use crate::domain::connection::{Applied, Connection, ConnectionRecord, Quiet, Suspicion, Version};
use crate::store::operations::StoredConnection;

/// A connection, new if it is not known.
pub(in crate::store::sqlite) fn connection(
    database: &Database,
    connection: Connection,
) -> Result<StoredConnection, Fault> {
    let mut statement = database.prepare_cached(
        "SELECT number, effective_time_last, sequence, applied_time, applied_command, applied_archived,
             applied_requester, applied_certain, quiet_until, quiet_command, settle_until, suspect_since,
             heal_time
         FROM connections WHERE target = ?1 AND guest = ?2",
    )?;
    let mut rows = statement.query((connection.target.0.as_bytes(), connection.guest.0.as_bytes()))?;
    let Some(row) = rows.next()? else {
        return Ok(StoredConnection { number: None, record: ConnectionRecord::new(connection) });
    };
    let applied = match optional_time(row, 3)? {
        Some(effective_time) => Some(Applied {
            version: Version { effective_time, command_id: CommandId(uuid(row, 4)?) },
            archived: row.get(5)?,
            requester: OrganizationId(uuid(row, 6)?),
            certain: row.get(7)?,
        }),
        None => None,
    };
    let quiet = match optional_time(row, 8)? {
        Some(until) => Some(Quiet { until, command_id: CommandId(uuid(row, 9)?) }),
        None => None,
    };
    let record = ConnectionRecord {
        connection,
        effective_time_last: optional_time(row, 1)?,
        applied,
        sequence: unsigned(row.get(2)?)?,
        quiet,
        settle_until: optional_time(row, 10)?,
        suspicion: match (optional_time(row, 11)?, optional_time(row, 12)?) {
            (Some(since), Some(due)) => Some(Suspicion { since, due }),
            _ => None,
        },
    };
    Ok(StoredConnection { number: Some(row.get(0)?), record })
}

/// Enters a connection. Yields its number.
pub(in crate::store::sqlite) fn insert_connection(
    database: &Database,
    record: &ConnectionRecord,
) -> Result<i64, Fault> {
    let mut statement = database.prepare_cached(
        "INSERT INTO connections (effective_time_last, sequence, applied_time, applied_command, applied_archived,
             applied_requester, applied_certain, quiet_until, quiet_command, settle_until, suspect_since, heal_time,
             target, guest)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14)",
    )?;
    bind_changing(&mut statement, record)?;
    statement.raw_bind_parameter(13, record.connection.target.0.as_bytes())?;
    statement.raw_bind_parameter(14, record.connection.guest.0.as_bytes())?;
    statement.raw_execute()?;
    Ok(database.last_insert_rowid())
}

/// Writes a connection that is there. Yields its number.
pub(in crate::store::sqlite) fn update_connection(
    database: &Database,
    number: i64,
    record: &ConnectionRecord,
) -> Result<i64, Fault> {
    let mut statement = database.prepare_cached(
        "UPDATE connections SET effective_time_last = ?1, sequence = ?2, applied_time = ?3, applied_command = ?4,
             applied_archived = ?5, applied_requester = ?6, applied_certain = ?7, quiet_until = ?8,
             quiet_command = ?9, settle_until = ?10, suspect_since = ?11, heal_time = ?12
         WHERE number = ?13",
    )?;
    bind_changing(&mut statement, record)?;
    statement.raw_bind_parameter(13, number)?;
    statement.raw_execute()?;
    Ok(number)
}

/// Binds the first twelve parameters.
fn bind_changing(statement: &mut CachedStatement<'_>, record: &ConnectionRecord) -> Result<(), Fault> {
    let applied = record.applied.as_ref();
    statement.raw_bind_parameter(1, record.effective_time_last.map(micros))?;
    statement.raw_bind_parameter(2, signed(record.sequence)?)?;
    statement.raw_bind_parameter(3, applied.map(|applied| micros(applied.version.effective_time)))?;
    statement.raw_bind_parameter(4, applied.map(|applied| applied.version.command_id.0.into_bytes()))?;
    statement.raw_bind_parameter(5, applied.map(|applied| applied.archived))?;
    statement.raw_bind_parameter(6, applied.map(|applied| applied.requester.0.into_bytes()))?;
    statement.raw_bind_parameter(7, applied.map(|applied| applied.certain))?;
    statement.raw_bind_parameter(8, record.quiet.map(|quiet| micros(quiet.until)))?;
    statement.raw_bind_parameter(9, record.quiet.map(|quiet| quiet.command_id.0.into_bytes()))?;
    statement.raw_bind_parameter(10, record.settle_until.map(micros))?;
    statement.raw_bind_parameter(11, record.suspicion.map(|suspicion| micros(suspicion.since)))?;
    statement.raw_bind_parameter(12, record.suspicion.map(|suspicion| micros(suspicion.due)))?;
    Ok(())
}
