//! A message of the outbox as AMQP wants it: pure.

use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldArray, FieldTable, ShortString};

use super::properties::{PERSISTENT, insert, insert_trace, long};
use super::settings::{EventMode, Settings};
use crate::domain::error::Refusal;
use crate::domain::message::{DeadLetter, Event, Message, Reply};
use crate::domain::trace::TraceContext;
use crate::wire::cloudevents::{CloudEvent, DATA_CONTENT_TYPE, STRUCTURED_CONTENT_TYPE};
use crate::wire::command::CommandBody;
use crate::wire::reply::ReplyBody;
use crate::wire::time_text;

/// The one header of dead letters that is ours: a table with the reason and the history.
pub const OWN_HEADER: &str = "x-guest-connection-adapter";

/// Prefix of the headers that are attributes of an event in binary mode.
const ATTRIBUTE_PREFIX: &str = "cloudEvents:";

/// A message ready for the broker.
#[derive(Debug, Clone, PartialEq)]
pub struct Publishing {
    /// The exchange; empty for the default one.
    pub exchange: String,
    /// The routing key, at most 255 bytes.
    pub routing_key: String,
    /// Stands in the properties as well. A returned message is known by it.
    pub message_id: String,
    /// Everything but the trace headers of what is sent in a trace of its own.
    pub properties: BasicProperties,
    /// The body.
    pub body: Vec<u8>,
    /// The trace that it belongs to.
    pub trace: TraceContext,
    /// Whether the trace headers are to be those of the sending span. A copy keeps those that it came with.
    pub trace_stamped: bool,
}

impl Publishing {
    /// The properties, with the trace headers of the span that sends it.
    #[must_use]
    pub fn properties_in(&self, trace: &TraceContext) -> BasicProperties {
        if !self.trace_stamped {
            return self.properties.clone();
        }
        let mut headers = self.properties.headers().clone().unwrap_or_default();
        insert_trace(&mut headers, trace);
        self.properties.clone().with_headers(headers)
    }
}

/// Writes `message` down for the broker.
///
/// # Errors
/// What AMQP cannot carry: a name, key or property of more than 255 bytes.
pub fn render(message: &Message, settings: &Settings) -> Result<Publishing, String> {
    match message {
        Message::Event(message) => event(message, settings),
        Message::DeadLetter(message) => dead_letter(message, settings),
        Message::Reply(message) => reply(message),
    }
}

fn event(event: &Event, settings: &Settings) -> Result<Publishing, String> {
    let written = CloudEvent::of(event, &settings.origin).map_err(|error| error.to_string())?;
    let mut headers = FieldTable::default();
    let (content_type, body) = match settings.event_mode {
        EventMode::Structured => {
            let body = written.structured().map_err(|error| error.to_string())?;
            (STRUCTURED_CONTENT_TYPE, body)
        }
        EventMode::Binary => {
            for (name, value) in &written.attributes {
                insert(&mut headers, &format!("{ATTRIBUTE_PREFIX}{name}"), long(value));
            }
            (DATA_CONTENT_TYPE, written.data)
        }
    };
    let message_id = event.id.to_string();
    let mut properties = properties(&message_id, content_type)?.with_headers(headers);
    properties = properties.with_timestamp(u64::try_from(event.time.timestamp()).unwrap_or_default());
    if let Some((_, kind)) = written.attributes.iter().find(|(name, _)| *name == "type") {
        properties = properties.with_type(short(kind)?);
    }
    // A conversation's name from elsewhere may be longer than AMQP allows; it stands in the event in any case.
    if let Ok(id) = ShortString::try_new(event.correlation_id.as_str()) {
        properties = properties.with_correlation_id(id);
    }
    Ok(Publishing {
        exchange: settings.names.events_exchange.clone(),
        routing_key: format!(
            "guest-connection.{}.{}",
            event.kind.as_str(),
            event.command.command.connection.guest
        ),
        message_id,
        properties,
        body: String::from(Box::<str>::from(body)).into_bytes(),
        trace: event.trace.clone(),
        trace_stamped: true,
    })
}

/// The body is the command as its queue takes it, so that a dead letter can be sent there again as it is.
fn dead_letter(letter: &DeadLetter, settings: &Settings) -> Result<Publishing, String> {
    let command = &letter.command;
    let mut own = reason_table(&letter.refusal);
    insert(&mut own, "command_id", long(&command.id.to_string()));
    insert(&mut own, "state", long(command.state.as_str()));
    insert(&mut own, "attempts", AMQPValue::LongLongInt(command.attempts.into()));
    insert(&mut own, "generation", AMQPValue::LongLongInt(command.generation.into()));
    insert(&mut own, "effective_time", long(&time_text(command.effective_time)));
    insert(&mut own, "time", long(&time_text(letter.time)));
    insert_trace(&mut own, &letter.trace);
    let mut headers = FieldTable::default();
    insert(&mut headers, OWN_HEADER, AMQPValue::FieldTable(own));
    let message_id = letter.id.to_string();
    Ok(Publishing {
        exchange: settings.names.dead_letters_exchange.clone(),
        routing_key: command.command.connection.guest.to_string(),
        properties: properties(&message_id, DATA_CONTENT_TYPE)?
            .with_headers(headers)
            .with_timestamp(u64::try_from(letter.time.timestamp()).unwrap_or_default()),
        message_id,
        body: json(&CommandBody::from(&command.command))?,
        trace: letter.trace.clone(),
        trace_stamped: true,
    })
}

/// An answer, on the default exchange.
fn reply(reply: &Reply) -> Result<Publishing, String> {
    let message_id = reply.id.to_string();
    let mut properties = properties(&message_id, DATA_CONTENT_TYPE)?;
    if let Some(id) = &reply.address.correlation_id {
        properties = properties.with_correlation_id(short(id)?);
    }
    Ok(Publishing {
        exchange: String::new(),
        routing_key: short(&reply.address.reply_to)?.to_string(),
        message_id,
        properties,
        body: json(&ReplyBody::from(reply))?,
        trace: reply.trace.clone(),
        trace_stamped: true,
    })
}

/// Why something became a dead letter.
#[must_use]
pub fn reason_table(refusal: &Refusal) -> FieldTable {
    let mut table = FieldTable::default();
    insert(&mut table, "reason", long(refusal.reason.as_str()));
    insert(&mut table, "message", long(&refusal.message));
    if !refusal.violations.is_empty() {
        let violations = refusal.violations.iter().map(|violation| {
            let mut table = FieldTable::default();
            insert(&mut table, "field", long(&violation.field));
            insert(&mut table, "description", long(&violation.description));
            AMQPValue::FieldTable(table)
        });
        insert(
            &mut table,
            "violations",
            AMQPValue::FieldArray(FieldArray::from(violations.collect::<Vec<_>>())),
        );
    }
    table
}

fn properties(message_id: &str, content_type: &str) -> Result<BasicProperties, String> {
    Ok(BasicProperties::default()
        .with_message_id(short(message_id)?)
        .with_content_type(short(content_type)?)
        .with_delivery_mode(PERSISTENT)
        .with_app_id(short(env!("CARGO_PKG_NAME"))?))
}

fn json(body: &impl serde::Serialize) -> Result<Vec<u8>, String> {
    serde_json::to_vec(body).map_err(|error| error.to_string())
}

fn short(text: &str) -> Result<ShortString, String> {
    ShortString::try_new(text).map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "render_tests.rs"]
mod tests;
