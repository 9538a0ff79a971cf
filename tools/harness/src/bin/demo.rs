//! The main job, shown: one archive by gRPC, one unarchive by RabbitMQ, and the gRPC call again.
//!
//! `scripts/broker run` gives it a broker. It starts the rest itself: the stand-in of the API, a receiver for traces,
//! and the adapter as the process that users run. What it prints it also checks.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is there to print")]

use std::error::Error;
use std::process::ExitCode;

use guest_connection_adapter::proto::ArchiveGuestConnectionResponse as Answer;
use guest_connection_adapter::proto::guest_connection_service_client::GuestConnectionServiceClient;
use harness::broker::{Arrived, Inbox};
use harness::caller::CallerSpan;
use harness::collector::{Span, hex};
use harness::{Adapter, Broker, Collector, Names, Upstream, tree};
use lapin::BasicProperties;
use lapin::options::{QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde_json::Value;
use simulator::Endpoint;
use tonic::transport::Channel;
use uuid::Uuid;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

const USAGE: &str = "usage: demo                      shows the main job; run it by `make demo`
       demo bind EXCHANGE QUEUE  binds a durable queue to all of an exchange, at the broker of AMQP_URI";

const ARCHIVE_KEY: &str = "demo-archive";
const UNARCHIVE_KEY: &str = "demo-unarchive";

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => show().await,
        ["bind", exchange, queue] => bind(exchange, queue).await,
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("demo: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Declares a durable queue and binds it to everything of an exchange.
async fn bind(exchange: &str, queue: &str) -> Outcome {
    let broker = Broker::connect().await;
    let durable = QueueDeclareOptions { durable: true, ..<_>::default() };
    broker.channel().queue_declare(queue.into(), durable, FieldTable::default()).await?;
    let options = QueueBindOptions::default();
    let bound = broker.channel().queue_bind(
        queue.into(),
        exchange.into(),
        "#".into(),
        options,
        FieldTable::default(),
    );
    Ok(bound.await?)
}

async fn show() -> Outcome {
    let mut stage = Stage::set().await?;

    title("1. What is asked");
    let archive = CallerSpan::root("the caller's archive, sent twice", SpanKind::Internal);
    let (first, first_span) = stage.archive(&archive, "by gRPC").await?;
    let archived = stage.events.next().await;
    let unarchive = stage.unarchive().await;
    let unarchived = stage.events.next().await;
    let (second, second_span) = stage.archive(&archive, "by gRPC, with the same key").await?;
    let (trace, archive) = (archive.trace(), archive.end());

    title("2. What the upstream saw");
    stage.print_patches()?;

    title("3. Which events the broker delivered");
    let mut events = vec![print_event(&archived, "archived")?];
    println!();
    events.push(print_event(&unarchived, "unarchived")?);
    check(events[0]["data"]["command"]["command_id"] == *first.command_id, "event 1 is of another command")?;
    let told = events[0]["traceparent"].as_str().unwrap_or_default();
    check(told.contains(&trace), "event 1 does not tell the caller's trace")?;

    title("4. What became of the repeat");
    check(second.replayed && !first.replayed, "the repeat was not told to be one")?;
    check(second.command_id == first.command_id, "the repeat became a command of its own")?;
    check(second.guest_connection == first.guest_connection, "the repeat got another answer")?;
    println!("  It was replayed: command {} again, with the answer of then.", second.command_id);
    println!("  There was no further PATCH (see 2), though the connection was unarchived since.");

    title("5. The traces");
    let spans = stage.end(&events).await?;
    let own = [archive, first_span, second_span, unarchive];
    print_traces(&[own.to_vec(), spans].concat(), &own)?;
    println!("All is as promised; everything that was started is stopped.");
    Ok(())
}

fn title(text: &str) {
    println!("\n{text}\n{}", "-".repeat(text.len()));
}

/// What is shown is also checked.
fn check(holds: bool, fault: &str) -> Outcome {
    if holds { Ok(()) } else { Err(format!("not as promised: {fault}").into()) }
}

/// Everything that takes part.
struct Stage {
    upstream: Upstream,
    broker: Broker,
    collector: Collector,
    adapter: Adapter,
    client: GuestConnectionServiceClient<Channel>,
    events: Inbox,
    guest: Uuid,
}

impl Stage {
    async fn set() -> Outcome<Self> {
        let program = std::env::current_exe()?.with_file_name("guest-connection-adapter");
        if !program.exists() {
            return Err(format!("{} is missing; `make build` makes it", program.display()).into());
        }
        let (upstream, broker, collector) =
            (Upstream::start().await, Broker::connect().await, Collector::start().await);
        let setup = upstream
            .setup(program)
            .broker(&broker, &Names::usual())
            .config(&format!("telemetry.otlp_endpoint = \"{}\"", collector.endpoint()));
        let adapter = setup.start_ready().await;
        let events = broker.subscribe(&Names::usual().events).await;
        let client = adapter.client().await;
        println!("The adapter runs as process {}, between these:", adapter.pid());
        println!("  callers   gRPC on {}, RabbitMQ on {}", adapter.grpc, broker.address());
        println!("  upstream  {} (the simulator)", upstream.simulator.base_url());
        Ok(Self { upstream, broker, collector, adapter, client, events, guest: Uuid::new_v4() })
    }

    async fn archive(&mut self, job: &CallerSpan, how: &str) -> Outcome<(Answer, Span)> {
        let span = CallerSpan::below(job, "ArchiveGuestConnection", SpanKind::Client);
        let message = self.upstream.archive(self.guest, ARCHIVE_KEY);
        println!("  archive {how}: ArchiveGuestConnection");
        println!("    guest_organization_id      {}", message.guest_organization_id);
        println!("    requester_organization_id  {}", message.requester_organization_id);
        println!("    idempotency_key            {}", message.idempotency_key);
        let mut request = tonic::Request::new(message);
        request.metadata_mut().insert("traceparent", span.traceparent().parse()?);
        let answer =
            self.client.archive_guest_connection(request).await.map_err(|status| {
                format!("the call was refused: {:?}, {}", status.code(), status.message())
            })?;
        let (span, answer) = (span.end(), answer.into_inner());
        let shown = answer.guest_connection.as_ref().and_then(|connection| connection.archived);
        println!(
            "    -> archived {}, replayed {}, command {}",
            text(shown),
            answer.replayed,
            answer.command_id
        );
        check(shown == Some(true), "the answer does not show the connection as archived")?;
        Ok((answer, span))
    }

    async fn unarchive(&self) -> Span {
        let names = Names::usual();
        let span = CallerSpan::root(&format!("send {}", names.commands), SpanKind::Producer);
        let body = self.upstream.message(self.guest, false, UNARCHIVE_KEY);
        println!("  unarchive by RabbitMQ: to exchange {}, routing key {}", names.commands, self.guest);
        println!("    {body}");
        let mut headers = FieldTable::default();
        headers.insert("traceparent".into(), AMQPValue::LongString(span.traceparent().into()));
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_headers(headers);
        let body = body.to_string();
        self.broker.publish(&names, &self.guest.to_string(), properties, body.as_bytes()).await;
        println!("    -> confirmed by the broker");
        span.end()
    }

    /// The journal keeps what is not the same in every request; the rest it holds against the API's contract.
    fn print_patches(&self) -> Outcome {
        let (simulator, mut values) = (&self.upstream.simulator, Vec::new());
        let base = simulator.base_url();
        for entry in simulator.journal().iter().filter(|entry| entry.endpoint == Endpoint::Patch) {
            let host = simulator.address().to_string();
            let path = base.split_once(&host).map_or("", |(_, path)| path);
            println!("  PATCH {path}/guest-connections/{}", text(entry.guest));
            println!("    authorization: Bearer (not shown)");
            println!("    content-type: application/json");
            println!("    requester-organization-id: {}", text(entry.requester));
            println!("    target-organization-id: {}", text(entry.target));
            println!("    traceparent: {}", text(entry.traceparent.as_ref()));
            println!("    {{\"archived\":{}}}", text(entry.archived));
            println!("    -> {}, applied: {}", text(entry.status), entry.applied);
            values.push((entry.archived, entry.applied));
        }
        check(
            values == [(Some(true), true), (Some(false), true)],
            "there should be two PATCHes that took effect",
        )?;
        check(simulator.violations().is_empty(), "a request broke the API's contract")?;
        println!("  {} PATCHes for three requests, none against the API's contract.", values.len());
        Ok(())
    }

    /// Stops the adapter, which flushes events and spans, checks that there was nothing more, and yields the spans.
    async fn end(mut self, events: &[Value]) -> Outcome<Vec<Span>> {
        let (status, log) = self.adapter.terminate().await;
        check(status.success(), &format!("the adapter ended with {status}:\n{}", log.join("\n")))?;
        // What the adapter published lies before this in the queue.
        let to_events = Names { commands: Names::usual().events, ..Names::usual() };
        self.broker.publish(&to_events, "end", BasicProperties::default(), b"end").await;
        let last = self.events.next().await;
        check(last.routing_key == "end", &format!("there are more than {} events", events.len()))?;
        self.upstream.simulator.shutdown().await;
        Ok(self.collector.spans())
    }
}

fn print_event(arrived: &Arrived, kind: &str) -> Outcome<Value> {
    let event: Value = serde_json::from_slice(&arrived.body)?;
    for name in ["id", "type", "subject", "sequence", "time", "traceparent"] {
        println!("  {name:<12} {}", event[name].as_str().unwrap_or("none"));
    }
    println!("  {:<12} {}", "routing key", arrived.routing_key);
    println!("  {:<12} {}", "archived", event["data"]["guest_connection"]["archived"]);
    let wanted = format!("guest-connection.{kind}.");
    check(arrived.routing_key.starts_with(&wanted), &format!("the event is not one of {wanted}"))?;
    check(
        event["data"]["guest_connection"]["archived"] == (kind == "archived"),
        "the event shows another value",
    )?;
    Ok(event)
}

/// Prints the callers' traces and those linked to them.
fn print_traces(all: &[Span], own: &[Span]) -> Outcome {
    let mut callers: Vec<Vec<u8>> = own.iter().map(|span| span.trace_id.clone()).collect();
    callers.dedup();
    for caller in callers {
        let traces = [vec![caller.clone()], tree::linked(all, &caller)].concat();
        for trace in &traces {
            println!("  trace {}", hex(trace));
            println!("{}", tree::render(all, trace));
        }
        for name in
            ["command", "PATCH /v1-beta/guest-connections/{guest_org_id}", "send guest-connections.events"]
        {
            let count =
                all.iter().filter(|span| span.name == name && traces.contains(&span.trace_id)).count();
            check(count == 1, &format!("a command's trace has {count} spans `{name}`"))?;
        }
    }
    Ok(())
}

fn text<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| value.to_string())
}
