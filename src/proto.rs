//! What build.rs made of the contract in `proto/`. Both doors speak it.
#![allow(clippy::all, clippy::pedantic, missing_docs, reason = "generated code")]

tonic::include_proto!("guestconnections.v1");

/// The contract's descriptors, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest_connections.bin"));
