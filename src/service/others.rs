//! What other instances do with the store: its end is told to those who wait here, and what is due now is taken up.

use tokio::time::{Duration, sleep};

use super::Shared;
use super::board::Notice;
use super::records;

/// Words that come in so quick a succession are one.
const INTERVAL_MIN: Duration = Duration::from_millis(10);

/// Commands asked for at once.
const PAGE_LENGTH: usize = 512;

/// Listens until the adapter is stopped.
pub(super) async fn run(shared: &Shared) {
    let mut changes = shared.store.changes();
    let mut seat = shared.store.tenure().seat();
    let listening = async {
        // A store that is used alone tells of none.
        while changes.changed().await.is_ok() {
            shared.outbox.send_replace(());
            shared.recovery.notify_one();
            look(shared).await;
            sleep(INTERVAL_MIN).await;
        }
        std::future::pending::<()>().await;
    };
    let dividing = async {
        loop {
            shared.gate.divide(seat.borrow_and_update().count);
            if seat.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    };
    tokio::select! {
        () = shared.draining.cancelled() => {}
        () = listening => {}
        () = dividing => {}
    }
}

/// Tells those who wait for commands that others work on. What is missed here they find out by themselves, later.
async fn look(shared: &Shared) {
    for page in shared.board.awaited().chunks(PAGE_LENGTH) {
        match shared.store.finals(page.to_vec()).await {
            Ok(records) => {
                for record in records {
                    shared.board.tell(record.id, Notice::Final(record));
                }
            }
            Err(error) => return records::OthersUnread { error: &error }.log(),
        }
    }
}
