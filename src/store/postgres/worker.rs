//! One who answers questions or keeps house: piece after piece, on a connection of its own.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::sync::{mpsc, oneshot};

use super::Shared;
use super::error::Fault;
use super::session::{Link, Session};
use crate::service::ports::StoreError;

/// What a piece of work may use.
pub(super) struct Desk<'a> {
    pub(super) session: &'a mut Session,
    pub(super) shared: &'a Shared,
}

/// A piece of work whose kind of answer is forgotten.
pub(super) trait Piece: Send {
    /// Does it and gives its answer out. `Err` is why the connection may be of no more use.
    fn run(self: Box<Self>, desk: Result<Desk<'_>, StoreError>) -> BoxFuture<'_, Result<(), Fault>>;
}

struct Job<F, T> {
    work: F,
    answer: oneshot::Sender<Result<T, StoreError>>,
}

/// Wraps `work`; its answer comes out of the receiver.
pub(super) fn job<F, T>(work: F) -> (Box<dyn Piece>, oneshot::Receiver<Result<T, StoreError>>)
where
    F: for<'a> FnOnce(Desk<'a>) -> BoxFuture<'a, Result<T, Fault>> + Send + 'static,
    T: Send + 'static,
{
    let (sender, receiver) = oneshot::channel();
    (Box::new(Job { work, answer: sender }), receiver)
}

impl<F, T> Piece for Job<F, T>
where
    F: for<'a> FnOnce(Desk<'a>) -> BoxFuture<'a, Result<T, Fault>> + Send + 'static,
    T: Send + 'static,
{
    fn run(self: Box<Self>, desk: Result<Desk<'_>, StoreError>) -> BoxFuture<'_, Result<(), Fault>> {
        Box::pin(async move {
            let Self { work, answer } = *self;
            let (result, fault) = match desk {
                Err(error) => (Err(error), None),
                Ok(desk) => {
                    match AssertUnwindSafe(work(desk)).catch_unwind().await.unwrap_or(Err(Fault::Program)) {
                        Ok(value) => (Ok(value), None),
                        Err(fault) => (Err(StoreError(fault.to_string())), Some(fault)),
                    }
                }
            };
            // Whoever asked may be gone: what was done stays done.
            let _ = answer.send(result);
            fault.map_or(Ok(()), Err)
        })
    }
}

/// Works until nobody can ask any more and all is done.
pub(super) async fn run(mut link: Link, shared: Arc<Shared>, mut queue: mpsc::Receiver<Box<dyn Piece>>) {
    while let Some(piece) = queue.recv().await {
        let desk = link.session().await.map(|session| Desk { session, shared: &shared });
        if let Err(fault) = piece.run(desk).await {
            // A piece that failed in the midst of a transaction leaves none behind.
            link.undo(&fault).await;
        }
    }
}
