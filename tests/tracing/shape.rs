//! How the spans of a command hang together.

use harness::collector::{attribute, hex};
use harness::{Collector, World};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use simulator::{Endpoint, Rule};
use tonic::Request;
use uuid::Uuid;

use super::support::*;

#[tokio::test]
async fn a_call_its_patch_and_its_event_are_one_trace() {
    let collector = Collector::start().await;
    let lines = format!("telemetry.otlp_endpoint = \"{}\"", collector.endpoint());
    let mut world = World::start(PROGRAM, &lines).await;
    let guest = Uuid::new_v4();
    let mut request = Request::new(world.upstream.archive(guest, "k"));
    request.metadata_mut().insert("traceparent", traceparent().parse().unwrap());
    request.metadata_mut().insert("tracestate", "vendor=1".parse().unwrap());
    world.client().await.archive_guest_connection(request).await.unwrap();
    let event = world.events.next().await;
    let (events, seen) = (world.names.events.clone(), world.upstream.simulator.journal());
    world.end().await;

    let spans = Spans(collector.spans());
    let server = spans.named(ARCHIVE);
    assert_eq!((hex(&server.trace_id), hex(&server.parent_span_id)), (TRACE.to_owned(), CALLER.to_owned()));
    assert_eq!(server.kind(), SpanKind::Server);
    has(server, &[("rpc.system.name", "grpc"), ("rpc.method", ARCHIVE), ("rpc.response.status_code", "OK")]);

    let command = spans.named("command");
    is_child(command, server);
    has(command, &[("command.door", "grpc"), ("command.state", "succeeded")]);

    let patch = spans.named(PATCH);
    is_child(patch, command);
    assert_eq!(patch.kind(), SpanKind::Client);
    has(
        patch,
        &[
            ("http.request.method", "PATCH"),
            ("url.template", "/v1-beta/guest-connections/{guest_org_id}"),
            ("http.response.status_code", "200"),
            ("server.address", "127.0.0.1"),
        ],
    );
    let received = seen.iter().find(|entry| entry.endpoint == Endpoint::Patch).unwrap();
    let sent = format!("00-{TRACE}-{}-01", hex(&patch.span_id));
    assert_eq!(
        received.traceparent.as_deref(),
        Some(sent.as_str()),
        "the upstream is told the attempt's span"
    );

    let send = spans.named(&format!("send {events}"));
    is_child(send, server);
    assert_eq!(send.kind(), SpanKind::Producer);
    let id = event.properties.message_id().clone().unwrap();
    has(
        send,
        &[
            ("messaging.system", "rabbitmq"),
            ("messaging.operation.type", "send"),
            ("messaging.destination.name", &events),
            ("messaging.rabbitmq.destination.routing_key", &event.routing_key),
            ("messaging.message.id", id.as_str()),
        ],
    );
    let told = format!("00-{TRACE}-{}-01", hex(&send.span_id));
    assert_eq!(event.header("traceparent"), Some(told), "downstream goes on from the send span");
    assert_eq!(event.header("tracestate").as_deref(), Some("vendor=1"));
    for span in &spans.0 {
        assert!(!span.name.contains(&guest.to_string()), "no ids in names");
        for attribute in &span.attributes {
            assert!(!format!("{attribute:?}").contains('@'), "no addresses: {attribute:?}");
            assert!(!format!("{attribute:?}").contains("Bearer"), "no tokens: {attribute:?}");
        }
    }
}

#[tokio::test]
async fn a_message_is_linked_to_its_producer_and_its_retries_are_spans_of_their_own() {
    let collector = Collector::start().await;
    let lines = format!("telemetry.otlp_endpoint = \"{}\"", collector.endpoint());
    let mut world = World::start(PROGRAM, &lines).await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).times(1).status(503));
    let mut headers = FieldTable::default();
    headers.insert("traceparent".into(), AMQPValue::LongString(traceparent().into()));
    let properties = BasicProperties::default()
        .with_headers(headers)
        .with_content_type("application/json".into())
        .with_correlation_id("conversation-1".into())
        .with_message_id("message-1".into());
    world.send_with(guest, properties, &world.upstream.message(guest, true, "k")).await;
    let event = world.events.next().await;
    let names = world.names.clone();
    world.end().await;

    let spans = Spans(collector.spans());
    let process = spans.named(&format!("process {}", names.commands));
    assert_eq!(process.kind(), SpanKind::Consumer);
    assert!(process.parent_span_id.is_empty() && hex(&process.trace_id) != TRACE, "a queue lies between");
    let links: Vec<_> = process.links.iter().map(|l| (hex(&l.trace_id), hex(&l.span_id))).collect();
    assert_eq!(links, [(TRACE.to_owned(), CALLER.to_owned())]);
    has(
        process,
        &[
            ("messaging.system", "rabbitmq"),
            ("messaging.operation.type", "process"),
            ("messaging.destination.name", &names.commands),
            ("messaging.rabbitmq.destination.routing_key", &guest.to_string()),
            ("messaging.message.id", "message-1"),
            ("messaging.message.conversation_id", "conversation-1"),
        ],
    );
    let command = spans.named("command");
    is_child(command, process);
    let patches = spans.all(PATCH);
    assert_eq!(patches.len(), 2);
    for patch in &patches {
        is_child(patch, command);
    }
    has(patches[0], &[("http.response.status_code", "503"), ("error.type", "503")]);
    assert_eq!(patches[0].status.as_ref().unwrap().code(), StatusCode::Error);
    assert_eq!(attribute(patches[0], "http.request.resend_count"), None);
    has(patches[1], &[("http.response.status_code", "200"), ("http.request.resend_count", "1")]);
    let send = spans.named(&format!("send {}", names.events));
    is_child(send, process);
    let told = event.header("traceparent").unwrap();
    assert!(told.contains(&hex(&process.trace_id)) && told.contains(&hex(&send.span_id)));
    assert_eq!(event.json()["correlationid"], "conversation-1");
}
