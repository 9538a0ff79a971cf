//! Metrics of a running adapter.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tells a whole story"
)]

mod bounds;
mod export;
mod states;

const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");
