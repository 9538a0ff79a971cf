//! The RabbitMQ edge against a real broker: run under `scripts/broker run -- cargo test --test amqp_edge`.
//! Every test has exchanges and queues of its own, so that they can share one broker.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    clippy::unused_async,
    reason = "a test fails by panicking, and tells a whole story"
)]

#[path = "amqp_edge/consumer.rs"]
mod consumer;
#[path = "amqp_edge/panics.rs"]
mod panics;
#[path = "amqp_edge/partitions.rs"]
mod partitions;
#[path = "amqp_edge/pipeline.rs"]
mod pipeline;
#[path = "amqp_edge/publisher.rs"]
mod publisher;
#[path = "amqp_edge/support.rs"]
mod support;
