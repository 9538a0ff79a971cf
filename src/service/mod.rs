//! The loop: decide, do, repeat.

pub mod archiver;
pub mod ports;
pub mod readiness;
