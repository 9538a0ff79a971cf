//! As whom the adapter connects to a real broker, and whom it lets in by it.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod permissions;
mod rotation;
mod senders;
mod support;
mod tls;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");
