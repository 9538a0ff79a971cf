//! One queue that is consumed from, on a channel of its own: opened, drawn from, left to others and closed.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use lapin::Channel;
use lapin::message::Delivery;
use lapin::options::{BasicConsumeOptions, BasicQosOptions, BasicRejectOptions};
use lapin::types::{FieldTable, ShortString};
use tokio::sync::watch;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, sleep, sleep_until, timeout, timeout_at};

use super::acks::{Acks, Due};
use super::aside::Stand;
use super::delivery::Ending;
use super::fence::{self, Kind};
use super::generation::Source;
use super::link::within;
use super::row::{Row, Stop};
use super::topology::Look;
use super::{fault, records, topology};
use crate::domain::seat::Seat;

/// How much later than its own an instance enters the rows of partitions that fall to others.
const STAND_BY_DELAY: Duration = Duration::from_millis(500);

/// How long the messages in hand may take to end when a partition is left to another.
const ASIDE_GRACE: Duration = Duration::from_secs(1);

/// How often it is looked at a queue that one instance at a time draws from.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);

/// So many times in a row a fence must find that nobody else consumes from such a queue, before that is deleted.
const PASSES: u32 = 2;

/// A queue, consumed from by turns.
pub struct Tap {
    row: Arc<Row>,
    source: Source,
    seat: watch::Receiver<Seat>,
    stand: Stand,
    /// Whether the row counts as closed until this one is open.
    is_awaited: bool,
}

/// What is open while a queue is consumed from.
struct Open {
    channel: Channel,
    consumer: lapin::Consumer,
    /// What has come last, until there is room for it.
    newest: Option<Delivery>,
    works: JoinSet<Ending>,
    acks: Acks,
    /// When what cannot be worked on is given back.
    give_back_at: Option<Instant>,
    /// The fence that has come, and when to act upon it. It is not acknowledged: it comes again if the queue is not deleted.
    fence: Option<(Delivery, Instant)>,
    /// How often in a row it has found that nobody else consumes.
    passes: u32,
}

/// Why a channel is closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// The row ends.
    Ended,
    /// Another instance is to have the queue.
    Aside,
    /// The queue is gone, as it should be.
    Gone,
}

impl Tap {
    /// A tap that counts for the row's being open if the queue is the instance's own.
    #[must_use]
    pub fn new(row: Arc<Row>, source: Source, seat: watch::Receiver<Seat>, is_own: bool) -> Self {
        Self { row, source, seat, stand: Stand::new(is_own), is_awaited: is_own }
    }

    /// Consumes until the row ends, or the queue of an old generation is gone.
    pub async fn run(mut self) {
        if let Err(reason) = self.take_turns().await {
            self.row.end(Stop::Fault(reason));
        }
    }

    async fn take_turns(&mut self) -> Result<(), String> {
        let row = Arc::clone(&self.row);
        loop {
            let is_there = tokio::select! {
                is_there = self.turn() => is_there?,
                _ = row.ended() => return Ok(()),
            };
            if !is_there {
                self.note_open();
                return Ok(());
            }
            let mut open = match self.open().await {
                Ok(open) => open,
                Err(_) if self.is_gone().await => continue,
                Err(reason) => return Err(reason),
            };
            // Two that have looked at the same time both step back, and look again after waits of their own.
            // Who cannot look steps back too: the channel is closed then, where a consumer that is dropped would be cancelled.
            let is_alone =
                !self.is_exclusive() || matches!(self.look().await, Ok(Some(look)) if look.consumers == 1);
            self.note_open();
            let leave = if is_alone { self.draw(&mut open).await } else { Leave::Aside };
            self.close(open, leave).await;
            if leave == Leave::Ended {
                return Ok(());
            }
            self.stand.left(Instant::now());
            if !is_alone {
                sleep(LOOK_INTERVAL.mul_f64(rand::random())).await;
            }
        }
    }

    /// Whether one instance at a time draws from the queue, and sees to that itself: the one queue of an old generation has
    /// no single active consumer, and quorum queues pay no heed to an exclusive one.
    fn is_exclusive(&self) -> bool {
        self.row.is_old && self.source.number.is_none()
    }

    async fn look(&self) -> Result<Option<Look>, String> {
        topology::look(&self.row.channels, &self.source.queue, self.row.settings.connect_timeout).await
    }

    /// Whether the queue is gone, as one of an old generation may be.
    async fn is_gone(&self) -> bool {
        self.row.is_old && matches!(self.look().await, Ok(None))
    }

    /// Waits until this instance is to enter the queue's row of consumers. Yields whether the queue is there.
    async fn turn(&mut self) -> Result<bool, String> {
        if self.row.is_old {
            loop {
                match self.look().await? {
                    None => return Ok(false),
                    Some(look) if self.is_exclusive() && look.consumers > 0 => {
                        self.note_open();
                        sleep(LOOK_INTERVAL.mul_f64(0.5 + rand::random::<f64>())).await;
                    }
                    Some(_) => break,
                }
            }
        }
        let enter_at = Instant::now() + STAND_BY_DELAY;
        while !self.stand.is_own() {
            tokio::select! {
                seat = changed(&mut self.seat) => self.stand.turn(self.source.falls_to(seat)),
                () = sleep_until(enter_at) => break,
            }
        }
        Ok(true)
    }

    /// Opens a channel and consumes. The bound on prefetching comes first.
    async fn open(&self) -> Result<Open, String> {
        let patience = self.row.settings.connect_timeout;
        let channel = self.row.channels.open(patience).await?;
        let qos = channel.basic_qos(self.row.prefetch, BasicQosOptions::default());
        within(patience, "bounding the prefetch", qos).await?;
        let queue = self.source.queue.as_str();
        let object = format!("consuming from queue \"{queue}\"");
        let queue = ShortString::try_new(queue).map_err(|error| format!("{object}: {error}"))?;
        let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
        let consumer = channel.basic_consume(queue, ShortString::default(), options, arguments);
        let consumer = within(patience, &object, consumer).await?;
        let (works, acks) = (JoinSet::new(), Acks::default());
        let (newest, give_back_at, fence) = (None, None, None);
        Ok(Open { channel, consumer, newest, works, acks, give_back_at, fence, passes: 0 })
    }

    fn note_open(&mut self) {
        if std::mem::take(&mut self.is_awaited) {
            self.row.note_open();
        }
    }

    /// Takes deliveries, in order, until something ends it. After a stop not one more is taken: it may be about the same
    /// connection as the one over which it came to that.
    async fn draw(&mut self, open: &mut Open) -> Leave {
        let row = Arc::clone(&self.row);
        let load = row.desk.archiver.load();
        loop {
            let is_full = load.obstacle().is_some();
            if is_full {
                row.full.notify_one();
            } else if let Some(delivery) = open.newest.take() {
                match self.receive(open, delivery) {
                    None => continue,
                    Some(stop) => {
                        row.end(stop);
                        return Leave::Ended;
                    }
                }
            }
            let (fence_at, leave_at) = (open.fence_at(), self.stand.leave_at());
            let is_drawn = !is_full && open.fence.is_none();
            let stop = tokio::select! {
                _ = row.ended() => return Leave::Ended,
                seat = changed(&mut self.seat) => {
                    self.stand.turn(self.source.falls_to(seat));
                    None
                }
                Some(ended) = open.works.join_next() => open.note(ended, row.settings.delivery_hold),
                () = open.acks.send(&row.desk), if !open.acks.is_idle() => None,
                () = until(open.give_back_at) => {
                    Some(Stop::Fault("messages that could not be worked on go back to the queue".to_owned()))
                }
                () = until(leave_at) => {
                    records::PartitionLeft { partition: self.source.number }.log();
                    return Leave::Aside;
                }
                () = until(fence_at) => match self.retire(open).await {
                    Ok(true) => return Leave::Gone,
                    Ok(false) => None,
                    Err(reason) => Some(Stop::Fault(reason)),
                },
                () = load.room(), if is_full => None,
                delivery = open.consumer.next(), if is_drawn => match delivery {
                    // It may have become full meanwhile. What has come then waits here, and not in the queue again.
                    Some(Ok(delivery)) => {
                        open.newest = Some(delivery);
                        None
                    }
                    // The broker ends a consumer whose queue is deleted or fails over, without any error.
                    _ if self.is_gone().await => return Leave::Gone,
                    Some(Err(error)) => Some(Stop::Fault(fault::about("the channel ended", &error))),
                    None => Some(Stop::Fault("the broker has ended the consumer".to_owned())),
                },
            };
            if let Some(stop) = stop {
                row.end(stop);
                return Leave::Ended;
            }
        }
    }

    /// Takes one delivery in. Yields why nothing more can be taken, if that is so.
    fn receive(&mut self, open: &mut Open, delivery: Delivery) -> Option<Stop> {
        let now = Instant::now();
        self.stand.delivered(now);
        open.acks.delivered(delivery.delivery_tag);
        match fence::kind(&delivery, &self.source.queue, &self.row.settings) {
            Kind::Message => match self.row.desk.receive(delivery, &self.source) {
                Ok(work) => {
                    open.works.spawn(work);
                    None
                }
                Err(refusal) => Some(Stop::Suspended(refusal)),
            },
            Kind::Fence => {
                let is_again = delivery.redelivered && open.passes == 0;
                open.fence = Some((delivery, if is_again { now + LOOK_INTERVAL } else { now }));
                None
            }
            Kind::Foreign => {
                // Dropping it does no harm: nothing is deleted, and whoever waits for that puts another one there.
                records::FenceForeign { queue: &self.source.queue }.log();
                open.acks.settle(Due::new(&self.row.desk, delivery, None));
                None
            }
        }
    }

    /// Deletes the queue, once everything before the fence is settled and nobody else can have anything of it. Yields whether
    /// it is gone. What stands behind the fence lies in the queues of the new generation too.
    async fn retire(&self, open: &mut Open) -> Result<bool, String> {
        let (settings, channels) = (&self.row.settings, &self.row.channels);
        if self.is_exclusive() {
            // What another one has given back, since it consumed by mistake or for a moment, came behind this fence, but comes
            // before the same fence when that is given back in its turn.
            let is_alone = self.look().await?.is_none_or(|look| look.consumers <= 1);
            open.passes = if is_alone { open.passes + 1 } else { 0 };
            if open.passes < PASSES {
                let Some((fence, _)) = open.fence.take() else { return Ok(false) };
                open.acks.forget(fence.delivery_tag);
                let given_back = fence.acker.reject(BasicRejectOptions { requeue: true });
                within(settings.connect_timeout, "giving a fence back", given_back).await?;
                return Ok(false);
            }
        }
        let channel = channels.open(settings.connect_timeout).await?;
        topology::consuming(&channel, settings).await?;
        let _ = timeout(settings.grace, channel.close(200, "OK".into())).await;
        topology::delete_queue(channels, &self.source.queue, settings.connect_timeout).await?;
        records::QueueDeleted { queue: &self.source.queue }.log();
        Ok(true)
    }

    /// Lets the messages in hand end, for a while, and closes the channel. Without a basic.cancel: what a quorum queue delivers
    /// after one goes back at once, in front of what was delivered before it. Closing the channel gives everything back in
    /// order.
    async fn close(&self, open: Open, leave: Leave) {
        let Open { channel, consumer, mut works, mut acks, .. } = open;
        let settings = &self.row.settings;
        if self.row.channels.is_connected() && channel.status().connected() {
            let patience = match leave {
                Leave::Aside => settings.grace.min(ASIDE_GRACE),
                // A partition stands still until its channel is closed. What is in hand goes on and is found by its key.
                Leave::Ended if self.source.number.is_some() => settings.grace.min(ASIDE_GRACE),
                Leave::Ended if self.row.ended().await == Stop::Shutdown => settings.drain,
                Leave::Ended | Leave::Gone => settings.grace,
            };
            let ended = timeout(patience, async {
                loop {
                    tokio::select! {
                        ended = works.join_next() => match ended {
                            Some(Ok(Ending::Settled(due))) => acks.settle(*due),
                            Some(_) => {}
                            None => break,
                        },
                        () = acks.send(&self.row.desk), if !acks.is_idle() => {}
                    }
                }
            });
            if ended.await.is_err() {
                records::GivenBack { count: works.len() }.log();
            }
        }
        let close_by = Instant::now() + settings.grace;
        // Those that do not go out any more are counted.
        let _ = timeout_at(close_by, acks.send(&self.row.desk)).await;
        if self.row.channels.is_connected() && channel.status().connected() {
            let _ = timeout_at(close_by, channel.close(200, "OK".into())).await;
        }
        // lapin cancels a consumer that is dropped.
        drop(consumer);
        // Whoever still waits for an answer could not acknowledge any more. The commands themselves go on.
        works.shutdown().await;
    }
}

impl Open {
    /// Notes how a delivery ended, and others that have ended too. Yields why nothing more can be taken, if that is so.
    fn note(&mut self, ended: Result<Ending, JoinError>, hold: Duration) -> Option<Stop> {
        let mut next = Some(ended);
        while let Some(ended) = next {
            if let Some(stop) = self.note_one(ended, hold) {
                return Some(stop);
            }
            next = self.works.try_join_next();
        }
        None
    }

    fn note_one(&mut self, ended: Result<Ending, JoinError>, hold: Duration) -> Option<Stop> {
        match ended {
            Ok(Ending::Settled(due)) => {
                self.acks.settle(*due);
                None
            }
            Ok(Ending::Suspend(refusal)) => Some(Stop::Suspended(refusal)),
            Ok(Ending::Stuck(reason)) => Some(Stop::Fault(reason)),
            // Handing it back at once would be a hot loop, so it is kept for as long as any message is.
            Ok(Ending::Left) | Err(_) => {
                self.give_back_at.get_or_insert_with(|| Instant::now() + hold);
                None
            }
        }
    }

    /// When to act upon the fence: once everything that came is settled, and not merely left.
    fn fence_at(&self) -> Option<Instant> {
        let (_, act_at) = self.fence.as_ref()?;
        let is_settled = self.works.is_empty() && self.acks.is_idle() && self.give_back_at.is_none();
        is_settled.then_some(*act_at)
    }
}

/// Resolves then, or never.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => pending().await,
    }
}

/// The seat, when it has changed.
async fn changed(seat: &mut watch::Receiver<Seat>) -> Seat {
    if seat.changed().await.is_err() {
        // Nobody is left who could change it.
        pending::<()>().await;
    }
    *seat.borrow_and_update()
}
