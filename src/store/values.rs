//! Values as every store keeps them: times in whole microseconds since 1970-01-01T00:00:00Z, and JSON as text.

use chrono::DateTime;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::domain::Timestamp;

/// A value that is not what it should be. The text holds nothing that was kept: that may be personal data.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Odd {
    /// It was read.
    #[error("a row cannot be read: {0}")]
    Read(String),
    /// It was to be written.
    #[error("a value cannot be written: {0}")]
    Written(&'static str),
}

pub(super) fn micros(time: Timestamp) -> i64 {
    time.timestamp_micros()
}

pub(super) fn time(micros: i64) -> Result<Timestamp, Odd> {
    DateTime::from_timestamp_micros(micros).ok_or_else(|| Odd::Read(format!("{micros} is no time")))
}

pub(super) fn unsigned<T: TryFrom<i64>>(number: i64) -> Result<T, Odd> {
    T::try_from(number).map_err(|_| Odd::Read(format!("{number} is out of range")))
}

pub(super) fn signed(number: u64) -> Result<i64, Odd> {
    i64::try_from(number).map_err(|_| Odd::Written("a number is too large"))
}

pub(super) fn json<T: Serialize>(value: &T) -> Result<String, Odd> {
    serde_json::to_string(value).map_err(|_| Odd::Written("it has no JSON form"))
}

/// Says where the fault is and not what stands there: the text holds personal data.
pub(super) fn from_json<T: DeserializeOwned>(column: &str, text: &str) -> Result<T, Odd> {
    serde_json::from_str(text).map_err(|error| {
        Odd::Read(format!("{column} has unexpected JSON at line {}, column {}", error.line(), error.column()))
    })
}
