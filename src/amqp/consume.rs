//! The consumer, for ever: a connection and a channel of its own, and nothing taken that cannot be worked on.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use lapin::Channel;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::delivery::{Counts, Desk, Ending};
use super::link::{Link, News, Session, within};
use super::pause::Pause;
use super::publish::BrokerPublisher;
use super::settings::Settings;
use super::{fault, topology};
use crate::domain::error::{Reason, Refusal};
use crate::service::archiver::Archiver;
use crate::service::readiness::{Condition, Part, Readiness};

/// The part of readiness.
pub const CONSUME_PART: &str = "amqp.consume";

/// Resolves when commands can be taken again.
pub type Resume = Arc<dyn Fn() -> BoxFuture<'static, ()> + Send + Sync>;

/// Takes commands off the queue.
pub struct Consumer {
    settings: Arc<Settings>,
    desk: Arc<Desk>,
    part: Part,
    resume: Resume,
}

/// What is open while commands are taken.
struct Tap {
    /// For looking at the topology, since a fault of it ends the channel.
    watch: Channel,
    channel: Channel,
    consumer: lapin::Consumer,
}

/// Why consuming stopped.
#[derive(Debug, PartialEq, Eq)]
enum Stop {
    /// It was asked to.
    Shutdown,
    /// Nothing can be taken for now.
    Suspended(Refusal),
    /// It goes on at once, as another user.
    Outdated,
    /// Something is wrong; what was prefetched goes back.
    Fault(String),
}

impl Consumer {
    /// A consumer, entered into `readiness`. `resume` is asked after consuming had to stop since the pipeline takes
    /// nothing.
    #[must_use]
    pub fn new(
        settings: Arc<Settings>,
        archiver: Archiver,
        publisher: BrokerPublisher,
        readiness: &Readiness,
        resume: Resume,
    ) -> Self {
        let counts = Arc::default();
        let desk = Arc::new(Desk { settings: Arc::clone(&settings), archiver, publisher, counts });
        Self { settings, desk, part: readiness.part(CONSUME_PART), resume }
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
                Ok(tap) => {
                    self.part.set(Condition::Ready);
                    self.consume(&mut session, tap, &shutdown).await
                }
                Err(reason) => Stop::Fault(reason),
            };
            link.ended(session.since());
            session.close(self.settings.grace).await;
            let wait = async {
                match stop {
                    Stop::Shutdown | Stop::Outdated => {}
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
        tracing::warn!(reason = refusal.reason.as_str(), "amqp: consuming is suspended");
        self.part.set(suspended(refusal));
        sleep(self.settings.backoff.deferral(1, None, rand::random())).await;
        (self.resume)().await;
    }

    /// Opens the channels and consumes. The bound on prefetching comes first, on each new channel.
    async fn open(&self, session: &mut Session) -> Result<Tap, String> {
        let patience = self.settings.connect_timeout;
        let watch = session.channel(patience).await?;
        topology::consuming(&watch, &self.settings).await?;
        let channel = session.channel(patience).await?;
        // 0 would mean no bound at all.
        let prefetch = self.settings.prefetch.max(1);
        let qos = channel.basic_qos(prefetch, BasicQosOptions::default());
        within(patience, "bounding the prefetch", qos).await?;
        let queue = self.settings.names.commands_queue.as_str();
        let object = format!("consuming from queue \"{queue}\"");
        let queue = ShortString::try_new(queue).map_err(|error| format!("{object}: {error}"))?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = channel.basic_consume(queue, ShortString::default(), options, arguments);
        let consumer = within(patience, &object, consumer).await?;
        Ok(Tap { watch, channel, consumer })
    }

    async fn consume(&self, session: &mut Session, mut tap: Tap, shutdown: &CancellationToken) -> Stop {
        let mut works = JoinSet::new();
        let stop = self.take(session, &mut tap, &mut works, shutdown).await;
        let Tap { channel, consumer, .. } = tap;
        match &stop {
            Stop::Shutdown => self.part.set(Condition::NotReady("shutting down".to_owned())),
            Stop::Suspended(refusal) => self.part.set(suspended(refusal)),
            Stop::Outdated => tracing::info!("amqp: consuming goes on as another user"),
            Stop::Fault(reason) => self.part.set(Condition::NotReady(reason.clone())),
        }
        if session.is_connected() && channel.status().connected() {
            // Without a basic.cancel: what a quorum queue delivers after one goes back at once, in front of what was delivered
            // before it. Closing the channel gives everything back in order.
            let patience = if stop == Stop::Shutdown { self.settings.drain } else { self.settings.grace };
            let ended = timeout(patience, async { while works.join_next().await.is_some() {} }).await;
            if ended.is_err() {
                tracing::info!(count = works.len(), "amqp: messages go back to the queue");
            }
            let _ = timeout(self.settings.grace, channel.close(200, "OK".into())).await;
        }
        // lapin cancels a consumer that is dropped.
        drop(consumer);
        // Whoever still waits for an answer could not acknowledge any more. The commands themselves go on.
        works.shutdown().await;
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

    /// Takes deliveries, in order, until something ends it.
    async fn take(
        &self,
        session: &mut Session,
        tap: &mut Tap,
        works: &mut JoinSet<Ending>,
        shutdown: &CancellationToken,
    ) -> Stop {
        let mut reopen_at: Option<Instant> = None;
        let (load, hold) = (self.desk.archiver.load(), self.settings.delivery_hold);
        let mut pause = Pause::default();
        let mut missing = Box::pin(self.watch(&tap.watch));
        loop {
            pause.note(load.obstacle(), &self.part);
            // What was prefetched is held like any other delivery, and no longer.
            if let Some(why) = load.obstacle().filter(|_| pause.is_over(hold)) {
                let text = format!("no room for more: {why}");
                return Stop::Suspended(Refusal::new(Reason::Overloaded, text));
            }
            tokio::select! {
                () = shutdown.cancelled() => return Stop::Shutdown,
                reason = &mut missing => return Stop::Fault(reason),
                news = session.news() => match news {
                    News::Ended(reason) => return Stop::Fault(reason),
                    News::Blocked(reason) => {
                        let reason = format!("the broker has blocked the connection: {reason}");
                        self.part.set(Condition::NotReady(reason));
                    }
                    News::Unblocked => self.part.set(Condition::Ready),
                    News::Outdated => return Stop::Outdated,
                },
                Some(ended) = works.join_next() => match ended {
                    Ok(Ending::Settled) => {}
                    Ok(Ending::Suspend(reason)) => return Stop::Suspended(reason),
                    Ok(Ending::Stuck(reason)) => return Stop::Fault(reason),
                    // Handing it back at once would be a hot loop, so it is kept for as long as any message is.
                    Ok(Ending::Left) | Err(_) => {
                        reopen_at.get_or_insert_with(|| Instant::now() + self.settings.delivery_hold);
                    }
                },
                () = sleep_until(reopen_at.unwrap_or_else(Instant::now)), if reopen_at.is_some() => {
                    return Stop::Fault("messages that could not be worked on go back to the queue".to_owned());
                }
                () = load.room(), if pause.is_on() => {}
                () = sleep_until(pause.look_at(hold)), if pause.is_on() => {}
                delivery = tap.consumer.next(), if !pause.is_on() => match delivery {
                    Some(Ok(delivery)) => match self.desk.receive(delivery) {
                        Ok(work) => {
                            works.spawn(work);
                        }
                        Err(refusal) => return Stop::Suspended(refusal),
                    },
                    Some(Err(error)) => return Stop::Fault(fault::about("the channel ended", &error)),
                    // The broker ends a consumer whose queue is deleted or fails over, without any error.
                    None => return Stop::Fault("the broker has ended the consumer".to_owned()),
                },
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
