//! Rows of the table `connections`.

use rusqlite::{Connection as Database, named_params};

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

/// Writes `record` over `stored` where they differ. Yields the connection's number.
pub(in crate::store::sqlite) fn write_connection(
    database: &Database,
    stored: &StoredConnection,
    record: &ConnectionRecord,
) -> Result<i64, Fault> {
    if let Some(number) = stored.number
        && stored.record == *record
    {
        return Ok(number);
    }
    let applied = record.applied.as_ref();
    let mut statement = database.prepare_cached(
        "INSERT INTO connections (target, guest, effective_time_last, sequence, applied_time, applied_command,
             applied_archived, applied_requester, applied_certain, quiet_until, quiet_command, settle_until,
             suspect_since, heal_time)
         VALUES (:target, :guest, :effective_time_last, :sequence, :applied_time, :applied_command, :applied_archived,
             :applied_requester, :applied_certain, :quiet_until, :quiet_command, :settle_until, :suspect_since,
             :heal_time)
         ON CONFLICT (target, guest) DO UPDATE SET
             effective_time_last = excluded.effective_time_last, sequence = excluded.sequence,
             applied_time = excluded.applied_time, applied_command = excluded.applied_command,
             applied_archived = excluded.applied_archived, applied_requester = excluded.applied_requester,
             applied_certain = excluded.applied_certain, quiet_until = excluded.quiet_until,
             quiet_command = excluded.quiet_command, settle_until = excluded.settle_until,
             suspect_since = excluded.suspect_since, heal_time = excluded.heal_time
         RETURNING number",
    )?;
    let number = statement.query_row(
        named_params! {
            ":target": record.connection.target.0.as_bytes(),
            ":guest": record.connection.guest.0.as_bytes(),
            ":effective_time_last": record.effective_time_last.map(micros),
            ":sequence": signed(record.sequence)?,
            ":applied_time": applied.map(|applied| micros(applied.version.effective_time)),
            ":applied_command": applied.map(|applied| applied.version.command_id.0.into_bytes()),
            ":applied_archived": applied.map(|applied| applied.archived),
            ":applied_requester": applied.map(|applied| applied.requester.0.into_bytes()),
            ":applied_certain": applied.map(|applied| applied.certain),
            ":quiet_until": record.quiet.map(|quiet| micros(quiet.until)),
            ":quiet_command": record.quiet.map(|quiet| quiet.command_id.0.into_bytes()),
            ":settle_until": record.settle_until.map(micros),
            ":suspect_since": record.suspicion.map(|suspicion| micros(suspicion.since)),
            ":heal_time": record.suspicion.map(|suspicion| micros(suspicion.due)),
        },
        |row| row.get(0),
    )?;
    Ok(number)
}
