//! The upstream's client against sockets that behave and misbehave.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod adapter;
mod answers;
mod deaths;
mod http2;
mod names;
mod patch;
mod peer;
mod proxies;
mod rotation;
mod tls;
mod tokens;
