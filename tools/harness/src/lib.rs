//! The real parts around the adapter, for tests and the demo: the adapter as a process of its own, a broker, an OTLP
//! receiver. The upstream is the `simulator` crate.
//!
//! What cannot be had panics with a word on what to do: there is nothing to test without it.

#![allow(clippy::panic, clippy::expect_used, clippy::unwrap_used, reason = "a harness fails by panicking")]
#![allow(clippy::missing_panics_doc, reason = "said once, above")]

pub mod adapter;
pub mod broker;
pub mod caller;
pub mod collector;
pub mod database;
pub mod disk;
pub mod http;
pub mod issuer;
pub mod lines;
pub mod measure;
pub mod node;
pub mod organization;
pub mod proxy;
pub mod server;
pub mod tls;
pub mod tree;
pub mod world;

use std::time::Duration;

pub use adapter::{Adapter, Setup};
pub use broker::{Broker, Names};
pub use collector::Collector;
pub use database::Database;
pub use disk::Disk;
pub use node::Node;
pub use organization::Organization;
pub use proxy::{Direction, FaultProxy};
pub use server::Server;
pub use world::{Upstream, World};

/// How long a test waits for something that should come at once. Generous: a loaded machine must fail no test.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Waits a moment before something is looked at again. Whoever looks all the time takes the processor from what is looked at,
/// and on a virtual machine from its disk as well: there a commit has been seen to take 30 s until the looking ended.
pub async fn look_again() {
    tokio::time::sleep(Duration::from_millis(10)).await;
}

/// A temporary folder for its owner alone, as a store wants it.
#[must_use]
pub fn private_folder() -> tempfile::TempDir {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::Permissions::from_mode(0o700);
    tempfile::Builder::new().permissions(mode).tempdir().expect("a temporary folder")
}

/// The API client that every test setup registers with its simulator.
pub const CLIENT_ID: &str = "test-client";

/// Its secret.
pub const CLIENT_SECRET: &str = "test-secret-of-the-client";
