//! The connections of the admin door: few, and none for long.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::records;

/// Connections at once.
const CONNECTIONS_MAX: usize = 64;

/// The time for the head of a request, and for a connection to stay idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);

/// The longest head, in bytes.
const HEAD_LENGTH_MAX: usize = 16 * 1024;

/// The most header fields.
const HEADERS_MAX: usize = 64;

/// How long a connection may stand: long enough for what takes long, and an end for those who read nothing.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(900);

/// The pause after the listener failed, for want of files for example.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// From where a request came.
#[derive(Debug, Clone, Copy)]
pub(super) struct From(pub(super) SocketAddr);

/// A connection's place. One that has not shown the token gives way to others when there is none left.
#[derive(Debug, Clone, Default)]
pub(super) struct Place(Arc<Held>);

#[derive(Debug, Default)]
struct Held {
    is_known: AtomicBool,
    cut: CancellationToken,
}

impl Place {
    /// The token was shown.
    pub(super) fn keep(&self) {
        self.0.is_known.store(true, Ordering::Relaxed);
    }

    fn is_kept(&self) -> bool {
        self.0.is_known.load(Ordering::Relaxed)
    }

    /// Whether its connection has not ended.
    fn is_held(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// Serves for ever. Dropping it ends all connections.
pub(super) async fn run(listener: TcpListener, router: Router) {
    let mut places: VecDeque<Place> = VecDeque::new();
    let mut connections = JoinSet::new();
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_of_the_peer(&error) {
                    records::NotAccepted { error: &error }.log();
                    sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        places.retain(Place::is_held);
        if places.len() >= CONNECTIONS_MAX {
            // Without one that can give way this one is closed.
            let Some(oldest) = places.iter().position(|place| !place.is_kept()) else { continue };
            if let Some(place) = places.remove(oldest) {
                place.0.cut.cancel();
            }
        }
        let place = Place::default();
        places.push_back(place.clone());
        let layers = (Extension(From(address)), Extension(place.clone()));
        let service = TowerToHyperService::new(router.clone().layer(layers.0).layer(layers.1));
        connections.spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(HEAD_LENGTH_MAX)
                .max_headers(HEADERS_MAX)
                .serve_connection(TokioIo::new(stream), service);
            // How it ends is the caller's business.
            let _ = place.0.cut.run_until_cancelled(timeout(CONNECTION_TIMEOUT, connection)).await;
        });
    }
}

/// The other end was gone before it was taken.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
