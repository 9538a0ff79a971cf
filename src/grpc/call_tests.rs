use std::collections::HashMap;
use std::convert::Infallible;

use tonic_types::StatusExt as _;
use tower::{ServiceExt as _, service_fn};

use super::*;
use crate::domain::trace::TraceContext;
use crate::telemetry::recorded;

/// What the span of `trace` tells, its name and status among it.
fn fields(trace: &TraceContext) -> HashMap<String, String> {
    let Some(span) = recorded::of(trace).pop() else { return HashMap::new() };
    let attributes = span.attributes.iter().map(|entry| (entry.key.to_string(), entry.value.to_string()));
    let status = format!("{:?}", span.status);
    let told =
        [("name", span.name.to_string()), ("kind", format!("{:?}", span.span_kind)), ("status", status)];
    attributes.chain(told.map(|(name, value)| (name.to_owned(), value))).collect()
}

/// Calls `path` of a service that answers with `status`, and yields the answer's status and the span's fields.
async fn call(path: &str, status: Result<(), Status>) -> (Option<Status>, HashMap<String, String>) {
    recorded::install_once();
    let trace = recorded::elsewhere();
    let inner = service_fn(move |request: Request<Body>| {
        let surrounded = method(request.uri()).is_some();
        assert_eq!(request.extensions().get::<Arrival>().is_some(), surrounded);
        let response = status.clone().map_or_else(Status::into_http, |()| Response::new(Body::default()));
        async { Ok::<_, Infallible>(response) }
    });
    let request = Request::builder().uri(format!("http://localhost:5005{path}"));
    let request = request.header("traceparent", trace.traceparent.as_deref().expect("a parent"));
    let response = SurroundLayer
        .layer(inner)
        .oneshot(request.body(Body::default()).expect("a request"))
        .await
        .expect("infallible");
    (Status::from_header_map(response.headers()), fields(&trace))
}

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().expect("an ErrorInfo").reason.clone()
}

const ARCHIVE: &str = "/guestconnections.v1.GuestConnectionService/ArchiveGuestConnection";

#[tokio::test]
async fn a_success_is_a_server_span_without_error() {
    let (status, fields) = call(ARCHIVE, Ok(())).await;
    assert!(status.is_none());
    let expected = [
        ("name", &ARCHIVE[1..]),
        ("kind", "Server"),
        ("status", "Unset"),
        ("rpc.system.name", "grpc"),
        ("rpc.method", &ARCHIVE[1..]),
        ("rpc.response.status_code", "OK"),
        ("server.address", "localhost"),
        ("server.port", "5005"),
    ];
    for (name, value) in expected {
        assert_eq!(fields.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!fields.contains_key("error.type"));
}

#[tokio::test]
async fn only_faults_of_the_server_make_a_span_an_error() {
    let (_, fields) = call(ARCHIVE, Err(Status::not_found("x"))).await;
    assert_eq!(fields["rpc.response.status_code"], "NOT_FOUND");
    assert_eq!(fields["status"], "Unset");
    let (_, fields) = call(ARCHIVE, Err(Status::unavailable("x"))).await;
    assert_eq!(fields["error.type"], "UNAVAILABLE");
    assert!(fields["status"].starts_with("Error"));
}

#[tokio::test]
async fn refusals_of_the_transport_get_a_reason() {
    let (status, _) = call(ARCHIVE, Err(Status::out_of_range("message length too large"))).await;
    let status = status.expect("refused");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "BODY_TOO_LARGE"));
    let (status, fields) = call(ARCHIVE, Err(Status::internal("failed to decode"))).await;
    let status = status.expect("refused");
    assert_eq!((status.code(), reason(&status).as_str()), (Code::InvalidArgument, "UNDECODABLE"));
    assert_eq!(fields["rpc.response.status_code"], "INVALID_ARGUMENT");

    let own = status::of(&Refusal::new(Reason::Internal, "own"), &Subject::default());
    let (status, _) = call(ARCHIVE, Err(own)).await;
    assert_eq!(reason(&status.expect("kept")), "INTERNAL");
}

#[tokio::test]
async fn an_unknown_method_makes_no_name_of_its_own() {
    let path = "/guestconnections.v1.GuestConnectionService/Novel";
    let (_, fields) = call(path, Err(Status::unimplemented("x"))).await;
    assert_eq!(fields["rpc.method"], "_OTHER");
    assert_eq!(fields["rpc.method_original"], path);
}

#[tokio::test]
async fn health_gets_no_span() {
    let (_, fields) = call("/grpc.health.v1.Health/Check", Ok(())).await;
    assert!(fields.is_empty(), "{fields:?}");
}

#[tokio::test]
async fn a_call_that_is_dropped_was_cancelled() {
    recorded::install_once();
    let trace = recorded::elsewhere();
    let inner = service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
    let request = Request::builder().uri(format!("http://localhost{ARCHIVE}"));
    let request = request.header("traceparent", trace.traceparent.as_deref().expect("a parent"));
    let request = request.body(Body::default());
    let mut call = SurroundLayer.layer(inner).oneshot(request.expect("a request")).boxed();
    assert!(futures::poll!(&mut call).is_pending());
    drop(call);
    assert_eq!(fields(&trace)["rpc.response.status_code"], "CANCELLED");
}
