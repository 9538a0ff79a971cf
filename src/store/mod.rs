//! Implementations of [`service::ports::Store`](crate::service::ports::Store).
//!
//! - [`sqlite`]: embedded, one file, one process; the default
//! - [`postgres`]: a PostgreSQL database, for many instances
//! - `operations`: what becomes of commands, the same in both
//! - `values`: values as they are kept

mod operations;
pub mod postgres;
pub mod sqlite;
mod values;
