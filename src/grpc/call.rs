//! What surrounds every call of the contract: its span, its arrival time, and reasons for what the transport refuses.
//!
//! It stands outside the generated code, so that a message which cannot be read is traced and explained as well.

use std::task::{Context, Poll};

use futures::FutureExt as _;
use futures::future::BoxFuture;
use http::{HeaderMap, Request, Response, Uri};
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;
use tokio::time::Instant;
use tonic::body::Body;
use tonic::{Code, Status};
use tower::{Layer, Service};

use crate::domain::error::{Reason, Refusal};
use crate::domain::record::Door;
use crate::service::tally;
use crate::telemetry::context;
use crate::telemetry::instruments::instruments;
use crate::telemetry::span::{Description, Origin, Span};

use super::proto::guest_connection_service_server::SERVICE_NAME;
use super::status::{self, Subject, code_name};

/// The methods of the contract by their full names; any other goes into spans and metrics as [`OTHER`], so that callers
/// cannot make names up.
const METHODS: [&str; 3] = [
    "guestconnections.v1.GuestConnectionService/ArchiveGuestConnection",
    "guestconnections.v1.GuestConnectionService/UnarchiveGuestConnection",
    "guestconnections.v1.GuestConnectionService/GetCommand",
];

/// What the conventions call a method that is not known.
const OTHER: &str = "_OTHER";

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
        let inner = span.within(|| self.inner.call(request));
        let mut end = End { span: span.clone(), code: Code::Cancelled, method, began: Instant::now() };
        let answered = async move {
            let response = explain(inner.await?);
            end.answered(&response);
            Ok(response)
        };
        span.around(answered).boxed()
    }
}

/// The method that a path of this service names.
fn method(uri: &Uri) -> Option<&'static str> {
    let name = uri.path().strip_prefix('/')?;
    name.strip_prefix(SERVICE_NAME)?.strip_prefix('/')?;
    Some(METHODS.into_iter().find(|known| *known == name).unwrap_or(OTHER))
}

/// The server span of the OpenTelemetry conventions for RPC, below the caller's.
fn span(method: &'static str, uri: &Uri, headers: &HeaderMap) -> Span {
    let parent = context::from_headers(|name| headers.get(name).and_then(|value| value.to_str().ok()));
    let describe = || {
        let mut attributes =
            vec![KeyValue::new("rpc.system.name", "grpc"), KeyValue::new("rpc.method", method)];
        if method == OTHER {
            let original = uri.path().chars().take(128).collect::<String>();
            attributes.push(KeyValue::new("rpc.method_original", original));
        }
        attributes.extend(uri.host().map(|host| KeyValue::new("server.address", host.to_owned())));
        attributes.extend(uri.port_u16().map(|port| KeyValue::new("server.port", i64::from(port))));
        Description { name: method.into(), attributes }
    };
    Span::begin(SpanKind::Server, Origin::Below(&parent), describe).about(None)
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
    let refusal = Refusal::new(reason, text);
    tally::refused(Door::Grpc, &refusal);
    status::of(&refusal, &Subject::default()).into_http()
}

/// Writes into the span how the call ended; one that is dropped before its end was cancelled.
struct End {
    span: Span,
    code: Code,
    /// By its full name, as in the span's.
    method: &'static str,
    began: Instant,
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
        self.span.set("rpc.response.status_code", name);
        let mut attributes = vec![
            KeyValue::new("rpc.system.name", "grpc"),
            KeyValue::new("rpc.method", self.method),
            KeyValue::new("rpc.response.status_code", name),
        ];
        if is_server_fault(self.code) {
            attributes.push(KeyValue::new("error.type", name));
            self.span.fail(name);
        }
        instruments().rpc_call_duration.record(self.began.elapsed().as_secs_f64(), &attributes);
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
