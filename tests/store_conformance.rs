//! The embedded store keeps the port's promises, and some of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of a test fails the test; clippy knows only the functions marked as tests"
)]

mod conformance;
mod sqlite;

conformance::store_conformance!(sqlite::SqliteHarness::new);
