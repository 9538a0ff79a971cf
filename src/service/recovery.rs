//! Takes up what nobody works on: accepted commands without an owner, deferred ones that are due, claims whose lease
//! ended, lanes that the store holds more for, suspect connections.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::sleep;
use tracing::warn;

use super::ports::{Due, DueCursor, StoreError};
use super::worker::Job;
use super::{Shared, heal};
use crate::domain::connection::Connection;

/// Commands read at once.
const PAGE_LENGTH: usize = 512;

/// The longest wait between two looks: what another process left behind becomes due without a word to this one.
const INTERVAL_MAX: Duration = Duration::from_secs(1);

/// The wait when something is due that cannot be taken up: no room, or worked on here already.
const INTERVAL_BUSY: Duration = Duration::from_millis(250);

/// The wait after a word that something may be due, so that many words are one look.
const INTERVAL_MIN: Duration = Duration::from_millis(20);

/// Looks for work until the adapter drains.
pub(super) async fn run(shared: Arc<Shared>) {
    let room = Arc::new(Semaphore::new(shared.settings.recovery_max));
    loop {
        let wait = match round(&shared, &room).await {
            Ok(wait) => wait,
            Err(error) => {
                warn!(%error, "recovery could not read what is due");
                INTERVAL_MAX
            }
        };
        tokio::select! {
            () = shared.draining.cancelled() => return,
            () = sleep(wait) => {}
            () = shared.recovery.notified() => sleep(INTERVAL_MIN).await,
        }
    }
}

/// Takes up what there is, as far as there is room, and yields the wait until the next look.
async fn round(shared: &Arc<Shared>, room: &Arc<Semaphore>) -> Result<Duration, StoreError> {
    heal_suspects(shared, room).await?;
    let mut lines = shared.lanes.short();
    let has_room = take_due(shared, room, &mut lines).await?;
    let mut unfilled = BTreeSet::new();
    for connection in lines {
        if !(has_room && fill(shared, room, connection).await?) {
            unfilled.insert(connection);
        }
    }
    let is_busy = !unfilled.is_empty();
    shared.lanes.put_back(unfilled);
    let next = shared.store.due_next().await?;
    let wait =
        next.map_or(INTERVAL_MAX, |next| (next - shared.clock.now()).to_std().unwrap_or(INTERVAL_BUSY));
    Ok(if is_busy { INTERVAL_BUSY } else { wait.clamp(INTERVAL_MIN, INTERVAL_MAX) })
}

/// Takes up every due command that finds a place, those that are longest due first. Lines in which one is due are added
/// to `lines`. Whether there is room left.
async fn take_due(
    shared: &Arc<Shared>,
    room: &Arc<Semaphore>,
    lines: &mut BTreeSet<Connection>,
) -> Result<bool, StoreError> {
    let mut after = DueCursor::default();
    loop {
        let page = shared.store.due(after, PAGE_LENGTH).await?;
        let is_last = page.len() < PAGE_LENGTH;
        for due in page {
            after = due.cursor;
            // One that is worked on here keeps its owner.
            if shared.board.is_running(due.id) {
                continue;
            }
            if due.in_line {
                lines.insert(due.connection);
                continue;
            }
            let Ok(permit) = room.clone().try_acquire_owned() else { return Ok(false) };
            take_up(shared, due, permit);
        }
        if is_last {
            return Ok(true);
        }
    }
}

/// Fills the lane of a connection from the store, in order of arrival. Whether there was room in this process.
async fn fill(
    shared: &Arc<Shared>,
    room: &Arc<Semaphore>,
    connection: Connection,
) -> Result<bool, StoreError> {
    let filled_depth = shared.lanes.filled_depth();
    let line = shared.store.line(connection, filled_depth).await?;
    let now = shared.clock.now().timestamp_micros();
    if line.first().is_some_and(|first| first.waiting && first.cursor.due_time > now) {
        shared.lanes.note_stalled(connection);
        return Ok(true);
    }
    let mut has_more = line.len() == filled_depth;
    for due in line {
        if shared.board.is_running(due.id) {
            continue;
        }
        let Ok(permit) = room.clone().try_acquire_owned() else { return Ok(false) };
        if !take_up(shared, due, permit) {
            has_more = true;
            break;
        }
    }
    if has_more {
        shared.lanes.note_more(connection);
    }
    Ok(true)
}

/// Sets a command to work, if its lane has room for it.
fn take_up(shared: &Arc<Shared>, due: Due, permit: OwnedSemaphorePermit) -> bool {
    let Some(ticket) = shared.lanes.rejoin(due.connection) else { return false };
    shared.spawn_work(Job { id: due.id, trace: due.trace, ticket, claim: None, caller: None }, permit);
    true
}

async fn heal_suspects(shared: &Arc<Shared>, room: &Arc<Semaphore>) -> Result<(), StoreError> {
    for connection in shared.store.suspects(PAGE_LENGTH).await? {
        let Ok(permit) = room.clone().try_acquire_owned() else { break };
        let Some(healing) = shared.healing.begin(connection) else { continue };
        let Some(ticket) = shared.lanes.rejoin(connection) else { continue };
        let task = Arc::clone(shared);
        shared.tasks.spawn(async move {
            let _held = (permit, healing);
            heal::heal(&task, connection, ticket).await;
        });
    }
    Ok(())
}
