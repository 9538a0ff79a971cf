//! How messages look in JSON, whatever carries them: pure, and imported by every edge that hands messages out.
//!
//! - [`cloudevents`]: an event as a CloudEvent 1.0
//! - [`command`]: a command in the form in which the command queue takes it, and with its history
//! - [`reply`]: the answer to one who asked for it in writing

pub mod cloudevents;
pub mod command;
pub mod reply;

#[cfg(test)]
pub mod samples;

use chrono::SecondsFormat;

use crate::domain::Timestamp;

/// RFC 3339 with microseconds, as stores keep them.
#[must_use]
pub fn time_text(time: Timestamp) -> String {
    time.to_rfc3339_opts(SecondsFormat::Micros, true)
}
