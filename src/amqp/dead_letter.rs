//! A copy of a message that was refused: body and properties as they came, but for those by which the broker would act
//! again. Those stand, as text, in the one header of ours. Pure.

use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use uuid::Uuid;

use super::properties::{PERSISTENT, describe, insert, insert_trace, length, long, some};
use super::render::{OWN_HEADER, Publishing, reason_table};
use crate::domain::error::Refusal;
use crate::domain::trace::TraceContext;

/// Headers kept as text, at most.
const SET_ASIDE_MAX: usize = 32;

/// The greatest length of one of them, in bytes.
const SET_ASIDE_LENGTH_MAX: usize = 512;

/// The greatest length of all headers that are copied, in bytes. Properties have to fit into one frame, and the broker
/// would close the connection over a message whose properties do not.
const HEADERS_LENGTH_MAX: usize = 48 * 1024;

/// Copies `delivery` for the dead-letter exchange. `fresh_id` becomes its message id if it has none.
#[must_use]
pub fn copy(
    delivery: &Delivery,
    refusal: &Refusal,
    trace: &TraceContext,
    exchange: &str,
    fresh_id: Uuid,
) -> Publishing {
    let original = &delivery.properties;
    let mut own = reason_table(refusal);
    insert_trace(&mut own, trace);
    insert(&mut own, "exchange", long(delivery.exchange.as_str()));
    insert(&mut own, "routing_key", long(delivery.routing_key.as_str()));
    insert(&mut own, "redelivered", AMQPValue::Boolean(delivery.redelivered));
    let mut aside = FieldTable::default();
    let mut headers = kept_headers(original, &mut aside);
    set_aside_properties(original, &mut aside);
    if !aside.inner().is_empty() {
        insert(&mut own, "original", AMQPValue::FieldTable(aside));
    }
    insert(&mut headers, OWN_HEADER, AMQPValue::FieldTable(own));
    let message_id = match some(original.message_id()) {
        Some(id) => id.to_owned(),
        None => fresh_id.to_string(),
    };
    Publishing {
        exchange: exchange.to_owned(),
        routing_key: delivery.routing_key.to_string(),
        properties: kept_properties(original, &message_id).with_headers(headers),
        message_id,
        body: delivery.data.clone(),
        trace: trace.clone(),
        trace_stamped: false,
    }
}

/// Headers that mean something to the broker or its plugins, in whatever case they are written.
fn is_set_aside(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    name == "cc" || name == "bcc" || name.starts_with("x-")
}

fn kept_headers(original: &BasicProperties, aside: &mut FieldTable) -> FieldTable {
    let mut kept = FieldTable::default();
    let Some(headers) = original.headers() else { return kept };
    for (name, value) in headers {
        if name.as_str() == OWN_HEADER {
            // The history of an earlier life: it says nothing of this one, and would grow from time to time.
            continue;
        }
        if is_set_aside(name.as_str()) {
            set_aside(aside, name.as_str(), value);
        } else if length(&kept) + length(&single(name, value)) <= HEADERS_LENGTH_MAX {
            kept.insert(name.clone(), value.clone());
        } else {
            insert(aside, "headers_cut", AMQPValue::Boolean(true));
        }
    }
    kept
}

fn single(name: &ShortString, value: &AMQPValue) -> FieldTable {
    let mut table = FieldTable::default();
    table.insert(name.clone(), value.clone());
    table
}

fn set_aside(aside: &mut FieldTable, name: &str, value: &AMQPValue) {
    if aside.inner().len() < SET_ASIDE_MAX {
        insert(aside, name, long(&describe(value, SET_ASIDE_LENGTH_MAX)));
    }
}

fn set_aside_properties(original: &BasicProperties, aside: &mut FieldTable) {
    let properties = [
        ("user_id", original.user_id()),
        ("expiration", original.expiration()),
        ("cluster_id", original.cluster_id()),
    ];
    for (name, value) in properties {
        if let Some(value) = some(value) {
            insert(aside, name, long(value));
        }
    }
}

/// Sets one property.
type With = fn(BasicProperties, ShortString) -> BasicProperties;

fn kept_properties(original: &BasicProperties, message_id: &str) -> BasicProperties {
    let mut kept = BasicProperties::default().with_delivery_mode(PERSISTENT);
    if let Ok(id) = ShortString::try_new(message_id) {
        kept = kept.with_message_id(id);
    }
    let texts: [(&Option<ShortString>, With); 6] = [
        (original.content_type(), BasicProperties::with_content_type),
        (original.content_encoding(), BasicProperties::with_content_encoding),
        (original.correlation_id(), BasicProperties::with_correlation_id),
        (original.reply_to(), BasicProperties::with_reply_to),
        (original.kind(), BasicProperties::with_type),
        (original.app_id(), BasicProperties::with_app_id),
    ];
    for (value, with) in texts {
        if let Some(value) = value {
            kept = with(kept, value.clone());
        }
    }
    if let Some(priority) = original.priority() {
        kept = kept.with_priority(*priority);
    }
    if let Some(timestamp) = original.timestamp() {
        kept = kept.with_timestamp(*timestamp);
    }
    kept
}

#[cfg(test)]
#[path = "dead_letter_tests.rs"]
mod tests;
