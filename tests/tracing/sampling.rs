//! Which traces are exported.

use std::time::Duration;

use harness::collector::{Span, hex};
use harness::{Collector, DEADLINE, World};
use lapin::types::AMQPValue;
use simulator::Rule;
use tonic::Request;
use uuid::Uuid;

use super::support::*;

/// A trace id and its header, of a caller that wants it exported or does not.
fn caller(is_sampled: bool) -> (String, String) {
    let trace = Uuid::new_v4().simple().to_string();
    let header = format!("00-{trace}-{CALLER}-0{}", u8::from(is_sampled));
    (trace, header)
}

async fn archive(world: &World, guest: Uuid, header: Option<&str>) -> Result<(), tonic::Status> {
    let mut request = Request::new(world.upstream.archive(guest, ""));
    if let Some(header) = header {
        request.metadata_mut().insert("traceparent", header.parse().unwrap());
    }
    world.client().await.archive_guest_connection(request).await.map(drop)
}

async fn start(lines: &str) -> (World, Collector) {
    let collector = Collector::start().await;
    let lines = format!("telemetry.otlp_endpoint = \"{}\"\n{lines}", collector.endpoint());
    (World::start(PROGRAM, &lines).await, collector)
}

fn of<'a>(spans: &'a [Span], trace: &str) -> Vec<&'a str> {
    let mut names: Vec<_> =
        spans.iter().filter(|span| hex(&span.trace_id) == trace).map(|span| span.name.as_str()).collect();
    names.sort_unstable();
    names
}

#[tokio::test]
async fn the_sender_decides_also_across_the_queue() {
    let (mut world, collector) = start("telemetry.sample_ratio = 0.0").await;
    let ((wanted, yes), (unwanted, no)) = (caller(true), caller(false));
    archive(&world, Uuid::new_v4(), Some(&yes)).await.unwrap();
    archive(&world, Uuid::new_v4(), Some(&no)).await.unwrap();
    archive(&world, Uuid::new_v4(), None).await.unwrap();
    let (linked, header) = caller(true);
    for header in [header, caller(false).1] {
        let guest = Uuid::new_v4();
        let message = world.upstream.message(guest, true, &header);
        world.send_with(guest, sent_by(&header), &message).await;
    }
    let events = world.events.take(5).await;
    let sampled = events.iter().filter(|event| event.header("traceparent").unwrap().ends_with("-01")).count();
    assert_eq!(sampled, 2, "what is handed on tells downstream the same");
    let name = format!("process {}", world.names.commands);
    world.end().await;
    let spans = Spans(collector.spans());
    assert!(of(&spans.0, &wanted).contains(&ARCHIVE));
    assert_eq!(of(&spans.0, &unwanted), Vec::<&str>::new());
    let process = spans.named(&name);
    assert_eq!(links(process), [(linked, CALLER.to_owned())]);
    let traces: std::collections::HashSet<_> = spans.0.iter().map(|span| hex(&span.trace_id)).collect();
    assert_eq!(traces.len(), 2, "nothing else");
}

#[tokio::test]
async fn what_failed_is_kept_whole_whoever_did_not_want_it() {
    let (mut world, collector) = start("telemetry.sample_ratio = 0.0\ntelemetry.keep_errors = true").await;
    let ((well, no), (ill, not_either)) = (caller(false), caller(false));
    archive(&world, Uuid::new_v4(), Some(&no)).await.unwrap();
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).times(1).status(503));
    archive(&world, guest, Some(&not_either)).await.unwrap();
    world.events.take(2).await;
    let events = format!("send {}", world.names.events);
    world.end().await;
    let spans = collector.spans();
    assert_eq!(of(&spans, &well), Vec::<&str>::new());
    let kept = of(&spans, &ill);
    for name in [ARCHIVE, "command", PATCH, "finish", "relay", events.as_str()] {
        assert!(kept.contains(&name), "{name} in {kept:?}");
    }
}

#[tokio::test]
async fn what_was_slow_is_kept() {
    let (mut world, collector) =
        start("telemetry.sample_ratio = 0.0\ntelemetry.keep_slower_than = \"1500ms\"").await;
    let ((quick, no), (slow, not_either)) = (caller(false), caller(false));
    archive(&world, Uuid::new_v4(), Some(&no)).await.unwrap();
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).delay(Duration::from_secs(2)));
    archive(&world, guest, Some(&not_either)).await.unwrap();
    world.events.take(2).await;
    world.end().await;
    let spans = collector.spans();
    assert_eq!(of(&spans, &quick), Vec::<&str>::new());
    assert!(of(&spans, &slow).contains(&ARCHIVE));
}

#[tokio::test]
async fn the_senders_trace_goes_on_where_that_is_wanted() {
    let (mut world, collector) = start("telemetry.across_queue = \"parent\"").await;
    let guest = Uuid::new_v4();
    let state = AMQPValue::LongString("vendor=1".into());
    let properties =
        with_headers([("traceparent", AMQPValue::LongString(traceparent().into())), ("tracestate", state)]);
    world.send_with(guest, properties, &world.upstream.message(guest, true, "k")).await;
    let event = world.events.next().await;
    assert!(event.header("traceparent").unwrap().starts_with(&format!("00-{TRACE}-")));
    assert_eq!(event.header("tracestate").as_deref(), Some("vendor=1"));
    let name = format!("process {}", world.names.commands);
    world.end().await;
    let spans = Spans(collector.wait_for(DEADLINE, |spans| spans.iter().any(|span| span.name == name)).await);
    let process = spans.named(&name);
    assert_eq!((hex(&process.trace_id), hex(&process.parent_span_id)), (TRACE.to_owned(), CALLER.to_owned()));
    assert_eq!(links(process), []);
}

#[tokio::test]
async fn a_command_that_ends_without_a_request_is_told_of_as_well() {
    let (mut world, collector) = start("telemetry.sample_ratio = 0.0\ntelemetry.keep_errors = true").await;
    let mut letters = world.broker.consume(&world.names.dead_letters).await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).times(1).delay(Duration::from_secs(2)));
    world.send(guest, &world.upstream.message(guest, true, "first")).await;
    let mut behind = world.upstream.message(guest, false, "behind");
    let soon = chrono::Utc::now() + chrono::TimeDelta::milliseconds(900);
    behind["expire_time"] = soon.to_rfc3339().into();
    world.send(guest, &behind).await;
    let letter = letters.next().await;
    let own = letter.table("x-guest-connection-adapter");
    assert_eq!(own["reason"], "COMMAND_EXPIRED");
    let trace = own["traceparent"].split('-').nth(1).unwrap().to_owned();
    world.events.take(1).await;
    let settled = |line: &str| {
        line.contains("command settled") && line.contains("COMMAND_EXPIRED") && line.contains(&trace)
    };
    world.adapter.log().wait_for(DEADLINE, settled).await.expect("a line that says why");
    world.end().await;
    let spans = collector.spans();
    let command = spans.iter().find(|span| span.name == "command" && hex(&span.trace_id) == trace);
    has(command.expect("it is kept"), &[("command.state", "failed"), ("error.type", "COMMAND_EXPIRED")]);
}
