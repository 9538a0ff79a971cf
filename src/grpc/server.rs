//! Listens, serves health and reflection, drains.

use std::time::Duration;

use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::{HealthReporter, health_reporter};

use crate::service::archiver::Archiver;
use crate::service::readiness::{Condition, Conditions, Part, Readiness, ready, takes_calls};

use super::admission::Admission;
use super::authenticate::AuthenticateLayer;
use super::call::SurroundLayer;
use super::callers::Callers;
use super::deadline::Bounds;
use super::incoming::{self, Listener, connections};
use super::proto::DESCRIPTORS;
use super::proto::guest_connection_service_server::{
    GuestConnectionService, GuestConnectionServiceServer, SERVICE_NAME,
};
use super::service::GuestConnections;

/// The door's name among the parts.
const PART: &str = "grpc";

/// Bytes of a response message: above what an upstream body of 1 MiB can come to, below the 4 MiB that gRPC libraries
/// take by default.
const RESPONSE_LENGTH_MAX: usize = 2 * 1024 * 1024;

/// Bytes of the headers of one request.
const HEADERS_LENGTH_MAX: u32 = 16 * 1024;

/// Calls open on one connection. More than are served at once, so that a caller hears of an overload.
const STREAMS_MAX: u32 = 1024;

/// A connection on which nothing was heard for so long is asked for a sign of life, and closed when none comes.
/// Pings of clients are answered at any rate.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(60);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(20);

/// The time that calls of a connection which is too old have beyond the longest wait for an answer.
const GRACE_MARGIN: Duration = Duration::from_secs(60);

/// What may be set of the door.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Calls served at once; one more is refused.
    pub in_flight_max: usize,
    /// Bytes of a request message.
    pub message_length_max: usize,
    /// How long calls wait for their answers.
    pub bounds: Bounds,
    /// How long health says no, while calls are served, before the listener closes: callers' balancers need that to look
    /// elsewhere.
    pub drain_notice: Duration,
    /// How connections are taken in.
    pub incoming: incoming::Settings,
    /// The age at which a connection is closed, when its last call has ended. Nobody keeps one, or the rights that came with
    /// it, for ever.
    pub connection_age_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            in_flight_max: 512,
            message_length_max: 64 * 1024,
            bounds: Bounds { wait_default: Duration::from_secs(35), wait_max: Duration::from_secs(300) },
            drain_notice: Duration::from_millis(500),
            incoming: incoming::Settings::default(),
            connection_age_max: Duration::from_secs(30 * 60),
        }
    }
}

/// How the door is told to close.
#[derive(Debug, Clone, Default)]
pub struct Shutdown {
    /// Give notice, then take no connections and no calls any more, and finish what is under way.
    pub draining: CancellationToken,
    /// Refuse what is new. Later than `draining`, since calls may be on their way when their connection is told of its end.
    pub refusing: CancellationToken,
    /// Close, whatever is under way.
    pub stopped: CancellationToken,
}

/// Why the door could not be opened, or closed by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The contract's descriptors cannot be served.
    #[error("the gRPC reflection service could not be built")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The transport failed.
    #[error("the gRPC transport failed")]
    Transport(#[from] tonic::transport::Error),
}

/// Serves `archiver` on `listener` to `callers` until [`Shutdown`] says otherwise.
///
/// Health follows `readiness`, in which the door enters itself as `grpc`.
///
/// # Errors
/// Why it could not be served, or not to the end.
pub async fn serve(
    settings: Settings,
    listener: Listener,
    archiver: Archiver,
    callers: Callers,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let admission = Admission::new(settings.in_flight_max, shutdown.refusing.clone());
    let service = GuestConnections::new(archiver, admission, settings.bounds);
    run(service, settings, listener, callers, readiness, shutdown).await
}

async fn run(
    service: impl GuestConnectionService,
    settings: Settings,
    listener: Listener,
    callers: Callers,
    readiness: Readiness,
    shutdown: Shutdown,
) -> Result<(), Error> {
    let part = readiness.part(PART);
    let service = GuestConnectionServiceServer::new(service)
        .max_decoding_message_size(settings.message_length_max)
        .max_encoding_message_size(RESPONSE_LENGTH_MAX);
    let (reporter, health) = health_reporter();
    // Many clients, Python's among them, still ask by the older name.
    let (reflection, reflection_alpha) = (reflection().build_v1()?, reflection().build_v1alpha()?);
    tell(&reporter, NOT_SERVING).await;

    // Tonic's own grace has a connection cut off without a word before.
    let life_max = settings.connection_age_max + settings.bounds.wait_max + GRACE_MARGIN;
    let incoming = connections(listener, incoming::Settings { life_max, ..settings.incoming });
    part.set(Condition::Ready);
    let closing = close(reporter, readiness, part, shutdown.draining, settings.drain_notice);
    let served = Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .max_concurrent_streams(STREAMS_MAX)
        .http2_max_header_list_size(HEADERS_LENGTH_MAX)
        .max_connection_age(settings.connection_age_max)
        .layer(SurroundLayer)
        .layer(AuthenticateLayer::new(callers))
        .add_service(service)
        .add_service(health)
        .add_service(reflection)
        .add_service(reflection_alpha)
        .serve_with_incoming_shutdown(incoming, closing);
    tokio::select! {
        served = served => Ok(served?),
        () = shutdown.stopped.cancelled() => Ok(()),
    }
}

/// Keeps health equal to readiness until the drain, gives notice of that, and ends when the listener is to close.
async fn close(
    mut reporter: HealthReporter,
    readiness: Readiness,
    part: Part,
    draining: CancellationToken,
    drain_notice: Duration,
) {
    let mut conditions = readiness.subscribe();
    let mut told = NOT_SERVING;
    loop {
        let statuses = statuses(&conditions.borrow_and_update());
        // Every word goes to the watchers, so it is said once.
        if statuses != told {
            tell(&reporter, statuses).await;
            told = statuses;
        }
        tokio::select! {
            () = draining.cancelled() => break,
            changed = conditions.changed() => if changed.is_err() { break },
        }
    }
    part.set(Condition::NotReady("draining".to_owned()));
    if told != NOT_SERVING {
        tell(&reporter, NOT_SERVING).await;
    }
    tokio::time::sleep(drain_notice).await;
    // A watch has no end of its own, and a connection closes only after its last call.
    for service in ["", SERVICE_NAME] {
        reporter.clear_service_status(service).await;
    }
}

/// Reflection on the contract, on health, and on the details of errors, so that tools can show them.
fn reflection() -> tonic_reflection::server::Builder<'static> {
    tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
}

/// The status of the server as a whole, and of its service.
type Statuses = [(&'static str, ServingStatus); 2];

const NOT_SERVING: Statuses = [("", ServingStatus::NotServing), (SERVICE_NAME, ServingStatus::NotServing)];

/// The whole is ready when every part is, the service when those are that it needs.
fn statuses(conditions: &Conditions) -> Statuses {
    let status = |serving| if serving { ServingStatus::Serving } else { ServingStatus::NotServing };
    [("", status(ready(conditions))), (SERVICE_NAME, status(takes_calls(conditions)))]
}

/// Sets both statuses.
async fn tell(reporter: &HealthReporter, statuses: Statuses) {
    for (service, status) in statuses {
        reporter.set_service_status(service, status).await;
    }
}

#[cfg(test)]
#[path = "server_tests.rs"]
mod tests;
