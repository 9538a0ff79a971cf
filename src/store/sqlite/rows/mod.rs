//! Records to rows and back; commands and connections in files of their own.

mod command;
mod connection;

use rusqlite::Row;
use uuid::Uuid;

pub(super) use command::{blocker, command_by_id, command_by_key, is_behind, requester, write_command};
pub(super) use connection::{connection, insert_connection, update_connection};

use super::error::Fault;
use crate::domain::Timestamp;
pub(super) use crate::store::values::{from_json, json, micros, signed, time, unsigned};

fn optional_time(row: &Row<'_>, column: usize) -> Result<Option<Timestamp>, Fault> {
    Ok(row.get::<_, Option<i64>>(column)?.map(time).transpose()?)
}

pub(super) fn uuid(row: &Row<'_>, column: usize) -> Result<Uuid, Fault> {
    Ok(Uuid::from_bytes(row.get(column)?))
}
