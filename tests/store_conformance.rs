//! Both stores keep the port's promises, and each some of its own.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of a test fails the test; clippy knows only the functions marked as tests"
)]

mod conformance;
mod postgres;
mod sqlite;

mod embedded {
    crate::conformance::store_conformance!(crate::sqlite::SqliteHarness::new);
}

mod on_postgres {
    crate::conformance::store_conformance!(crate::postgres::PostgresHarness::new);
}
