//! A connection with one channel for publishing, kept up for ever; one round at a time.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lapin::Channel;
use lapin::options::ConfirmSelectOptions;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::link::{Channels, Link, News, Session, within};
use super::records;
use super::render::Publishing;
use super::round::{self, Round};
use super::settings::Settings;
use super::topology;
use crate::service::ports::{OVER, Publication};
use crate::service::readiness::{Condition, Part};

/// How long a message that is tried alone, after a round that got no confirm at all, is waited for.
const ALONE_TIMEOUT: Duration = Duration::from_secs(2);

/// So many failures of messages tried alone, in a row, are the broker's.
const MISSES_MAX: usize = 2;

/// What a lane is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Events and dead letters, on exchanges that are declared.
    Publish,
    /// Replies, on the default exchange.
    Reply,
}

/// Whether a round can be begun.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    Ready,
    Down(String),
}

/// Why a connection is used no more.
enum End {
    /// Another user is to be connected.
    Outdated,
    Fault(String),
}

/// A lane.
#[derive(Debug)]
pub struct Lane {
    settings: Arc<Settings>,
    purpose: Purpose,
    part: Part,
    state: watch::Sender<State>,
    revivals: Arc<watch::Sender<()>>,
    channel: Mutex<Option<Channel>>,
    /// For opening further channels, while it is connected.
    channels: watch::Sender<Option<Channels>>,
    /// Wakes the keeper when a channel was used up.
    wanted: Notify,
    /// Held during a round.
    turn: tokio::sync::Mutex<()>,
}

impl Lane {
    /// A lane that is down until [`Self::keep`] runs, and tells `revivals` whenever it is up again.
    #[must_use]
    pub fn new(
        settings: Arc<Settings>,
        purpose: Purpose,
        part: Part,
        revivals: Arc<watch::Sender<()>>,
    ) -> Self {
        let state = watch::Sender::new(State::Down("not connected yet".to_owned()));
        let turn = tokio::sync::Mutex::new(());
        let (channel, channels, wanted) = (Mutex::default(), watch::Sender::new(None), Notify::new());
        Self { settings, purpose, part, state, revivals, channel, channels, wanted, turn }
    }

    /// Its connection, while there is one.
    #[must_use]
    pub fn connection(&self) -> watch::Receiver<Option<Channels>> {
        self.channels.subscribe()
    }

    /// Publishes a batch as one round, and one by one if a message among them ends the channel or keeps it silent: it must
    /// hold up no other. Waits for a turn and for a channel no longer than a confirm may take, and publishes nothing once
    /// `until` has come.
    pub async fn publish(&self, publishings: &[Publishing], until: Option<Instant>) -> Vec<Publication> {
        if publishings.is_empty() {
            return Vec::new();
        }
        let patience = self.settings.confirm_timeout;
        let round = self.round(publishings, patience, until).await;
        let patience = match (round.is_spoilt, round.is_silent && publishings.len() > 1) {
            (false, false) => return round.publications,
            (true, _) => patience,
            // A queue without a leader keeps the broker's end of the channel waiting, and what follows on it.
            (false, true) => patience.min(ALONE_TIMEOUT),
        };
        self.one_by_one(publishings, round.publications, patience, until).await
    }

    /// Publishes what failed once more, each message in a round of its own, until it is plain that the broker is at fault.
    async fn one_by_one(
        &self,
        publishings: &[Publishing],
        mut publications: Vec<Publication>,
        patience: Duration,
        until: Option<Instant>,
    ) -> Vec<Publication> {
        let mut misses = 0;
        for (publishing, publication) in publishings.iter().zip(&mut publications) {
            if misses == MISSES_MAX {
                break;
            }
            if !matches!(publication, Publication::Failed(_)) {
                continue;
            }
            let mut alone = self.round(std::slice::from_ref(publishing), patience, until).await;
            *publication = alone.publications.pop().unwrap_or_else(|| publication.clone());
            misses = if matches!(publication, Publication::Failed(_)) { misses + 1 } else { 0 };
        }
        publications
    }

    /// Publishes as one round, within `patience` from when there is a channel.
    async fn round(&self, publishings: &[Publishing], patience: Duration, until: Option<Instant>) -> Round {
        let failed = |reason: String| Round {
            publications: vec![Publication::Failed(reason); publishings.len()],
            is_clean: false,
            is_silent: false,
            is_spoilt: false,
        };
        let Ok((turn, mut lease)) = timeout(patience, self.lease()).await else {
            return failed(match &*self.state.borrow() {
                State::Down(reason) => reason.clone(),
                State::Ready => "other batches take too long".to_owned(),
            });
        };
        let Some(channel) = &lease.channel else {
            return failed("the channel is gone".to_owned());
        };
        if until.is_some_and(|until| Instant::now() >= until) {
            lease.is_clean = true;
            return failed(OVER.to_owned());
        }
        let round = round::run(channel, &self.settings, publishings, patience).await;
        lease.is_clean = round.is_clean;
        if round.is_silent
            && let Some(Publication::Failed(reason)) = round.publications.first()
        {
            self.part.set(Condition::NotReady(reason.clone()));
        }
        drop((lease, turn));
        round
    }

    async fn lease(&self) -> (tokio::sync::MutexGuard<'_, ()>, Lease<'_>) {
        let turn = self.turn.lock().await;
        let mut state = self.state.subscribe();
        loop {
            // The sender lives as long as `self`, so this does not fail.
            let _ = state.wait_for(|state| *state == State::Ready).await;
            if let Some(channel) = self.slot().take() {
                return (turn, Lease { lane: self, channel: Some(channel), is_clean: false });
            }
            self.down("a channel is being opened");
            self.wanted.notify_one();
        }
    }

    /// Keeps the lane up until `shutdown`.
    pub async fn keep(&self, mut link: Link, shutdown: CancellationToken) {
        while let Some(mut session) = shutdown.run_until_cancelled(link.connect()).await {
            self.channels.send_replace(Some(session.channels()));
            let served = shutdown.run_until_cancelled(self.serve(&link, &mut session)).await;
            self.channels.send_replace(None);
            let reason = match served {
                None => None,
                Some(End::Fault(reason)) => Some(reason),
                Some(End::Outdated) => {
                    self.retire(session).await;
                    continue;
                }
            };
            self.down(reason.as_deref().unwrap_or("shutting down"));
            self.slot().take();
            link.ended(session.since());
            if let Some(reason) = &reason {
                link.part().set(Condition::NotReady(reason.clone()));
            }
            session.close(self.settings.grace).await;
            let Some(reason) = reason else { break };
            shutdown.run_until_cancelled(link.fault(reason)).await;
        }
        self.down("shutting down");
    }

    /// Ends a connection between two rounds, unless one takes too long or waits for a channel itself.
    async fn retire(&self, session: Session) {
        let turn = timeout(self.settings.grace, self.turn.lock()).await;
        self.down("another user is being connected");
        self.slot().take();
        drop(turn);
        session.close(self.settings.grace).await;
    }

    /// Opens channels on a connection for as long as it lasts. Yields why it ended.
    async fn serve(&self, link: &Link, session: &mut Session) -> End {
        loop {
            // lapin writes nothing on a blocked connection, so opening a channel would only time out.
            while session.is_blocked() {
                self.down("the broker has blocked the connection");
                match session.news().await {
                    News::Ended(reason) => return End::Fault(reason),
                    News::Outdated => return End::Outdated,
                    News::Blocked(_) | News::Unblocked => {}
                }
            }
            match self.open(session).await {
                Ok(channel) => *self.slot() = Some(channel),
                Err(reason) => return End::Fault(reason),
            }
            self.up(link);
            let mut look_at = Instant::now() + self.settings.check_interval;
            loop {
                let news = tokio::select! {
                    () = self.wanted.notified() => break,
                    news = session.news() => news,
                    () = sleep_until(look_at) => {
                        look_at = Instant::now() + self.settings.check_interval;
                        if !session.is_blocked() && let Err(reason) = self.look(session).await {
                            return End::Fault(reason);
                        }
                        continue;
                    }
                };
                match news {
                    News::Ended(reason) => return End::Fault(reason),
                    News::Outdated => return End::Outdated,
                    News::Blocked(reason) => {
                        let reason = format!("the broker has blocked the connection: {reason}");
                        records::Blocked { purpose: self.purpose, reason: &reason }.log();
                        self.down(&reason);
                        link.part().set(Condition::NotReady(reason));
                    }
                    News::Unblocked if self.slot().is_some() => self.up(link),
                    News::Unblocked => break,
                }
            }
        }
    }

    /// Looks whether what is published to is still there, and declares it again if that is wanted. A fault would end the
    /// channel, so it is looked at on one of its own.
    async fn look(&self, session: &mut Session) -> Result<(), String> {
        if self.purpose == Purpose::Publish {
            let channel = session.channel(self.settings.connect_timeout).await?;
            topology::publishing(&channel, &self.settings).await?;
            // If it fails, the channel ends with its connection.
            let _ = timeout(self.settings.grace, channel.close(200, "OK".into())).await;
        }
        Ok(())
    }

    async fn open(&self, session: &mut Session) -> Result<Channel, String> {
        let patience = self.settings.connect_timeout;
        let channel = session.channel(patience).await?;
        if self.purpose == Purpose::Publish {
            topology::publishing(&channel, &self.settings).await?;
        }
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        within(patience, "asking for confirms", confirms).await?;
        Ok(channel)
    }

    fn up(&self, link: &Link) {
        self.state.send_replace(State::Ready);
        self.revivals.send_replace(());
        link.part().set(Condition::Ready);
    }

    fn down(&self, reason: &str) {
        self.state.send_replace(State::Down(reason.to_owned()));
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Option<Channel>> {
        self.channel.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The channel during a round. Unless the round was clean, also when it was dropped half-way, the channel is not used
/// again.
struct Lease<'a> {
    lane: &'a Lane,
    channel: Option<Channel>,
    is_clean: bool,
}

impl Drop for Lease<'_> {
    fn drop(&mut self) {
        if self.is_clean {
            let mut slot = self.lane.slot();
            if slot.is_none() {
                *slot = self.channel.take();
            }
            return;
        }
        self.channel.take();
        // If the keeper has put another channel there meanwhile, it is good.
        if self.lane.slot().is_none() {
            self.lane.down("a channel is being opened again");
            self.lane.wanted.notify_one();
        }
    }
}
