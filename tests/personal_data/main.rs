//! What is kept of people, how it goes, and who may see to that: on the running adapter, from outside.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a helper of a test fails the test; clippy knows only the functions marked as tests"
)]

mod commands;
mod door;
mod files;
mod forgetting;
mod support;
