//! Callers that flood, dawdle or hoard: each is cut off, and others are served meanwhile.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod connections;
mod floods;
mod support;
