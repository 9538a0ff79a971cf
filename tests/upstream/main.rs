//! The upstream's client against sockets that behave and misbehave.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod patch;
mod peer;
mod rotation;
mod tokens;
