//! What the loop needs of the outside: a store, an upstream, a publisher and a clock.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::tenure::{Slots, Tenure};
use crate::domain::Timestamp;
use crate::domain::act::{Act, ActRecord};
use crate::domain::command::{CommandId, IdempotencyKey, OrganizationId};
use crate::domain::connection::Connection;
use crate::domain::erasure::{Forgotten, Whose};
use crate::domain::heal::{self, Heal, Healed};
use crate::domain::lifecycle::{Acceptance, Finish, PutOff};
use crate::domain::message::Message;
use crate::domain::record::CommandRecord;
use crate::domain::reply::{Reply, Unauthorized};
use crate::domain::trace::TraceContext;

/// The store does not take or give data; nothing was done, or nothing is known to have been done.
///
/// Its text is for operators, never for callers.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the store is unavailable: {0}")]
pub struct StoreError(pub String);

/// A call on the store, under way.
pub type StoreFuture<T> = BoxFuture<'static, Result<T, StoreError>>;

/// The answer to [`Store::accept`].
#[derive(Debug, Clone)]
pub enum Accepted {
    /// New work, durable. The claim is there if it was asked for together with the acceptance, unless the command was put
    /// off: then it is recovery's at its due time.
    Fresh(CommandRecord, Option<Begun>),
    /// The key is known and its command not final: wait for it.
    InProgress(CommandRecord),
    /// The key is known and its outcome final.
    Replayed(CommandRecord),
    /// The key names a command with other parameters.
    Conflict,
}

impl Accepted {
    /// Which command it is, if it may be told.
    #[must_use]
    pub const fn id(&self) -> Option<CommandId> {
        match self {
            Self::Fresh(record, _) | Self::InProgress(record) | Self::Replayed(record) => Some(record.id),
            Self::Conflict => None,
        }
    }
}

/// The answer to [`Store::begin`].
#[derive(Debug, Clone)]
pub enum Begun {
    /// The claim is given: the record holds its epoch.
    Claimed(CommandRecord),
    /// It waits for another command or a quiet time; recovery takes it up at its due time.
    Waiting(CommandRecord),
    /// It ended without a PATCH: superseded or expired.
    Ended(CommandRecord),
    /// Someone else holds the claim, or it was final already.
    Unavailable(CommandRecord),
}

/// The answer to [`Store::put_off`].
#[derive(Debug, Clone)]
pub enum PutOffAnswer {
    /// It is put off; recovery takes it up at its due time.
    Waiting(CommandRecord),
    /// It ended without a PATCH: superseded or expired.
    Ended(CommandRecord),
    /// Someone else holds the claim, or it was final already.
    Unavailable(CommandRecord),
}

/// The answer to [`Store::finish`].
#[derive(Debug, Clone)]
pub enum Finished {
    /// The outcome (or deferral) is durable.
    Settled(CommandRecord),
    /// The claim had passed to someone else: nothing was written but that the connection is suspect.
    Stale,
}

/// A command that recovery may take up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Which command.
    pub id: CommandId,
    /// On whose behalf.
    pub requester: OrganizationId,
    /// Its connection, for the lane.
    pub connection: Connection,
    /// The trace that it belongs to.
    pub trace: TraceContext,
    /// Whether it stands in line: then it is taken up with those around it, in order.
    pub in_line: bool,
    /// Whether it waits for another command of its connection or a quiet time.
    pub waiting: bool,
    /// Its place among those that are due.
    pub cursor: DueCursor,
}

/// A place among the commands that are due. The default is before all of them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DueCursor {
    /// When it became due, in microseconds since 1970.
    pub due_time: i64,
    /// Its arrival number.
    pub arrival: i64,
}

/// Commands that [`Store::put_off_due`] and [`Store::resume`] change at once, so that they hold up no others for long.
pub const BULK_LENGTH_MAX: u64 = 10_000;

/// A row of the outbox.
#[derive(Debug, Clone, PartialEq)]
pub struct OutboxRow {
    /// Its number in the order of writing.
    pub number: i64,
    /// What is to be published.
    pub message: Arc<Message>,
}

/// The answer to [`Store::forget`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ForgetStep {
    /// What this step did.
    pub forgotten: Forgotten,
    /// After which command the next step begins; absent if there are no more.
    pub next: Option<i64>,
}

/// The books: what was written and what became of it. They balance at every moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Books {
    /// Commands ever accepted, without those purged since.
    pub registered: u64,
    /// Commands by state, in the order of [`State::ALL`](crate::domain::record::State::ALL).
    pub by_state: [u64; 8],
    /// Outbox rows ever written.
    pub outbox_written: u64,
    /// Outbox rows confirmed.
    pub outbox_confirmed: u64,
    /// Outbox rows not confirmed yet.
    pub outbox_pending: u64,
    /// Connections that are suspect.
    pub suspect: u64,
    /// Finishes refused for a stale claim since the process started.
    pub finishes_refused: u64,
}

impl Books {
    /// Commands registered, less those in any state: zero if none is lost.
    #[must_use]
    pub fn commands_balance(&self) -> i64 {
        self.registered.cast_signed().wrapping_sub(self.by_state.iter().sum::<u64>().cast_signed())
    }

    /// Messages written, less those confirmed and pending: zero if none is lost.
    #[must_use]
    pub fn outbox_balance(&self) -> i64 {
        let known = self.outbox_confirmed.wrapping_add(self.outbox_pending);
        self.outbox_written.cast_signed().wrapping_sub(known.cast_signed())
    }
}

/// Since when what is not done yet waits: the oldest of each kind, if there is one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Oldest {
    /// Acceptance of the oldest command that nobody has begun.
    pub accepted: Option<Timestamp>,
    /// When the oldest claim was given.
    pub in_flight: Option<Timestamp>,
    /// Acceptance of the oldest command that is deferred.
    pub deferred: Option<Timestamp>,
    /// The same of the oldest one that is not final and may have been applied.
    pub maybe_applied: Option<Timestamp>,
    /// When the first message of the outbox that the broker has not confirmed was written.
    pub unpublished: Option<Timestamp>,
    /// The store's time.
    pub now: Timestamp,
}

/// Keeps commands, connections and the outbox.
///
/// **Order.** Calls take effect in the order in which they are *made*, not polled: an implementation hands the request
/// to its writer before it returns the future. A future that is dropped cancels nothing.
///
/// **Durability.** When a future yields `Ok`, what it says survives a crash of the process and of the machine.
///
/// **Decisions** are those of [`domain::lifecycle`](crate::domain::lifecycle), taken inside the transaction.
pub trait Store: Send + Sync + 'static {
    /// Registers a command, or finds what is known under its key. With `claim` the claim is asked for in the same
    /// transaction: `Fresh` then carries its answer. `event_id` is for an event that ending it may emit.
    fn accept(&self, request: Acceptance, claim: Option<Uuid>) -> StoreFuture<Accepted>;

    /// Asks for the claim on a command at the head of its lane. `caller_waits` tells whether a caller hears of its end.
    fn begin(&self, id: CommandId, event_id: Uuid, caller_waits: bool) -> StoreFuture<Begun>;

    /// Puts off a command at the head of its lane that is not to be begun now, without counting an attempt. `event_id` is
    /// for an event that ending it may emit; `caller_waits` tells whether a caller hears of its end.
    fn put_off(
        &self,
        id: CommandId,
        event_id: Uuid,
        caller_waits: bool,
        put_off: PutOff,
    ) -> StoreFuture<PutOffAnswer>;

    /// Puts off the deferred commands of a requester, or of all, that stand in no line and whose due time has come: they are
    /// due after `delay`, and are paused since they were due. Yields how many; [`BULK_LENGTH_MAX`] means that there may be
    /// more.
    fn put_off_due(&self, requester: Option<OrganizationId>, delay: Duration) -> StoreFuture<u64>;

    /// Makes the commands of a requester, or of all, that are put off due now; of a line the first. Yields how many;
    /// [`BULK_LENGTH_MAX`] means that there may be more.
    fn resume(&self, requester: Option<OrganizationId>) -> StoreFuture<u64>;

    /// Gives up commands that were accepted to be begun at once and will not be: those that nobody has begun are due now.
    fn release(&self, ids: Vec<CommandId>) -> StoreFuture<()>;

    /// Ends a claim.
    fn finish(&self, finish: Finish) -> StoreFuture<Finished>;

    /// The same while another command of the connection is about to be begun. Nothing if what is asked for from now on might
    /// be done before it. Otherwise that command's claim can be asked for without a wait for the answer, and both can share
    /// a commit.
    fn finish_followed(&self, finish: &Finish) -> Option<StoreFuture<Finished>> {
        let _ = finish;
        None
    }

    /// Whose command this is.
    fn requester(&self, id: CommandId) -> StoreFuture<Option<OrganizationId>>;

    /// A command by its id.
    fn command(&self, id: CommandId) -> StoreFuture<Option<CommandRecord>>;

    /// Those of these commands that are final.
    fn finals(&self, ids: Vec<CommandId>) -> StoreFuture<Vec<CommandRecord>>;

    /// A command by its requester and key.
    fn command_by_key(
        &self,
        requester: OrganizationId,
        key: IdempotencyKey,
    ) -> StoreFuture<Option<CommandRecord>>;

    /// Commands whose due time has come and whose place is after `after`, at most `limit`, in order of due time and
    /// arrival.
    fn due(&self, after: DueCursor, limit: usize) -> StoreFuture<Vec<Due>>;

    /// The first in the line of a connection, due or not, at most `limit`, in order of arrival. Only the very first is
    /// made due when its turn has come.
    fn line(&self, connection: Connection, limit: usize) -> StoreFuture<Vec<Due>>;

    /// The earliest due time of any command, if there is one.
    fn due_next(&self) -> StoreFuture<Option<Timestamp>>;

    /// How many commands are not final. Of those that are put off a tenth is counted: one requester that is paused for long
    /// must not keep out all others.
    fn backlog(&self) -> StoreFuture<u64>;

    /// Suspect connections that are to be healed now, at most `limit`.
    fn suspects(&self, limit: usize) -> StoreFuture<Vec<Connection>>;

    /// Asks for the right to send a suspect connection's newest applied value again; with it comes the trace of the
    /// command that set it. Nothing if the connection is not due, is busy, or has no such value.
    fn begin_heal(&self, connection: Connection) -> StoreFuture<Option<(Heal, TraceContext)>>;

    /// Ends an attempt to heal.
    fn finish_heal(&self, finish: heal::Finish) -> StoreFuture<Healed>;

    /// Outbox rows of these slots with a number above `after`, in order, at most `limit`, and fewer if they are large. None
    /// only if there are none. A store that is used alone has no slots: all rows are in all of them.
    ///
    /// Where several instances write, a row may appear after one with a greater number. An event is not yielded while there
    /// is one of its connection that is not above `after`.
    fn outbox(&self, after: i64, limit: usize, slots: Slots) -> StoreFuture<Vec<OutboxRow>>;

    /// Takes rows out of the outbox that the broker has confirmed, and notes it with their commands.
    fn confirm(&self, numbers: Vec<i64>) -> StoreFuture<()>;

    /// Forgets commands that became final longer than the retention ago and have nothing in the outbox, at most
    /// `limit`. Yields how many.
    fn purge(&self, limit: usize) -> StoreFuture<u64>;

    /// Takes one step in erasing the bodies that are kept of someone: of the `limit` commands that arrived after `after`, and
    /// of their messages that are not published yet. Their facts stay.
    fn forget(&self, whose: Whose, after: i64, limit: usize) -> StoreFuture<ForgetStep>;

    /// Notes that an administrative act begins. Yields its number.
    fn begin_act(&self, act: Act) -> StoreFuture<i64>;

    /// Notes what an act did.
    fn end_act(&self, number: i64, result: BTreeMap<String, u64>) -> StoreFuture<()>;

    /// The newest acts with numbers below `before`, at most `limit`, the newest first.
    fn acts(&self, before: Option<i64>, limit: usize) -> StoreFuture<Vec<ActRecord>>;

    /// What falls to this instance of what several do together. What [`Self::due`], [`Self::suspects`] and the like yield and
    /// change is limited to its seat.
    fn tenure(&self) -> Arc<Tenure> {
        Arc::new(Tenure::sole())
    }

    /// Leaves what several instances do together to the others, if there are any; the rest goes on.
    fn retire(&self) {}

    /// Changes when another instance may have written something, or this one's tenure has grown. Not every change is told.
    fn changes(&self) -> watch::Receiver<()> {
        watch::Sender::new(()).subscribe()
    }

    /// The books. Takes the longer the more commands are kept.
    fn books(&self) -> StoreFuture<Books>;

    /// Since when what is not done yet waits.
    fn oldest(&self) -> StoreFuture<Oldest>;

    /// Writes and commits something harmless: whether the store takes data.
    fn probe(&self) -> StoreFuture<()>;

    /// Ends the writer once everything asked for is done, and frees the store for another process.
    fn close(&self) -> StoreFuture<()>;
}

/// The bearer token of a requester, for one attempt. Its text never shows in debug output.
#[derive(Clone)]
pub struct Authorization {
    /// The value of the `Authorization` header, marked sensitive.
    pub header: http::HeaderValue,
    /// Which token it is, so that a refused one is dropped once.
    pub serial: u64,
}

/// One PATCH.
#[derive(Debug, Clone)]
pub struct Patch {
    /// On whose behalf.
    pub requester: OrganizationId,
    /// Which connection.
    pub connection: Connection,
    /// The value.
    pub archived: bool,
    /// Which attempt of the command's this is, from 0.
    pub resend_count: u32,
    /// The wait between the attempt before and this one, and why it was what it was.
    pub retry_wait: Option<Waited>,
    /// The wait for permission to send, and for what.
    pub gate_wait: Option<Waited>,
}

/// A wait before a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Waited {
    /// How long.
    pub duration: Duration,
    /// Why: a stable name.
    pub reason: &'static str,
}

/// The upstream API.
pub trait Upstream: Send + Sync + 'static {
    /// Whether a requester organisation has credentials here.
    fn knows(&self, requester: OrganizationId) -> bool;

    /// Whether [`Self::authorize`] would yield a token at once, neither waiting nor failing.
    fn is_ready(&self, requester: OrganizationId) -> bool;

    /// Gets a token, from the cache if there is a good one. May wait, so it is done before the claim is checked. With `anew`
    /// one is asked for also during the rest that follows failures: the request is the one that tries whether the upstream
    /// is back, or it has come back since.
    ///
    /// # Errors
    /// Why there is none.
    fn authorize(
        &self,
        requester: OrganizationId,
        anew: bool,
    ) -> BoxFuture<'_, Result<Authorization, Unauthorized>>;

    /// Drops a token that the upstream refused, unless a newer one has taken its place.
    fn refuse(&self, requester: OrganizationId, authorization: &Authorization);

    /// Sends one PATCH. Never fails: whatever happens is a [`Reply`]. Ends within the attempt timeout.
    fn patch(&self, patch: Patch, authorization: Authorization) -> BoxFuture<'_, Reply>;
}

/// What became of a message handed to the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Publication {
    /// The broker has it, in a queue.
    Confirmed,
    /// The broker had no queue for it.
    Unroutable,
    /// The broker does not take this message (a queue is full, say), or it cannot be written down. That says nothing of
    /// others. The text is for operators.
    Refused(String),
    /// Nothing is known: no connection, or no confirm in time. The text is for operators.
    Failed(String),
}

/// Why nothing is published after its time.
pub const OVER: &str = "the right to publish these has passed to another instance";

/// Publishes messages.
pub trait Publisher: Send + Sync + 'static {
    /// Publishes `messages` in order and waits for every confirm, up to the confirm timeout. The answer has one entry for
    /// each message, in the same order. Nothing is published any more once `until` has come.
    fn publish(&self, messages: Vec<Arc<Message>>, until: Option<Instant>)
    -> BoxFuture<'_, Vec<Publication>>;

    /// Changes when what could not be published may go now. A receiver whose sender is gone never does.
    fn revivals(&self) -> watch::Receiver<()> {
        watch::Sender::new(()).subscribe()
    }
}

/// Time and randomness of the process.
pub trait Clock: Send + Sync + 'static {
    /// The wall clock, in whole microseconds.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        use chrono::SubsecRound as _;
        chrono::Utc::now().trunc_subsecs(6)
    }
}
