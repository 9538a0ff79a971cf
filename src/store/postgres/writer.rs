//! The one who changes commands: takes what waits as a batch, reads all that it needs in one round trip, decides, and writes
//! and commits in a second one.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::Shared;
use super::error::Fault;
use super::session::{Link, Session};
use super::trips::{self, Wanted};
use super::workspace::{Needs, Taken, Turn, Workspace};
use crate::service::ports::StoreError;
use crate::store::answer;
use crate::telemetry::instruments::note_commit;

/// Changes of one batch, at most.
const BATCH_LENGTH_MAX: usize = 256;

/// Changes among which those of a batch are picked. One connection with many that wait for one another leaves room for others.
const WAITING_MAX: usize = 4_096;

/// The wait if nothing of a batch could be done.
const HELD_DELAY: Duration = Duration::from_millis(5);

/// How often a batch is made anew that met changes of other instances.
const TRIES_MAX: usize = 5;

/// A change whose kind of answer is forgotten.
pub(super) trait Change: Send {
    /// What it is about.
    fn needs(&self) -> &Needs;

    /// When it was asked for.
    fn asked(&self) -> Instant;

    /// Makes it in the workspace and keeps the answer back. May be asked again, if what was written then came to nothing.
    fn make(&mut self, workspace: &mut Workspace) -> Result<(), StoreError>;

    /// Gives the answer out, or `failure` if the change came to nothing.
    fn answer(self: Box<Self>, failure: Option<&StoreError>);
}

struct Job<F, T> {
    needs: Needs,
    asked: Instant,
    work: F,
    result: Option<Result<T, StoreError>>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

/// Wraps `work`; its answer comes out of the receiver.
pub(super) fn job<F, T>(needs: Needs, work: F) -> (Box<dyn Change>, oneshot::Receiver<Result<T, StoreError>>)
where
    F: Fn(&mut Workspace) -> Result<T, Fault> + Send + 'static,
    T: Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    (Box::new(Job { needs, asked: Instant::now(), work, result: None, answer: sender }), receiver)
}

impl<F, T> Change for Job<F, T>
where
    F: Fn(&mut Workspace) -> Result<T, Fault> + Send,
    T: Send,
{
    fn needs(&self) -> &Needs {
        &self.needs
    }

    fn asked(&self) -> Instant {
        self.asked
    }

    fn make(&mut self, workspace: &mut Workspace) -> Result<(), StoreError> {
        let result = match catch_unwind(AssertUnwindSafe(|| (self.work)(workspace))) {
            Ok(result) => result.map_err(StoreError::from),
            Err(_panic) => Err(Fault::Program.into()),
        };
        let done = result.as_ref().map(|_| ()).map_err(StoreError::clone);
        self.result = Some(result);
        done
    }

    fn answer(self: Box<Self>, failure: Option<&StoreError>) {
        // Whoever asked may be gone: what was done stays done.
        let _ = self.answer.send(answer::told(self.result, failure));
    }
}

type Batch = Vec<Box<dyn Change>>;

/// A change that has to wait, and whether that is because somebody else has a row.
struct Left {
    change: Box<dyn Change>,
    is_held: bool,
}

/// What a transaction came to.
struct Done {
    /// The places of changes that have to wait, and whether for somebody else.
    left: HashMap<usize, bool>,
    /// What these are about.
    owed: Taken,
    finishes_refused: u64,
    /// Whether others may wait for what was written.
    is_of_interest: bool,
}

/// Changes commands, in the order in which that is asked for.
pub(super) struct Writer {
    pub(super) link: Link,
    pub(super) shared: Arc<Shared>,
    pub(super) queue: mpsc::Receiver<Box<dyn Change>>,
    /// Its row of the totals.
    pub(super) id: Uuid,
    /// How long a change waits for a row that somebody else has.
    pub(super) patience: Duration,
}

impl Writer {
    /// Works until nobody can ask any more and all is done.
    pub(super) async fn run(mut self) {
        let mut waiting: VecDeque<Box<dyn Change>> = VecDeque::new();
        loop {
            if waiting.is_empty() {
                match self.queue.recv().await {
                    Some(change) => waiting.push_back(change),
                    None => return,
                }
            }
            while waiting.len() < WAITING_MAX
                && let Ok(change) = self.queue.try_recv()
            {
                waiting.push_back(change);
            }
            let batch = pick(&mut waiting);
            let count = batch.len();
            let left = self.work(batch, &mut Taken::default()).await;
            if left.len() == count {
                // Somebody else has all that is wanted.
                sleep(HELD_DELAY).await;
            }
            let (late, left): (Vec<Left>, Vec<Left>) = left
                .into_iter()
                .partition(|left| left.is_held && left.change.asked().elapsed() > self.patience);
            let error = StoreError("timeout: another program has a row locked".to_owned());
            late.into_iter().for_each(|left| left.change.answer(Some(&error)));
            for Left { change, .. } in left.into_iter().rev() {
                waiting.push_front(change);
            }
        }
    }

    /// Makes a batch. Yields those that have to wait for the next one; so must what is about the same as `owed`, to which what
    /// they are about is added.
    async fn work(&mut self, mut batch: Batch, owed: &mut Taken) -> Vec<Left> {
        let mut tries = 0;
        loop {
            match self.attempt(&mut batch, owed).await {
                Ok(done) => {
                    owed.extend(done.owed);
                    let mut later = Vec::new();
                    for (place, change) in batch.into_iter().enumerate() {
                        match done.left.get(&place) {
                            Some(&is_held) => later.push(Left { change, is_held }),
                            None => change.answer(None),
                        }
                    }
                    return later;
                }
                Err(fault) if fault.is_conflict() && tries + 1 < TRIES_MAX => tries += 1,
                // One that the server refuses must not take the others with it.
                Err(fault) if batch.len() > 1 && !fault.ends_connection() => {
                    let mut left = Vec::new();
                    for change in batch {
                        left.extend(Box::pin(self.work(vec![change], owed)).await);
                    }
                    return left;
                }
                Err(fault) => {
                    let error = StoreError::from(fault);
                    batch.into_iter().for_each(|change| change.answer(Some(&error)));
                    return Vec::new();
                }
            }
        }
    }

    /// Makes a batch in one transaction.
    async fn attempt(&mut self, batch: &mut Batch, owed: &Taken) -> Result<Done, Fault> {
        let (began, count) = (Instant::now(), batch.len());
        let done = self.try_once(batch, owed).await;
        note_commit("postgres", count, began.elapsed(), done.is_ok());
        done
    }

    async fn try_once(&mut self, batch: &mut Batch, owed: &Taken) -> Result<Done, Fault> {
        let session = match self.link.session().await {
            Ok(session) => session,
            Err(StoreError(text)) => return Err(Fault::Unreachable(text)),
        };
        let transaction = transaction(session, &self.shared, self.id, batch, owed.clone());
        let done = AssertUnwindSafe(transaction).catch_unwind().await.unwrap_or(Err(Fault::Program));
        match &done {
            Ok(done) => {
                self.shared.finishes_refused.fetch_add(done.finishes_refused, Ordering::Relaxed);
                if done.is_of_interest {
                    self.shared.written.send_replace(());
                }
            }
            Err(fault) => self.link.undo(fault).await,
        }
        done
    }
}

/// Takes the first of each connection, key and command: those behind it would have to wait for another batch anyway.
fn pick(waiting: &mut VecDeque<Box<dyn Change>>) -> Batch {
    let (mut batch, mut rest, mut taken) = (Batch::new(), VecDeque::new(), Taken::default());
    for change in waiting.drain(..) {
        let is_first = taken.add_first(change.needs());
        if is_first && batch.len() < BATCH_LENGTH_MAX {
            batch.push(change);
        } else {
            rest.push_back(change);
        }
    }
    *waiting = rest;
    batch
}

async fn transaction(
    session: &mut Session,
    shared: &Shared,
    writer: Uuid,
    batch: &mut Batch,
    owed: Taken,
) -> Result<Done, Fault> {
    let wanted = Wanted::of(batch.iter().map(|change| change.needs()));
    let (loaded, server_time) = trips::load(session, wanted).await?;
    let now = shared.note_server_time(server_time);
    let mut workspace = Workspace::new(now, shared.terms, loaded, owed);
    let mut left = HashMap::new();
    for (place, change) in batch.iter_mut().enumerate() {
        match workspace.take(change.needs()) {
            Turn::Now => {
                let made = change.make(&mut workspace);
                workspace.settle(made.is_ok());
            }
            Turn::Later => drop(left.insert(place, false)),
            Turn::Held => drop(left.insert(place, true)),
        }
    }
    let (changes, owed) = workspace.into_changes();
    let finishes_refused = changes.finishes_refused;
    let is_of_interest = !(changes.messages.is_empty() && changes.wakes.is_empty());
    trips::save(session, shared.terms.hold, writer, changes).await?;
    Ok(Done { left, owed, finishes_refused, is_of_interest })
}
