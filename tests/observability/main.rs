//! What is shipped for whoever is on call fits the program: rules, dashboards and runbooks name only what a running adapter shows,
//! and each alert has its page and its rule tests.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod dashboards;
mod files;
mod names;
mod promql;
mod rules;
mod runbooks;
mod scrape;
mod traces;
mod traffic;

const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");
