//! Counts what the store holds that is not final, so that nothing more is taken in when it is too much.

use std::time::Duration;

use tokio::time::sleep;

use super::Shared;
use super::records;

/// How often it is counted. What comes in between may exceed the bound.
const INTERVAL: Duration = Duration::from_secs(1);

/// Counts until the adapter drains. While the store is away the last count stands.
pub(super) async fn run(shared: &Shared) {
    loop {
        if let Ok(backlog) = shared.store.backlog().await {
            let was_full = shared.load.backlog_is_full();
            shared.load.note_backlog(backlog);
            let is_full = shared.load.backlog_is_full();
            if is_full && !was_full {
                records::BacklogFull { backlog }.log();
            } else if was_full && !is_full {
                records::BacklogOpen { backlog }.log();
            }
        }
        tokio::select! {
            () = shared.draining.cancelled() => return,
            () = sleep(INTERVAL) => {}
        }
    }
}
