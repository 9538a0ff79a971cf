//! Implementations of [`service::ports::Store`](crate::service::ports::Store).
//!
//! - [`sqlite`]: embedded, one file, one process; the default
//! - [`postgres`]: a PostgreSQL database, for many instances
//! - `operations`: what becomes of commands, the same in both
//! - `answer`: the way back of an answer
//! - `values`: values as they are kept

mod answer;
mod operations;
pub mod postgres;
pub mod sqlite;
mod values;
