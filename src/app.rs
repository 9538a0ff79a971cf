//! Puts the parts together and runs them.

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admin;
use crate::config::Config;
use crate::service::readiness::Readiness;

/// Why the adapter cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A port cannot be listened on.
    #[error("cannot listen on {0}")]
    Listen(std::net::SocketAddr, #[source] std::io::Error),
    /// The admin port failed.
    #[error("the admin port failed")]
    Admin(#[source] std::io::Error),
}

/// Runs until `shutdown` is cancelled and everything under way has ended.
///
/// # Errors
/// A part cannot be started, or cannot go on.
pub async fn run(config: Config, shutdown: CancellationToken) -> Result<(), Error> {
    let address = config.admin.listen;
    let listener = TcpListener::bind(address).await.map_err(|error| Error::Listen(address, error))?;
    admin::serve(listener, Readiness::default(), shutdown).await.map_err(Error::Admin)
}
