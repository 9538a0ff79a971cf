//! One that fails, is refused, limited or slow harms nobody else, and the upstream gets no more than it bears: seen from
//! outside, on the running adapter.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tells a whole story"
)]

mod doors;
mod limits;
mod neighbours;
mod one_of_five;
mod outage;
mod pauses;
mod refused;
mod retries;
mod spans;
mod support;
