//! Implementations of [`service::ports::Store`](crate::service::ports::Store).
//!
//! - [`sqlite`]: embedded, one file, one process; the default
//! - [`postgres`]: a PostgreSQL database, for many instances
//! - `operations`: what becomes of commands, the same in both
//! - `answer`: the way back of an answer
//! - `values`: values as they are kept
//! - `records`: what both log

mod answer;
mod operations;
pub mod postgres;
pub(crate) mod records;
pub mod sqlite;
mod values;
