//! Puts the parts together, runs them, and takes them down in order.

mod callers;
pub mod catalogue;
mod certificate;
mod files;
mod journal;
mod organizations;
pub mod partitions;
pub(crate) mod records;
mod settings;
mod survey;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tokio_util::sync::CancellationToken;

use self::certificate::Certificate;
use self::journal::Journal;
use self::organizations::Watch;
use crate::amqp::consume::Resume;
use crate::amqp::{BrokerPublisher, Consumer};
use crate::config::{Config, Faults, Source};
use crate::mycreditapp::{self, MyCreditApp};
use crate::service::archiver::Archiver;
use crate::service::custody::Custodian;
use crate::service::gate::Gate;
use crate::service::ports::{Clock, Publisher, Store, StoreError, SystemClock};
use crate::service::readiness::{Condition, Part, Readiness};
use crate::service::relay::{Relay, Share};
use crate::service::retention;
use crate::store::postgres::{self, PostgresStore};
use crate::store::sqlite::{self, SqliteStore};
use crate::{admin, amqp, grpc, jwt, stdout};

/// How often the store is asked whether it takes and gives data, for readiness.
const STORE_PROBE_INTERVAL: Duration = Duration::from_secs(2);

/// A store that takes longer than this for one small write is not ready.
const STORE_ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// How often it is looked at whether the upstream may be called, besides when that changes.
const UPSTREAM_LOOK_INTERVAL: Duration = Duration::from_secs(2);

const STORE_SILENT_TEXT: &str = "the store has not answered a small write and a question for some seconds: its disk is \
                                 slow or hangs, or another program holds the file locked";

/// How often it is asked while consuming waits for it.
const STORE_RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// How much longer than the notice calls are served that came with its end.
const NOTICE_MARGIN: Duration = Duration::from_millis(200);

/// The part of the drain that is left to the outbox and the connections when work takes all the time it may.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Why the adapter cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The configuration does not do. It was checked, so this is not expected.
    #[error("the configuration cannot be used: {0}")]
    Config(#[from] Faults),
    /// The configuration names no organisation any more.
    #[error("the configuration names no organisation any more; to remove the last one, stop the adapter")]
    NoOrganizations,
    /// A port cannot be listened on.
    #[error("cannot listen on {0}")]
    Listen(SocketAddr, #[source] std::io::Error),
    /// The store cannot be opened.
    #[error("the store cannot be opened")]
    Store(#[from] sqlite::OpenError),
    /// The same, where it is a database.
    #[error("the store cannot be opened")]
    Database(#[from] postgres::OpenError),
    /// The client of the upstream cannot be made.
    #[error("the upstream's client cannot be made")]
    Upstream(#[from] mycreditapp::Error),
    /// The gRPC door failed.
    #[error("the gRPC door failed")]
    Grpc(#[from] grpc::server::Error),
    /// The admin port failed.
    #[error("the admin port failed")]
    Admin(#[source] std::io::Error),
    /// The keys of bearer tokens cannot be fetched at all.
    #[error("the client for the keys of bearer tokens cannot be made")]
    Keys(#[from] jwt::fetch::Error),
    /// A part ended by a panic.
    #[error("a part of the adapter ended by a panic")]
    Panic(#[from] tokio::task::JoinError),
}

/// Runs `config`, following the organisations in its `source`, until `shutdown` is cancelled and everything under way has ended, or the drain's time is over.
///
/// # Errors
/// A part cannot be started, or cannot go on.
pub async fn run(config: Config, source: Source, shutdown: CancellationToken) -> Result<(), Error> {
    let grpc_listener = listen(config.grpc.listen).await?;
    let admin_listener = listen(config.admin.listen).await?;
    let bound =
        |listener: &TcpListener, wanted| listener.local_addr().map_err(|error| Error::Listen(wanted, error));
    let (grpc_address, admin_address) =
        (bound(&grpc_listener, config.grpc.listen)?, bound(&admin_listener, config.admin.listen)?);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let store = open_store(&config, clock.clone()).await?;
    let upstream = Arc::new(MyCreditApp::new(config.upstream()?)?);
    let archiver = Archiver::new(config.service(), store.clone(), upstream.clone(), clock);
    let readiness = Readiness::default();
    let callers = callers::Door::new(&config)?;
    let survey = survey::begin(&archiver, &upstream, &store, &readiness);
    let custodian = Custodian::new(store.clone());
    let journal = Journal::new(custodian.clone());
    let watch =
        Watch::begin(&config, upstream, archiver.clone(), callers.clone(), &readiness, journal.clone())?;
    let certificate = Certificate::begin(&config, &readiness, journal)?;
    let grpc_listener = grpc_door(&config, grpc_listener, certificate.as_ref());
    let stops = Stops::default();

    let mut tasks = Tasks::default();
    let door = grpc::server::Shutdown {
        draining: stops.doors.clone(),
        refusing: stops.work.clone(),
        stopped: stops.admin.clone(),
    };
    let (calls, known, ready) = (archiver.clone(), callers.callers.clone(), readiness.clone());
    let grpc_settings = config.grpc();
    tasks.doors.spawn(async move {
        Ok(grpc::server::serve(grpc_settings, grpc_listener, calls, known, ready, door).await?)
    });
    let publisher: Arc<dyn Publisher> = match watch.broker(FLUSH_TIMEOUT)? {
        Some(settings) => open_broker(settings, &archiver, &store, &readiness, &stops, &mut tasks),
        None => Arc::new(stdout::LinePublisher::stdout(config.origin())),
    };

    let parts = &mut tasks.parts;
    let (ready, stop) = (readiness.clone(), stops.admin.clone());
    let door = config.admin();
    parts.spawn(async move {
        admin::serve(door, admin_listener, ready, custodian, stop).await.map_err(Error::Admin)
    });
    parts.spawn(done(watch_store(store.clone(), readiness.part("store"), stops.doors.clone())));
    parts.spawn(done(watch_gate(archiver.gate().clone(), readiness.part("upstream"), stops.doors.clone())));
    parts.spawn(done(watch.run(source, stops.doors.clone())));
    parts.spawn(done(callers.keep_keys(&readiness, stops.doors.clone())));
    parts.spawn(done(certificate::run(certificate, stops.doors.clone())));
    parts.spawn(done(retention::run(store.clone(), stops.doors.clone())));
    parts.spawn(done(survey.run(store.clone(), stops.broker.clone())));
    parts.spawn(done(keep_up(archiver.clone())));
    for (share, part) in [(Share::Events, "events"), (Share::Replies, "replies")] {
        let (store, publisher) = (store.clone(), publisher.clone());
        let relay =
            Relay::new(config.relay(share), store, publisher, archiver.outbox(), readiness.part(part));
        tasks.relays.spawn(done(relay.run(stops.relay.clone())));
    }

    records::Started { grpc: grpc_address, admin: admin_address }.log();
    attend(&config, &archiver, store, &stops, tasks, shutdown).await
}

/// What goes on beside the doors.
async fn keep_up(archiver: Archiver) {
    tokio::join!(archiver.recover(), archiver.follow_others(), archiver.watch_backlog());
}

/// Waits for the end of the service, or of a part that should not have one, and takes everything down.
async fn attend(
    config: &Config,
    archiver: &Archiver,
    store: Arc<dyn Store>,
    stops: &Stops,
    mut tasks: Tasks,
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let failure = tokio::select! {
        () = shutdown.cancelled() => None,
        Some(ended) = tasks.doors.join_next() => failure(ended),
        Some(ended) = tasks.parts.join_next() => failure(ended),
        Some(ended) = tasks.relays.join_next() => failure(ended),
    };
    records::Draining.log();
    drain(config, archiver, &store, stops, &mut tasks).await;
    if timeout(FLUSH_TIMEOUT, store.close()).await.is_err() {
        records::StoreUnclosed.log();
    }
    stops.admin.cancel();
    tasks.parts.shutdown().await;
    records::Stopped.log();
    failure.map_or(Ok(()), Err)
}

/// The order in which parts are told to stop.
#[derive(Default)]
struct Stops {
    /// Nothing new from outside, once notice was given.
    doors: CancellationToken,
    /// No work is begun.
    work: CancellationToken,
    /// The last messages.
    relay: CancellationToken,
    /// No connection to the broker is needed any more.
    broker: CancellationToken,
    /// Health is not asked for any more.
    admin: CancellationToken,
}

/// What runs until it is told to stop. If one of them ends before, the adapter does.
#[derive(Default)]
struct Tasks {
    /// They take commands in.
    doors: JoinSet<Result<(), Error>>,
    /// They empty the outbox.
    relays: JoinSet<Result<(), Error>>,
    /// The rest.
    parts: JoinSet<Result<(), Error>>,
}

/// Doors first, then the work under way, then the outbox. What takes longer than it may is left to the next start.
async fn drain(
    config: &Config,
    archiver: &Archiver,
    store: &Arc<dyn Store>,
    stops: &Stops,
    tasks: &mut Tasks,
) {
    store.retire();
    stops.doors.cancel();
    let work_until = Instant::now() + config.shutdown.drain_timeout.saturating_sub(FLUSH_TIMEOUT);
    // Whoever is served goes on to be, waits included, for as long as there is time left for one last request.
    let served_until = work_until.checked_sub(config.upstream.attempt_timeout).unwrap_or_else(Instant::now);
    let served_until =
        served_until.max(Instant::now() + config.shutdown.notice + NOTICE_MARGIN).min(work_until);
    let served = async { while tasks.doors.join_next().await.is_some() {} };
    if timeout_at(served_until, served).await.is_err() {
        records::ServiceOver.log();
    }
    stops.work.cancel();
    archiver.drain();
    let work = async {
        archiver.drained().await;
        while tasks.doors.join_next().await.is_some() {}
    };
    if timeout_at(work_until, work).await.is_err() {
        records::WorkLeft.log();
    }
    if !matches!(timeout(FLUSH_TIMEOUT, archiver.give_up()).await, Ok(Ok(()))) {
        records::ClaimsKept.log();
    }
    stops.relay.cancel();
    let flush = async { while tasks.relays.join_next().await.is_some() {} };
    if timeout(FLUSH_TIMEOUT, flush).await.is_err() {
        records::OutboxLeft.log();
    }
    stops.broker.cancel();
}

fn failure(ended: Result<Result<(), Error>, tokio::task::JoinError>) -> Option<Error> {
    let error = match ended {
        Ok(Ok(())) => return None,
        Ok(Err(error)) => error,
        Err(panic) => Error::Panic(panic),
    };
    records::PartEnded { error: &error }.log();
    Some(error)
}

async fn done(part: impl Future<Output = ()>) -> Result<(), Error> {
    part.await;
    Ok(())
}

/// The broker's publisher, with the queue's door beside it.
fn open_broker(
    settings: amqp::Settings,
    archiver: &Archiver,
    store: &Arc<dyn Store>,
    readiness: &Readiness,
    stops: &Stops,
    tasks: &mut Tasks,
) -> Arc<dyn Publisher> {
    let settings = Arc::new(settings);
    let publisher = BrokerPublisher::new(settings.clone(), readiness);
    let (links, stop) = (publisher.clone(), stops.broker.clone());
    tasks.parts.spawn(async move { done(links.run(stop)).await });
    let seat = store.tenure().seat();
    let (store, load, gate) = (store.clone(), archiver.load().clone(), archiver.gate().clone());
    let resume: Resume = Arc::new(move || {
        let (store, load, gate) = (store.clone(), load.clone(), gate.clone());
        Box::pin(async move {
            takes_data(store).await;
            load.room().await;
            gate.available().await;
        })
    });
    let consumer = Consumer::new(settings, archiver.clone(), publisher.clone(), readiness, resume, seat);
    tasks.doors.spawn(done(consumer.run(stops.doors.clone())));
    Arc::new(publisher)
}

/// Resolves when the store takes data.
async fn takes_data(store: Arc<dyn Store>) {
    while store.probe().await.is_err() {
        sleep(STORE_RETRY_INTERVAL).await;
    }
}

/// The listener with its locks, and a warning if it has none though others can reach it.
fn grpc_door(
    config: &Config,
    socket: TcpListener,
    certificate: Option<&Certificate>,
) -> grpc::incoming::Listener {
    let (listen, lacks) = (config.grpc.listen, config.grpc_lacks());
    if let Some(lacks) = lacks {
        records::GrpcInsecure { grpc: listen, lacks: &lacks }.log();
    }
    if config.obeys_any_sender() {
        records::SendersUnasked.log();
    }
    grpc::incoming::Listener { socket, identity: certificate.map(Certificate::identity) }
}

async fn listen(address: SocketAddr) -> Result<TcpListener, Error> {
    TcpListener::bind(address).await.map_err(|error| Error::Listen(address, error))
}

async fn open_store(config: &Config, clock: Arc<dyn Clock>) -> Result<Arc<dyn Store>, Error> {
    let (terms, retention) = (config.terms(), config.retention());
    let target = config.store.database().map_err(|rule| Faults::one("store.url", rule))?;
    if let Some(target) = target {
        let settings = postgres::Settings {
            instance_lease: Some(config.store.instance_lease),
            ..postgres::Settings::new(target)
        };
        return Ok(Arc::new(PostgresStore::open(settings, terms, retention, clock).await?));
    }
    let settings = sqlite::Settings::new(&config.store.path);
    let opened =
        tokio::task::spawn_blocking(move || SqliteStore::open(settings, terms, retention, clock)).await?;
    Ok(Arc::new(opened?))
}

/// Writes something and reads something.
async fn takes_and_gives(store: &Arc<dyn Store>) -> Result<(), StoreError> {
    store.probe().await?;
    store.due_next().await.map(drop)
}

/// Tells for whom the upstream is not called. That is no reason to send calls elsewhere: there it is the same.
async fn watch_gate(gate: Gate, part: Part, stop: CancellationToken) {
    let mut changes = gate.changes();
    let watching = async {
        loop {
            changes.mark_unchanged();
            part.set(settings::upstream_condition(&gate.condition()));
            // A pause ends without a word.
            let _ = timeout(UPSTREAM_LOOK_INTERVAL, changes.changed()).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = watching => {}
    }
}

/// Tells whether the store takes and gives data, also while it only keeps one waiting.
async fn watch_store(store: Arc<dyn Store>, part: Part, stop: CancellationToken) {
    let watching = async {
        loop {
            let mut probe = Box::pin(takes_and_gives(&store));
            let answer = if let Ok(answer) = timeout(STORE_ANSWER_TIMEOUT, &mut probe).await {
                answer
            } else {
                part.set(Condition::NotReady(STORE_SILENT_TEXT.to_owned()));
                probe.await
            };
            part.set(match answer {
                Ok(()) => Condition::Ready,
                Err(error) => Condition::NotReady(error.to_string()),
            });
            sleep(STORE_PROBE_INTERVAL).await;
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = watching => {}
    }
}
