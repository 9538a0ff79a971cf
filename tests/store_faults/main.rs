//! The store fails under a running adapter, or lies broken before one: seen from outside, with the real SQLite file.
//!
//! The disk fails at the boundary of the system calls: see `harness::disk`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tells a whole story"
)]

mod damage;
mod durability;
mod outage;
mod outcome;
mod support;
