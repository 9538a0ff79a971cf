//! The embedded store: one SQLite file for one process.
//!
//! One thread writes, in group commits; two answer questions; one copies the write-ahead log into the file. Requests
//! go to them over bounded queues when a method is called, so the order of calls is the order of effects.
//!
//! - `files`: permissions and the lock
//! - `schema`: connections and migrations
//! - `task`: a request on its way, and its answer on the way back
//! - `writer`, `reader`, `checkpoint`: the threads
//! - `pace`: when the writer waits for more
//! - `operations`, `pauses`, `custody`, `queries`: what they do
//! - `kept`, `fresh`: rows that the writer need not read again
//! - `rows`: records to rows and back

mod checkpoint;
mod custody;
mod error;
mod files;
mod fresh;
mod kept;
mod operations;
mod pace;
mod pauses;
mod queries;
mod reader;
mod rows;
mod schema;
mod task;
mod writer;

use std::collections::BTreeMap;
use std::future::ready;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::{Duration, Instant};

use chrono::TimeDelta;
use futures::FutureExt as _;
use tokio::sync::watch;
use tokio::time::sleep;
use uuid::Uuid;

use error::Fault;
pub use error::OpenError;
use kept::Kept;
use pace::Pace;
use reader::{Interruptible, Reader};
use task::{Asked, Scope, Shared, Task};
use writer::Writer;

use crate::domain::Timestamp;
use crate::domain::act::{Act, ActRecord};
use crate::domain::command::{CommandId, IdempotencyKey, OrganizationId};
use crate::domain::connection::Connection;
use crate::domain::erasure::Whose;
use crate::domain::heal::{self, Heal, Healed};
use crate::domain::lifecycle::{Acceptance, Finish, PutOff, Terms};
use crate::domain::record::CommandRecord;
use crate::domain::trace::TraceContext;
use crate::service::ports::{
    Accepted, Begun, Books, Clock, Due, DueCursor, Finished, ForgetStep, Oldest, OutboxRow, PutOffAnswer,
    Store, StoreFuture,
};
use crate::service::tenure::Slots;
use crate::store::answer;
use crate::store::operations::{self as shared, Ask};

/// Where the store is and how much may wait for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The database file. It and its folder are made if they are missing; `.lock`, `-wal` and `-shm` lie beside it.
    pub path: PathBuf,
    /// Requests that may wait for the writer, and for each reader. Further ones are refused.
    pub queue_length_max: usize,
}

impl Settings {
    /// The file at `path`, with room for 4096 waiting requests.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), queue_length_max: 4_096 }
    }
}

/// How often a count is told to end while the store is being closed.
const INTERRUPT_INTERVAL: Duration = Duration::from_millis(10);

/// Whether the store's folder and files, as far as they are there, are closed to others.
///
/// # Errors
/// [`OpenError::Exposed`], with the mend.
pub fn check_permissions(path: &Path) -> Result<(), OpenError> {
    // Another name than the one that is opened would have other files beside it.
    files::check_permissions(&std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()))
}

/// A store in one SQLite file. Dropping it ends its threads after they have done what was asked for.
pub struct SqliteStore {
    /// Absent once it is closed.
    queues: RwLock<Option<Queues>>,
    shared: Arc<Shared>,
    counting: Arc<Interruptible>,
    freed: watch::Receiver<()>,
}

struct Queues {
    writes: SyncSender<Box<dyn Task>>,
    questions: SyncSender<Box<dyn Task>>,
    /// Counting takes long on a large file and must not hold up other questions.
    counts: SyncSender<Box<dyn Task>>,
}

impl SqliteStore {
    /// Opens the file, brings its schema up to date, and makes work due whose owner is gone. Blocks.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(
        settings: Settings,
        terms: Terms,
        retention: TimeDelta,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, OpenError> {
        let Settings { path, queue_length_max } = settings;
        let path = files::identity(&path)?;
        files::check_permissions(&path)?;
        let (lock, freed) = files::lock(&path)?;
        let lock = Arc::new(lock);
        files::check_log(&path)?;
        files::secure_database(&path)?;
        let connection = schema::prepare(&path)?;
        let fail = |source| schema::open_error(&path, source);
        schema::release_orphans(&connection, rows::micros(clock.now())).map_err(fail)?;
        files::secure_log(&path)?;

        let shared = Arc::new(Shared::new(terms, retention, clock));
        let reader =
            |name: &str, connection, interruptible| -> Result<SyncSender<Box<dyn Task>>, OpenError> {
                let (sender, queue) = sync_channel(queue_length_max);
                let reader = Reader {
                    path: path.clone(),
                    connection: Some(connection),
                    shared: Arc::clone(&shared),
                    interruptible,
                    queue,
                    lock: Arc::clone(&lock),
                };
                spawn(name, move || reader.run())?;
                Ok(sender)
            };
        let connect = || schema::connect_reader(&path).map_err(fail);
        let questions = reader("store-reader", connect()?, None)?;
        let counter = connect()?;
        let counting = Arc::new(Interruptible::new(&counter));
        let counts = reader("store-counter", counter, Some(Arc::clone(&counting)))?;
        let (checkpoints, requests): (_, Receiver<()>) = sync_channel(1);
        let copier = schema::connect_writer(&path).map_err(fail)?;
        let copier_lock = Arc::clone(&lock);
        spawn("store-checkpoint", move || checkpoint::run(copier, &requests, copier_lock))?;
        let (writes, queue) = sync_channel(queue_length_max);
        let thread = Writer {
            path: path.clone(),
            connection: Some(connection),
            kept: Kept::default(),
            present: files::Present::of(&path),
            shared: Arc::clone(&shared),
            queue,
            checkpoints,
            lock,
            pace: Pace::new(Instant::now()),
        };
        spawn("store-writer", move || thread.run())?;
        let queues = RwLock::new(Some(Queues { writes, questions, counts }));
        Ok(Self { queues, shared, counting, freed })
    }

    /// Hands a task to a thread now; the future only waits for the answer.
    fn ask<T: Send + 'static>(
        &self,
        queue: fn(&Queues) -> &SyncSender<Box<dyn Task>>,
        (task, receiver): Asked<T>,
    ) -> StoreFuture<T> {
        answer::awaited(self.hand_over(queue, task), receiver)
    }

    fn hand_over(
        &self,
        queue: fn(&Queues) -> &SyncSender<Box<dyn Task>>,
        task: Box<dyn Task>,
    ) -> Result<(), &'static str> {
        let queues = self.queues.read().unwrap_or_else(PoisonError::into_inner);
        let Some(queues) = &*queues else { return Err(answer::CLOSED) };
        queue(queues).try_send(task).map_err(|error| match error {
            TrySendError::Full(_) => answer::FULL,
            TrySendError::Disconnected(_) => answer::ENDED,
        })
    }

    fn write<T, F>(&self, work: F) -> StoreFuture<T>
    where
        T: Send + 'static,
        F: Fn(&mut Scope<'_>) -> Result<T, Fault> + Send + 'static,
    {
        self.ask(|queues| &queues.writes, task::job(work))
    }

    fn read<T, F>(&self, work: F) -> StoreFuture<T>
    where
        T: Send + 'static,
        F: Fn(&mut Scope<'_>) -> Result<T, Fault> + Send + 'static,
    {
        self.ask(|queues| &queues.questions, task::job(work))
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), OpenError> {
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop).map_err(OpenError::Thread)
}

impl Store for SqliteStore {
    fn accept(&self, request: Acceptance, claim: Option<Uuid>) -> StoreFuture<Accepted> {
        self.write(move |scope| shared::accept(scope, request.clone(), claim))
    }

    fn begin(&self, id: CommandId, event_id: Uuid, caller_waits: bool) -> StoreFuture<Begun> {
        self.write(move |scope| shared::begin(scope, id, Ask { event_id, caller_waits }))
    }

    fn put_off(
        &self,
        id: CommandId,
        event_id: Uuid,
        caller_waits: bool,
        put_off: PutOff,
    ) -> StoreFuture<PutOffAnswer> {
        let ask = Ask { event_id, caller_waits };
        self.write(move |scope| shared::put_off(scope, id, ask, &put_off))
    }

    fn put_off_due(&self, requester: Option<OrganizationId>, delay: Duration) -> StoreFuture<u64> {
        self.write(move |scope| pauses::put_off_due(scope, requester, delay))
    }

    fn resume(&self, requester: Option<OrganizationId>) -> StoreFuture<u64> {
        self.write(move |scope| pauses::resume(scope, requester))
    }

    fn release(&self, ids: Vec<CommandId>) -> StoreFuture<()> {
        self.write(move |scope| pauses::release(scope, &ids))
    }

    fn finish(&self, finish: Finish) -> StoreFuture<Finished> {
        self.write(move |scope| shared::finish(scope, finish.clone()))
    }

    fn finish_followed(&self, finish: &Finish) -> Option<StoreFuture<Finished>> {
        let finish = finish.clone();
        let (task, receiver) = task::followed(move |scope| shared::finish(scope, finish.clone()));
        self.hand_over(|queues| &queues.writes, task).ok()?;
        Some(answer::awaited(Ok(()), receiver))
    }

    fn requester(&self, id: CommandId) -> StoreFuture<Option<OrganizationId>> {
        self.read(move |scope| rows::requester(scope.connection, id))
    }

    fn command(&self, id: CommandId) -> StoreFuture<Option<CommandRecord>> {
        self.read(move |scope| rows::command_by_id(scope.connection, id))
    }

    fn finals(&self, ids: Vec<CommandId>) -> StoreFuture<Vec<CommandRecord>> {
        self.read(move |scope| {
            let found = ids.iter().filter_map(|id| rows::command_by_id(scope.connection, *id).transpose());
            found.filter(|found| found.as_ref().map_or(true, |record| record.state.is_final())).collect()
        })
    }

    fn command_by_key(
        &self,
        requester: OrganizationId,
        key: IdempotencyKey,
    ) -> StoreFuture<Option<CommandRecord>> {
        self.read(move |scope| rows::command_by_key(scope.connection, requester, &key))
    }

    fn due(&self, after: DueCursor, limit: usize) -> StoreFuture<Vec<Due>> {
        self.read(move |scope| queries::due(scope, after, limit))
    }

    fn line(&self, connection: Connection, limit: usize) -> StoreFuture<Vec<Due>> {
        self.read(move |scope| queries::line(scope, connection, limit))
    }

    fn backlog(&self) -> StoreFuture<u64> {
        self.ask(|queues| &queues.counts, task::job(|scope| queries::backlog(scope)))
    }

    fn suspects(&self, limit: usize) -> StoreFuture<Vec<Connection>> {
        self.read(move |scope| queries::suspects(scope, limit))
    }

    fn begin_heal(&self, connection: Connection) -> StoreFuture<Option<(Heal, TraceContext)>> {
        self.write(move |scope| shared::begin_heal(scope, connection))
    }

    fn finish_heal(&self, finish: heal::Finish) -> StoreFuture<Healed> {
        self.write(move |scope| shared::finish_heal(scope, &finish))
    }

    fn due_next(&self) -> StoreFuture<Option<Timestamp>> {
        self.read(|scope| queries::due_next(scope))
    }

    fn outbox(&self, after: i64, limit: usize, _: Slots) -> StoreFuture<Vec<OutboxRow>> {
        let is_open = self.queues.read().unwrap_or_else(PoisonError::into_inner).is_some();
        match self.shared.fresh.read(after, limit).filter(|_| is_open) {
            Some(rows) => ready(Ok(rows)).boxed(),
            None => self.read(move |scope| queries::outbox(scope, after, limit)),
        }
    }

    fn confirm(&self, numbers: Vec<i64>) -> StoreFuture<()> {
        self.write(move |scope| operations::confirm(scope, &numbers))
    }

    fn purge(&self, limit: usize) -> StoreFuture<u64> {
        self.write(move |scope| operations::purge(scope, limit))
    }

    fn forget(&self, whose: Whose, after: i64, limit: usize) -> StoreFuture<ForgetStep> {
        self.write(move |scope| custody::forget(scope, whose, after, limit))
    }

    fn begin_act(&self, act: Act) -> StoreFuture<i64> {
        self.write(move |scope| custody::begin_act(scope, &act))
    }

    fn end_act(&self, number: i64, result: BTreeMap<String, u64>) -> StoreFuture<()> {
        self.write(move |scope| custody::end_act(scope, number, &result))
    }

    fn acts(&self, before: Option<i64>, limit: usize) -> StoreFuture<Vec<ActRecord>> {
        self.read(move |scope| custody::acts(scope, before, limit))
    }

    fn books(&self) -> StoreFuture<Books> {
        self.ask(|queues| &queues.counts, task::job(|scope| queries::books(scope)))
    }

    fn oldest(&self) -> StoreFuture<Oldest> {
        self.ask(|queues| &queues.counts, task::job(|scope| queries::oldest(scope)))
    }

    fn probe(&self) -> StoreFuture<()> {
        self.write(operations::probe)
    }

    fn close(&self) -> StoreFuture<()> {
        // Without senders the threads end once their queues are empty.
        drop(self.queues.write().unwrap_or_else(PoisonError::into_inner).take());
        self.shared.fresh.clear();
        let (mut freed, counting) = (self.freed.clone(), Arc::clone(&self.counting));
        async move {
            // A count would hold it up for as long as the file is large.
            let interrupted = async {
                loop {
                    counting.end();
                    sleep(INTERRUPT_INTERVAL).await;
                }
            };
            tokio::select! {
                () = async { while freed.changed().await.is_ok() {} } => {}
                () = interrupted => {}
            }
            Ok(())
        }
        .boxed()
    }
}
