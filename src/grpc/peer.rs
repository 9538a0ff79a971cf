//! Who is at the other end of a connection, as far as the transport knows.

use std::net::SocketAddr;
use std::sync::Arc;

/// Kept in the extensions of every request of a connection.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// The address.
    pub address: Option<SocketAddr>,
    /// The subject alternative names (DNS names and URIs) of the client certificate, whose chain was verified. Empty without
    /// one.
    pub names: Arc<[String]>,
}
