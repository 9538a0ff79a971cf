//! The simulator from outside: over sockets, by its handle, and as a program.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tells a whole story"
)]

mod common;
mod faults;
mod handle;
mod limits;
mod program;
mod strictness;
