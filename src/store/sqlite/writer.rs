//! The one thread that writes: takes whatever is queued, does it in one transaction, and answers when that is durable.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::thread::sleep;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::checkpoint::{self, Wal};
use super::error::Fault;
use super::files::{Lock, Present};
use super::fresh::Changes;
use super::kept::Kept;
use super::pace::Pace;
use super::schema;
use super::task::{Scope, Shared, Tally, Task};
use crate::service::ports::StoreError;
use crate::store::records;
use crate::telemetry::instruments::note_commit;

/// Pieces of work that share a commit, at most.
const BATCH_LENGTH_MAX: usize = 512;

/// How soon comes what follows on a piece of work and is to share its commit: it takes a task that is woken for it.
const FOLLOW_TIME: Duration = Duration::from_micros(300);

/// After so long without work the log is folded into the database and cut to nothing.
const IDLE_TIME: Duration = Duration::from_secs(1);

/// A writer and all that it needs.
pub(super) struct Writer {
    pub(super) path: PathBuf,
    /// Absent after a failure: what it holds is not to be trusted then.
    pub(super) connection: Option<Connection>,
    /// What the connection has written last.
    pub(super) kept: Kept,
    /// The files as they were at the start.
    pub(super) present: Present,
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Receiver<Box<dyn Task>>,
    /// Asks for a checkpoint beside the writing.
    pub(super) checkpoints: SyncSender<()>,
    /// Held until the last thread of the store ends.
    pub(super) lock: Arc<Lock>,
    /// How fast work has come of late.
    pub(super) pace: Pace,
}

impl Writer {
    /// Works until nobody can ask for anything any more and all that was asked for is done.
    pub(super) fn run(mut self) {
        let mut log_empty = false;
        loop {
            let first = if log_empty {
                self.queue.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                self.queue.recv_timeout(IDLE_TIME)
            };
            match first {
                Ok(first) => {
                    let batch = self.gather(first);
                    self.run_batch(batch);
                    log_empty = false;
                }
                Err(RecvTimeoutError::Timeout) => {
                    if let Some(connection) = &self.connection {
                        checkpoint::truncate(connection);
                    }
                    log_empty = true;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        if let Some(connection) = &self.connection {
            checkpoint::truncate(connection);
        }
        // The file is closed before the lock goes.
        drop(self.connection);
        drop(self.lock);
    }

    /// Takes what is to share a commit, after a pause if that lets more of it come.
    fn gather(&mut self, first: Box<dyn Task>) -> Vec<Box<dyn Task>> {
        if let Some(delay) = self.pace.delay() {
            sleep(delay);
        }
        let batch = self.take(first);
        self.pace.note(batch.len(), Instant::now());
        batch
    }

    /// Takes what is queued, and a little later what follows on it: unless others would wait for that.
    fn take(&self, first: Box<dyn Task>) -> Vec<Box<dyn Task>> {
        let deadline = Instant::now() + FOLLOW_TIME;
        let mut batch = vec![first];
        loop {
            batch.extend(self.queue.try_iter().take(BATCH_LENGTH_MAX - batch.len()));
            if batch.len() == BATCH_LENGTH_MAX || !batch.iter().all(|task| task.is_followed()) {
                return batch;
            }
            match self.queue.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(next) => batch.push(next),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return batch,
            }
        }
    }

    fn run_batch(&mut self, mut batch: Vec<Box<dyn Task>>) {
        let began = Instant::now();
        let result = self.transaction(&mut batch);
        note_commit("sqlite", batch.len(), began.elapsed(), result.is_ok());
        if let Err(error) = &result {
            records::Uncommitted { error, operations: batch.len() }.log();
        }
        if !matches!(result, Ok(Done::All)) {
            self.connection = None;
            // Another connection does not know what has changed since this one looked.
            self.kept = Kept::default();
            self.shared.fresh.clear();
        }
        self.cut_log();
        // A request waits for the claim that follows on an end: that is told first, or it would wait for what the end wakes.
        batch.sort_by_key(|task| task.is_followed());
        for task in batch {
            task.answer(result.as_ref().err());
        }
        if let Some(connection) = &self.connection {
            match checkpoint::after_commit(connection) {
                Wal::Short => {}
                // A request that is already waiting is as good as this one.
                Wal::Long => drop(self.checkpoints.try_send(())),
            }
        }
    }

    /// Cuts the log if something was erased, or tries again after the next batch: a question under way keeps it.
    fn cut_log(&self) {
        let wanted = &self.shared.log_is_to_be_cut;
        if let Some(connection) = self.connection.as_ref().filter(|_| wanted.load(Ordering::Relaxed)) {
            wanted.store(!checkpoint::truncate(connection), Ordering::Relaxed);
        }
    }

    /// Whether every operation was done, once all that were are durable.
    fn transaction(&mut self, batch: &mut [Box<dyn Task>]) -> Result<Done, StoreError> {
        let shared = &self.shared;
        shared.is_sound(|| schema::look_through(&self.path).map_err(StoreError::from))?;
        if let Some(file) = self.present.missing() {
            let text =
                "was removed or replaced under way: put it back, or end the adapter and restore a backup";
            return Err(StoreError(format!("{} {text}", file.display())));
        }
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let opened = schema::connect_writer(&self.path);
                none.insert(opened.map_err(|error| shared.failure(Fault::from(error)))?)
            }
        };
        let (done, tally) = write_all(connection, shared, &mut self.kept, batch)?;
        shared.finishes_refused.fetch_add(tally.finishes_refused, Ordering::Relaxed);
        Ok(done)
    }
}

/// What became of the operations of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Done {
    All,
    /// The others are taken back, each for itself.
    Some,
    /// All are taken back, since one failed.
    None,
}

/// How an operation that fails is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Undo {
    /// With all others. Costs nothing as long as none fails.
    Together,
    /// Alone: each has a savepoint.
    Alone,
}

fn write_all(
    connection: &Connection,
    shared: &Shared,
    kept: &mut Kept,
    batch: &mut [Box<dyn Task>],
) -> Result<(Done, Tally), StoreError> {
    match write_once(connection, shared, kept, batch, Undo::Together)? {
        (Done::None, _) => write_once(connection, shared, kept, batch, Undo::Alone),
        done => Ok(done),
    }
}

fn write_once(
    connection: &Connection,
    shared: &Shared,
    kept: &mut Kept,
    batch: &mut [Box<dyn Task>],
    undo: Undo,
) -> Result<(Done, Tally), StoreError> {
    execute(connection, "BEGIN IMMEDIATE").map_err(|fault| shared.failure(fault))?;
    let (tally, outbox) = (Tally::default(), Changes::default());
    let mut scope = Scope { connection, shared, tally, kept: std::mem::take(kept), outbox };
    let result = write_in_transaction(&mut scope, batch, undo);
    if !connection.is_autocommit() {
        // Should it fail, the connection is dropped, which rolls back too.
        drop(execute(connection, "ROLLBACK"));
    }
    if matches!(result, Ok(Done::All)) {
        // What is kept is what was written.
        *kept = scope.kept;
        shared.fresh.apply(scope.outbox);
    }
    Ok((result?, scope.tally))
}

fn write_in_transaction(
    scope: &mut Scope<'_>,
    batch: &mut [Box<dyn Task>],
    undo: Undo,
) -> Result<Done, StoreError> {
    let (connection, shared) = (scope.connection, scope.shared);
    let run = |sql: &str| execute(connection, sql).map_err(|fault| shared.failure(fault));
    let is_changed = scope.kept.refresh(connection).map_err(|fault| shared.failure(fault))?;
    scope.outbox.is_other |= is_changed;
    let mut done = Done::All;
    for task in batch {
        if undo == Undo::Alone {
            run("SAVEPOINT operation")?;
        }
        let tally = scope.tally;
        if let Err(error) = task.run(scope) {
            if connection.is_autocommit() {
                // SQLite has rolled everything back, as it does where the disk is full or fails.
                return Err(error);
            }
            if undo == Undo::Together {
                return Ok(Done::None);
            }
            scope.tally = tally;
            scope.kept.clear();
            done = Done::Some;
            run("ROLLBACK TO operation")?;
        }
        if undo == Undo::Alone {
            run("RELEASE operation")?;
        }
    }
    write_tally(connection, scope.tally).map_err(|fault| shared.failure(fault))?;
    run("COMMIT")?;
    Ok(done)
}

fn write_tally(connection: &Connection, tally: Tally) -> Result<(), Fault> {
    if (Tally { finishes_refused: 0, ..tally }) == Tally::default() {
        return Ok(());
    }
    let mut statement = connection.prepare_cached(
        "UPDATE totals SET registered = registered + ?1, outbox_written = outbox_written + ?2,
             outbox_confirmed = outbox_confirmed + ?3",
    )?;
    statement.execute((tally.registered, tally.outbox_written, tally.outbox_confirmed))?;
    Ok(())
}

fn execute(connection: &Connection, sql: &str) -> Result<(), Fault> {
    connection.prepare_cached(sql)?.execute([])?;
    Ok(())
}
