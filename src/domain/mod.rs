//! The decisions, and nothing else: no async, no I/O, no clock, no randomness.
//!
//! Times and identifiers come in as arguments; what follows from them goes out as values. A store runs
//! [`lifecycle`] inside its transaction, the service runs [`reply`] and [`retry`] between attempts.
//!
//! - [`access`]: who asks, and what they may ask for
//! - [`command`]: what a caller asks for, and the rules that its fields obey
//! - [`connection`]: whom it concerns, and what is known of the order of effects there
//! - [`record`]: a command as it is kept, its states and its outcome
//! - [`lifecycle`]: accept, begin, finish: every transition of a record
//! - [`heal`]: what becomes of a connection whose newest value may have been overwritten
//! - [`reply`]: what an upstream answer means
//! - [`obstacle`]: why a request certainly was not processed
//! - [`drift`]: how an answer differs from the contract
//! - [`guest_connection`]: the upstream's resource, read tolerantly
//! - [`retry`]: how long to wait
//! - [`message`]: what is told to others: events, dead letters, replies
//! - [`error`]: every reason for which a command can be refused or end without success
//! - [`erasure`]: what goes when someone is to be forgotten, and what stays
//! - [`act`]: what administrators did
//! - [`seat`]: how instances divide work
//! - [`trace`]: the W3C trace context that a command carries

pub mod access;
pub mod act;
pub mod command;
pub mod connection;
pub mod drift;
pub mod erasure;
pub mod error;
pub mod guest_connection;
pub mod heal;
pub mod lifecycle;
pub mod message;
pub mod obstacle;
pub mod record;
pub mod reply;
pub mod retry;
pub mod seat;
pub mod trace;
pub mod traffic;

/// A point in time, UTC. Stores keep microseconds; whatever is finer is cut off on the way in.
pub type Timestamp = chrono::DateTime<chrono::Utc>;
