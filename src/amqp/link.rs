//! A connection, made again for ever.
//!
//! lapin's own recovery stays off: it ends after some attempts, does not bring back a channel that was closed with an
//! error, and lets a consumer go on as if nothing had happened.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::stream::BoxStream;
use lapin::{Channel, Connection, ConnectionProperties, Event};
use opentelemetry::KeyValue;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::access::Access;
use super::settings::Settings;
use super::{fault, records, transport};
use crate::service::readiness::{Condition, Part};
use crate::telemetry::instruments::instruments;

/// How often a connection is looked at, besides what it tells by itself.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// How long it is waited for a word on why a connection ended.
const REASON_TIMEOUT: Duration = Duration::from_millis(200);

/// A connection that lived this long counts as good: the next attempt is made soon.
const GOOD_LIFE: Duration = Duration::from_secs(5);

/// Makes connections for one purpose.
#[derive(Debug)]
pub struct Link {
    settings: Arc<Settings>,
    purpose: &'static str,
    part: Part,
    /// The greatest frame, in bytes, if it is to be smaller than the broker's.
    frame_max: Option<u32>,
    failures: u32,
    access: watch::Receiver<Arc<Access>>,
}

/// Opens channels on a connection.
#[derive(Clone)]
pub struct Channels(Arc<Connection>);

impl std::fmt::Debug for Channels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Channels")
    }
}

impl Channels {
    /// Opens a channel, within `patience`.
    ///
    /// # Errors
    /// Why not, for operators.
    pub async fn open(&self, patience: Duration) -> Result<Channel, String> {
        within(patience, "opening a channel", self.0.create_channel()).await
    }

    /// Whether the connection is there.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.0.status().connected()
    }
}

/// A connection and its news.
pub struct Session {
    connection: Arc<Connection>,
    events: BoxStream<'static, Event>,
    /// The last error that was told; one of a channel alone may be told here too.
    last_error: Option<String>,
    since: Instant,
    /// With what the connection was made.
    login: Arc<Access>,
    access: watch::Receiver<Arc<Access>>,
    /// Ends the connection for good, whatever the broker does, when this is dropped.
    _end: DropGuard,
}

/// News of a connection.
#[derive(Debug, PartialEq, Eq)]
pub enum News {
    /// The broker takes nothing on it for now, and says why.
    Blocked(String),
    /// It takes messages again.
    Unblocked,
    /// Another user is to be connected in its place.
    Outdated,
    /// It is gone.
    Ended(String),
}

impl Link {
    /// `purpose` is shown by the broker, `part` tells of the connection's condition.
    #[must_use]
    pub fn new(settings: Arc<Settings>, purpose: &'static str, part: Part) -> Self {
        let access = settings.access.clone();
        Self { settings, purpose, part, frame_max: None, failures: 0, access }
    }

    /// One whose frames have `frame_max` bytes at most. The client keeps room for 64 of them. A message's headers must fit
    /// into one.
    #[must_use]
    pub fn with_frame_max(self, frame_max: u32) -> Self {
        Self { frame_max: Some(frame_max), ..self }
    }

    /// The part whose condition this is.
    #[must_use]
    pub fn part(&self) -> &Part {
        &self.part
    }

    /// Connects, however often it takes. The part says why it does not succeed.
    pub async fn connect(&mut self) -> Session {
        loop {
            match self.attempt().await {
                Ok(session) => return session,
                Err(reason) => self.fault(reason).await,
            }
        }
    }

    fn note_connected(&self, is_connected: bool) {
        let purpose = KeyValue::new("purpose", self.purpose);
        instruments().amqp_connected.record(u64::from(is_connected), &[purpose]);
    }

    /// Notes a fault and waits for as long as is due after as many of them in a row.
    pub async fn fault(&mut self, reason: String) {
        self.note_connected(false);
        self.failures = self.failures.saturating_add(1);
        let delay = self.settings.backoff.deferral(self.failures, None, rand::random());
        records::Unavailable { purpose: self.purpose, reason: &reason, delay }.log();
        self.part.set(Condition::NotReady(reason));
        tokio::select! {
            () = tokio::time::sleep(delay) => {}
            // With other credentials it may be otherwise.
            () = changed(&mut self.access) => self.failures = 0,
        }
    }

    /// Takes note that a session has ended: if it was a good one, the faults before it do not count any more.
    pub fn ended(&mut self, since: Instant) {
        if since.elapsed() >= GOOD_LIFE {
            self.failures = 0;
        }
    }

    /// Connects, or says why not.
    ///
    /// # Errors
    /// Why there is no connection, for operators.
    pub async fn attempt(&mut self) -> Result<Session, String> {
        let access = self.access.borrow_and_update().clone();
        let settings = &self.settings;
        let name = format!("{} {}", settings.connection_name, self.purpose);
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        // Dropped on the way out of here, it ends whatever has come to be of a connection that is not wanted any more.
        let cut = CancellationToken::new();
        let end = cut.clone().drop_guard();
        let encrypting = Arc::clone(&access);
        let connecting = Box::pin(Connection::connector(
            settings.uri(&access.credentials, self.frame_max),
            transport::runtime(),
            async move |uri, _| Ok(transport::connect(uri, &encrypting.credentials, cut.clone()).await?),
            properties,
        ));
        let connection = match timeout(settings.connect_timeout, connecting).await {
            Ok(Ok(connection)) => connection,
            Ok(Err(error)) => return Err(fault::connecting(&settings.address, &access.credentials, &error)),
            Err(_) => {
                let address = &settings.address;
                let patience = settings.connect_timeout;
                return Err(format!(
                    "the broker at {}:{} did not answer within {patience:?}",
                    address.host, address.port
                ));
            }
        };
        let events = connection.events_listener().boxed();
        records::Connected { purpose: self.purpose }.log();
        self.note_connected(true);
        Ok(Session {
            connection: Arc::new(connection),
            events,
            last_error: None,
            since: Instant::now(),
            login: access,
            access: self.access.clone(),
            _end: end,
        })
    }
}

impl Session {
    /// Opens a channel, within `patience`.
    ///
    /// # Errors
    /// Why not, for operators.
    pub async fn channel(&mut self, patience: Duration) -> Result<Channel, String> {
        self.channels().open(patience).await
    }

    /// For opening channels apart from it.
    #[must_use]
    pub fn channels(&self) -> Channels {
        Channels(Arc::clone(&self.connection))
    }

    /// Since when it is there.
    #[must_use]
    pub fn since(&self) -> Instant {
        self.since
    }

    /// Whether the broker takes nothing for now.
    #[must_use]
    pub fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }

    /// Whether it is there.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.connection.status().connected()
    }

    /// Waits for news. An error on a channel alone is none: the channel's user hears of it.
    pub async fn news(&mut self) -> News {
        let mut look = interval(LOOK_INTERVAL);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                event = self.events.next() => event,
                () = outdated(&self.login, &mut self.access) => return News::Outdated,
                _ = look.tick() => {
                    if self.is_connected() { continue }
                    return News::Ended(self.end_reason().await);
                }
            };
            match event {
                Some(Event::ConnectionBlocked(reason)) => return News::Blocked(reason),
                Some(Event::ConnectionUnblocked) => return News::Unblocked,
                Some(Event::Error(error)) => {
                    self.last_error = Some(fault::about("the connection ended", &error));
                    if !self.is_connected() {
                        return News::Ended(self.end_reason().await);
                    }
                }
                Some(_) => {}
                None => return News::Ended(self.end_reason().await),
            }
        }
    }

    /// Why the connection ended. lapin may say so a little later than it ends it.
    async fn end_reason(&mut self) -> String {
        let said = async {
            while self.last_error.is_none()
                && let Some(event) = self.events.next().await
            {
                if let Event::Error(error) = event {
                    self.last_error = Some(fault::about("the connection ended", &error));
                }
            }
        };
        // Without a word in that time there is none.
        let _ = timeout(REASON_TIMEOUT, said).await;
        self.last_error.take().unwrap_or_else(|| "the connection ended".to_owned())
    }

    /// Says good-bye, within `patience`, and ends the connection.
    pub async fn close(self, patience: Duration) {
        let _ = timeout(patience, self.connection.close(200, "OK".into())).await;
    }
}

/// Resolves when something has changed that was not looked at yet.
async fn changed(access: &mut watch::Receiver<Arc<Access>>) {
    if access.changed().await.is_err() {
        // Nobody is left who could change it.
        std::future::pending::<()>().await;
    }
}

/// Resolves when another user is to connect than that of `login`.
async fn outdated(login: &Access, access: &mut watch::Receiver<Arc<Access>>) {
    let is_other = |access: &Arc<Access>| !access.credentials.is_same_user(&login.credentials);
    if access.wait_for(is_other).await.is_err() {
        std::future::pending::<()>().await;
    }
}

/// Awaits `call` on the broker, within `patience`; `object` is what it is about.
///
/// # Errors
/// Why it failed, for operators.
pub async fn within<T>(
    patience: Duration,
    object: &str,
    call: impl Future<Output = lapin::Result<T>>,
) -> Result<T, String> {
    match timeout(patience, call).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(fault::about(object, &error)),
        Err(_) => Err(format!("{object}: no answer from the broker within {patience:?}")),
    }
}
