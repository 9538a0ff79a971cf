//! Twins, by one door or by both, at the same instant and in every state of the first: one PATCH, one event, one answer.
//! And the same key with other parameters: a conflict in every state.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tells a whole story"
)]

mod ended;
mod support;
mod under_way;
