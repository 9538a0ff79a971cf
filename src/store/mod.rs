//! Implementations of [`service::ports::Store`](crate::service::ports::Store).
//!
//! - [`sqlite`]: embedded, one file, one process; the default

pub mod sqlite;
