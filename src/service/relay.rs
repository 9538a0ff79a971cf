//! Publishes the outbox: in order within a connection, again and again until the broker confirms.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use opentelemetry::KeyValue;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ports::{OutboxRow, Publication, Publisher, Store, StoreError};
use super::readiness::{Condition, Part};
use super::records;
use super::tenure::{Round, Slots, Tenure};
use crate::domain::Timestamp;
use crate::domain::connection::Connection;
use crate::domain::message::Message;
use crate::domain::retry::Backoff;
use crate::domain::trace::TraceContext;
use crate::telemetry::context;
use crate::telemetry::instruments::instruments;
use crate::telemetry::step::{self, Name};

/// What becomes of an event for which the broker has no queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenUnroutable {
    /// It stays and is tried again; later events of its connection wait behind it.
    Hold,
    /// It is given up, as if the broker had confirmed it.
    Discard,
}

/// Which messages a relay takes. Replies go to queues of anybody's making, so what happens to them must not hold up
/// the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Events and dead letters.
    Events,
    /// Replies.
    Replies,
}

impl Share {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Replies => "replies",
        }
    }

    fn takes(self, message: &Message) -> bool {
        matches!(message, Message::Reply(_)) == (self == Self::Replies)
    }
}

/// Numbers that the relay goes by.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Which messages it takes.
    pub share: Share,
    /// Messages published at once.
    pub batch_max: usize,
    /// Waits after a failure, and between tries of what is held back.
    pub backoff: Backoff,
    /// What becomes of unroutable events.
    pub when_unroutable: WhenUnroutable,
}

/// The relay.
pub struct Relay {
    settings: Settings,
    store: Arc<dyn Store>,
    publisher: Arc<dyn Publisher>,
    written: watch::Receiver<()>,
    revivals: watch::Receiver<()>,
    part: Part,
    tenure: Arc<Tenure>,
    /// The slots of the round before.
    slots: Slots,
    /// The greatest number seen: what is new lies above it, or not far below.
    seen: i64,
    /// Connections whose oldest event the broker did not take.
    held: HashSet<Connection>,
    /// The same of messages without a place in a connection's order: dead letters, replies.
    held_alone: HashSet<i64>,
    /// Why the broker refused one of them, if it did.
    refusal: Option<String>,
    /// Some of what is held was not confirmed, which costs every try some time.
    has_stragglers: bool,
    /// Tries in a row that ended with stragglers, for the back-off.
    straggling: u32,
    /// Whether the log says that something is held.
    holding: bool,
    /// Something below `seen` is not confirmed.
    left_behind: bool,
    /// Numbers that the broker has confirmed and the store could not mark yet. They are not published again.
    unmarked: Vec<Confirmed>,
    /// Passes that failed since the last one that did not, for the back-off.
    failures: u32,
}

impl Relay {
    /// A relay that is woken by `written` and tells its condition to `part`.
    #[must_use]
    pub fn new(
        settings: Settings,
        store: Arc<dyn Store>,
        publisher: Arc<dyn Publisher>,
        written: watch::Receiver<()>,
        part: Part,
    ) -> Self {
        Self {
            settings,
            tenure: store.tenure(),
            slots: Slots::NONE,
            store,
            revivals: publisher.revivals(),
            publisher,
            written,
            part,
            seen: 0,
            held: HashSet::new(),
            held_alone: HashSet::new(),
            refusal: None,
            has_stragglers: false,
            straggling: 0,
            holding: false,
            left_behind: true,
            unmarked: Vec::new(),
            failures: 0,
        }
    }

    /// Publishes until `stop`, and then what is left as far as it goes without a wait.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut retry_at = Instant::now();
        loop {
            let stopping = stop.is_cancelled();
            if self.left_behind && (stopping || Instant::now() >= retry_at) {
                self.left_behind = false;
                self.held.clear();
                self.held_alone.clear();
                self.refusal = None;
                self.has_stragglers = false;
                self.seen = 0;
            }
            self.revivals.mark_unchanged();
            // Of what other instances write, what has the smaller number may appear later. Among much that is held it is found
            // when that is tried again.
            if self.tenure.is_shared() && !self.holding {
                self.seen = (self.seen - SHUFFLE_MAX).max(0);
            }
            match self.pass().await {
                Ok(Pass::Whole) => {
                    self.failures = 0;
                    self.report();
                }
                Ok(Pass::Part) => {
                    self.failures = 0;
                    continue;
                }
                Err(Stopped) => self.failures = self.failures.saturating_add(1),
            }
            if stopping {
                return;
            }
            // What came new does not bring forward the next try of what was left behind.
            if self.left_behind && Instant::now() >= retry_at {
                self.straggling = if self.has_stragglers { self.straggling.saturating_add(1) } else { 0 };
                let tries = self.failures.max(self.straggling).max(1);
                retry_at = Instant::now() + self.settings.backoff.deferral(tries, None, rand::random());
            }
            let wait = if self.left_behind { retry_at.duration_since(Instant::now()) } else { IDLE_INTERVAL };
            let revived = revived(&mut self.revivals, self.settings.backoff.delay_base);
            tokio::select! {
                () = stop.cancelled() => {}
                () = revived, if self.failures > 0 => {}
                Ok(()) = self.written.changed(), if self.failures == 0 => {}
                () = sleep(wait) => {}
            }
        }
    }

    /// Goes once through the rows above the greatest number seen, a batch at a time.
    async fn pass(&mut self) -> Result<Pass, Stopped> {
        self.mark().await?;
        for _ in 0..PASS_LENGTH_MAX {
            let round = self.tenure.round();
            self.look_back(&round);
            let rows = self.store.outbox(self.seen, self.settings.batch_max, round.slots).await;
            let rows = rows.map_err(|error| self.stop_at(&error))?;
            let Some(last) = rows.last().map(|row| row.number) else { return Ok(Pass::Whole) };
            let (batch, in_line) = self.choose(rows);
            self.publish(batch, round).await?;
            // Those behind a predecessor of the same batch go next: what is confirmed is gone when they are read again.
            if !in_line {
                self.seen = last;
            }
        }
        Ok(Pass::Part)
    }

    /// Goes back as far as something may have appeared that was not there before: in slots that others held, it may be
    /// anything.
    fn look_back(&mut self, round: &Round) {
        if !round.slots.without(self.slots).is_empty() {
            self.seen = 0;
        }
        self.slots = round.slots;
    }

    /// Picks the rows that may go now: the first of each connection that is not held back. Yields also whether others
    /// only wait for these.
    fn choose(&self, rows: Vec<OutboxRow>) -> (Vec<OutboxRow>, bool) {
        let mut taken: HashSet<Connection> = HashSet::new();
        let mut in_line = false;
        let mine = rows.into_iter().filter(|row| self.settings.share.takes(&row.message));
        let batch = mine.filter(|row| match row.message.connection() {
            None => !self.held_alone.contains(&row.number),
            Some(connection) if self.held.contains(&connection) => false,
            Some(connection) => {
                let first = taken.insert(connection);
                in_line |= !first;
                first
            }
        });
        (batch.collect(), in_line)
    }

    fn stop_at(&mut self, error: &StoreError) -> Stopped {
        records::OutboxUnread { error }.log();
        self.left_behind = true;
        Stopped
    }

    /// Publishes a batch and marks what is confirmed.
    async fn publish(&mut self, batch: Vec<OutboxRow>, round: Round) -> Result<(), Stopped> {
        if batch.is_empty() {
            return Ok(());
        }
        let messages = batch.iter().map(|row| Arc::clone(&row.message)).collect();
        let publications = self.publisher.publish(messages, round.until).await;
        // What was published may be marked by whoever did it.
        drop(round);
        let is_silent = publications.iter().all(|publication| matches!(publication, Publication::Failed(_)));
        let mut confirmed = Vec::with_capacity(batch.len());
        let mut failures: HashMap<String, usize> = HashMap::new();
        for (row, publication) in batch.iter().zip(publications) {
            match publication {
                Publication::Confirmed => confirmed.push(Confirmed::of(row)),
                Publication::Unroutable if self.gives_up(&row.message) => {
                    told(row, |command_id| {
                        records::MessageDropped { command_id, message_id: row.message.id() }.log();
                    });
                    confirmed.push(Confirmed { is_given_up: true, ..Confirmed::of(row) });
                }
                Publication::Refused(why) if matches!(*row.message, Message::Reply(_)) => {
                    told(row, |command_id| {
                        records::ReplyDropped { command_id, message_id: row.message.id(), why: &why }.log();
                    });
                    confirmed.push(Confirmed { is_given_up: true, ..Confirmed::of(row) });
                }
                Publication::Unroutable => self.hold(row, "no queue takes it"),
                Publication::Refused(why) => {
                    self.hold(row, &why);
                    self.refusal = Some(why);
                }
                Publication::Failed(why) => {
                    // The broker answers others: it is this message's queue that is in trouble.
                    if !is_silent {
                        self.hold(row, &why);
                        self.has_stragglers = true;
                    }
                    *failures.entry(why).or_default() += 1;
                }
            }
        }
        for (why, count) in &failures {
            records::Unpublished { count: *count, why }.log();
        }
        self.unmarked = confirmed;
        self.mark().await?;
        if !is_silent {
            return Ok(());
        }
        self.left_behind = true;
        if let Some(why) = failures.into_keys().next() {
            self.part.set(Condition::Degraded(format!("nothing could be published: {why}")));
        }
        Err(Stopped)
    }

    /// Takes out of the outbox what the broker has confirmed. While the store takes nothing, nothing more is published: it
    /// would come again and again.
    async fn mark(&mut self) -> Result<(), Stopped> {
        if self.unmarked.is_empty() {
            return Ok(());
        }
        let marked =
            self.store.confirm(self.unmarked.iter().map(|confirmed| confirmed.number).collect()).await;
        marked.map_err(|error| self.stop_at(&error))?;
        for confirmed in self.unmarked.drain(..) {
            confirmed.tell();
        }
        Ok(())
    }

    /// Keeps a message for later, and what is behind it on its connection.
    fn hold(&mut self, row: &OutboxRow, why: &str) {
        told(row, |command_id| {
            records::MessageHeld { command_id, message_id: row.message.id(), why }.log();
        });
        self.left_behind = true;
        match row.message.connection() {
            Some(connection) => drop(self.held.insert(connection)),
            None => drop(self.held_alone.insert(row.number)),
        }
    }

    /// Nobody waits for a reply whose queue is gone.
    fn gives_up(&self, message: &Message) -> bool {
        match message {
            Message::Reply(_) => true,
            Message::Event(_) => self.settings.when_unroutable == WhenUnroutable::Discard,
            Message::DeadLetter(_) => false,
        }
    }

    /// Tells the condition after a pass that the broker answered, and logs where it turns: once for many messages.
    fn report(&mut self) {
        let (connections, alone) = (self.held.len(), self.held_alone.len());
        let share = KeyValue::new("share", self.settings.share.as_str());
        instruments().outbox_held.record((connections + alone) as u64, &[share]);
        let holding = connections + alone > 0;
        if holding != self.holding {
            self.holding = holding;
            if holding {
                records::Holding { connections, alone }.log();
            } else {
                records::HoldingNone.log();
            }
        }
        self.part.set(if holding {
            let text = format!(
                "held, since the broker has no room, queue or confirm for them: events of {connections} connection(s)"
            );
            // A permission that is missing is named here.
            let refusal = self.refusal.as_ref().map(|why| format!("; refused: {why}")).unwrap_or_default();
            Condition::Degraded(format!("{text}, {alone} other message(s){refusal}"))
        } else {
            Condition::Ready
        });
    }
}

/// A message that is done with, until the store has noted it.
struct Confirmed {
    number: i64,
    id: Uuid,
    kind: &'static str,
    written: Option<Timestamp>,
    trace: TraceContext,
    /// The broker has not taken it and will not be asked again.
    is_given_up: bool,
}

impl Confirmed {
    fn of(row: &OutboxRow) -> Self {
        let OutboxRow { number, message } = row;
        let trace = message.trace().clone();
        let (id, kind, written) = (message.id(), message.kind(), message.written());
        Self { number: *number, id, kind, written, trace, is_given_up: false }
    }

    /// Tells of it that it is done with, and how long that took.
    fn tell(self) {
        let kind = [KeyValue::new("kind", self.kind)];
        if self.is_given_up {
            instruments().given_up.add(1, &kind);
        }
        let Some(written) = self.written.map(SystemTime::from) else { return };
        if !self.is_given_up {
            let delay = SystemTime::now().duration_since(written).unwrap_or_default();
            instruments().outbox_delay.record(delay.as_secs_f64(), &kind);
        }
        let attributes = || {
            let given_up = self.is_given_up.then(|| KeyValue::new("error.type", "given_up"));
            let id = KeyValue::new("messaging.message.id", self.id.to_string());
            std::iter::once(id).chain(given_up).collect()
        };
        step::past(Name::Relay, written, attributes, &self.trace);
    }
}

/// Tells of a message in the trace of its command.
fn told(row: &OutboxRow, tell: impl FnOnce(Option<String>)) {
    let command = row.message.command().map(|id| id.to_string());
    context::within(row.message.trace(), || tell(command));
}

/// Waits until the publisher is up again, and a little longer: if it goes down over every message, this must not become
/// a hot loop.
async fn revived(revivals: &mut watch::Receiver<()>, pause: Duration) {
    if revivals.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    sleep(pause).await;
}

/// How far a pass went.
enum Pass {
    /// There is nothing left that may go now.
    Whole,
    /// There may be more.
    Part,
}

/// The pass ended early: the broker or the store failed.
struct Stopped;

/// Rounds of one pass.
const PASS_LENGTH_MAX: usize = 16;

/// How far below the greatest number seen others may still write.
const SHUFFLE_MAX: i64 = 8_192;

/// The longest wait without a word: rows of another process are not announced to this one.
const IDLE_INTERVAL: Duration = Duration::from_secs(1);
