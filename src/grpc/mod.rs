//! The gRPC door.

pub use crate::proto;
