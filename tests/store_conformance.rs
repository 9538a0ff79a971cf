//! The embedded store keeps the port's promises, and some of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tells a whole story"
)]

mod conformance;
mod sqlite;

conformance::store_conformance!(sqlite::SqliteHarness::new);
