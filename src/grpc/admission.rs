//! How many calls are served at once, and none while draining.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::records;
use crate::domain::error::{Reason, Refusal};
use crate::domain::record::Door;
use crate::service::tally;
use crate::telemetry::span::Span;

use super::status::{self, Subject};

/// The bound on calls in flight. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Admission {
    places: Arc<Semaphore>,
    draining: CancellationToken,
}

impl Admission {
    /// Serves up to `in_flight_max` calls at once, until `draining`.
    #[must_use]
    pub fn new(in_flight_max: usize, draining: CancellationToken) -> Self {
        let places = in_flight_max.min(Semaphore::MAX_PERMITS);
        Self { places: Arc::new(Semaphore::new(places)), draining }
    }

    /// Does `work` in a task of its own, which keeps its place until it ends: a caller that goes away cancels nothing
    /// and makes no room for more work than there may be. A panic in it is an `INTERNAL` of this call alone.
    ///
    /// # Errors
    /// `DRAINING` or `OVERLOADED`, at once; `INTERNAL`; or what `work` yields.
    pub async fn run<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Status>> + Send + 'static,
    ) -> Result<T, Status> {
        let refuse = |reason, text: &str| {
            let refusal = Refusal::new(reason, text);
            tally::refused(Door::Grpc, &refusal);
            status::of(&refusal, &Subject::default())
        };
        if self.draining.is_cancelled() {
            return Err(refuse(Reason::Draining, "the adapter is shutting down; nothing was begun"));
        }
        let Ok(place) = Arc::clone(&self.places).try_acquire_owned() else {
            return Err(refuse(Reason::Overloaded, "too many calls are in flight; nothing was begun"));
        };
        let task = async move {
            let result = work.await;
            drop(place);
            result
        };
        tokio::spawn(Span::present().around(task)).await.unwrap_or_else(|fault| {
            // The text of a panic may hold anything, so the panic hook alone shows it.
            records::CallLost { panicked: fault.is_panic() }.log();
            Err(status::of(&Refusal::new(Reason::Internal, "a fault of the adapter"), &Subject::default()))
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;
    use tonic::Code;
    use tonic_types::StatusExt as _;

    use super::*;

    fn reason(result: &Result<(), Status>) -> Option<String> {
        let details = result.as_ref().err()?.get_error_details();
        details.error_info().map(|info| info.reason.clone())
    }

    #[tokio::test]
    async fn one_call_too_many_is_refused_at_once_and_the_next_is_served() {
        let admission = Admission::new(1, CancellationToken::new());
        let (release, released) = oneshot::channel::<()>();
        let (signal, begun) = oneshot::channel();
        let other = admission.clone();
        let first = tokio::spawn(async move {
            other
                .run(async move {
                    signal.send(()).expect("someone waits");
                    released.await.map_err(|_| Status::unknown("not released"))
                })
                .await
        });
        begun.await.expect("begun");
        let refused = admission.run(async { Ok(()) }).await;
        assert_eq!(reason(&refused).as_deref(), Some("OVERLOADED"));
        assert_eq!(
            refused.expect_err("refused").metadata().get("grpc-retry-pushback-ms").expect("pushback"),
            "1000"
        );
        release.send(()).expect("released");
        assert!(first.await.expect("joined").is_ok());
        assert!(admission.run(async { Ok(()) }).await.is_ok());
    }

    #[tokio::test]
    async fn a_caller_that_goes_away_cancels_nothing() {
        let admission = Admission::new(1, CancellationToken::new());
        let (release, released) = oneshot::channel::<()>();
        let (done, is_done) = oneshot::channel();
        let mut call = Box::pin(admission.run(async move {
            released.await.expect("released");
            done.send(()).expect("someone waits");
            Ok(())
        }));
        assert!(futures::poll!(&mut call).is_pending());
        drop(call);
        release.send(()).expect("the work goes on");
        is_done.await.expect("the work was done");
    }

    #[tokio::test]
    async fn a_panic_is_an_internal_error_and_frees_its_place() {
        let admission = Admission::new(1, CancellationToken::new());
        let result: Result<(), Status> = admission.run(async { panic!("on purpose") }).await;
        assert_eq!(result.expect_err("refused").code(), Code::Internal);
        assert!(admission.run(async { Ok(()) }).await.is_ok());
    }

    #[tokio::test]
    async fn nothing_is_begun_while_draining() {
        let draining = CancellationToken::new();
        let admission = Admission::new(1, draining.clone());
        draining.cancel();
        let refused = admission.run(async { Ok(()) }).await;
        assert_eq!(reason(&refused).as_deref(), Some("DRAINING"));
        assert_eq!(refused.expect_err("refused").code(), Code::Unavailable);
    }
}
