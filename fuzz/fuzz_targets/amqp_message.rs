//! A message of the command queue, whatever its properties, headers and body: it is read or refused, never a panic.
//! What is read can be written down and read again; what is refused can be placed as a dead letter.

#![no_main]

use chrono::{DateTime, TimeDelta, Utc};
use guest_connection_adapter::amqp::cloudevents;
use guest_connection_adapter::amqp::dead_letter;
use guest_connection_adapter::amqp::decode::{Decoded, Rules, decode};
use guest_connection_adapter::amqp::properties;
use guest_connection_adapter::domain::command::Command;
use guest_connection_adapter::domain::error::Refusal;
use guest_connection_adapter::wire::command::CommandBody;
use lapin::BasicProperties;
use lapin::message::Delivery;
use lapin::types::{AMQPValue, DecimalValue, FieldArray, FieldTable, LongString, ShortString};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;

const RULES: Rules = Rules { body_length_max: 64 * 1024, accept_without_key: false };

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    content_type: Option<ContentType>,
    kind: Option<Kind>,
    content_encoding: Option<String>,
    message_id: Option<String>,
    correlation_id: Option<String>,
    reply_to: Option<String>,
    headers: Option<Vec<(Name, Value)>>,
    accept_without_key: bool,
    /// The rest of the bytes, as they are.
    body: &'a [u8],
}

#[derive(Debug, Arbitrary)]
enum ContentType {
    Json,
    Protobuf,
    CloudEvent,
    Other(String),
}

#[derive(Debug, Arbitrary)]
enum Kind {
    Archive,
    Unarchive,
    Other(String),
}

#[derive(Debug, Arbitrary)]
enum Name {
    Attribute { colon: bool, attribute: Attribute },
    TraceParent,
    TraceState,
    XDeath,
    Cc,
    Own,
    Other(String),
}

#[derive(Debug, Arbitrary)]
enum Attribute {
    SpecVersion,
    Id,
    Source,
    Type,
    CorrelationId,
    TraceParent,
    Other(String),
}

#[derive(Debug, Arbitrary)]
enum Value {
    Boolean(bool),
    Number(i64),
    Double(f64),
    Decimal(u8, u32),
    Timestamp(u64),
    Void,
    One,
    Short(String),
    Long(Vec<u8>),
    Bytes(Vec<u8>),
    Array(Vec<Value>),
    Table(Vec<(String, Value)>),
}

impl Name {
    fn text(&self) -> String {
        let fixed = match self {
            Self::Attribute { colon, attribute } => {
                let prefix = if *colon { "cloudEvents:" } else { "cloudEvents_" };
                return format!("{prefix}{}", attribute.text());
            }
            Self::TraceParent => "traceparent",
            Self::TraceState => "tracestate",
            Self::XDeath => "x-death",
            Self::Cc => "CC",
            Self::Own => "x-guest-connection-adapter",
            Self::Other(text) => text,
        };
        fixed.to_owned()
    }
}

impl Attribute {
    fn text(&self) -> &str {
        match self {
            Self::SpecVersion => "specversion",
            Self::Id => "id",
            Self::Source => "source",
            Self::Type => "type",
            Self::CorrelationId => "correlationid",
            Self::TraceParent => "traceparent",
            Self::Other(text) => text,
        }
    }
}

impl Value {
    fn amqp(self) -> AMQPValue {
        match self {
            Self::Boolean(value) => AMQPValue::Boolean(value),
            Self::Number(value) => AMQPValue::LongLongInt(value),
            Self::Double(value) => AMQPValue::Double(value),
            Self::Decimal(scale, value) => AMQPValue::DecimalValue(DecimalValue { scale, value }),
            Self::Timestamp(value) => AMQPValue::Timestamp(value),
            Self::Void => AMQPValue::Void,
            Self::One => properties::long("1.0"),
            Self::Short(text) => ShortString::try_new(text).map_or(AMQPValue::Void, AMQPValue::ShortString),
            Self::Long(bytes) => AMQPValue::LongString(LongString::from(bytes)),
            Self::Bytes(bytes) => AMQPValue::ByteArray(bytes.into()),
            Self::Array(values) => {
                let values: Vec<_> = values.into_iter().map(Self::amqp).collect();
                AMQPValue::FieldArray(FieldArray::from(values))
            }
            Self::Table(entries) => AMQPValue::FieldTable(table(entries)),
        }
    }
}

fn table(entries: impl IntoIterator<Item = (String, Value)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        properties::insert(&mut table, &name, value.amqp());
    }
    table
}

fn short(text: Option<String>) -> Option<ShortString> {
    text.and_then(|text| ShortString::try_new(text).ok())
}

impl Input<'_> {
    fn properties(&mut self) -> BasicProperties {
        let content_type = self.content_type.take().map(|content_type| match content_type {
            ContentType::Json => "application/json".to_owned(),
            ContentType::Protobuf => "application/x-protobuf".to_owned(),
            ContentType::CloudEvent => "application/cloudevents+json".to_owned(),
            ContentType::Other(text) => text,
        });
        let kind = self.kind.take().map(|kind| match kind {
            Kind::Archive => "guestconnections.v1.ArchiveGuestConnectionRequest".to_owned(),
            Kind::Unarchive => "guestconnections.v1.UnarchiveGuestConnectionRequest".to_owned(),
            Kind::Other(text) => text,
        });
        let mut properties = BasicProperties::default();
        let set: [(Option<String>, fn(BasicProperties, ShortString) -> BasicProperties); 6] = [
            (content_type, BasicProperties::with_content_type),
            (kind, BasicProperties::with_type),
            (self.content_encoding.take(), BasicProperties::with_content_encoding),
            (self.message_id.take(), BasicProperties::with_message_id),
            (self.correlation_id.take(), BasicProperties::with_correlation_id),
            (self.reply_to.take(), BasicProperties::with_reply_to),
        ];
        for (text, with) in set {
            if let Some(text) = short(text) {
                properties = with(properties, text);
            }
        }
        if let Some(headers) = self.headers.take() {
            let entries = headers.into_iter().map(|(name, value)| (name.text(), value));
            properties = properties.with_headers(table(entries));
        }
        properties
    }
}

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_765_535_400_123_456).expect("in range")
}

fn command(mut decoded: Decoded) -> Result<Command, Refusal> {
    decoded.command(now(), TimeDelta::days(7))
}

/// What is written into a dead letter of the outbox is the same command when it is sent again.
fn written_and_read_again(command: &Command) {
    let body = serde_json::to_vec(&CommandBody::from(command)).expect("JSON");
    let again = decode(&BasicProperties::default(), &body, &RULES, Uuid::nil()).expect("it is read again");
    assert_eq!(self::command(again).as_ref(), Ok(command));
}

fn placed_as_dead_letter(properties: &BasicProperties, body: &[u8], refusal: &Refusal) {
    let mut delivery = Delivery::mock(1, "commands".into(), "guest".into(), true, body.to_vec());
    delivery.properties = properties.clone();
    let trace = properties::trace(properties);
    let letter = dead_letter::copy(&delivery, refusal, &trace, "dead-letters", Uuid::nil());
    assert_eq!(letter.body, body);
    assert_eq!(letter.properties.user_id(), &None);
}

fuzz_target!(|input: Input<'_>| {
    let mut input = input;
    let properties = input.properties();
    let rules = Rules { accept_without_key: input.accept_without_key, ..RULES };
    let _ = cloudevents::binary(&properties);
    match decode(&properties, input.body, &rules, Uuid::max()).and_then(command) {
        Ok(command) => written_and_read_again(&command),
        Err(refusal) => {
            assert!(refusal.message.len() < 64 * 1024, "a refusal is short");
            placed_as_dead_letter(&properties, input.body, &refusal);
        }
    }
});
