//! Who works on which command in this process, and who waits for news of it.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;

use crate::domain::command::CommandId;
use crate::domain::error::Reason;
use crate::domain::record::CommandRecord;

/// News of a command, told to everyone who waits for it.
#[derive(Debug, Clone)]
pub enum Notice {
    /// It is final.
    Final(CommandRecord),
    /// It runs again later.
    Deferred(CommandRecord),
    /// It waits for another command of its connection or a quiet time.
    Waiting(CommandRecord),
    /// It was left as it stands, for recovery: the store is away, or the adapter drains.
    Left(Reason),
}

/// The board. Cloning shares it.
#[derive(Clone, Default)]
pub struct Board {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    running: HashSet<CommandId>,
    news: HashMap<CommandId, watch::Sender<Option<Notice>>>,
}

impl Board {
    /// Registers that this process works on `id`, or yields nothing if it does already.
    #[must_use]
    pub fn run(&self, id: CommandId) -> Option<Running> {
        self.lock().running.insert(id).then(|| Running { board: self.clone(), id })
    }

    /// Whether this process works on `id`.
    #[must_use]
    pub fn is_running(&self, id: CommandId) -> bool {
        self.lock().running.contains(&id)
    }

    /// What is waited for here and worked on elsewhere.
    #[must_use]
    pub fn awaited(&self) -> Vec<CommandId> {
        let inner = self.lock();
        inner.news.keys().filter(|id| !inner.running.contains(id)).copied().collect()
    }

    /// Listens for news of `id` from now on.
    #[must_use]
    pub fn listen(&self, id: CommandId) -> Listener {
        let mut inner = self.lock();
        let news = inner.news.entry(id).or_insert_with(|| watch::Sender::new(None)).subscribe();
        drop(inner);
        Listener { board: self.clone(), id, news }
    }

    /// Tells everyone who listens.
    pub fn tell(&self, id: CommandId, notice: Notice) {
        if let Some(news) = self.lock().news.get(&id) {
            news.send_replace(Some(notice));
        }
    }

    /// Each change is complete before the lock is let go, so a poisoned lock guards sound data.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// This process works on a command, until this is dropped.
pub struct Running {
    board: Board,
    id: CommandId,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.board.lock().running.remove(&self.id);
    }
}

/// Hears of a command.
pub struct Listener {
    board: Board,
    id: CommandId,
    news: watch::Receiver<Option<Notice>>,
}

impl Listener {
    /// The next news.
    pub async fn next(&mut self) -> Notice {
        loop {
            // The sender lives on the board for as long as this listener does.
            if self.news.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
            if let Some(notice) = self.news.borrow_and_update().clone() {
                return notice;
            }
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        let mut inner = self.board.lock();
        // This listener's own receiver still counts.
        if inner.news.get(&self.id).is_some_and(|news| news.receiver_count() <= 1) {
            inner.news.remove(&self.id);
        }
    }
}
