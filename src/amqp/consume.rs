//! The consumer, for ever: a connection of its own, and nothing taken that cannot be worked on.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use lapin::Channel;
use tokio::sync::watch;
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::delivery::{Counts, Desk};
use super::generation::Generation;
use super::link::{Channels, Link, News, Session};
use super::pause::Pause;
use super::publish::BrokerPublisher;
use super::records;
use super::row::{Plan, Row, Stop};
use super::settings::Settings;
use super::tap::Tap;
use super::topology;
use crate::domain::error::{Reason, Refusal};
use crate::domain::seat::Seat;
use crate::service::archiver::Archiver;
use crate::service::readiness::{Condition, Part, Readiness};

/// The part of readiness.
pub const CONSUME_PART: &str = "amqp.consume";

/// Resolves when commands can be taken again.
pub type Resume = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Takes commands off their queues.
pub struct Consumer {
    settings: Arc<Settings>,
    desk: Arc<Desk>,
    part: Part,
    resume: Resume,
    seat: watch::Receiver<Seat>,
}

/// What is open while commands are taken.
struct Shift {
    /// For looking at the topology, since a fault of it ends the channel.
    watch: Channel,
    row: Arc<Row>,
    taps: Vec<Tap>,
}

impl Consumer {
    /// A consumer, entered into `readiness`. `resume` is asked after consuming had to stop since the pipeline takes
    /// nothing. `seat` says which partitions fall to this instance.
    #[must_use]
    pub fn new(
        settings: Arc<Settings>,
        archiver: Archiver,
        publisher: BrokerPublisher,
        readiness: &Readiness,
        resume: Resume,
        seat: watch::Receiver<Seat>,
    ) -> Self {
        let counts = Arc::default();
        let desk = Arc::new(Desk { settings: Arc::clone(&settings), archiver, publisher, counts });
        Self { settings, desk, part: readiness.part(CONSUME_PART), resume, seat }
    }

    /// Counts of what should be rare.
    #[must_use]
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.desk.counts)
    }

    /// Consumes until `shutdown`, then lets the messages under way end for as long as they are given. What is not
    /// acknowledged by then goes back to the queue.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut link = Link::new(Arc::clone(&self.settings), "consume", self.part.clone());
        while !shutdown.is_cancelled() {
            let mut session = tokio::select! {
                session = link.connect() => session,
                () = shutdown.cancelled() => break,
            };
            let stop = match self.open(&mut session).await {
                Ok(shift) => self.consume(&mut session, shift, &shutdown).await,
                Err(reason) => Stop::Fault(reason),
            };
            link.ended(session.since());
            session.close(self.settings.grace).await;
            let wait = async {
                match stop {
                    Stop::Shutdown | Stop::Outdated | Stop::Moved => {}
                    Stop::Fault(reason) => link.fault(reason).await,
                    Stop::Suspended(refusal) => self.suspend(&refusal).await,
                }
            };
            tokio::select! {
                () = wait => {}
                () = shutdown.cancelled() => {}
            }
        }
        self.part.set(Condition::NotReady("shutting down".to_owned()));
    }

    /// Waits until messages can be taken again.
    async fn suspend(&self, refusal: &Refusal) {
        records::Suspended { reason: refusal.reason.as_str() }.log();
        self.part.set(suspended(refusal));
        sleep(self.settings.backoff.deferral(1, None, rand::random())).await;
        (self.resume)().await;
    }

    /// Sees to the topology, and finds out from which queues to consume.
    async fn open(&self, session: &mut Session) -> Result<Shift, String> {
        let watch = session.channel(self.settings.connect_timeout).await?;
        topology::consuming(&watch, &self.settings).await?;
        let plan = self.plan(&session.channels()).await?;
        let (row, taps) = Row::new(&self.settings, &self.desk, session.channels(), &self.seat, plan);
        Ok(Shift { watch, row, taps })
    }

    /// The queues that are being left, for as long as there are any: what lies there came before.
    async fn plan(&self, channels: &Channels) -> Result<Plan, String> {
        let names = &self.settings.names;
        let mut standing = Vec::new();
        if let Some(from) = self.settings.partitions_from {
            for source in Generation(from).sources(names) {
                let patience = self.settings.connect_timeout;
                if topology::look(channels, &source.queue, patience).await?.is_some() {
                    standing.push(source);
                }
            }
        }
        if standing.is_empty() {
            return Ok(Plan { is_old: false, sources: Generation(self.settings.partitions).sources(names) });
        }
        records::OldFirst { count: standing.len() }.log();
        Ok(Plan { is_old: true, sources: standing })
    }

    async fn consume(&self, session: &mut Session, shift: Shift, shutdown: &CancellationToken) -> Stop {
        let Shift { watch, row, taps } = shift;
        let mut taps: FuturesUnordered<_> = taps.into_iter().map(Tap::run).collect();
        let stop = self.attend(session, &watch, &row, &mut taps, shutdown).await;
        match &stop {
            Stop::Shutdown => self.part.set(Condition::NotReady("shutting down".to_owned())),
            Stop::Suspended(refusal) => self.part.set(suspended(refusal)),
            Stop::Outdated => records::UserChanged.log(),
            Stop::Moved => records::QueuesChanged.log(),
            Stop::Fault(reason) => self.part.set(Condition::NotReady(reason.clone())),
        }
        while taps.next().await.is_some() {}
        stop
    }

    /// Resolves when something of the topology is not to be had any more, and says what. The broker tells of a queue
    /// that is deleted, but not of an exchange or a binding, without which commands or dead letters go nowhere.
    async fn watch(&self, channel: &Channel) -> String {
        loop {
            sleep(self.settings.check_interval).await;
            if let Err(reason) = topology::consuming(channel, &self.settings).await {
                return reason;
            }
        }
    }

    /// Has the taps run, and tells all of them to end when something ends one, or concerns all.
    async fn attend(
        &self,
        session: &mut Session,
        watch: &Channel,
        row: &Row,
        taps: &mut FuturesUnordered<impl Future<Output = ()>>,
        shutdown: &CancellationToken,
    ) -> Stop {
        let (load, hold) = (self.desk.archiver.load(), self.settings.delivery_hold);
        let mut pause = Pause::default();
        let mut missing = Box::pin(self.watch(watch));
        loop {
            pause.note(load.obstacle(), &self.part);
            // What was prefetched is held like any other delivery, and no longer.
            if let Some(why) = load.obstacle().filter(|_| pause.is_over(hold)) {
                let text = format!("no room for more: {why}");
                return row.end(Stop::Suspended(Refusal::new(Reason::Overloaded, text)));
            }
            tokio::select! {
                () = shutdown.cancelled() => return row.end(Stop::Shutdown),
                stop = row.ended() => return stop,
                reason = &mut missing => return row.end(Stop::Fault(reason)),
                news = session.news() => match news {
                    News::Ended(reason) => return row.end(Stop::Fault(reason)),
                    News::Blocked(reason) => {
                        let reason = format!("the broker has blocked the connection: {reason}");
                        self.part.set(Condition::NotReady(reason));
                    }
                    News::Unblocked => self.part.set(Condition::Ready),
                    News::Outdated => return row.end(Stop::Outdated),
                },
                () = row.opened.notified() => self.part.set(Condition::Ready),
                ended = taps.next() => if ended.is_none() {
                    // Without a word: the queues of an old generation are gone.
                    return row.end(Stop::Moved);
                },
                () = row.full.notified(), if !pause.is_on() => {}
                () = load.room(), if pause.is_on() => {}
                () = sleep_until(pause.look_at(hold)), if pause.is_on() => {}
            }
        }
    }
}

/// That the upstream is away is no fault of this instance: it still answers calls, if only to say so.
fn suspended(refusal: &Refusal) -> Condition {
    let text = format!("consuming is suspended: {refusal}");
    match refusal.reason {
        Reason::UpstreamPaused => Condition::Degraded(text),
        _ => Condition::NotReady(text),
    }
}
