//! One command is one trace, seen by a real OTLP receiver.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tells a whole story"
)]

mod hostile;
mod lasting;
mod private;
mod sampling;
mod shape;
mod support;
mod times;
