//! A thread that answers questions, so that they do not wait for the writer's commits.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rusqlite::{Connection, InterruptHandle};

use super::error::Fault;
use super::files::Lock;
use super::fresh::Changes;
use super::kept::Kept;
use super::schema;
use super::task::{Scope, Shared, Tally, Task};
use crate::service::ports::StoreError;
use crate::store::answer;

/// What a reader is at that may be ended at any time.
pub(super) struct Interruptible {
    handle: Mutex<InterruptHandle>,
    is_over: AtomicBool,
}

impl Interruptible {
    pub(super) fn new(connection: &Connection) -> Self {
        Self { handle: Mutex::new(connection.get_interrupt_handle()), is_over: AtomicBool::new(false) }
    }

    /// Ends the question under way, and has no other one begun. It may have been between two steps, so it is to be told again.
    pub(super) fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        self.handle().interrupt();
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Relaxed)
    }

    fn handle(&self) -> MutexGuard<'_, InterruptHandle> {
        self.handle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader and all that it needs.
pub(super) struct Reader {
    pub(super) path: PathBuf,
    /// Absent after a failure.
    pub(super) connection: Option<Connection>,
    pub(super) shared: Arc<Shared>,
    /// Present if its questions need not be answered at the end.
    pub(super) interruptible: Option<Arc<Interruptible>>,
    pub(super) queue: Receiver<Box<dyn Task>>,
    /// Held until the last thread of the store ends.
    pub(super) lock: Arc<Lock>,
}

impl Reader {
    /// Works until nobody can ask for anything any more and all questions are answered.
    pub(super) fn run(mut self) {
        while let Ok(mut task) = self.queue.recv() {
            if self.interruptible.as_ref().is_some_and(|at| at.is_over()) {
                task.answer(Some(&StoreError(answer::CLOSED.to_owned())));
                continue;
            }
            match self.read(task.as_mut()) {
                Ok(()) => task.answer(None),
                Err(error) => task.answer(Some(&error)),
            }
        }
        drop(self.connection);
        drop(self.lock);
    }

    fn read(&mut self, task: &mut dyn Task) -> Result<(), StoreError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let opened = schema::connect_reader(&self.path);
                let opened = opened.map_err(|error| self.shared.failure(Fault::from(error)))?;
                if let Some(at) = &self.interruptible {
                    *at.handle() = opened.get_interrupt_handle();
                }
                none.insert(opened)
            }
        };
        let (tally, kept) = (Tally::default(), Kept::default());
        let outbox = Changes::default();
        let mut scope = Scope { connection, shared: &self.shared, tally, kept, outbox };
        if task.run(&mut scope).is_err() {
            self.connection = None;
        }
        Ok(())
    }
}
