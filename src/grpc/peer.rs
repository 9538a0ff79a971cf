//! Who is at the other end of a connection, as far as the transport knows.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Kept in the extensions of every request of a connection.
#[derive(Debug, Clone, Default)]
pub struct Peer {
    /// The address.
    pub address: Option<SocketAddr>,
    /// The subject alternative names (DNS names and URIs) of the client certificate, whose chain was verified. Empty without
    /// one.
    pub names: Arc<[String]>,
    /// Whether a caller was known by this connection.
    pub proof: Proof,
}

/// Whether somebody has called on a connection who may: one on which nobody has gives way to others. Cloning shares it.
#[derive(Debug, Clone, Default)]
pub struct Proof(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    is_given: AtomicBool,
    cut: CancellationToken,
}

impl Proof {
    /// A call was let in.
    pub fn give(&self) {
        self.0.is_given.store(true, Ordering::Relaxed);
    }

    /// Resolves when the connection has to give way.
    pub(super) fn cut(&self) -> WaitForCancellationFutureOwned {
        self.0.cut.clone().cancelled_owned()
    }

    pub(super) fn claim(&self) -> Claim {
        Claim(Arc::downgrade(&self.0))
    }
}

/// What there is to say of a connection from outside.
#[derive(Debug, Clone)]
pub(super) struct Claim(Weak<Shared>);

impl Claim {
    /// Whether the connection is there, and nobody has called on it yet.
    pub(super) fn is_unproved(&self) -> bool {
        self.0
            .upgrade()
            .is_some_and(|shared| !shared.is_given.load(Ordering::Relaxed) && !shared.cut.is_cancelled())
    }

    /// Makes it give way.
    pub(super) fn cut(&self) {
        if let Some(shared) = self.0.upgrade() {
            shared.cut.cancel();
        }
    }
}
