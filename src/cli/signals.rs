//! SIGTERM and SIGINT.

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::records;

/// The exit code after a second signal, as shells give it for SIGINT.
const EXIT_INTERRUPTED: i32 = 130;

/// Cancels `shutdown` at the first signal, and ends the process at the second.
///
/// # Errors
/// The handlers cannot be installed.
pub(super) fn watch(shutdown: CancellationToken) -> std::io::Result<()> {
    let mut signals = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::spawn(async move {
        next(&mut signals).await;
        records::Stopping.log();
        shutdown.cancel();
        next(&mut signals).await;
        std::process::exit(EXIT_INTERRUPTED);
    });
    Ok(())
}

async fn next((terminate, interrupt): &mut (Signal, Signal)) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}
