//! Records to rows and back: times, identifiers, numbers and JSON; commands and connections in files of their own.

mod command;
mod connection;

use chrono::DateTime;
use rusqlite::Row;
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

pub(super) use command::{blocker, command_by_id, command_by_key, is_behind, requester, write_command};
pub(super) use connection::{StoredConnection, connection, write_connection};

use super::error::Fault;
use crate::domain::Timestamp;

pub(super) fn micros(time: Timestamp) -> i64 {
    time.timestamp_micros()
}

pub(super) fn time(micros: i64) -> Result<Timestamp, Fault> {
    DateTime::from_timestamp_micros(micros).ok_or_else(|| Fault::Row(format!("{micros} is no time")))
}

fn optional_time(row: &Row<'_>, column: usize) -> Result<Option<Timestamp>, Fault> {
    row.get::<_, Option<i64>>(column)?.map(time).transpose()
}

pub(super) fn uuid(row: &Row<'_>, column: usize) -> Result<Uuid, Fault> {
    Ok(Uuid::from_bytes(row.get(column)?))
}

pub(super) fn unsigned<T: TryFrom<i64>>(number: i64) -> Result<T, Fault> {
    T::try_from(number).map_err(|_| Fault::Row(format!("{number} is out of range")))
}

fn signed(number: u64) -> Result<i64, Fault> {
    i64::try_from(number).map_err(|_| Fault::Value("a number is too large"))
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String, Fault> {
    serde_json::to_string(value).map_err(|_| Fault::Value("it has no JSON form"))
}

/// Says where the fault is and not what stands there: the text holds personal data.
pub(super) fn from_json<T: DeserializeOwned>(column: &str, text: &str) -> Result<T, Fault> {
    serde_json::from_str(text).map_err(|error| {
        Fault::Row(format!(
            "{column} has unexpected JSON at line {}, column {}",
            error.line(),
            error.column()
        ))
    })
}
