//! The gRPC door behind TLS: real handshakes with certificates made on the spot, and files that are replaced while it runs.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod handshakes;
mod rotation;
mod start;
mod support;
