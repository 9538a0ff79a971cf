//! The connections of the admin door: few, and none for long.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Connections at once; others wait until one ends.
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

/// Serves for ever. Dropping it ends all connections.
pub(super) async fn run(listener: TcpListener, router: Router) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        // It is never closed.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_of_the_peer(&error) {
                    tracing::warn!(%error, "the admin door takes no connection");
                    sleep(ACCEPT_PAUSE).await;
                }
                continue;
            }
        };
        let service = TowerToHyperService::new(router.clone().layer(Extension(From(address))));
        connections.spawn(async move {
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD_TIMEOUT)
                .max_buf_size(HEAD_LENGTH_MAX)
                .max_headers(HEADERS_MAX)
                .serve_connection(TokioIo::new(stream), service);
            // How it ends is the caller's business.
            let _ = timeout(CONNECTION_TIMEOUT, connection).await;
            drop(place);
        });
    }
}

/// The other end was gone before it was taken.
fn is_of_the_peer(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}
