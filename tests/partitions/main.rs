//! Order across instances: partitions by connection, their moves, and how their number changes.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod changes;
mod mistakes;
mod moves;
mod routes;
mod support;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");
