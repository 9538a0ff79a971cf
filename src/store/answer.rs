//! The way back of an answer from the one who works to the one who asked.

use futures::FutureExt as _;
use tokio::sync::oneshot;

use crate::service::ports::{StoreError, StoreFuture};

/// What is told of work: its own failure before that of what it was part of, since it would have failed alone, too.
pub(super) fn told<T>(
    result: Option<Result<T, StoreError>>,
    failure: Option<&StoreError>,
) -> Result<T, StoreError> {
    match (result, failure) {
        (Some(Err(own)), _) => Err(own),
        (_, Some(failure)) => Err(failure.clone()),
        (Some(Ok(value)), None) => Ok(value),
        (None, None) => Err(StoreError("the request was not looked at".to_owned())),
    }
}

/// Waits for the answer to what was sent, or says why it could not be sent.
pub(super) fn awaited<T: Send + 'static>(
    sent: Result<(), &'static str>,
    answer: oneshot::Receiver<Result<T, StoreError>>,
) -> StoreFuture<T> {
    let failed = |reason: &str| Err(StoreError(reason.to_owned()));
    match sent {
        Ok(()) => async move { answer.await.unwrap_or_else(|_| failed(ENDED)) }.boxed(),
        Err(reason) => futures::future::ready(failed(reason)).boxed(),
    }
}

/// Why something cannot be sent, or is not answered.
pub(super) const FULL: &str = "too many requests wait for it";
pub(super) const ENDED: &str = "its worker has ended";
pub(super) const CLOSED: &str = "it is closed";
