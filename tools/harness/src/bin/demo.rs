//! Shows the main job from end to end: both doors, one PATCH for each command, one event, one trace, and a repeat that
//! changes nothing. Ends with an error if anything is not as promised.
//!
//! Run by `make demo`, which brings the broker. `demo bind EXCHANGE QUEUE` binds a queue instead, for `make up`.

#![allow(clippy::print_stdout, reason = "a demo prints")]
#![allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a demo that fails ends there")]

use std::path::PathBuf;

use guest_connection_adapter::proto::ArchiveGuestConnectionResponse;
use harness::collector::{Span, hex};
use harness::{Adapter, Broker, Collector, DEADLINE, Names, Upstream, tree};
use lapin::BasicProperties;
use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::Value;
use simulator::{Endpoint, Entry};
use tonic::Request;
use uuid::Uuid;

#[tokio::main]
async fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => demo().await,
        ["bind", exchange, queue] => bind(exchange, queue).await,
        _ => panic!("usage: demo [bind EXCHANGE QUEUE]"),
    }
}

/// Declares a durable queue and binds it to everything of an exchange.
async fn bind(exchange: &str, queue: &str) {
    let broker = Broker::connect().await;
    let options = QueueDeclareOptions { durable: true, ..<_>::default() };
    broker.channel().queue_declare(queue.into(), options, FieldTable::default()).await.expect("declared");
    let options = QueueBindOptions::default();
    let bound = broker.channel().queue_bind(
        queue.into(),
        exchange.into(),
        "#".into(),
        options,
        FieldTable::default(),
    );
    bound.await.expect("bound");
}

/// What happened.
struct Story {
    guest: Uuid,
    called: Trace,
    sent: Trace,
    first: ArchiveGuestConnectionResponse,
    again: ArchiveGuestConnectionResponse,
    events: [Value; 2],
    journal: Vec<Entry>,
    spans: Vec<Span>,
}

async fn demo() {
    let program: PathBuf =
        std::env::current_exe().expect("a path").with_file_name("guest-connection-adapter");
    assert!(program.exists(), "{} is not built: run `make demo`", program.display());
    let (collector, upstream) = (Collector::start().await, Upstream::start().await);
    let (broker, names) = (Broker::connect().await, Names::usual());
    let setup = upstream.setup(&program).broker(&broker, &names);
    let setup = setup.config(&format!("telemetry.otlp_endpoint = \"{}\"", collector.endpoint()));
    let adapter = setup.start_ready().await;
    let mut story = act(&adapter, &upstream, &broker, &names).await;
    let (status, log) = adapter.terminate().await;
    story.spans = collector.spans();
    show(&story);
    assert_eq!(upstream.simulator.violations(), Vec::<String>::new());
    assert!(status.success(), "the adapter ended with {status}:\n{}", log.join("\n"));
    check(&story);
    println!("\nAs promised: two commands, two PATCHes, two events, and a repeat that changed nothing.");
}

/// One archive by gRPC, one unarchive by AMQP, and the call again.
async fn act(adapter: &Adapter, upstream: &Upstream, broker: &Broker, names: &Names) -> Story {
    let mut inbox = broker.subscribe(&names.events).await;
    let guest = Uuid::new_v4();
    let (called, sent) = (Trace::new(), Trace::new());

    heading("1. What was asked");
    let first = archive(adapter, upstream, guest, &called).await;
    println!("  gRPC  ArchiveGuestConnection  guest {guest}  key demo-archive");
    println!("        answer: command {}  archived {}", first.command_id, shown(&first));
    let event = inbox.next().await.json();

    let mut headers = FieldTable::default();
    headers.insert("traceparent".into(), AMQPValue::LongString(sent.header().into()));
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_delivery_mode(2)
        .with_headers(headers);
    let body = upstream.message(guest, false, "demo-unarchive").to_string();
    broker.publish(names, &guest.to_string(), properties, body.as_bytes()).await;
    println!("  AMQP  {body}");
    let events = [event, inbox.next().await.json()];

    let again = archive(adapter, upstream, guest, &Trace::new()).await;
    println!("  gRPC  ArchiveGuestConnection  guest {guest}  key demo-archive  (the same key again)");
    let journal = upstream.simulator.journal();
    Story { guest, called, sent, first, again, events, journal, spans: Vec::new() }
}

fn show(story: &Story) {
    heading("2. The PATCHes that the upstream saw");
    for patch in story.patches() {
        println!("  PATCH /v1-beta/guest-connections/{}", story.guest);
        println!("        Requester-Organization-ID: {}", patch.requester.expect("a requester"));
        println!("        Target-Organization-ID:    {}", patch.target.expect("a target"));
        println!("        {{\"archived\":{}}} -> {}", patch.archived.unwrap(), patch.status.unwrap());
    }
    heading("3. The events that the broker delivered");
    for event in &story.events {
        let text = |name: &str| event[name].as_str().expect("text").to_owned();
        println!("  {}  {}  sequence {}", text("id"), text("type"), text("sequence"));
    }
    heading("4. The repeat");
    let same = story.again.command_id == story.first.command_id;
    println!("  replayed: {}  the same command: {same}", story.again.replayed);
    heading("5. The call as one trace, from the caller's context to the event");
    print!("{}", tree::render(&story.spans, &story.called.trace_id));
    heading("6. The message as one trace, linked to its producer's: a queue lies between");
    print!("{}", tree::render(&story.spans, &story.linked()));
}

/// What was shown is what was promised.
fn check(story: &Story) {
    let values: Vec<_> = story.patches().map(|patch| patch.archived).collect();
    assert_eq!(values, [Some(true), Some(false)]);
    assert_eq!(story.events[0]["type"], "ai.mycreditapp.guest-connection.archived.v1");
    assert_eq!(story.events[1]["type"], "ai.mycreditapp.guest-connection.unarchived.v1");
    assert!(!story.first.replayed && story.again.replayed);
    assert_eq!(story.again.command_id, story.first.command_id);
    for (trace_id, entrance) in [
        (&story.called.trace_id, "guestconnections.v1.GuestConnectionService/ArchiveGuestConnection"),
        (&story.linked(), "process guest-connections.commands"),
    ] {
        for name in [entrance, "command", "PATCH", "send guest-connections.events"] {
            let member = |span: &Span| span.name == name && hex(&span.trace_id) == *trace_id;
            assert!(story.spans.iter().any(member), "{name} belongs to the trace {trace_id}");
        }
    }
}

impl Story {
    fn patches(&self) -> impl Iterator<Item = &Entry> {
        self.journal.iter().filter(|entry| entry.endpoint == Endpoint::Patch)
    }

    /// The trace that is linked to the producer's.
    fn linked(&self) -> String {
        let is_linked =
            |span: &&Span| span.links.iter().any(|link| hex(&link.trace_id) == self.sent.trace_id);
        hex(&self.spans.iter().find(is_linked).expect("a span linked to the producer").trace_id)
    }
}

/// The context of a caller of our own.
struct Trace {
    trace_id: String,
    span_id: String,
}

impl Trace {
    fn new() -> Self {
        let (trace_id, span_id) = (Uuid::new_v4().simple().to_string(), Uuid::new_v4().simple().to_string());
        Self { trace_id, span_id: span_id[..16].to_owned() }
    }

    fn header(&self) -> String {
        format!("00-{}-{}-01", self.trace_id, self.span_id)
    }
}

async fn archive(
    adapter: &Adapter,
    upstream: &Upstream,
    guest: Uuid,
    trace: &Trace,
) -> ArchiveGuestConnectionResponse {
    let mut request = Request::new(upstream.archive(guest, "demo-archive"));
    request.metadata_mut().insert("traceparent", trace.header().parse().expect("ASCII"));
    request.set_timeout(DEADLINE);
    adapter.client().await.archive_guest_connection(request).await.expect("an answer").into_inner()
}

fn shown(answer: &ArchiveGuestConnectionResponse) -> bool {
    answer.guest_connection.as_ref().and_then(|connection| connection.archived).expect("archived is shown")
}

fn heading(text: &str) {
    println!("\n{text}\n");
}
