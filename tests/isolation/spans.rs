//! Each request is a span that tells what it waited for.

use std::time::Duration;

use harness::collector::{Span, attribute};
use harness::{Collector, World};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use simulator::Rule;
use uuid::Uuid;

use crate::support::{call, start, start_limited};

/// The client spans of the PATCHes of a guest, in order, as `(resend count, retry reason, gate reason)`.
fn patches(spans: &[Span], guest: Uuid) -> Vec<&Span> {
    let is_one = |span: &&Span| {
        span.kind() == SpanKind::Client
            && attribute(span, "url.full").is_some_and(|url| url.ends_with(&guest.to_string()))
    };
    let mut found: Vec<_> = spans.iter().filter(is_one).collect();
    found.sort_by_key(|span| span.start_time_unix_nano);
    found
}

fn number(span: &Span, name: &str) -> Option<u64> {
    attribute(span, name).map(|text| text.parse().unwrap())
}

/// A world whose first organisation has a limit of its own, and a receiver of its spans.
async fn traced(limit: Option<(&str, &str)>) -> (World, Collector) {
    let collector = Collector::start().await;
    let lines = format!("telemetry.otlp_endpoint = \"{}\"", collector.endpoint());
    let world = match limit {
        Some((name, value)) => start_limited(1, &lines, name, value).await,
        None => start(1, &lines).await,
    };
    (world, collector)
}

#[tokio::test]
async fn a_retry_tells_its_number_its_reason_and_its_wait() {
    let (world, collector) = traced(None).await;
    let organization = world.upstream.organizations[0].clone();
    let client = world.client().await;
    let simulator = &world.upstream.simulator;
    let [backoff, asked, refused] = [Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4()];
    simulator.script(Rule::patch().guest(backoff).times(2).status(503));
    simulator.script(Rule::patch().guest(asked).times(1).status(503).header("retry-after", "1"));
    simulator.script(Rule::patch().guest(refused).times(1).status(401));
    for (guest, key) in [(backoff, "backoff"), (asked, "asked"), (refused, "refused")] {
        call(&client, &organization, guest, key).await.unwrap();
    }
    world.end().await;

    let spans = collector.spans();
    let sent = patches(&spans, backoff);
    assert_eq!(sent.len(), 3, "{spans:#?}");
    assert_eq!(attribute(sent[0], "http.request.resend_count"), None);
    assert_eq!((attribute(sent[0], "retry.reason"), attribute(sent[0], "retry.delay_ms")), (None, None));
    for (place, span) in sent.iter().enumerate().skip(1) {
        assert_eq!(number(span, "http.request.resend_count"), Some(u64::try_from(place).unwrap()));
        assert_eq!(attribute(span, "retry.reason").as_deref(), Some("backoff"));
        assert!(number(span, "retry.delay_ms").is_some_and(|delay| delay <= 100), "{span:#?}");
    }
    let sent = patches(&spans, asked);
    assert_eq!(sent.len(), 2);
    assert_eq!(attribute(sent[1], "retry.reason").as_deref(), Some("retry_after"));
    assert!(number(sent[1], "retry.delay_ms").is_some_and(|delay| delay >= 1_000), "{:#?}", sent[1]);
    let sent = patches(&spans, refused);
    assert_eq!(sent.len(), 2);
    assert_eq!(attribute(sent[1], "retry.reason").as_deref(), Some("token_refused"));
    assert_eq!(number(sent[1], "retry.delay_ms"), Some(0));
    assert_eq!(number(sent[1], "http.request.resend_count"), Some(1));
    let gates: Vec<_> = [backoff, refused].iter().flat_map(|guest| patches(&spans, *guest)).collect();
    assert!(gates.iter().all(|span| attribute(span, "gate.reason").is_none()), "nothing stood in the way");
}

/// Several calls at once, and what their requests say that they waited for.
async fn gates(world: World, collector: Collector, count: usize) -> Vec<Option<(String, u64)>> {
    let organization = world.upstream.organizations[0].clone();
    let client = world.client().await;
    let guests: Vec<_> = (0..count).map(|_| Uuid::new_v4()).collect();
    let keys: Vec<_> = (0..count).map(|number| format!("k-{number}")).collect();
    let calls = guests.iter().zip(&keys).map(|(guest, key)| call(&client, &organization, *guest, key));
    futures::future::try_join_all(calls).await.unwrap();
    world.end().await;
    let spans = collector.spans();
    let reason = |guest: &Uuid| {
        let sent = patches(&spans, *guest);
        assert_eq!(sent.len(), 1);
        Some((attribute(sent[0], "gate.reason")?, number(sent[0], "gate.delay_ms").unwrap()))
    };
    guests.iter().map(reason).collect()
}

#[tokio::test]
async fn a_request_tells_that_it_waited_for_the_rate() {
    let (world, collector) = traced(Some(("REQUESTS_PER_SECOND", "1"))).await;
    let mut gates = gates(world, collector, 3).await;
    gates.sort();
    assert_eq!(gates[0], None, "the first one waits for nothing: {gates:?}");
    for gate in &gates[1..] {
        assert_eq!(gate.as_ref().map(|(reason, _)| reason.as_str()), Some("rate"), "{gates:?}");
    }
    assert!(gates[2].as_ref().is_some_and(|(_, delay)| *delay >= 1_000), "{gates:?}");
}

#[tokio::test]
async fn a_request_tells_that_it_waited_for_others() {
    let (world, collector) = traced(Some(("IN_FLIGHT_MAX", "1"))).await;
    world.upstream.simulator.script(Rule::patch().delay(Duration::from_millis(500)));
    let mut gates = gates(world, collector, 3).await;
    gates.sort();
    assert_eq!(gates[0], None, "the first one waits for nothing: {gates:?}");
    for gate in &gates[1..] {
        assert_eq!(gate.as_ref().map(|(reason, _)| reason.as_str()), Some("concurrency"), "{gates:?}");
    }
}
