//! A connection with one channel for publishing, kept up for ever; one round at a time.

use std::sync::{Arc, Mutex, PoisonError};

use lapin::Channel;
use lapin::options::ConfirmSelectOptions;
use tokio::sync::{Notify, watch};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::link::{Link, News, Session, within};
use super::render::Publishing;
use super::round::{self, Round};
use super::settings::Settings;
use super::topology;
use crate::service::ports::Publication;
use crate::service::readiness::Condition;

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

/// A lane.
#[derive(Debug)]
pub struct Lane {
    settings: Arc<Settings>,
    purpose: Purpose,
    state: watch::Sender<State>,
    revivals: Arc<watch::Sender<()>>,
    channel: Mutex<Option<Channel>>,
    /// Wakes the keeper when a channel was used up.
    wanted: Notify,
    /// Held during a round.
    turn: tokio::sync::Mutex<()>,
}

impl Lane {
    /// A lane that is down until [`Self::keep`] runs, and tells `revivals` whenever it is up again.
    #[must_use]
    pub fn new(settings: Arc<Settings>, purpose: Purpose, revivals: Arc<watch::Sender<()>>) -> Self {
        let state = watch::Sender::new(State::Down("not connected yet".to_owned()));
        let turn = tokio::sync::Mutex::new(());
        Self { settings, purpose, state, revivals, channel: Mutex::default(), wanted: Notify::new(), turn }
    }

    /// Publishes a batch as one round, or one by one if a message among them ends the channel: it must hold up no other.
    /// Waits for a turn and for a channel no longer than a confirm may take.
    pub async fn publish(&self, publishings: &[Publishing]) -> Vec<Publication> {
        if publishings.is_empty() {
            return Vec::new();
        }
        let round = self.round(publishings).await;
        if !round.is_spoilt {
            return round.publications;
        }
        let mut publications = Vec::with_capacity(publishings.len());
        for publishing in publishings {
            publications.extend(self.round(std::slice::from_ref(publishing)).await.publications);
            if let Some(Publication::Failed(reason)) = publications.last() {
                let rest = Publication::Failed(reason.clone());
                publications.resize(publishings.len(), rest);
                break;
            }
        }
        publications
    }

    async fn round(&self, publishings: &[Publishing]) -> Round {
        let failed = |reason: String| Round {
            publications: vec![Publication::Failed(reason); publishings.len()],
            is_clean: false,
            is_spoilt: false,
        };
        let Ok((turn, mut lease)) = timeout(self.settings.confirm_timeout, self.lease()).await else {
            return failed(match &*self.state.borrow() {
                State::Down(reason) => reason.clone(),
                State::Ready => "other batches take too long".to_owned(),
            });
        };
        let Some(channel) = &lease.channel else {
            return failed("the channel is gone".to_owned());
        };
        let round = round::run(channel, &self.settings, publishings).await;
        lease.is_clean = round.is_clean;
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
        }
    }

    /// Keeps the lane up until `shutdown`.
    pub async fn keep(&self, mut link: Link, shutdown: CancellationToken) {
        while let Some(mut session) = shutdown.run_until_cancelled(link.connect()).await {
            let reason = shutdown.run_until_cancelled(self.serve(&link, &mut session)).await;
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

    /// Opens channels on a connection for as long as it lasts. Yields why it ended.
    async fn serve(&self, link: &Link, session: &mut Session) -> String {
        loop {
            // lapin writes nothing on a blocked connection, so opening a channel would only time out.
            while session.is_blocked() {
                self.down("the broker has blocked the connection");
                if let News::Ended(reason) = session.news().await {
                    return reason;
                }
            }
            match self.open(session).await {
                Ok(channel) => *self.slot() = Some(channel),
                Err(reason) => return reason,
            }
            self.up(link);
            loop {
                let news = tokio::select! {
                    () = self.wanted.notified() => break,
                    news = session.news() => news,
                };
                match news {
                    News::Ended(reason) => return reason,
                    News::Blocked(reason) => {
                        let reason = format!("the broker has blocked the connection: {reason}");
                        tracing::warn!(purpose = ?self.purpose, reason, "broker: blocked");
                        self.down(&reason);
                        link.part().set(Condition::NotReady(reason));
                    }
                    News::Unblocked if self.slot().is_some() => self.up(link),
                    News::Unblocked => break,
                }
            }
        }
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
