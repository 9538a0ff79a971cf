//! The running adapter when its database goes away, restarts, or takes no writes: calls are told to come again, messages wait,
//! and all goes on by itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod read_only;
mod restart;
mod support;
