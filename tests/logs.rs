//! The log of a running adapter: ids on every line of a command, repeats, and records at a collector.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tells a whole story"
)]

use std::time::{Duration, Instant};

use harness::adapter::{field, record};
use harness::collector::{LogRecord, hex, log_attribute, log_body};
use harness::{Adapter, Collector, DEADLINE, Setup, Upstream, World, look_again};
use lapin::BasicProperties;
use serde_json::Value;
use simulator::Rule;
use tokio::net::TcpListener;
use tokio::time::timeout;
use tonic::Request;
use tonic::transport::server::TcpIncoming;
use uuid::Uuid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const SETTLED: &str = "command settled";
const REFUSED: &str = "amqp: message refused, dead letter placed";
const LEFT_OUT: &str = "records were left out";

/// Commands are deferred soon, and are due again soon.
const QUICK: &str = r#"upstream.attempt_timeout = "600ms"
upstream.connect_timeout = "500ms"
upstream.command_timeout = "1s"
upstream.retry_delay_base = "50ms"
upstream.retry_delay_max = "100ms"
upstream.retry_share = 1.0
upstream.defer_delay_base = "100ms"
upstream.defer_delay_max = "400ms"
upstream.breaker_failures = 1000
upstream.breaker_failure_share = 1.0"#;

fn records(lines: &[String]) -> Vec<Value> {
    lines.iter().filter_map(|line| record(line)).collect()
}

fn is(record: &Value, message: &str) -> bool {
    field(record, "message") == Some(message)
}

/// The records of the command under `key`, once it is told as settled in this state.
async fn records_until(adapter: &Adapter, id: &str, state: &str) -> Vec<Value> {
    let settled = |line: &str| {
        record(line).is_some_and(|record| {
            is(&record, SETTLED)
                && field(&record, "command_id") == Some(id)
                && field(&record, "command.state") == Some(state)
        })
    };
    adapter.log().wait_for(DEADLINE, settled).await.unwrap_or_else(|lines| panic!("{lines:#?}"));
    records(&adapter.log().all())
}

#[tokio::test]
async fn every_line_of_a_command_that_is_retried_and_deferred_has_its_ids() {
    let mut world = World::start(PROGRAM, QUICK).await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).times(30).reset_before_apply());
    world.send(guest, &world.upstream.message(guest, true, "k")).await;
    let deferred = world.upstream.command_when(&world.adapter, "k", |command| command.attempts > 1).await;
    world.events.next().await;
    let id = deferred.command_id;
    let records = records_until(&world.adapter, &id, "succeeded").await;
    // This is the only command, so whatever tells of one tells of this.
    let of_it = |record: &&Value| {
        let target = field(record, "target").unwrap_or_default();
        is(record, SETTLED) || target.ends_with("::mycreditapp") || record.get("command_id").is_some()
    };
    let of_it: Vec<_> = records.iter().filter(of_it).collect();
    let states: Vec<_> = of_it.iter().filter_map(|record| field(record, "command.state")).collect();
    assert!(states.contains(&"deferred") && states.contains(&"succeeded"), "{states:?}");
    let attempts = of_it.iter().filter(|record| is(record, "the upstream gave no answer")).count();
    assert!(attempts > 1, "{of_it:#?}");
    let trace = field(of_it[0], "trace_id").expect("a trace");
    for record in &of_it {
        assert_eq!(field(record, "command_id"), Some(id.as_str()), "{record}");
        assert_eq!(field(record, "trace_id"), Some(trace), "{record}");
    }
    world.end().await;
}

#[tokio::test]
async fn a_line_of_text_ends_with_the_ids() {
    let upstream = Upstream::start().await;
    let setup = upstream.setup(PROGRAM).config(
        "telemetry.log_format = \"text\"\ntelemetry.log_filter = \"warn,guest_connection_adapter::app=info\"",
    );
    let adapter = setup.start().await;
    adapter.ready().await;
    let guest = Uuid::new_v4();
    upstream.simulator.script(Rule::patch().guest(guest).times(1).reset_before_apply());
    let mut request = Request::new(upstream.archive(guest, "k"));
    request.metadata_mut().insert("traceparent", TRACEPARENT.parse().unwrap());
    adapter.client().await.archive_guest_connection(request).await.unwrap();
    let id = upstream.command(&adapter, "k").await.unwrap().command_id;
    let end = format!(" command={id} trace={TRACE}");
    let told =
        |line: &str| line.contains("WARN guest_connection_adapter::mycreditapp: the upstream gave no answer");
    let line = adapter.log().wait_for(DEADLINE, told).await.unwrap_or_else(|lines| panic!("{lines:#?}"));
    assert!(line.ends_with(&end), "{line}");
    assert!(adapter.terminate().await.0.success());
}

/// How many refused messages the log tells of: written, and said to be left out.
fn told(lines: &[String]) -> (u64, u64) {
    let records = records(lines);
    let written = records.iter().filter(|record| is(record, REFUSED));
    let suppressed = |record: &Value| record["fields"]["suppressed"].as_u64().unwrap_or_default();
    let with_it: u64 = written.clone().map(suppressed).sum();
    let summaries = records.iter().filter(|record| {
        is(record, LEFT_OUT)
            && field(record, "record") == Some(REFUSED)
            && field(record, "level") == Some("WARN")
    });
    (written.count() as u64, with_it + summaries.map(suppressed).sum::<u64>())
}

async fn send_refused(world: &World) {
    let properties = BasicProperties::default().with_content_type("application/json".into());
    world.broker.publish(&world.names, "anything", properties, b"no JSON").await;
}

#[tokio::test]
async fn a_storm_is_told_in_few_lines_that_add_up() {
    let world = World::start(PROGRAM, "telemetry.log_repeats_max = 5").await;
    let started = Instant::now();
    for _ in 0..100 {
        send_refused(&world).await;
    }
    let refused = async {
        while world.broker.depth(&world.names.dead_letters).await < 100 {
            look_again().await;
        }
    };
    timeout(DEADLINE, refused).await.expect("all are refused");
    let (written, _) = told(&world.adapter.log().all());
    let windows = started.elapsed().as_secs() / 10 + 1;
    assert!((5..=5 * windows).contains(&written), "{written} in {windows} windows");
    // Whatever is told after the window tells of what was left out: here the next refused message.
    let mut sent = 100;
    let said = async {
        while told(&world.adapter.log().all()).1 == 0 {
            send_refused(&world).await;
            sent += 1;
            for _ in 0..50 {
                look_again().await;
            }
        }
    };
    timeout(DEADLINE, said).await.expect("what was left out is said");
    let refused = async {
        while world.broker.depth(&world.names.dead_letters).await < sent {
            look_again().await;
        }
    };
    timeout(DEADLINE, refused).await.expect("all are refused");
    let metrics = world.adapter.metrics().await;
    let (status, lines) = world.adapter.terminate().await;
    assert!(status.success(), "{lines:#?}");
    let (written, suppressed) = told(&lines);
    assert_eq!(written + suppressed, u64::from(sent), "{written} written, {suppressed} left out");
    assert!(suppressed >= 95 - 5 * windows, "{suppressed} left out");
    let counted = |name: &str| {
        let line = metrics
            .lines()
            .find(|line| line.starts_with(name))
            .unwrap_or_else(|| panic!("no {name}: {metrics}"));
        line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(counted("adapter_log_suppressed_total"), suppressed);
    assert!(counted("adapter_log_records_total{level=\"WARN\"}") >= written);
}

fn exporting(setup: Setup, endpoint: &str) -> Setup {
    setup.config(&format!("telemetry.otlp_endpoint = \"{endpoint}\"\ntelemetry.otlp_logs = true"))
}

#[tokio::test]
async fn a_collector_gets_the_records_with_their_ids_and_nothing_personal() {
    let (upstream, collector) = (Upstream::start().await, Collector::start().await);
    let adapter = exporting(upstream.setup(PROGRAM), &collector.endpoint()).start_ready().await;
    let guest = Uuid::new_v4();
    upstream.simulator.script(Rule::patch().guest(guest).times(1).reset_before_apply());
    let mut request = Request::new(upstream.archive(guest, "k"));
    request.metadata_mut().insert("traceparent", TRACEPARENT.parse().unwrap());
    let answer = adapter.client().await.archive_guest_connection(request).await.unwrap().into_inner();
    assert!(format!("{answer:?}").contains("guest.example"), "there is something personal: {answer:?}");
    let is_settled = |record: &LogRecord| log_body(record).as_deref() == Some(SETTLED);
    collector.wait_for_logs(DEADLINE, |logs| logs.iter().any(is_settled)).await;
    let (status, lines) = adapter.terminate().await;
    assert!(status.success(), "{lines:#?}");
    let logs = collector.logs();
    for body in ["the upstream gave no answer", SETTLED] {
        let found = logs.iter().find(|record| log_body(record).as_deref() == Some(body));
        let found = found.unwrap_or_else(|| panic!("no {body}: {logs:#?}"));
        let line = records(&lines).into_iter().find(|record| is(record, body)).expect("a line");
        assert_eq!(hex(&found.trace_id), TRACE);
        assert_eq!(Some(hex(&found.span_id).as_str()), field(&line, "span_id"));
        assert_eq!(found.severity_text, field(&line, "level").unwrap());
        assert_eq!(log_attribute(found, "command.id"), Some(answer.command_id.clone()));
        assert!(found.time_unix_nano > 0);
    }
    // The end of the adapter is told too: what waits is sent before the exit.
    assert!(logs.iter().any(|record| log_body(record).as_deref() == Some("stopped")), "{logs:#?}");
    let exported = format!("{logs:?}");
    for text in ["guest.example", "@", harness::CLIENT_SECRET, "Bearer"] {
        assert!(!exported.contains(text) && !lines.iter().any(|line| line.contains(text)), "{text}");
    }
}

#[tokio::test]
async fn without_otlp_logs_a_collector_gets_none() {
    let (upstream, collector) = (Upstream::start().await, Collector::start().await);
    let endpoint = format!("telemetry.otlp_endpoint = \"{}\"", collector.endpoint());
    let adapter = upstream.setup(PROGRAM).config(&endpoint).start_ready().await;
    adapter.client().await.archive_guest_connection(upstream.archive(Uuid::new_v4(), "k")).await.unwrap();
    assert!(adapter.terminate().await.0.success());
    assert!(!collector.spans().is_empty());
    assert_eq!(collector.logs(), []);
}

/// A gRPC server that knows nothing of telemetry.
async fn refusing() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}", listener.local_addr().unwrap());
    let (_, service) = tonic_health::server::health_reporter();
    let server = tonic::transport::Server::builder().add_service(service);
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    endpoint
}

/// Runs an adapter whose collector is no good, and checks that its log grows by what it does alone.
async fn grows_by_its_work_alone(endpoint: &str) {
    let upstream = Upstream::start().await;
    let adapter = exporting(upstream.setup(PROGRAM), endpoint).start_ready().await;
    let call = async |key: &str| {
        let request = upstream.archive(Uuid::new_v4(), key);
        adapter.client().await.archive_guest_connection(request).await.unwrap();
    };
    call("first").await;
    let is_of_export =
        |record: &Value| field(record, "target").is_some_and(|target| target.starts_with("opentelemetry"));
    let fails = |line: &str| record(line).is_some_and(|record| is_of_export(&record));
    adapter.log().wait_for(DEADLINE, fails).await.unwrap_or_else(|lines| panic!("{lines:#?}"));
    // Some exports more fail meanwhile: each would tell of itself, if it were let, and what it told would be exported.
    for number in 0..300 {
        call(&format!("k-{number}")).await;
    }
    let started = Instant::now();
    let (status, lines) = adapter.terminate().await;
    assert!(status.success(), "{lines:#?}");
    assert!(started.elapsed() < Duration::from_secs(8), "the exit is bounded: {:?}", started.elapsed());
    let records = records(&lines);
    assert_eq!(records.iter().filter(|record| is(record, SETTLED)).count(), 301);
    let others: Vec<_> = records.iter().filter(|record| !is(record, SETTLED)).collect();
    let of_export = others.iter().filter(|record| is_of_export(record)).count();
    // One a minute, and one at the end that says what was left out.
    assert!(of_export <= 3, "{of_export}: {others:#?}");
    assert!(others.len() < 20, "{others:#?}");
}

#[tokio::test]
async fn a_collector_that_refuses_is_no_news() {
    grows_by_its_work_alone(&refusing().await).await;
}

#[tokio::test]
async fn a_collector_that_is_away_is_no_news() {
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    grows_by_its_work_alone(&format!("http://{free}")).await;
}

#[tokio::test]
async fn a_collector_that_is_silent_is_no_news() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    grows_by_its_work_alone(&format!("http://{}", silent.local_addr().unwrap())).await;
}
