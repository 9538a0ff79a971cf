//! A scenario, played once: one process after another over the same file, until everything is at rest.

use std::path::Path;
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
use crate::scenario::Scenario;

/// Within this everything must be at rest.
pub const REST_DEADLINE: Duration = Duration::from_secs(30);

/// What was seen, and at how many of the points the processes were struck.
pub struct Played {
    pub history: History,
    pub struck: usize,
}

/// Plays `scenario`. The first process is struck at the first point, the next one at the next; the last one lives.
pub fn play(scenario: &Scenario, points: &[Point]) -> Played {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("store.db");
    let outside = Outside::new(&scenario.fates);
    let wishes = wishes(&scenario.steps);
    let mut struck = 0;
    for point in points {
        let gate = Gate::new(Some((*point, Blow::Crash)));
        live(&path, &outside, &wishes, &gate, None);
        if !gate.is_struck() {
            break;
        }
        struck += 1;
        outside.orphan_patches();
        desert(&wishes);
    }
    let mut history = History::default();
    live(&path, &outside, &wishes, &Gate::new(None), Some(&mut history));
    Played { history, struck }
}

/// One process, until it is struck or at rest. Nothing of it is left when this returns but what it had handed over.
fn live(path: &Path, outside: &Arc<Outside>, wishes: &Wishes, gate: &Arc<Gate>, last: Option<&mut History>) {
    let new_runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let runtime = new_runtime();
    let opened: Arc<SqliteStore> = Arc::new(open_store(path, outside));
    let store: Arc<dyn Store> = opened.clone();
    runtime.block_on(async {
        let process = Process::start(outside, &store, gate);
        tokio::spawn(process.serve(wishes.clone(), &[Door::Grpc, Door::Amqp]));
        let rest = tokio::select! {
            rest = at_rest(outside, wishes, &store, &[Door::Grpc, Door::Amqp]) => rest,
            () = gate.struck() => return,
        };
        if let Some(history) = last {
            *history = witness(outside, wishes, &store).await;
            history.unrest = rest.err();
        }
    });
    // The tasks are gone with their runtime. What the store was handed is done before its file is closed.
    drop(runtime);
    new_runtime().block_on(opened.close()).unwrap();
}

/// Waits until nobody waits at these doors and nothing is left to do.
pub async fn at_rest(
    outside: &Arc<Outside>,
    wishes: &Wishes,
    store: &Arc<dyn Store>,
    doors: &[Door],
) -> Result<(), String> {
    let mut changes = outside.changes();
    let rest = async {
        loop {
            changes.borrow_and_update();
            let mut waiting = wishes.iter().filter(|(step, _)| doors.contains(&step.door));
            if waiting.all(|(_, progress)| progress.is_over()) && is_done(store).await {
                return;
            }
            // The sender lives as long as the world.
            let _ = changes.changed().await;
        }
    };
    timeout(REST_DEADLINE, rest).await.map_err(|_| format!("no rest within {REST_DEADLINE:?}"))
}

/// Commands first: what ends one of them writes to the outbox.
async fn is_done(store: &Arc<dyn Store>) -> bool {
    store.due_next().await.unwrap().is_none() && store.books().await.unwrap().outbox_pending == 0
}

/// Everything that was seen, and what is kept in the end.
pub async fn witness(outside: &Arc<Outside>, wishes: &Wishes, store: &Arc<dyn Store>) -> History {
    let (entries, values) = outside.end();
    let mut history = History { entries, values, books: store.books().await.unwrap(), ..History::default() };
    for (step, _) in wishes.iter() {
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
            event: record.event.map(|event| event.id),
        });
    }
    history
}
