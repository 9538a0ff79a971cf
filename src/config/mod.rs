//! The configuration: a TOML file and the environment, every fault told at once.
//!
//! - [`sections`]: every key, its meaning and its default
//! - [`load`](self): file and environment into a [`Config`]
//! - [`list`](self): lists, which the environment writes with commas
//! - [`source`](self): the same again, later
//! - [`rules`](self): bounds and relations
//! - [`admin`](self): the lock of the admin door
//! - [`principals`](self): who may ask, and the rules for that
//! - [`jwt`](self): bearer tokens, and the rules for them
//! - [`doors`](self): the locks of the gRPC door
//! - [`broker`](self): the section of the broker, and rules for its credentials and the senders of messages
//! - [`store`](self): the rules for where commands are kept
//! - [`telemetry`](self): the section of logs, traces and metrics, and its rules
//! - [`secrets`](self): secrets by files of their own or by the environment
//! - [`reference`]: the example file and the table of keys, made of the doc comments

mod admin;
mod broker;
mod defaults;
mod doors;
mod fault;
mod jwt;
mod list;
mod load;
mod principals;
mod rules;
mod secrets;
mod settings;
mod source;
mod store;
mod telemetry;

pub mod reference;
pub mod sections;

pub use fault::{Fault, Faults};
pub use load::load;
pub use sections::Config;
pub use source::{Reading, Source};

/// What every environment variable of the configuration begins with.
pub const PREFIX: &str = "GCA_";

/// What stands between section and key in the name of an environment variable.
const SEPARATOR: &str = "__";

/// The environment variable for a key: `grpc.listen` is `GCA_GRPC__LISTEN`.
#[must_use]
pub fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', SEPARATOR).to_uppercase())
}
