//! Spans and metrics by OpenTelemetry's conventions for messaging and RabbitMQ. Names hold no ids.

use std::sync::Arc;
use std::time::{Duration, Instant};

use lapin::BasicProperties;
use lapin::message::Delivery;
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;

use super::properties;
use super::render::Publishing;
use super::settings::Settings;
use crate::domain::trace::TraceContext;
use crate::telemetry::instruments::instruments;
use crate::telemetry::span::{Description, Origin, Span};
use crate::telemetry::step::{Conventional, Name, Step};

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
    instruments().consumed_messages.add(1, &operation(settings, "consume", queue));
    let describe = || {
        let mut attributes = vec![
            KeyValue::new("messaging.operation.type", "process"),
            KeyValue::new("messaging.rabbitmq.message.delivery_tag", signed(delivery.delivery_tag)),
            KeyValue::new("messaging.message.body.size", length(&delivery.data)),
        ];
        attributes.extend(operation(settings, "process", queue));
        attributes.extend(message(delivery.routing_key.as_str(), &delivery.properties));
        let partition = partition.map(|number| number.to_string());
        attributes.extend(partition.map(|id| KeyValue::new("messaging.destination.partition.id", id)));
        Description { name: format!("process {queue}").into(), attributes }
    };
    Span::begin(SpanKind::Consumer, settings.across_queue.origin(sender), describe).about(None)
}

/// What spans say of a message.
fn message<'a>(
    routing_key: &'a str,
    properties: &'a BasicProperties,
) -> impl Iterator<Item = KeyValue> + use<'a> {
    let id = properties::some(properties.message_id());
    let conversation = properties::some(properties.correlation_id());
    let texts = [
        ("messaging.rabbitmq.destination.routing_key", Some(routing_key)),
        ("messaging.message.id", id),
        ("messaging.message.conversation_id", conversation),
    ];
    texts.into_iter().filter_map(|(name, text)| Some(KeyValue::new(name, text?.to_owned())))
}

fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn length(body: &[u8]) -> i64 {
    i64::try_from(body.len()).unwrap_or(i64::MAX)
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
    let describe = || {
        let mut attributes = vec![
            KeyValue::new("messaging.operation.type", "send"),
            KeyValue::new("messaging.message.body.size", length(&publishing.body)),
        ];
        attributes.extend(operation(settings, "send", exchange));
        attributes.extend(message(&publishing.routing_key, &publishing.properties));
        Description { name: format!("send {exchange}").into(), attributes }
    };
    Span::begin(SpanKind::Producer, Origin::Below(&publishing.trace), describe)
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
        span.fail(error_type);
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
        attributes.extend(message(delivery.routing_key.as_str(), &delivery.properties));
        let tag = signed(delivery.delivery_tag);
        attributes.push(KeyValue::new("messaging.rabbitmq.message.delivery_tag", tag));
        Conventional { name: format!("{} {queue}", ACK.0), kind: SpanKind::Client, attributes }
    });
    step
}

/// The context of `span` to be handed on; where spans are not recorded, the one that came in.
#[must_use]
pub fn context_of(span: &Span, incoming: &TraceContext) -> TraceContext {
    let context = span.context();
    if context.traceparent.is_some() { context } else { incoming.clone() }
}
