//! The fault cases of `docs/fault-cases.md`, each against the real part. A test's name begins with its case's number.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tells a whole story"
)]

mod callers;
mod connections;
mod edges;
mod order;
mod poison;
mod publishing;
mod queues;
mod rewriter;
mod settling;
mod support;
mod upstream;

/// The program under test.
const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");
