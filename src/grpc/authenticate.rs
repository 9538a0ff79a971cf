//! No call gets further than this whose caller is not known, but those for health.

use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{Request, Response};
use tonic::body::Body;
use tower::{Layer, Service};

use super::callers::Callers;
use super::status::{self, Subject};
use crate::domain::record::Door;
use crate::service::tally;

/// Health holds no secrets, and those who ask for it (balancers, orchestrators) often cannot prove anything.
const OPEN: &str = "/grpc.health.v1.Health/";

/// The method that asks and wishes for nothing.
const LOOK_UP: &str = "/GetCommand";

/// Puts [`Authenticate`] around the services.
#[derive(Clone)]
pub struct AuthenticateLayer {
    callers: Callers,
}

impl AuthenticateLayer {
    /// One that goes by `callers`.
    #[must_use]
    pub const fn new(callers: Callers) -> Self {
        Self { callers }
    }
}

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticate<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Authenticate { inner, callers: self.callers.clone() }
    }
}

/// A service behind the question who calls. What it lets in has a [`Caller`](super::callers::Caller) among its extensions.
#[derive(Clone)]
pub struct Authenticate<S> {
    inner: S,
    callers: Callers,
}

impl<S> Service<Request<Body>> for Authenticate<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone + Send + 'static,
    S::Future: Send + 'static,
    S::Error: 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<Body>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        if request.uri().path().starts_with(OPEN) {
            return self.inner.call(request).boxed();
        }
        // It is this one that said it was ready.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let callers = self.callers.clone();
        let is_wish = !request.uri().path().ends_with(LOOK_UP);
        async move {
            let (parts, body) = request.into_parts();
            let identified = callers.identify(&parts.headers, &parts.extensions).await;
            request = Request::from_parts(parts, body);
            match identified {
                Ok(caller) => {
                    request.extensions_mut().insert(caller);
                    inner.call(request).await
                }
                Err(refusal) => {
                    if is_wish {
                        tally::refused(Door::Grpc, &refusal);
                    }
                    Ok(status::of(&refusal, &Subject::default()).into_http())
                }
            }
        }
        .boxed()
    }
}
