//! A scenario, played once: one process after another over the same file, until everything is at rest.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use guest_connection_adapter::domain::command::OrganizationId;
use guest_connection_adapter::domain::record::Door;
use guest_connection_adapter::service::ports::Store;
use guest_connection_adapter::store::sqlite::SqliteStore;
use tempfile::TempDir;
use tokio::time::timeout;
use uuid::Uuid;

use crate::gate::{Blow, Gate};
use crate::history::{History, Kept};
use crate::incarnation::{Process, Wishes, desert, open_store, wishes};
use crate::outside::{Outside, number};
use crate::point::Point;
use crate::scenario::{Scenario, Step};

/// Within this everything must be at rest.
pub const REST_DEADLINE: Duration = Duration::from_secs(30);

pub const BOTH: &[Door] = &[Door::Grpc, Door::Amqp];

/// A story under way.
pub struct Story {
    pub outside: Arc<Outside>,
    /// What is asked for at present.
    pub wishes: Wishes,
    steps: Vec<Step>,
    folder: TempDir,
}

impl Story {
    pub fn new(scenario: &Scenario) -> Self {
        Self {
            outside: Outside::new(&scenario.fates),
            wishes: wishes(&scenario.steps),
            steps: scenario.steps.clone(),
            folder: harness::private_folder(),
        }
    }

    /// Makes one process after another and strikes each at its point; the last one lives. Yields what was seen, and at
    /// how many of the points a process was struck.
    pub fn play(&self, points: &[Point]) -> (History, usize) {
        let mut struck = 0;
        for point in points {
            let gate = Gate::new(Some((*point, Blow::Crash)));
            self.live(&gate, None);
            if !gate.is_struck() {
                break;
            }
            struck += 1;
        }
        let mut history = History::default();
        self.live(&Gate::new(None), Some(&mut history));
        (history, struck)
    }

    /// One process, until it is struck or at rest.
    fn live(&self, gate: &Arc<Gate>, last: Option<&mut History>) {
        self.with_store(async |store| {
            let process = Process::start(&self.outside, &store, gate);
            tokio::spawn(process.serve(self.wishes.clone(), BOTH));
            let rest = tokio::select! {
                rest = self.at_rest(&store, BOTH) => rest,
                () = gate.struck() => return,
            };
            if let Some(history) = last {
                *history = self.witness(&store).await;
                history.unrest = rest.err();
            }
        });
    }

    /// Opens the store for processes that live in `work`. Nothing of them is left when this returns.
    pub fn with_store<T>(&self, work: impl AsyncFnOnce(Arc<dyn Store>) -> T) -> T {
        let new_runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let runtime = new_runtime();
        let opened: Arc<SqliteStore> = Arc::new(open_store(&self.path(), &self.outside));
        let result = runtime.block_on(work(opened.clone()));
        // The tasks end with their runtime. What the store was handed is done before its file is closed.
        drop(runtime);
        new_runtime().block_on(opened.close()).unwrap();
        self.outside.orphan_patches();
        desert(&self.wishes);
        result
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("store.db")
    }

    /// Others ask from now on.
    pub fn go_on_with(&mut self, steps: &[Step]) {
        self.wishes = wishes(steps);
        self.steps.extend_from_slice(steps);
    }

    /// Waits until nobody waits at these doors and nothing is left to do.
    pub async fn at_rest(&self, store: &Arc<dyn Store>, doors: &[Door]) -> Result<(), String> {
        let mut changes = self.outside.changes();
        let rest = async {
            loop {
                changes.borrow_and_update();
                let mut waiting = self.wishes.iter().filter(|(step, _)| doors.contains(&step.door));
                if waiting.all(|(_, progress)| progress.is_over()) && is_done(store).await {
                    return;
                }
                // The sender lives as long as the world.
                let _ = changes.changed().await;
            }
        };
        timeout(REST_DEADLINE, rest).await.map_err(|_| format!("no rest within {REST_DEADLINE:?}"))
    }

    /// Everything that was seen, and what is kept in the end.
    pub async fn witness(&self, store: &Arc<dyn Store>) -> History {
        let (entries, values) = self.outside.end();
        let books = store.books().await.unwrap();
        let mut history = History { entries, values, books, ..History::default() };
        for step in &self.steps {
            if history.kept.iter().any(|kept| kept.command == step.command) {
                continue;
            }
            let requester = OrganizationId(Uuid::from_u128(step.command));
            let Some(record) = store.command_by_key(requester, step.key()).await.unwrap() else { continue };
            history.kept.push(Kept {
                command: step.command,
                guest: number(record.command.connection.guest),
                archived: record.command.archived,
                version: record.version(),
                state: record.state,
                by_message: record.door == Door::Amqp,
                message_seen: self
                    .steps
                    .iter()
                    .any(|other| other.command == step.command && other.door == Door::Amqp),
                event: record.event.map(|event| event.id),
            });
        }
        history
    }
}

/// Commands first: what ends one of them writes to the outbox.
async fn is_done(store: &Arc<dyn Store>) -> bool {
    if store.due_next().await.unwrap().is_some() {
        return false;
    }
    let books = store.books().await.unwrap();
    books.outbox_pending == 0 && books.suspect == 0
}
