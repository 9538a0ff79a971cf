//! Reading and writing message properties. Whatever has an odd type is as good as absent where it is not needed.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};

use crate::domain::record::ReplyAddress;
use crate::domain::trace::TraceContext;
use crate::telemetry::context;

/// The delivery mode of messages that survive a restart of the broker.
pub const PERSISTENT: u8 = 2;

/// A header that holds text in UTF-8.
#[must_use]
pub fn header<'a>(properties: &'a BasicProperties, name: &str) -> Option<&'a str> {
    text(properties.headers().as_ref()?.inner().get(name)?)
}

/// A value that is text in UTF-8.
#[must_use]
pub fn text(value: &AMQPValue) -> Option<&str> {
    match value {
        AMQPValue::LongString(text) => std::str::from_utf8(text.as_bytes()).ok(),
        AMQPValue::ShortString(text) => Some(text.as_str()),
        _ => None,
    }
}

/// A property that is there and not empty.
#[must_use]
pub fn some(property: &Option<ShortString>) -> Option<&str> {
    property.as_ref().map(ShortString::as_str).filter(|text| !text.is_empty())
}

/// The trace context in the headers.
#[must_use]
pub fn trace(properties: &BasicProperties) -> TraceContext {
    context::from_headers(|name| header(properties, name))
}

/// Where the sender wants to hear of the message.
#[must_use]
pub fn reply_address(properties: &BasicProperties) -> Option<ReplyAddress> {
    let reply_to = some(properties.reply_to())?.to_owned();
    Some(ReplyAddress { reply_to, correlation_id: some(properties.correlation_id()).map(str::to_owned) })
}

/// A value of text.
#[must_use]
pub fn long(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}

/// Adds `value` under `name`, which must be a literal or otherwise known to fit into 255 bytes.
pub fn insert(table: &mut FieldTable, name: &str, value: AMQPValue) {
    if let Ok(name) = ShortString::try_new(name) {
        table.insert(name, value);
    }
}

/// Adds the trace context as headers.
pub fn insert_trace(table: &mut FieldTable, trace: &TraceContext) {
    let parts =
        [(TraceContext::TRACEPARENT, &trace.traceparent), (TraceContext::TRACESTATE, &trace.tracestate)];
    for (name, value) in parts {
        if let Some(value) = value {
            insert(table, name, long(value));
        }
    }
}

/// A value in words, at most `length_max` bytes long.
#[must_use]
pub fn describe(value: &AMQPValue, length_max: usize) -> String {
    let mut words = match text(value) {
        Some(text) => text.to_owned(),
        None => serde_json::to_string(value).unwrap_or_else(|_| value.get_type().to_string()),
    };
    if words.len() > length_max {
        let end = (0..=length_max).rev().find(|end| words.is_char_boundary(*end)).unwrap_or(0);
        words.truncate(end);
    }
    words
}

/// About how many bytes `table` takes on the wire.
#[must_use]
pub fn length(table: &FieldTable) -> usize {
    table.into_iter().map(|(name, value)| name.as_str().len() + 2 + value_length(value)).sum()
}

fn value_length(value: &AMQPValue) -> usize {
    match value {
        AMQPValue::LongString(text) => 4 + text.len(),
        AMQPValue::ShortString(text) => 1 + text.as_str().len(),
        AMQPValue::ByteArray(bytes) => 4 + bytes.len(),
        AMQPValue::FieldTable(table) => 4 + length(table),
        AMQPValue::FieldArray(values) => {
            4 + values.as_slice().iter().map(|value| 1 + value_length(value)).sum::<usize>()
        }
        _ => 8,
    }
}
