//! What lasts: the context of a command through deferral, crash and dead letter.

use harness::adapter::{field, record};
use harness::collector::{attribute, hex};
use harness::{Collector, DEADLINE, Upstream, World};
use simulator::{Entry, Rule};
use tonic::Request;
use uuid::Uuid;

use super::support::*;

#[tokio::test]
async fn log_records_carry_the_trace_without_any_collector_and_malformed_context_harms_nothing() {
    let upstream = Upstream::start().await;
    let adapter = upstream.setup(PROGRAM).start_ready().await;
    let mut client = adapter.client().await;
    let mut request = Request::new(upstream.archive(Uuid::new_v4(), "k"));
    request.metadata_mut().insert("traceparent", traceparent().parse().unwrap());
    client.archive_guest_connection(request).await.unwrap();
    let settled = |line: &str| {
        record(line).is_some_and(|record| {
            field(&record, "message") == Some("command settled") && field(&record, "trace_id") == Some(TRACE)
        })
    };
    adapter.log().wait_for(DEADLINE, settled).await.expect("a record with the trace id");
    for malformed in ["", "00", "00-00000000000000000000000000000000-0000000000000000-01", &"f".repeat(4000)]
    {
        let mut request = Request::new(upstream.archive(Uuid::new_v4(), ""));
        request.metadata_mut().insert("traceparent", malformed.parse().unwrap());
        client.archive_guest_connection(request).await.expect("the call is served");
    }
    assert!(adapter.terminate().await.0.success());
    assert_eq!(upstream.simulator.violations(), Vec::<String>::new());
}

#[tokio::test]
async fn an_event_published_after_a_crash_belongs_to_the_trace_of_its_command() {
    let (upstream, collector) = (Upstream::start().await, Collector::start().await);
    let (broker, names) = (harness::Broker::connect().await, harness::Names::default());
    let setup = traced(upstream.setup(PROGRAM).broker(&broker, &names), &collector);
    let adapter = setup.start_ready().await;
    let mut request = Request::new(upstream.archive(Uuid::new_v4(), "k"));
    request.metadata_mut().insert("traceparent", traceparent().parse().unwrap());
    adapter.client().await.archive_guest_connection(request).await.unwrap();
    adapter.readiness(|_, body| body["parts"]["events"]["status"] == "degraded").await;
    adapter.kill().await;
    let mut events = broker.subscribe(&names.events).await;
    let adapter = setup.start_ready().await;
    let event = events.next().await;
    assert!(event.header("traceparent").unwrap().starts_with(&format!("00-{TRACE}-")));
    assert!(adapter.terminate().await.0.success());
}

/// Attempts and settling are short, so that a crash in the midst of a PATCH is soon over.
const BRIEF: &str = r#"
upstream.attempt_timeout = "1s"
upstream.connect_timeout = "500ms"
upstream.command_timeout = "1500ms"
upstream.settle = "500ms"
store.lease = "2s"
"#;

#[tokio::test]
async fn an_attempt_after_a_crash_is_linked_to_the_first_trace() {
    let collector = Collector::start().await;
    let mut world = World::arranged(PROGRAM, |setup| traced(setup.config(BRIEF), &collector)).await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).times(1).hang());
    world.send_with(guest, sent_by(&traceparent()), &world.upstream.message(guest, true, "k")).await;
    let sent = |entries: &[Entry]| entries.iter().any(|entry| entry.is_patch_of(guest));
    world.upstream.simulator.wait_for(sent, DEADLINE).await.expect("a PATCH");
    world.adapter.kill().await;
    world.adapter = world.setup.start_ready().await;
    let event = world.events.next().await;
    world.end().await;

    // The spans of the one that was killed are lost with it; what it kept in the store is not.
    let spans = Spans(collector.spans());
    let again = spans
        .all("command")
        .into_iter()
        .find(|span| attribute(span, "command.recovered").as_deref() == Some("true"));
    let again = again.expect("the command was recovered");
    let first = (hex(&again.trace_id), hex(&again.parent_span_id));
    assert_eq!(links(again), std::slice::from_ref(&first));
    let told = event.header("traceparent").unwrap();
    assert!(told.contains(&first.0), "{told} is of the trace that the crash interrupted");
    let attempt = spans.all(PATCH).into_iter().find(|span| span.parent_span_id == again.span_id).unwrap();
    assert_eq!(attempt.trace_id, again.trace_id);
}

#[tokio::test]
async fn a_dead_letter_belongs_to_the_trace_of_its_command() {
    let collector = Collector::start().await;
    let world = World::arranged(PROGRAM, |setup| traced(setup, &collector)).await;
    let mut letters = world.broker.consume(&world.names.dead_letters).await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).status(404));
    world.send_with(guest, sent_by(&traceparent()), &world.upstream.message(guest, true, "k")).await;
    let letter = letters.next().await;
    let unreadable = Uuid::new_v4();
    world.send_with(unreadable, sent_by(&traceparent()), &serde_json::json!({"not": "a command"})).await;
    let copy = letters.next().await;
    let name = format!("process {}", world.names.commands);
    world.end().await;
    let spans = Spans(collector.spans());
    let processes = spans.all(&name);
    for (process, letter) in processes.iter().zip([&letter, &copy]) {
        assert_eq!(links(process), [(TRACE.to_owned(), CALLER.to_owned())]);
        let own = letter.table("x-guest-connection-adapter");
        assert!(own["traceparent"].contains(&hex(&process.trace_id)), "{own:?}");
    }
    assert_eq!(processes.len(), 2);
}
