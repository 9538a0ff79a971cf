//! The embedded store keeps the port's promises, and some of its own.

mod conformance;
mod sqlite;

conformance::store_conformance!(sqlite::SqliteHarness::new);
