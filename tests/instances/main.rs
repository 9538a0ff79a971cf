//! Several instances on one PostgreSQL and one RabbitMQ: the promises hold across them, seen from outside.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod cluster;
mod late;
mod promises;
mod rolling;
