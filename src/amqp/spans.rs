//! Spans and metrics by OpenTelemetry's conventions for messaging and RabbitMQ. Names hold no ids.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::message::Delivery;
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;
use tracing::Span;
use tracing::field::Empty;

use super::properties;
use super::render::Publishing;
use super::settings::Settings;
use crate::domain::trace::TraceContext;
use crate::telemetry::context;
use crate::telemetry::instruments::instruments;
use crate::telemetry::step::{Description, Name, Step};

/// What the conventions call RabbitMQ.
const SYSTEM: &str = "rabbitmq";

/// What the conventions call RabbitMQ's default exchange.
const DEFAULT_EXCHANGE: &str = "amq.default";

/// The span of one delivery: a trace of its own, linked to the sender's, since a queue lies between.
#[must_use]
pub fn process(
    settings: &Settings,
    delivery: &Delivery,
    partition: Option<u32>,
    sender: &TraceContext,
) -> Span {
    let queue = settings.names.commands_queue.as_str();
    let span = tracing::info_span!(
        parent: None,
        "process",
        otel.name = format!("process {queue}"),
        otel.kind = "consumer",
        messaging.system = SYSTEM,
        "messaging.operation.type" = "process",
        messaging.operation.name = "process",
        messaging.destination.name = queue,
        messaging.destination.partition.id = partition.map(|number| number.to_string()),
        messaging.rabbitmq.destination.routing_key = delivery.routing_key.as_str(),
        messaging.rabbitmq.message.delivery_tag = delivery.delivery_tag,
        messaging.message.id = properties::some(delivery.properties.message_id()),
        messaging.message.conversation_id = properties::some(delivery.properties.correlation_id()),
        messaging.message.body.size = delivery.data.len(),
        server.address = settings.address.host,
        server.port = settings.address.port,
        otel.status_code = Empty,
        "error.type" = Empty,
        "command.id" = Empty,
    );
    instruments().consumed_messages.add(1, &operation(settings, "consume", queue));
    context::go_on(&span, sender, settings.across_queue);
    span
}

/// What the conventions call the exchange that a message is published to.
#[must_use]
pub fn destination(publishing: &Publishing) -> &str {
    match publishing.exchange.as_str() {
        "" => DEFAULT_EXCHANGE,
        exchange => exchange,
    }
}

/// The span of one publication, in the trace that the message belongs to.
#[must_use]
pub fn send(settings: &Settings, publishing: &Publishing) -> Span {
    let exchange = destination(publishing);
    let span = tracing::info_span!(
        parent: None,
        "send",
        otel.name = format!("send {exchange}"),
        otel.kind = "producer",
        messaging.system = SYSTEM,
        "messaging.operation.type" = "send",
        messaging.operation.name = "send",
        messaging.destination.name = exchange,
        messaging.rabbitmq.destination.routing_key = publishing.routing_key,
        messaging.message.id = publishing.message_id,
        messaging.message.conversation_id = properties::some(publishing.properties.correlation_id()),
        messaging.message.body.size = publishing.body.len(),
        server.address = settings.address.host,
        server.port = settings.address.port,
        otel.status_code = Empty,
        "error.type" = Empty,
    );
    context::adopt(&span, &publishing.trace);
    span
}

/// Notes that the span's work failed, and why in a word.
pub fn fail(span: &Span, error_type: &str) {
    span.record("otel.status_code", "ERROR");
    span.record("error.type", error_type);
}

/// What every metric of messaging says.
fn operation(settings: &Settings, name: &'static str, destination: &str) -> Vec<KeyValue> {
    vec![
        KeyValue::new("messaging.system", SYSTEM),
        KeyValue::new("messaging.operation.name", name),
        KeyValue::new("messaging.destination.name", destination.to_owned()),
        KeyValue::new("server.address", settings.address.host.clone()),
        KeyValue::new("server.port", i64::from(settings.address.port)),
    ]
}

/// A delivery under way, measured until this is dropped.
#[derive(Debug)]
pub struct Processing {
    began: Instant,
    settings: Arc<Settings>,
    error_type: Option<&'static str>,
}

impl Processing {
    /// Begins with the delivery.
    #[must_use]
    pub fn begin(settings: &Arc<Settings>) -> Self {
        Self { began: Instant::now(), settings: Arc::clone(settings), error_type: None }
    }

    /// Notes that it failed, and why in a word; in `span` as well.
    pub fn fail(&mut self, span: &Span, error_type: &'static str) {
        self.error_type = Some(error_type);
        fail(span, error_type);
    }
}

impl Drop for Processing {
    fn drop(&mut self) {
        let mut attributes = operation(&self.settings, "process", &self.settings.names.commands_queue);
        attributes.extend(self.error_type.map(|error_type| KeyValue::new("error.type", error_type)));
        instruments().process_duration.record(self.began.elapsed().as_secs_f64(), &attributes);
    }
}

/// Counts one operation of a client that took `length`: `send` or `ack`.
pub fn operated(
    settings: &Settings,
    (name, kind): (&'static str, &'static str),
    destination: &str,
    length: Duration,
    error_type: Option<&'static str>,
) {
    let mut attributes = operation(settings, name, destination);
    attributes.extend(error_type.map(|error_type| KeyValue::new("error.type", error_type)));
    if name == SEND.0 {
        instruments().sent_messages.add(1, &attributes);
    }
    attributes.push(KeyValue::new("messaging.operation.type", kind));
    instruments().messaging_duration.record(length.as_secs_f64(), &attributes);
}

/// The operation that hands a message to the broker, and its type.
pub const SEND: (&str, &str) = ("send", "send");

/// The operation that acknowledges one, and its type.
pub const ACK: (&str, &str) = ("ack", "settle");

/// The acknowledgement of a delivery, under way.
pub fn ack(settings: &Settings, delivery: &Delivery) -> Step {
    let mut step = Step::begin(Name::Settle);
    step.describe(|| {
        let queue = &settings.names.commands_queue;
        let mut attributes = operation(settings, ACK.0, queue);
        attributes.push(KeyValue::new("messaging.operation.type", ACK.1));
        let id = properties::some(delivery.properties.message_id());
        attributes.extend(id.map(|id| KeyValue::new("messaging.message.id", id.to_owned())));
        let conversation = properties::some(delivery.properties.correlation_id());
        attributes
            .extend(conversation.map(|id| KeyValue::new("messaging.message.conversation_id", id.to_owned())));
        let key = delivery.routing_key.to_string();
        attributes.push(KeyValue::new("messaging.rabbitmq.destination.routing_key", key));
        let tag = i64::try_from(delivery.delivery_tag).unwrap_or(i64::MAX);
        attributes.push(KeyValue::new("messaging.rabbitmq.message.delivery_tag", tag));
        Description { name: format!("{} {queue}", ACK.0), kind: SpanKind::Client, attributes }
    });
    step
}

/// The context of `span` to be handed on; where spans are not recorded, the one that came in.
#[must_use]
pub fn context_of(span: &Span, incoming: &TraceContext) -> TraceContext {
    let context = context::of(span);
    if context.traceparent.is_some() { context } else { incoming.clone() }
}
