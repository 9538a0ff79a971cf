//! Takes up what nobody works on: accepted commands without an owner, deferred ones that are due, claims whose lease ended.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::sleep;
use tracing::warn;

use super::Shared;
use super::ports::{Due, StoreError};
use super::worker::Job;

/// Due commands read at once.
const BATCH_MAX: usize = 1024;

/// The longest wait between two looks: what another process left behind becomes due without a word to this one.
const INTERVAL_MAX: Duration = Duration::from_secs(1);

/// The wait when something is due that cannot be taken up: no room, or worked on here already.
const INTERVAL_BUSY: Duration = Duration::from_millis(250);

/// The wait after a word that something may be due, so that many words are one look.
const INTERVAL_MIN: Duration = Duration::from_millis(20);

/// Looks for due commands until the adapter drains.
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

/// Takes up what is due, as far as there is room, and yields the wait until the next look.
async fn round(shared: &Arc<Shared>, room: &Arc<Semaphore>) -> Result<Duration, StoreError> {
    for due in shared.store.due(BATCH_MAX).await? {
        let Ok(permit) = room.clone().try_acquire_owned() else { break };
        take_up(shared, due, permit).await?;
    }
    let next = shared.store.due_next().await?;
    let wait =
        next.map_or(INTERVAL_MAX, |next| (next - shared.clock.now()).to_std().unwrap_or(INTERVAL_BUSY));
    Ok(wait.clamp(INTERVAL_MIN, INTERVAL_MAX))
}

async fn take_up(
    shared: &Arc<Shared>,
    due: Due,
    permit: tokio::sync::OwnedSemaphorePermit,
) -> Result<(), StoreError> {
    // One that is worked on here keeps its owner; so does one that came to a full lane, which is looked at again.
    if shared.board.is_running(due.id) {
        return Ok(());
    }
    let Some(record) = shared.store.command(due.id).await? else { return Ok(()) };
    let Ok((ticket, ())) = shared.lanes.enter(due.connection, |_| ()) else { return Ok(()) };
    let job = Job { id: due.id, trace: record.trace, ticket, claim: None, caller: None };
    let shared_task = shared.clone();
    shared.tasks.spawn(async move {
        let _permit = permit;
        shared_task.work(job).await;
    });
    Ok(())
}
