//! Work for a thread that owns a database connection, and the way back of its answer.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use chrono::{SubsecRound as _, TimeDelta};
use rusqlite::Connection;
use tokio::sync::oneshot;

use super::error::{self, Fault};
use super::fresh::{Changes, Fresh};
use super::kept::Kept;
use crate::domain::Timestamp;
use crate::domain::lifecycle::Terms;
use crate::service::ports::{Clock, StoreError};
use crate::store::answer;
use crate::store::records;

/// What every thread of a store shares.
pub(super) struct Shared {
    pub(super) terms: Terms,
    pub(super) retention: TimeDelta,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) finishes_refused: AtomicU64,
    pub(super) fresh: Fresh,
    /// What was erased still lies in the write-ahead log.
    pub(super) log_is_to_be_cut: AtomicBool,
    /// What seems to be wrong with the file. Nothing is written then, until a look at all of it finds nothing: it could do
    /// more harm.
    damage: Mutex<Option<Damage>>,
}

struct Damage {
    error: StoreError,
    looked_at: Instant,
}

/// The pause between two looks at a file that seems to be damaged.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

impl Shared {
    pub(super) fn new(terms: Terms, retention: TimeDelta, clock: Arc<dyn Clock>) -> Self {
        Self {
            terms,
            retention,
            clock,
            finishes_refused: AtomicU64::new(0),
            fresh: Fresh::default(),
            log_is_to_be_cut: AtomicBool::new(false),
            damage: Mutex::default(),
        }
    }

    /// The error that ends a piece of work. Damage is remembered.
    pub(super) fn failure(&self, fault: Fault) -> StoreError {
        let is_damage = matches!(&fault, Fault::Sqlite(error) if error::is_damage(error));
        let error = StoreError::from(fault);
        if is_damage {
            let mut damage = self.damage();
            if damage.is_none() {
                records::StoreDamaged { error: &error }.log();
            }
            *damage = Some(Damage { error: error.clone(), looked_at: Instant::now() });
        }
        error
    }

    /// Whether the file may be written to. `look` looks at all of it, and is asked now and then while there is doubt.
    pub(super) fn is_sound(&self, look: impl FnOnce() -> Result<(), StoreError>) -> Result<(), StoreError> {
        let mut damage = self.damage();
        let Some(found) = &mut *damage else { return Ok(()) };
        if found.looked_at.elapsed() < LOOK_INTERVAL {
            return Err(found.error.clone());
        }
        if let Err(error) = look() {
            *found = Damage { error: error.clone(), looked_at: Instant::now() };
            return Err(error);
        }
        records::StoreSound.log();
        *damage = None;
        Ok(())
    }

    /// Each change is complete before the lock is let go, so a poisoned lock guards sound data.
    fn damage(&self) -> MutexGuard<'_, Option<Damage>> {
        self.damage.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Changes of the totals within a transaction, written once at its end.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Tally {
    pub(super) registered: i64,
    pub(super) outbox_written: i64,
    pub(super) outbox_confirmed: i64,
    pub(super) finishes_refused: u64,
}

/// What a piece of work may use.
pub(super) struct Scope<'a> {
    pub(super) connection: &'a Connection,
    pub(super) shared: &'a Shared,
    pub(super) tally: Tally,
    /// Of the writer; a reader's is empty.
    pub(super) kept: Kept,
    pub(super) outbox: Changes,
}

impl Scope<'_> {
    /// The store's time, as it is kept.
    pub(super) fn now(&self) -> Timestamp {
        self.shared.clock.now().trunc_subsecs(6)
    }
}

/// A piece of work whose kind of answer is forgotten.
pub(super) trait Task: Send {
    /// Does it and keeps the answer back. Never panics. What it wrote must go if it fails. May be asked again, if what was
    /// written then came to nothing.
    fn run(&mut self, scope: &mut Scope<'_>) -> Result<(), StoreError>;

    /// Whether more work follows on it at once, which is best committed with it.
    fn is_followed(&self) -> bool;

    /// Gives the answer out, or `failure` if the work came to nothing after it was done.
    fn answer(self: Box<Self>, failure: Option<&StoreError>);
}

struct Job<F, T> {
    work: F,
    is_followed: bool,
    result: Option<Result<T, StoreError>>,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

/// A task, and where its answer comes out.
pub(super) type Asked<T> = (Box<dyn Task>, oneshot::Receiver<Result<T, StoreError>>);

/// Wraps `work`.
pub(super) fn job<F, T>(work: F) -> Asked<T>
where
    F: Fn(&mut Scope<'_>) -> Result<T, Fault> + Send + 'static,
    T: Send + 'static,
{
    wrap(work, false)
}

/// The same of work that more follows on.
pub(super) fn followed<F, T>(work: F) -> Asked<T>
where
    F: Fn(&mut Scope<'_>) -> Result<T, Fault> + Send + 'static,
    T: Send + 'static,
{
    wrap(work, true)
}

fn wrap<F, T>(work: F, is_followed: bool) -> Asked<T>
where
    F: Fn(&mut Scope<'_>) -> Result<T, Fault> + Send + 'static,
    T: Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    (Box::new(Job { work, is_followed, result: None, answer: sender }), receiver)
}

impl<F, T> Task for Job<F, T>
where
    F: Fn(&mut Scope<'_>) -> Result<T, Fault> + Send,
    T: Send,
{
    fn run(&mut self, scope: &mut Scope<'_>) -> Result<(), StoreError> {
        let result = match catch_unwind(AssertUnwindSafe(|| (self.work)(scope))) {
            Ok(result) => result.map_err(|fault| scope.shared.failure(fault)),
            Err(panic) => Err(StoreError(format!("a fault of the program: {}", panic_text(panic.as_ref())))),
        };
        let done = result.as_ref().map(|_| ()).map_err(StoreError::clone);
        self.result = Some(result);
        done
    }

    fn is_followed(&self) -> bool {
        self.is_followed
    }

    fn answer(self: Box<Self>, failure: Option<&StoreError>) {
        // Whoever asked may be gone: what was done stays done.
        let _ = self.answer.send(answer::told(self.result, failure));
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("a panic without a text")
}
