//! Spans by OpenTelemetry's conventions for messaging and RabbitMQ. Names hold no ids.

use lapin::message::Delivery;
use tracing::Span;
use tracing::field::Empty;

use super::properties;
use super::render::Publishing;
use super::settings::Settings;
use crate::domain::trace::TraceContext;
use crate::telemetry::context;

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
        messaging.system = "rabbitmq",
        "messaging.operation.type" = "process",
        messaging.operation.name = "process",
        messaging.destination.name = queue,
        messaging.destination.partition.id = partition.map(|number| number.to_string()),
        messaging.rabbitmq.destination.routing_key = delivery.routing_key.as_str(),
        messaging.message.id = properties::some(delivery.properties.message_id()),
        messaging.message.conversation_id = properties::some(delivery.properties.correlation_id()),
        messaging.message.body.size = delivery.data.len(),
        server.address = settings.address.host,
        server.port = settings.address.port,
        otel.status_code = Empty,
        "error.type" = Empty,
        "command.id" = Empty,
    );
    context::link(&span, sender);
    span
}

/// The span of one publication, in the trace that the message belongs to.
#[must_use]
pub fn send(settings: &Settings, publishing: &Publishing) -> Span {
    let exchange = match publishing.exchange.as_str() {
        "" => DEFAULT_EXCHANGE,
        exchange => exchange,
    };
    let span = tracing::info_span!(
        parent: None,
        "send",
        otel.name = format!("send {exchange}"),
        otel.kind = "producer",
        messaging.system = "rabbitmq",
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

/// The context of `span` to be handed on; where spans are not recorded, the one that came in.
#[must_use]
pub fn context_of(span: &Span, incoming: &TraceContext) -> TraceContext {
    let context = context::of(span);
    if context.traceparent.is_some() { context } else { incoming.clone() }
}
