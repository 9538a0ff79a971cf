//! The consumer over a real pipeline and store; only the upstream is made up.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use chrono::TimeDelta;
use futures::FutureExt as _;
use futures::future::BoxFuture;
use guest_connection_adapter::amqp::delivery::Counts;
use guest_connection_adapter::amqp::{BrokerPublisher, Consumer, Settings};
use guest_connection_adapter::domain::command::OrganizationId;
use guest_connection_adapter::domain::lifecycle::Terms;
use guest_connection_adapter::domain::reply::{Answer, Reply, Unauthorized};
use guest_connection_adapter::domain::retry::Backoff;
use guest_connection_adapter::domain::seat::Seat;
use guest_connection_adapter::service;
use guest_connection_adapter::service::archiver::Archiver;
use guest_connection_adapter::service::ports::{Authorization, Clock, Patch, SystemClock, Upstream};
use guest_connection_adapter::service::readiness::Readiness;
use guest_connection_adapter::store::sqlite::{self, SqliteStore};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::support::{in_time, ready};

/// Applies everything, when it is let.
pub struct Applying {
    pub patches: mpsc::UnboundedSender<Patch>,
    pub permits: Semaphore,
    /// Each makes one call of its organisation panic.
    panics: Mutex<Vec<(Place, OrganizationId)>>,
}

/// Where the upstream's client panics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Asked whether it knows a requester.
    Knows,
    /// Asked for a requester's token.
    Authorize,
    /// Before the PATCH for a guest.
    Send,
    /// After the PATCH for a guest.
    Answer,
}

impl Applying {
    /// The next such call of the organisation panics.
    pub fn panic_once(&self, place: Place, organization: OrganizationId) {
        self.plan().push((place, organization));
    }

    /// Whether a panic is still to come.
    pub fn will_panic(&self) -> bool {
        !self.plan().is_empty()
    }

    fn plan(&self) -> MutexGuard<'_, Vec<(Place, OrganizationId)>> {
        self.panics.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn may_panic(&self, place: Place, organization: OrganizationId) {
        let mut plan = self.plan();
        let Some(index) = plan.iter().position(|panic| *panic == (place, organization)) else { return };
        plan.remove(index);
        drop(plan);
        panic!("a panic as planned");
    }
}

impl Upstream for Applying {
    fn knows(&self, requester: OrganizationId) -> bool {
        self.may_panic(Place::Knows, requester);
        true
    }

    fn is_ready(&self, _: OrganizationId) -> bool {
        true
    }

    fn authorize(
        &self,
        requester: OrganizationId,
        _: bool,
    ) -> BoxFuture<'_, Result<Authorization, Unauthorized>> {
        let header = http::HeaderValue::from_static("Bearer token");
        async move {
            self.may_panic(Place::Authorize, requester);
            Ok(Authorization { header, serial: 1 })
        }
        .boxed()
    }

    fn refuse(&self, _: OrganizationId, _: &Authorization) {}

    fn patch(&self, patch: Patch, _: Authorization) -> BoxFuture<'_, Reply> {
        async move {
            self.permits.acquire().await.expect("open").forget();
            let guest = patch.connection.guest;
            self.may_panic(Place::Send, guest);
            let body = Some(format!(r#"{{"archived":{}}}"#, patch.archived).into_bytes());
            self.patches.send(patch).expect("the test listens");
            self.may_panic(Place::Answer, guest);
            Reply::Answered(Answer { status: 200, retry_after: None, body })
        }
        .boxed()
    }
}

pub struct Pipeline {
    pub readiness: Readiness,
    pub archiver: Archiver,
    pub counts: Arc<Counts>,
    pub upstream: Arc<Applying>,
    pub patches: mpsc::UnboundedReceiver<Patch>,
    /// How often it was asked whether commands can be taken again.
    pub resumes: Arc<AtomicUsize>,
    /// The place of this instance among others.
    pub seat: watch::Sender<Seat>,
    shutdown: CancellationToken,
    running: JoinHandle<()>,
    _folder: tempfile::TempDir,
}

impl Pipeline {
    /// Starts everything, and lets the upstream answer at once.
    pub async fn start(settings: &Settings) -> Self {
        let pipeline = Self::start_held(settings).await;
        pipeline.upstream.permits.add_permits(1_000_000);
        pipeline
    }

    /// The same, for an instance with this seat.
    pub async fn start_seated(settings: &Settings, seat: Seat) -> Self {
        let pipeline = Self::start(settings).await;
        pipeline.seat.send_replace(seat);
        pipeline
    }

    /// Starts everything; the upstream waits for permits.
    pub async fn start_held(settings: &Settings) -> Self {
        Self::begin(settings, Duration::from_secs(60), Arc::new(SystemClock)).await
    }

    /// Starts everything with claims that do not last long, and with recovery.
    pub async fn start_recovering(settings: &Settings, clock: Arc<dyn Clock>) -> Self {
        let pipeline = Self::begin(settings, Duration::from_secs(4), clock).await;
        pipeline.upstream.permits.add_permits(1_000_000);
        let archiver = pipeline.archiver.clone();
        tokio::spawn(async move { archiver.recover().await });
        pipeline
    }

    #[allow(clippy::unused_async, reason = "starts tasks, so it needs a runtime")]
    async fn begin(settings: &Settings, lease: Duration, clock: Arc<dyn Clock>) -> Self {
        let folder = harness::private_folder();
        let (patches_in, patches) = mpsc::unbounded_channel();
        let upstream =
            Arc::new(Applying { patches: patches_in, permits: Semaphore::new(0), panics: Mutex::default() });
        let span = TimeDelta::from_std(lease).expect("a lease");
        let terms = Terms { lease: span, settle: span / 2, hold: span, give_up_after: TimeDelta::hours(24) };
        let retention = TimeDelta::days(7);
        let file = sqlite::Settings::new(folder.path().join("store.db"));
        let store = SqliteStore::open(file, terms, retention, clock.clone()).expect("a store");
        let backoff =
            Backoff { delay_base: Duration::from_millis(50), delay_max: Duration::from_millis(200) };
        let service = service::Settings {
            attempt_timeout: lease / 12,
            command_timeout: lease / 2,
            lease,
            retry: backoff,
            deferral: backoff,
            retention,
            lane_depth_max: 1000,
            load: service::load::Limits {
                commands_max: 1_000,
                bytes_max: 16 << 20,
                backlog_max: 10_000,
                calls_max: 1_000,
                messages_max: 1_000,
                recovered_max: 16,
            },
            gate: service::gate::Settings {
                failures_max: 5,
                failure_share: 0.5,
                delay: Backoff { delay_base: Duration::from_millis(100), delay_max: Duration::from_secs(1) },
                concurrency_max: 256,
                retry_share: 0.2,
                retry_floor: 2,
            },
        };
        let archiver = Archiver::new(service, Arc::new(store), upstream.clone(), clock);
        let readiness = Readiness::default();
        let shared = Arc::new(settings.clone());
        let publisher = BrokerPublisher::new(shared.clone(), &readiness);
        let resumes = Arc::new(AtomicUsize::new(0));
        let asked = resumes.clone();
        let resume = Arc::new(move || {
            asked.fetch_add(1, Ordering::SeqCst);
            futures::future::ready(()).boxed()
        });
        let seat = watch::Sender::new(Seat::ALONE);
        let (place, archive) = (seat.subscribe(), archiver.clone());
        let consumer = Consumer::new(shared, archive, publisher.clone(), &readiness, resume, place);
        let counts = consumer.counts();
        let shutdown = CancellationToken::new();
        let stop = shutdown.clone();
        let running = tokio::spawn(async move {
            futures::future::join(consumer.run(stop.clone()), publisher.run(stop)).await;
        });
        Self {
            readiness,
            archiver,
            counts,
            upstream,
            patches,
            resumes,
            seat,
            shutdown,
            running,
            _folder: folder,
        }
    }

    pub async fn ready(&self) {
        for part in ["amqp.consume", "amqp.publish", "amqp.reply"] {
            ready(&self.readiness, part).await;
        }
    }

    pub async fn patch(&mut self) -> Patch {
        in_time("a PATCH", self.patches.recv()).await.expect("a PATCH")
    }

    pub async fn stop(self) {
        self.shutdown.cancel();
        in_time("the end", self.running).await.expect("no panic");
    }
}
