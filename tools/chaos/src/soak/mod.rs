//! `make soak`: what takes too long or too much for `make test`.
//!
//! - [`drain`]: a backlog of hundreds of thousands of messages in flat memory
//! - [`durations`]: the long times of the fault cases, as they are

pub mod counter;
pub mod drain;
pub mod durations;
pub mod memory;

use std::fmt::Display;
use std::time::Duration;

use chrono::Utc;

/// A part of the soak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// A large backlog drains in flat memory; all connections are closed once on the way.
    Drain,
    /// The broker is away for a quarter of an hour.
    Absence,
    /// A memory alarm of the broker for a minute.
    Alarm,
    /// A command deferred for ten minutes holds up none deferred for a second.
    Deferral,
    /// An upstream that hangs, and a broker that closes channels after a minute without an acknowledgement.
    Hang,
}

impl Part {
    /// All of them, the short ones first.
    pub const ALL: [Self; 5] = [Self::Alarm, Self::Hang, Self::Drain, Self::Deferral, Self::Absence];
}

/// What a part has shown.
pub type Outcome = Result<String, String>;

/// Makes one part.
///
/// # Errors
/// What is not as it should be.
pub async fn soak(part: Part, messages: usize) -> Outcome {
    match part {
        Part::Drain => drain::drain(messages).await,
        Part::Absence => durations::absence(Duration::from_secs(15 * 60)).await,
        Part::Alarm => durations::alarm(Duration::from_secs(60)).await,
        Part::Deferral => durations::deferral(Duration::from_secs(10 * 60)).await,
        Part::Hang => durations::hang(Duration::from_secs(60)).await,
    }
}

/// Says how far it has come.
#[allow(clippy::print_stdout, reason = "a long run has to say where it is")]
fn say(text: impl Display) {
    println!("{} {text}", Utc::now().format("%H:%M:%S"));
}

/// Fails with a text unless something holds.
fn ensure(holds: bool, text: impl FnOnce() -> String) -> Result<(), String> {
    if holds { Ok(()) } else { Err(text()) }
}
