//! The store for many instances: a PostgreSQL database.
//!
//! One task changes commands, in batches: of each it reads all rows concerned, locked, in one round trip, decides as
//! [`operations`](super::operations) say, and writes and commits in a second one. Another keeps house, one answers questions,
//! and one counts; each has a connection of its own. Requests go to them over bounded queues when a method is called, so the
//! order of calls is the order of effects.
//!
//! Between instances order comes from row locks: whoever changes a command holds its connection's row. That no two commands of
//! a connection are in flight is a unique index, and that the epoch of a claim never falls a trigger.
//!
//! - `session`, `tls`: a connection, made anew when it is lost
//! - `schema`: the migrations
//! - `writer`, `trips`, `workspace`: changes of commands
//! - `worker`: the others, who do `queries` and keep `house`
//! - `peers`: the other instances
//! - `rows`: records to rows and back

mod error;
mod house;
mod peers;
mod queries;
mod rows;
mod schema;
mod session;
mod tls;
mod trips;
mod worker;
mod workspace;
mod writer;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use chrono::{SubsecRound as _, TimeDelta};
use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub use error::OpenError;
pub use schema::Schema;
pub use session::Target;

use error::Fault;
use peers::Peers;
use session::Link;
use worker::{Desk, Piece};
use workspace::{Needs, Workspace};
use writer::{Change, Writer};

use super::answer;
use super::operations::{self, Ask};
use super::values;
use crate::domain::Timestamp;
use crate::domain::act::{Act, ActRecord};
use crate::domain::command::{CommandId, IdempotencyKey, OrganizationId};
use crate::domain::connection::Connection;
use crate::domain::erasure::Whose;
use crate::domain::heal::{self, Heal, Healed};
use crate::domain::lifecycle::{Acceptance, Finish, PutOff, Terms};
use crate::domain::record::CommandRecord;
use crate::domain::seat::Seat;
use crate::domain::trace::TraceContext;
use crate::service::ports::{
    Accepted, Begun, Books, Clock, Due, DueCursor, Finished, ForgetStep, Oldest, OutboxRow, PutOffAnswer,
    Store, StoreError, StoreFuture,
};
use crate::service::tenure::{Slots, Tenure};

/// Where the store is and how much may wait for it.
#[derive(Clone)]
pub struct Settings {
    /// The server, and how connections to it are made.
    pub target: Target,
    /// Requests that may wait for each of the store's tasks. Further ones are refused.
    pub queue_length_max: usize,
    /// How long this instance may be silent before the others take over what falls to it. Absent if there are no others, which
    /// nobody checks.
    pub instance_lease: Option<Duration>,
    /// Whether times are the server's, as they must be where several instances share it. Else they are the clock's.
    pub follows_server: bool,
}

impl Settings {
    /// With room for 4096 waiting requests, a lease of 10 s, and the server's time.
    #[must_use]
    pub const fn new(target: Target) -> Self {
        let instance_lease = Some(Duration::from_secs(10));
        Self { target, queue_length_max: 4_096, instance_lease, follows_server: true }
    }
}

/// What all tasks of a store share.
pub(crate) struct Shared {
    terms: Terms,
    retention: TimeDelta,
    clock: Arc<dyn Clock>,
    follows_server: bool,
    /// How far the server's clock was ahead of this one when it was last heard, in microseconds.
    ahead: AtomicI64,
    finishes_refused: AtomicU64,
    /// The row of the totals of the one who keeps house.
    house: Uuid,
    /// What falls to this instance.
    tenure: Arc<Tenure>,
    /// Told when something was written that others may wait for.
    written: watch::Sender<()>,
}

impl Shared {
    /// The store's time, as it is kept.
    fn now(&self) -> Timestamp {
        let ahead = TimeDelta::microseconds(self.ahead.load(Ordering::Relaxed));
        (self.clock.now() + ahead).trunc_subsecs(6)
    }

    /// Place and number of those among whom work is divided, by the number of a connection.
    fn seat(&self) -> (i64, i64) {
        let Seat { index, count } = *self.tenure.seat().borrow();
        (i64::from(index), i64::from(count))
    }

    /// Takes over the server's time. Yields the store's.
    fn note_server_time(&self, server_micros: i64) -> Timestamp {
        if self.follows_server {
            let ahead = server_micros - values::micros(self.clock.now());
            self.ahead.store(ahead, Ordering::Relaxed);
        }
        self.now()
    }
}

/// A store in a PostgreSQL database.
pub struct PostgresStore {
    /// Absent once it is closed.
    queues: RwLock<Option<Queues>>,
    tenure: Arc<Tenure>,
    changes: Arc<watch::Sender<()>>,
    closing: CancellationToken,
    retiring: CancellationToken,
    tasks: tokio::sync::Mutex<JoinSet<()>>,
}

struct Queues {
    changes: mpsc::Sender<Box<dyn Change>>,
    house: mpsc::Sender<Box<dyn Piece>>,
    questions: mpsc::Sender<Box<dyn Piece>>,
    /// Counting takes long and must not hold up other questions.
    counts: mpsc::Sender<Box<dyn Piece>>,
}

impl PostgresStore {
    /// Connects, and brings the schema up to date.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub async fn open(
        settings: Settings,
        terms: Terms,
        retention: TimeDelta,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let Settings { target, queue_length_max, instance_lease, follows_server } = settings;
        let (patience, target) = (target.statement_timeout, Arc::new(target));
        let mut link = Link::new(Arc::clone(&target));
        let session = link.session().await.map_err(|StoreError(reason)| OpenError::Connect(reason))?;
        schema::prepare(session).await?;
        let server_time = session.time().await.map_err(|fault| OpenError::Connect(fault.to_string()))?;
        let shared = Arc::new(Shared {
            terms,
            retention,
            clock,
            follows_server,
            ahead: AtomicI64::new(0),
            finishes_refused: AtomicU64::new(0),
            house: Uuid::new_v4(),
            tenure: Arc::new(if instance_lease.is_some() { Tenure::none() } else { Tenure::sole() }),
            written: watch::Sender::new(()),
        });
        shared.note_server_time(server_time);
        let mut tasks = JoinSet::new();
        let mut worker = || {
            let (sender, queue) = mpsc::channel(queue_length_max);
            tasks.spawn(worker::run(Link::new(Arc::clone(&target)), Arc::clone(&shared), queue));
            sender
        };
        let (house, questions, counts) = (worker(), worker(), worker());
        let (changes, queue) = mpsc::channel(queue_length_max);
        let writer = Writer { link, shared: Arc::clone(&shared), queue, id: Uuid::new_v4(), patience };
        tasks.spawn(writer.run());
        let queues = Queues { changes, house, questions, counts };
        let store = Self {
            queues: RwLock::new(Some(queues)),
            tenure: Arc::clone(&shared.tenure),
            changes: Arc::default(),
            closing: CancellationToken::new(),
            retiring: CancellationToken::new(),
            tasks: tokio::sync::Mutex::default(),
        };
        if let Some(lease) = instance_lease {
            tasks.spawn(store.peers(lease, target, shared).run());
        }
        *store.tasks.lock().await = tasks;
        Ok(store)
    }

    fn peers(&self, lease: Duration, target: Arc<Target>, shared: Arc<Shared>) -> Peers {
        let (sender, words) = mpsc::channel(peers::WORDS_MAX);
        Peers {
            // In the order of their starts.
            id: Uuid::now_v7(),
            lease,
            link: Link::listening(target, peers::LISTEN, sender),
            written: shared.written.subscribe(),
            shared,
            words,
            changes: Arc::clone(&self.changes),
            stop: self.closing.clone(),
            retiring: self.retiring.clone(),
        }
    }

    /// Hands `work` to a task now; the future only waits for the answer.
    fn ask<T, F>(&self, queue: fn(&Queues) -> &mpsc::Sender<Box<dyn Piece>>, work: F) -> StoreFuture<T>
    where
        T: Send + 'static,
        F: for<'a> FnOnce(Desk<'a>) -> BoxFuture<'a, Result<T, Fault>> + Send + 'static,
    {
        let (piece, answer) = worker::job(work);
        self.send(queue, piece, answer)
    }

    fn change<T, F>(&self, needs: Needs, work: F) -> StoreFuture<T>
    where
        T: Send + 'static,
        F: Fn(&mut Workspace) -> Result<T, Fault> + Send + 'static,
    {
        let (change, answer) = writer::job(needs, work);
        self.send(|queues| &queues.changes, change, answer)
    }

    fn send<W, T>(
        &self,
        queue: fn(&Queues) -> &mpsc::Sender<W>,
        work: W,
        receiver: oneshot::Receiver<Result<T, StoreError>>,
    ) -> StoreFuture<T>
    where
        T: Send + 'static,
    {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        let sent = match &*queues {
            Some(queues) => queue(queues).try_send(work).map_err(|error| match error {
                TrySendError::Full(_) => answer::FULL,
                TrySendError::Closed(_) => answer::ENDED,
            }),
            None => Err(answer::CLOSED),
        };
        answer::awaited(sent, receiver)
    }
}

impl Needs {
    fn command(id: CommandId) -> Self {
        Self { id: Some(id), ..Self::default() }
    }

    fn healed(connection: Connection) -> Self {
        Self { connection: Some(connection), is_healed: true, ..Self::default() }
    }
}

impl Store for PostgresStore {
    fn accept(&self, request: Acceptance, claim: Option<Uuid>) -> StoreFuture<Accepted> {
        let key = (request.command.requester, request.command.key.as_str().to_owned());
        let needs =
            Needs { connection: Some(request.command.connection), key: Some(key), ..Needs::default() };
        self.change(needs, move |workspace| operations::accept(workspace, request.clone(), claim))
    }

    fn begin(&self, id: CommandId, event_id: Uuid, caller_waits: bool) -> StoreFuture<Begun> {
        let ask = Ask { event_id, caller_waits };
        self.change(Needs::command(id), move |workspace| operations::begin(workspace, id, ask))
    }

    fn put_off(
        &self,
        id: CommandId,
        event_id: Uuid,
        caller_waits: bool,
        put_off: PutOff,
    ) -> StoreFuture<PutOffAnswer> {
        let ask = Ask { event_id, caller_waits };
        self.change(Needs::command(id), move |workspace| operations::put_off(workspace, id, ask, &put_off))
    }

    fn put_off_due(&self, requester: Option<OrganizationId>, delay: Duration) -> StoreFuture<u64> {
        self.ask(|queues| &queues.house, move |desk| house::put_off_due(desk, requester, delay).boxed())
    }

    fn resume(&self, requester: Option<OrganizationId>) -> StoreFuture<u64> {
        self.ask(|queues| &queues.house, move |desk| house::resume(desk, requester).boxed())
    }

    fn release(&self, ids: Vec<CommandId>) -> StoreFuture<()> {
        self.ask(|queues| &queues.house, move |desk| house::release(desk, ids).boxed())
    }

    fn finish(&self, finish: Finish) -> StoreFuture<Finished> {
        self.change(Needs::command(finish.id), move |workspace| operations::finish(workspace, finish.clone()))
    }

    fn requester(&self, id: CommandId) -> StoreFuture<Option<OrganizationId>> {
        self.ask(|queues| &queues.questions, move |desk| queries::requester(desk, id).boxed())
    }

    fn command(&self, id: CommandId) -> StoreFuture<Option<CommandRecord>> {
        self.ask(|queues| &queues.questions, move |desk| queries::command(desk, id).boxed())
    }

    fn finals(&self, ids: Vec<CommandId>) -> StoreFuture<Vec<CommandRecord>> {
        self.ask(|queues| &queues.questions, move |desk| queries::finals(desk, ids).boxed())
    }

    fn command_by_key(
        &self,
        requester: OrganizationId,
        key: IdempotencyKey,
    ) -> StoreFuture<Option<CommandRecord>> {
        let key = key.as_str().to_owned();
        self.ask(
            |queues| &queues.questions,
            move |desk| queries::command_by_key(desk, requester, key).boxed(),
        )
    }

    fn due(&self, after: DueCursor, limit: usize) -> StoreFuture<Vec<Due>> {
        self.ask(|queues| &queues.questions, move |desk| queries::due(desk, after, limit).boxed())
    }

    fn line(&self, connection: Connection, limit: usize) -> StoreFuture<Vec<Due>> {
        self.ask(|queues| &queues.questions, move |desk| queries::line(desk, connection, limit).boxed())
    }

    fn due_next(&self) -> StoreFuture<Option<Timestamp>> {
        self.ask(|queues| &queues.questions, |desk| queries::due_next(desk).boxed())
    }

    fn backlog(&self) -> StoreFuture<u64> {
        self.ask(|queues| &queues.counts, |desk| queries::backlog(desk).boxed())
    }

    fn suspects(&self, limit: usize) -> StoreFuture<Vec<Connection>> {
        self.ask(|queues| &queues.questions, move |desk| queries::suspects(desk, limit).boxed())
    }

    fn begin_heal(&self, connection: Connection) -> StoreFuture<Option<(Heal, TraceContext)>> {
        self.change(Needs::healed(connection), move |workspace| operations::begin_heal(workspace, connection))
    }

    fn finish_heal(&self, finish: heal::Finish) -> StoreFuture<Healed> {
        let needs = Needs::healed(finish.heal.connection);
        self.change(needs, move |workspace| operations::finish_heal(workspace, &finish))
    }

    fn outbox(&self, after: i64, limit: usize, slots: Slots) -> StoreFuture<Vec<OutboxRow>> {
        self.ask(|queues| &queues.questions, move |desk| queries::outbox(desk, after, limit, slots).boxed())
    }

    fn confirm(&self, numbers: Vec<i64>) -> StoreFuture<()> {
        self.ask(|queues| &queues.house, move |desk| house::confirm(desk, numbers).boxed())
    }

    fn purge(&self, limit: usize) -> StoreFuture<u64> {
        self.ask(|queues| &queues.house, move |desk| house::purge(desk, limit).boxed())
    }

    fn forget(&self, whose: Whose, after: i64, limit: usize) -> StoreFuture<ForgetStep> {
        self.ask(|queues| &queues.house, move |desk| house::forget(desk, whose, after, limit).boxed())
    }

    fn begin_act(&self, act: Act) -> StoreFuture<i64> {
        self.ask(|queues| &queues.house, move |desk| house::begin_act(desk, act).boxed())
    }

    fn end_act(&self, number: i64, result: BTreeMap<String, u64>) -> StoreFuture<()> {
        self.ask(|queues| &queues.house, move |desk| house::end_act(desk, number, result).boxed())
    }

    fn acts(&self, before: Option<i64>, limit: usize) -> StoreFuture<Vec<ActRecord>> {
        self.ask(|queues| &queues.questions, move |desk| house::acts(desk, before, limit).boxed())
    }

    fn tenure(&self) -> Arc<Tenure> {
        Arc::clone(&self.tenure)
    }

    fn retire(&self) {
        self.retiring.cancel();
    }

    fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    fn books(&self) -> StoreFuture<Books> {
        self.ask(|queues| &queues.counts, |desk| queries::books(desk).boxed())
    }

    fn oldest(&self) -> StoreFuture<Oldest> {
        self.ask(|queues| &queues.counts, |desk| queries::oldest(desk).boxed())
    }

    fn probe(&self) -> StoreFuture<()> {
        self.ask(|queues| &queues.house, |desk| house::probe(desk).boxed())
    }

    fn close(&self) -> StoreFuture<()> {
        self.closing.cancel();
        // Without senders the tasks end once their queues are empty.
        drop(self.queues.write().unwrap_or_else(PoisonError::into_inner).take());
        let mut tasks = std::mem::take(&mut *match self.tasks.try_lock() {
            Ok(tasks) => tasks,
            Err(_) => return futures::future::ready(Ok(())).boxed(),
        });
        async move {
            // One that has panicked has ended, too.
            while tasks.join_next().await.is_some() {}
            Ok(())
        }
        .boxed()
    }
}
