//! Organisations of a running adapter: added, rotated, removed, broken, and each with its own credentials and API.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tells a whole story"
)]

mod apart;
mod changes;
mod faults;
mod support;
