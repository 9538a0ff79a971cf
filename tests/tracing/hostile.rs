//! Contexts that are malformed or meant to harm are as good as none, and nothing of them goes anywhere.

use harness::collector::{Span, attribute, hex};
use harness::{Collector, World};
use lapin::types::{AMQPValue, FieldTable};
use tonic::Request;
use tonic::metadata::{MetadataKey, MetadataValue};
use uuid::Uuid;

use super::support::*;

/// Stands in everything hostile, to be looked for.
const MARK: &str = "hostile-mark";

fn headers() -> Vec<(&'static str, Vec<u8>)> {
    let valid = traceparent().into_bytes();
    let mut long = valid.clone();
    long.extend(std::iter::repeat_n(b'a', 4_000));
    let mut bytes = valid.clone();
    bytes[5] = 0xff;
    let mut controls = valid.clone();
    controls[5] = b'\t';
    vec![
        ("traceparent", Vec::new()),
        ("traceparent", b"00-00000000000000000000000000000000-0000000000000000-01".to_vec()),
        ("traceparent", format!("00-{TRACE}-0000000000000000-01").into_bytes()),
        ("traceparent", format!("ff-{TRACE}-{CALLER}-01").into_bytes()),
        ("traceparent", format!("00-{}-{CALLER}-01", TRACE.to_uppercase()).into_bytes()),
        ("traceparent", MARK.as_bytes().to_vec()),
        ("traceparent", long),
        ("traceparent", bytes),
        ("traceparent", controls),
    ]
}

/// Nothing of what was sent is in any span, and no span is in the trace that was named.
fn assert_untouched(spans: &[Span]) {
    for span in spans {
        let text = format!("{span:?}");
        assert!(!text.contains(MARK), "{text}");
        assert_ne!(hex(&span.trace_id), TRACE, "{text}");
        assert!(span.links.iter().all(|link| hex(&link.trace_id) != TRACE), "{text}");
        assert!(!span.trace_state.contains("flood"), "{text}");
    }
}

#[tokio::test]
async fn calls_with_such_contexts_are_served() {
    let collector = Collector::start().await;
    let world =
        World::start(PROGRAM, &format!("telemetry.otlp_endpoint = \"{}\"", collector.endpoint())).await;
    let mut client = world.client().await;
    let mut count = 0;
    for (name, value) in headers() {
        let mut request = Request::new(world.upstream.archive(Uuid::new_v4(), ""));
        // What HTTP/2 itself does not carry cannot come.
        let Ok(value) = MetadataValue::try_from(value.as_slice()) else { continue };
        request.metadata_mut().insert(MetadataKey::from_static(name), value);
        client.archive_guest_connection(request).await.expect("it is served");
        count += 1;
    }
    assert!(count >= 7, "{count}");
    world.end().await;
    let spans = collector.spans();
    let servers: Vec<_> = spans.iter().filter(|span| span.name == ARCHIVE).collect();
    assert_eq!(servers.len(), count);
    assert!(servers.iter().all(|span| span.parent_span_id.is_empty()));
    assert_untouched(&spans);
}

#[tokio::test]
async fn state_that_is_too_long_and_baggage_go_nowhere() {
    let collector = Collector::start().await;
    let mut world =
        World::start(PROGRAM, &format!("telemetry.otlp_endpoint = \"{}\"", collector.endpoint())).await;
    let flood = (0..40).map(|n| format!("flood{n}={}", "x".repeat(200))).collect::<Vec<_>>().join(",");
    let mut request = Request::new(world.upstream.archive(Uuid::new_v4(), "by-call"));
    request.metadata_mut().insert("traceparent", traceparent().parse().unwrap());
    request.metadata_mut().insert("tracestate", flood.parse().unwrap());
    request.metadata_mut().insert("baggage", format!("user={MARK}").parse().unwrap());
    world.client().await.archive_guest_connection(request).await.unwrap();
    let guest = Uuid::new_v4();
    let long = |text: &str| AMQPValue::LongString(text.into());
    let properties = with_headers([
        ("traceparent", long(&traceparent())),
        ("tracestate", long(&flood)),
        ("baggage", long(&format!("user={MARK}"))),
    ]);
    world.send_with(guest, properties, &world.upstream.message(guest, true, "by-message")).await;
    for event in world.events.take(2).await {
        assert_eq!(event.header("tracestate"), None);
        assert_eq!(event.header("baggage"), None);
        assert!(!String::from_utf8_lossy(&event.body).contains(MARK));
    }
    let journal = world.upstream.simulator.journal();
    assert!(!format!("{journal:?}").contains(MARK) && !format!("{journal:?}").contains("flood"));
    world.end().await;
    let spans = collector.spans();
    assert!(spans.iter().any(|span| hex(&span.trace_id) == TRACE), "the trace itself is good");
    for span in &spans {
        assert!(!format!("{span:?}").contains(MARK) && !span.trace_state.contains("flood"), "{span:?}");
    }
}

#[tokio::test]
async fn messages_with_such_contexts_are_worked_on() {
    let collector = Collector::start().await;
    let mut world =
        World::start(PROGRAM, &format!("telemetry.otlp_endpoint = \"{}\"", collector.endpoint())).await;
    let mut nested = FieldTable::default();
    nested.insert("traceparent".into(), AMQPValue::LongString(MARK.into()));
    let mut values: Vec<_> =
        headers().into_iter().map(|(_, value)| AMQPValue::LongString(value.into())).collect();
    values.extend([
        AMQPValue::Void,
        AMQPValue::LongLongInt(7),
        AMQPValue::Boolean(true),
        AMQPValue::FieldTable(nested),
        AMQPValue::ByteArray(b"\x00\xff\x00".to_vec().into()),
    ]);
    let count = values.len();
    for (number, value) in values.into_iter().enumerate() {
        let guest = Uuid::new_v4();
        let message = world.upstream.message(guest, true, &format!("k-{number}"));
        world.send_with(guest, with_headers([("traceparent", value)]), &message).await;
    }
    world.events.take(count).await;
    let name = format!("process {}", world.names.commands);
    world.end().await;
    let spans = collector.spans();
    let processes: Vec<_> = spans.iter().filter(|span| span.name == name).collect();
    assert_eq!(processes.len(), count);
    assert!(processes.iter().all(|span| span.links.is_empty() && span.parent_span_id.is_empty()));
    assert!(processes.iter().all(|span| attribute(span, "command.id").is_some()), "each is a command");
    assert_untouched(&spans);
}
