//! The time of a command adds up: whatever it did or waited for has a span.

use std::time::Duration;

use harness::collector::{Span, attribute, hex};
use harness::{Collector, DEADLINE, World};
use simulator::Rule;
use uuid::Uuid;

use super::support::*;

/// Spans that only hold others.
const CONTAINERS: [&str; 2] = ["process", "command"];

/// The least share of a time that its parts must account for, in thousandths.
const SHARE_MIN: u64 = 950;

const SLOW: &str = r#"
upstream.attempt_timeout = "2s"
upstream.connect_timeout = "1s"
upstream.command_timeout = "6s"
upstream.defer_delay_base = "1s"
upstream.defer_delay_max = "1s"
"#;

/// How much of the time from `began` to `ended` lies within one of these at least, in thousandths.
fn covered(began: u64, ended: u64, parts: &[(u64, u64)]) -> u64 {
    let mut parts: Vec<_> = parts
        .iter()
        .map(|(from, to)| (from.max(&began), to.min(&ended)))
        .filter(|(from, to)| from < to)
        .collect();
    parts.sort_unstable();
    let (mut sum, mut reached) = (0, began);
    for (from, to) in parts {
        sum += to.saturating_sub(*from.max(&reached));
        reached = reached.max(*to);
    }
    sum * 1_000 / (ended - began)
}

fn interval(span: &Span) -> (u64, u64) {
    (span.start_time_unix_nano, span.end_time_unix_nano)
}

/// The spans of the trace of `span` that tell of one thing alone.
fn parts(spans: &[Span], span: &Span) -> Vec<(u64, u64)> {
    let is_part = |part: &&Span| {
        part.trace_id == span.trace_id && !CONTAINERS.iter().any(|name| part.name.starts_with(name))
    };
    spans.iter().filter(is_part).map(interval).collect()
}

fn tell(spans: &[Span], span: &Span) -> String {
    harness::tree::render(spans, &span.trace_id)
}

#[test]
fn gaps_and_overlaps_are_seen() {
    assert_eq!(covered(0, 100, &[(0, 40), (30, 60), (70, 200)]), 900);
    assert_eq!(covered(0, 100, &[]), 0);
}

#[tokio::test]
async fn a_message_that_waits_and_is_retried_accounts_for_its_time() {
    let collector = Collector::start().await;
    let lines = format!("telemetry.otlp_endpoint = \"{}\"\n{SLOW}", collector.endpoint());
    let mut world = World::start(PROGRAM, &lines).await;
    let guest = Uuid::new_v4();
    // The first keeps the lane; the second is refused once, asked to wait, and then served.
    world
        .upstream
        .simulator
        .script(Rule::patch().guest(guest).archived(true).times(1).delay(Duration::from_millis(800)));
    let refused = Rule::patch().guest(guest).archived(false).times(1).status(503).header("retry-after", "1");
    world.upstream.simulator.script(refused);
    world.send(guest, &world.upstream.message(guest, true, "first")).await;
    world.send(guest, &world.upstream.message(guest, false, "second")).await;
    world.events.take(2).await;
    let name = format!("process {}", world.names.commands);
    world.end().await;

    let spans = collector.spans();
    let processes: Vec<_> = Spans(spans.clone()).all(&name).into_iter().cloned().collect();
    let second = &processes[1];
    let (began, ended) = interval(second);
    assert!(ended - began > 1_500_000_000, "it has waited for its lane and for the upstream");
    let in_trace = |name: &str| {
        spans.iter().filter(|span| span.trace_id == second.trace_id && span.name == name).count()
    };
    for step in ["accept", "lane_wait", "retry_wait", "finish", "relay", "confirm"] {
        assert_eq!(in_trace(step), 1, "{step} in\n{}", tell(&spans, second));
    }
    assert_eq!(in_trace(PATCH), 2);
    let parts = parts(&spans, second);
    let until_settled = covered(began, ended, &parts);
    assert!(until_settled >= SHARE_MIN, "{until_settled} of\n{}", tell(&spans, second));
    let told = parts.iter().map(|(_, ended)| *ended).max().unwrap();
    let until_told = covered(began, told, &parts);
    assert!(until_told >= SHARE_MIN, "{until_told} of\n{}", tell(&spans, second));
}

#[tokio::test]
async fn a_deferred_command_accounts_for_its_time() {
    let collector = Collector::start().await;
    let lines = format!("telemetry.otlp_endpoint = \"{}\"\n{SLOW}", collector.endpoint());
    let mut world = World::start(PROGRAM, &lines).await;
    let guest = Uuid::new_v4();
    let refused = Rule::patch().guest(guest).times(1).status(503).header("retry-after", "8");
    world.upstream.simulator.script(refused);
    world.upstream.simulator.script(Rule::patch().guest(guest).delay(Duration::from_millis(500)));
    world.send_with(guest, sent_by(&traceparent()), &world.upstream.message(guest, true, "k")).await;
    world.events.next().await;
    let name = format!("process {}", world.names.commands);
    collector.wait_for(DEADLINE, |spans| spans.iter().any(|span| span.name == "relay")).await;
    world.end().await;

    let spans = Spans(collector.spans());
    let process = spans.named(&name);
    let commands = spans.all("command");
    let [first, again] = commands[..] else { panic!("{}", tell(&spans.0, process)) };
    is_child(first, process);
    is_child(again, process);
    assert_eq!(
        links(again),
        [(hex(&process.trace_id), hex(&process.span_id))],
        "it tells what it goes on from"
    );
    has(first, &[("command.state", "deferred"), ("command.recovered", "false")]);
    has(again, &[("command.state", "succeeded"), ("command.recovered", "true")]);
    let due = attribute(first, "command.due_time").expect("when it is due");
    let due = chrono::DateTime::parse_from_rfc3339(&due).unwrap().timestamp_nanos_opt().unwrap();
    let mut parts = parts(&spans.0, process);
    // From being put off to being due there is nothing to do; the end of that is told.
    parts.push((interval(first).1, u64::try_from(due).unwrap()));
    let began = interval(process).0;
    let ended = parts.iter().map(|(_, ended)| *ended).max().unwrap();
    let share = covered(began, ended, &parts);
    assert!(share >= SHARE_MIN, "{share} of\n{}", tell(&spans.0, process));
}
