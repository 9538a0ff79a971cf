//! A thread that answers questions, so that they do not wait for the writer's commits.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use rusqlite::Connection;

use super::error::Fault;
use super::files::Lock;
use super::fresh::Changes;
use super::kept::Kept;
use super::schema;
use super::task::{Scope, Shared, Tally, Task};
use crate::service::ports::StoreError;

/// A reader and all that it needs.
pub(super) struct Reader {
    pub(super) path: PathBuf,
    /// Absent after a failure.
    pub(super) connection: Option<Connection>,
    pub(super) shared: Arc<Shared>,
    pub(super) queue: Receiver<Box<dyn Task>>,
    /// Held until the last thread of the store ends.
    pub(super) lock: Arc<Lock>,
}

impl Reader {
    /// Works until nobody can ask for anything any more and all questions are answered.
    pub(super) fn run(mut self) {
        while let Ok(mut task) = self.queue.recv() {
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
                none.insert(opened.map_err(|error| self.shared.failure(Fault::from(error)))?)
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
