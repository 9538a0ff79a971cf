//! Who may call the gRPC door, and what those hear who may not: real tokens, real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tells a whole story"
)]

mod changes;
mod cost;
mod headers;
mod keys;
mod odd;
mod support;
mod tenants;
mod tokens;
