//! The gRPC door.
//!
//! - [`server`]: listens, serves health and reflection, drains
//! - [`call`]: what surrounds every call: its span, its arrival time, refusals of the transport
//! - [`incoming`]: takes connections in: how many, from where, and their handshakes
//! - [`connection`]: one of them, with or without TLS
//! - [`guard`]: cuts floods and silent connections off
//! - [`peer`]: who is at the other end of a connection
//! - [`authenticate`]: lets in only those calls whose caller is known
//! - [`callers`]: what a call proves, whose identity that is, and how often it may
//! - [`service`]: the three RPCs
//! - [`admission`]: how many calls are served at once, and none while draining
//! - [`deadline`]: when a call must be answered
//! - [`convert`]: messages of the contract into commands, records into messages
//! - [`status`]: the one table of reasons and codes
//! - `records`: what it logs

pub mod admission;
pub mod authenticate;
pub mod call;
pub mod callers;
pub mod connection;
pub mod convert;
pub mod deadline;
#[cfg(test)]
mod fixture;
pub mod guard;
pub mod incoming;
pub mod peer;
pub(crate) mod records;
pub mod server;
pub mod service;
pub mod status;

pub use crate::proto;
