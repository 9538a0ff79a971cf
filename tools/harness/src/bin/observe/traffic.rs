//! Callers, producers and a consumer of events, which tell of their part of each trace as well.

use std::time::Duration;

use guest_connection_adapter::proto::guest_connection_service_client::GuestConnectionServiceClient;
use harness::broker::{Arrived, Inbox};
use harness::caller::CallerSpan;
use harness::collector::Span;
use harness::{Adapter, Broker, DEADLINE, Names, Upstream};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use tonic::transport::Channel;
use uuid::Uuid;

use crate::Outcome;

/// The adapter's name in traces.
pub const SERVICE: &str = "guest-connection-adapter";

/// The call, as both sides name their span.
pub const ARCHIVE: &str = "guestconnections.v1.GuestConnectionService/ArchiveGuestConnection";

/// What the consumer calls its work.
pub const EVENTS_QUEUE: &str = "process events.demo";

/// Keys of what nobody waits for begin so.
const BACKGROUND: &str = "background-";

/// Time between two commands of the background, by each door.
const PACE: Duration = Duration::from_millis(250);

/// Sends spans to the collector, as a service of some name.
#[derive(Clone)]
pub struct Teller {
    client: TraceServiceClient<Channel>,
}

impl Teller {
    /// Connects to the collector.
    pub async fn connect(endpoint: &str) -> Outcome<Self> {
        Ok(Self { client: TraceServiceClient::connect(endpoint.to_owned()).await? })
    }

    async fn tell(&self, service: &str, spans: Vec<Span>) -> Outcome {
        let value = AnyValue { value: Some(any_value::Value::StringValue(service.to_owned())) };
        let name = KeyValue { key: "service.name".to_owned(), value: Some(value), ..<_>::default() };
        let resource = Resource { attributes: vec![name], ..<_>::default() };
        let scope_spans = vec![ScopeSpans { spans, ..<_>::default() }];
        let spans = ResourceSpans { resource: Some(resource), scope_spans, ..<_>::default() };
        self.client.clone().export(ExportTraceServiceRequest { resource_spans: vec![spans] }).await?;
        Ok(())
    }
}

/// Who asks.
pub struct Callers {
    broker: Broker,
    client: GuestConnectionServiceClient<Channel>,
    teller: Teller,
    events: mpsc::UnboundedReceiver<Arrived>,
    consumer: JoinHandle<()>,
}

/// What came of a command.
pub struct Traced {
    /// The trace of the command, as hexadecimal digits.
    pub trace: String,
    /// The trace of its caller or producer.
    pub caller: String,
    /// The command's id.
    pub command: String,
}

impl Callers {
    /// Connects to both doors, and takes events from a queue.
    pub async fn start(broker: Broker, adapter: &Adapter, teller: Teller) -> Self {
        let inbox = broker.subscribe(&Names::usual().events).await;
        let (sender, events) = mpsc::unbounded_channel();
        let consumer = tokio::spawn(consume(inbox, teller.clone(), sender));
        Self { broker, client: adapter.client().await, teller, events, consumer }
    }

    /// Archives by gRPC.
    pub async fn call(&mut self, upstream: &Upstream, key: &str) -> Outcome<Traced> {
        let job = CallerSpan::root("archive a guest", SpanKind::Internal);
        let span = CallerSpan::below(&job, ARCHIVE, SpanKind::Client);
        let mut request = tonic::Request::new(upstream.archive(Uuid::new_v4(), key));
        request.metadata_mut().insert("traceparent", span.traceparent().parse()?);
        let answer = self.client.archive_guest_connection(request).await?.into_inner();
        let trace = job.trace();
        // Where there is no collector, the caller's work goes on as well.
        let _ = self.teller.tell("demo-caller", vec![span.end(), job.end()]).await;
        Ok(Traced { caller: trace.clone(), trace, command: answer.command_id })
    }

    /// Archives by a message, and waits for the event.
    pub async fn send(&mut self, upstream: &Upstream, guest: Uuid, key: &str) -> Outcome<Traced> {
        let span = CallerSpan::root("send guest-connections.commands", SpanKind::Producer);
        let mut headers = FieldTable::default();
        headers.insert("traceparent".into(), AMQPValue::LongString(span.traceparent().into()));
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_delivery_mode(2)
            .with_headers(headers);
        let body = upstream.message(guest, true, key).to_string();
        self.broker.publish(&Names::usual(), &guest.to_string(), properties, body.as_bytes()).await;
        let caller = span.trace();
        self.teller.tell("demo-producer", vec![span.end()]).await?;
        let event = timeout(DEADLINE, self.event(key)).await.map_err(|_| format!("no event of {key}"))??;
        let trace = event.header("traceparent").unwrap_or_default();
        let trace = trace.split('-').nth(1).ok_or("an event without a trace")?.to_owned();
        let command = event.json()["data"]["command"]["command_id"].as_str().unwrap_or_default().to_owned();
        Ok(Traced { trace, caller, command })
    }

    /// The event of a command, from here on.
    async fn event(&mut self, key: &str) -> Outcome<Arrived> {
        loop {
            let event = self.events.recv().await.ok_or("the consumer has ended")?;
            if event.json()["data"]["command"]["idempotency_key"] == key {
                return Ok(event);
            }
        }
    }
}

impl Drop for Callers {
    fn drop(&mut self) {
        self.consumer.abort();
    }
}

/// Takes events, tells of each, and hands on those that somebody waits for.
async fn consume(mut inbox: Inbox, teller: Teller, waiting: mpsc::UnboundedSender<Arrived>) {
    loop {
        let Some(event) = inbox.next_within(DEADLINE).await else { continue };
        let span = event.header("traceparent").and_then(|text| CallerSpan::within(&text, EVENTS_QUEUE));
        if let Some(span) = span {
            // The collector may be stopped; events go on.
            let _ = teller.tell("demo-consumer", vec![span.end()]).await;
        }
        let key = event.json()["data"]["command"]["idempotency_key"].clone();
        let is_awaited = key.as_str().is_some_and(|key| !key.starts_with(BACKGROUND));
        if is_awaited && waiting.send(event).is_err() {
            return;
        }
    }
}

/// Commands by both doors, for as long as it is let run, so that rates have something to show.
pub fn background(upstream: &Upstream, broker: Broker, adapter: &Adapter) -> JoinHandle<()> {
    let (organization, address) = (upstream.organizations[0].clone(), adapter.grpc);
    tokio::spawn(async move {
        let Ok(mut client) = GuestConnectionServiceClient::connect(format!("http://{address}")).await else {
            return;
        };
        let mut pace = interval(PACE);
        loop {
            pace.tick().await;
            let (guest, key) = (Uuid::new_v4(), format!("{BACKGROUND}{}", Uuid::new_v4()));
            // What is refused is counted as well.
            let _ = client.archive_guest_connection(organization.archive(guest, &key)).await;
            let body = organization.message(guest, false, &format!("{key}-back")).to_string();
            let properties = BasicProperties::default().with_content_type("application/json".into());
            broker.publish(&Names::usual(), &guest.to_string(), properties, body.as_bytes()).await;
        }
    })
}
