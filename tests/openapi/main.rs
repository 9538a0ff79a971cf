//! The client, the simulator and the code's tables against `docs/mycreditapp.openapi.yaml`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod client;
mod document;
mod simulator;
mod tables;
