//! What surrounds every call of the contract: its span, its arrival time, and reasons for what the transport refuses.
//!
//! It stands outside the generated code, so that a message which cannot be read is traced and explained as well.

use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response, Uri};
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::field::Empty;
use tracing::{Instrument as _, Span};

use crate::domain::error::{Reason, Refusal};
use crate::telemetry::context;

use super::proto::guest_connection_service_server::SERVICE_NAME;
use super::status::{self, Subject, code_name};

/// The methods of the contract; any other name goes into spans as `_OTHER`, so that callers cannot make names up.
const METHODS: [&str; 3] = ["ArchiveGuestConnection", "UnarchiveGuestConnection", "GetCommand"];

/// When the headers of a call arrived: its deadline counts from here. Kept in the request's extensions.
#[derive(Debug, Clone, Copy)]
pub struct Arrival(pub Instant);

/// Puts [`Surround`] around the services.
#[derive(Debug, Clone, Copy, Default)]
pub struct SurroundLayer;

impl<S> Layer<S> for SurroundLayer {
    type Service = Surround<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Surround { inner }
    }
}

/// A service within the surroundings of this module. Health and reflection pass it by.
#[derive(Debug, Clone)]
pub struct Surround<S> {
    inner: S,
}

impl<S> Service<Request<Body>> for Surround<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
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
        let Some(method) = method(request.uri()) else {
            return self.inner.call(request).boxed();
        };
        let span = span(method, request.uri(), request.headers());
        request.extensions_mut().insert(Arrival(Instant::now()));
        let inner = span.in_scope(|| self.inner.call(request));
        let mut end = End { span: span.clone(), code: Code::Cancelled };
        async move {
            let response = explain(inner.await?);
            end.answered(&response);
            Ok(response)
        }
        .instrument(span)
        .boxed()
    }
}

/// The method that a path of this service names.
fn method(uri: &Uri) -> Option<&str> {
    uri.path().strip_prefix('/')?.strip_prefix(SERVICE_NAME)?.strip_prefix('/')
}

/// The server span of the OpenTelemetry conventions for RPC, below the caller's.
fn span(method: &str, uri: &Uri, headers: &HeaderMap) -> Span {
    let (name, original) = match METHODS.iter().find(|known| **known == method) {
        Some(known) => (format!("{SERVICE_NAME}/{known}"), None),
        None => ("_OTHER".to_owned(), Some(uri.path().chars().take(128).collect::<String>())),
    };
    let span = tracing::info_span!(
        "rpc",
        otel.name = name,
        otel.kind = "server",
        otel.status_code = Empty,
        rpc.system.name = "grpc",
        rpc.method = name,
        rpc.method_original = original,
        rpc.response.status_code = Empty,
        error.type = Empty,
        command.id = Empty,
        server.address = uri.host(),
        server.port = uri.port_u16(),
    );
    let parent = context::from_headers(|name| headers.get(name).and_then(|value| value.to_str().ok()));
    context::adopt(&span, &parent);
    span
}

/// Gives the refusals of the transport a reason: tonic knows only codes, and blames itself for what the caller sent.
fn explain(response: Response<Body>) -> Response<Body> {
    let Some(status) = Status::from_header_map(response.headers()) else { return response };
    if !status.details().is_empty() {
        return response;
    }
    let (reason, text) = match status.code() {
        Code::OutOfRange => (Reason::BodyTooLarge, "the message is larger than the limit"),
        Code::Internal => (Reason::Undecodable, "the message cannot be read as the method's request"),
        _ => return response,
    };
    status::of(&Refusal::new(reason, text), &Subject::default()).into_http()
}

/// Writes into the span how the call ended; one that is dropped before its end was cancelled.
struct End {
    span: Span,
    code: Code,
}

impl End {
    fn answered(&mut self, response: &Response<Body>) {
        // A unary success has its status in the trailers, an error in the headers.
        self.code = Status::from_header_map(response.headers()).map_or(Code::Ok, |status| status.code());
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let name = code_name(self.code);
        self.span.record("rpc.response.status_code", name);
        if is_server_fault(self.code) {
            self.span.record("error.type", name);
            self.span.record("otel.status_code", "ERROR");
        }
    }
}

/// The codes that the conventions count as errors of a server span.
const fn is_server_fault(code: Code) -> bool {
    matches!(
        code,
        Code::Unknown
            | Code::DeadlineExceeded
            | Code::Unimplemented
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss
    )
}

#[cfg(test)]
#[path = "call_tests.rs"]
mod tests;
