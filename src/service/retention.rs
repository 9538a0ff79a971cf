//! Forgets commands that are older than the retention, a few at a time.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::ports::Store;
use super::records;
use crate::telemetry::instruments::instruments;

/// Commands forgotten in one transaction: small, so that claims never wait long behind it.
const BATCH_MAX: usize = 500;

/// The pause between two looks.
const INTERVAL: Duration = Duration::from_secs(60);

/// The pause between two batches of one look.
const BATCH_PAUSE: Duration = Duration::from_millis(20);

/// Purges until `stop`.
pub async fn run(store: Arc<dyn Store>, stop: CancellationToken) {
    loop {
        let pause = match store.purge(BATCH_MAX).await {
            Ok(0) => INTERVAL,
            Ok(count) => {
                instruments().purged.add(count, &[]);
                records::Forgotten { count }.log();
                if count < BATCH_MAX as u64 { INTERVAL } else { BATCH_PAUSE }
            }
            Err(error) => {
                records::Unforgotten { error: &error }.log();
                INTERVAL
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = sleep(pause) => {}
        }
    }
}
