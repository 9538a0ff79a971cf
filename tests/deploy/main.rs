//! What is shipped for containers fits the program: its configurations are good where and as the manifests mount them, and what
//! they name is there.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod compose;
mod kubernetes;
mod manifests;
mod mounted;
mod observability;
mod started;

const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");
