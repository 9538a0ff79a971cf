//! Traces and logs: a leaf that everything but the domain may use.

pub mod context;
