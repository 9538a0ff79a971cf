use std::collections::HashMap;
use std::convert::Infallible;
use std::fmt::Debug;
use std::sync::{Arc, Mutex};

use tonic_types::StatusExt as _;
use tower::{ServiceExt as _, service_fn};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing_subscriber::Registry;
use tracing_subscriber::layer::{self, SubscriberExt as _};

use super::*;

/// Collects the fields of spans.
#[derive(Clone, Default)]
struct Fields(Arc<Mutex<HashMap<String, String>>>);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}").trim_matches('"').to_owned();
        self.0.lock().expect("not poisoned").insert(field.name().to_owned(), text);
    }
}

impl layer::Layer<Registry> for Fields {
    fn on_new_span(&self, attributes: &Attributes<'_>, _: &Id, _: layer::Context<'_, Registry>) {
        attributes.record(&mut self.clone());
    }

    fn on_record(&self, _: &Id, record: &Record<'_>, _: layer::Context<'_, Registry>) {
        record.record(&mut self.clone());
    }
}

/// Calls `path` of a service that answers with `status`, and yields the answer's status and the span's fields.
async fn call(path: &str, status: Result<(), Status>) -> (Option<Status>, HashMap<String, String>) {
    let fields = Fields::default();
    crate::telemetry::ask_every_subscriber();
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(fields.clone()));
    let inner = service_fn(move |request: Request<Body>| {
        let surrounded = method(request.uri()).is_some();
        assert_eq!(request.extensions().get::<Arrival>().is_some(), surrounded);
        let response = status.clone().map_or_else(Status::into_http, |()| Response::new(Body::default()));
        async { Ok::<_, Infallible>(response) }
    });
    let request = Request::builder().uri(format!("http://localhost:5005{path}"));
    let response = SurroundLayer
        .layer(inner)
        .oneshot(request.body(Body::default()).expect("a request"))
        .await
        .expect("infallible");
    drop(guard);
    let fields = fields.0.lock().expect("not poisoned").clone();
    (Status::from_header_map(response.headers()), fields)
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
        ("otel.name", &ARCHIVE[1..]),
        ("otel.kind", "server"),
        ("rpc.system.name", "grpc"),
        ("rpc.method", &ARCHIVE[1..]),
        ("rpc.response.status_code", "OK"),
        ("server.address", "localhost"),
        ("server.port", "5005"),
    ];
    for (name, value) in expected {
        assert_eq!(fields.get(name).map(String::as_str), Some(value), "{name}");
    }
    assert!(!fields.contains_key("otel.status_code") && !fields.contains_key("error.type"));
}

#[tokio::test]
async fn only_faults_of_the_server_make_a_span_an_error() {
    let (_, fields) = call(ARCHIVE, Err(Status::not_found("x"))).await;
    assert_eq!(fields["rpc.response.status_code"], "NOT_FOUND");
    assert!(!fields.contains_key("otel.status_code"));
    let (_, fields) = call(ARCHIVE, Err(Status::unavailable("x"))).await;
    assert_eq!(fields["error.type"], "UNAVAILABLE");
    assert_eq!(fields["otel.status_code"], "ERROR");
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
    let fields = Fields::default();
    crate::telemetry::ask_every_subscriber();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(fields.clone()));
    let inner = service_fn(|_: Request<Body>| std::future::pending::<Result<Response<Body>, Infallible>>());
    let request = Request::builder().uri(format!("http://localhost{ARCHIVE}")).body(Body::default());
    let mut call = SurroundLayer.layer(inner).oneshot(request.expect("a request")).boxed();
    assert!(futures::poll!(&mut call).is_pending());
    drop(call);
    assert_eq!(fields.0.lock().expect("not poisoned")["rpc.response.status_code"], "CANCELLED");
}
