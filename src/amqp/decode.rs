//! A message as a command: pure.

use chrono::TimeDelta;
use lapin::BasicProperties;
use uuid::Uuid;

use super::cloudevents::{self, Attributes};
use super::{json, properties, protobuf};
use crate::domain::Timestamp;
use crate::domain::command::{Command, Draft, field};
use crate::domain::error::{FieldViolation, Reason, Refusal, public_text};
use crate::domain::record::ReplyAddress;
use crate::domain::trace::TraceContext;
use crate::wire::cloudevents::STRUCTURED_CONTENT_TYPE;

/// The greatest length of a correlation id that is handed on, in bytes: what AMQP can carry.
const CORRELATION_ID_LENGTH_MAX: usize = 255;

/// What a message may be.
#[derive(Debug, Clone, Copy)]
pub struct Rules {
    /// The largest body, in bytes.
    pub body_length_max: usize,
    /// Whether a message may come without an idempotency key.
    pub accept_without_key: bool,
}

/// A message, read.
#[derive(Debug, Clone)]
pub struct Decoded {
    /// The command, before the rules of its fields are applied.
    pub draft: Draft,
    /// The conversation that it belongs to.
    pub correlation_id: Option<String>,
    /// Where an answer is wanted.
    pub reply: Option<ReplyAddress>,
    /// The trace of the sender.
    pub trace: TraceContext,
    /// No key can be taken from the message; the draft says so too.
    pub key_missing: bool,
}

impl Decoded {
    /// Applies the rules of the fields to the draft, which is taken out.
    ///
    /// # Errors
    /// Every field that breaks a rule, under the reason `IDEMPOTENCY_KEY_MISSING` if the key is among them for want of
    /// one, else `INVALID_FIELDS`.
    pub fn command(&mut self, now: Timestamp, retention: TimeDelta) -> Result<Command, Refusal> {
        Command::new(std::mem::take(&mut self.draft), now, retention).map_err(|violations| {
            let refusal = Refusal::invalid(violations);
            if self.key_missing {
                Refusal { reason: Reason::IdempotencyKeyMissing, ..refusal }
            } else {
                refusal
            }
        })
    }
}

/// Formats that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Protobuf,
    CloudEvent,
}

/// Reads a message. `fresh_id` becomes the key of one that has none, if `rules` allow it.
///
/// # Errors
/// Why the message is no command. Rules of single fields are applied by [`Decoded::command`].
pub fn decode(
    properties: &BasicProperties,
    body: &[u8],
    rules: &Rules,
    fresh_id: Uuid,
) -> Result<Decoded, Refusal> {
    if body.len() > rules.body_length_max {
        let text = format!("the body has {} bytes, {} are allowed", body.len(), rules.body_length_max);
        return Err(Refusal::new(Reason::BodyTooLarge, text));
    }
    encoding(properties)?;
    let kind = properties::some(properties.kind());
    let (mut draft, event) = match format(properties::some(properties.content_type()))? {
        Format::CloudEvent => {
            let event = cloudevents::structured(body)?;
            let draft = match format(event.content_type.as_deref())? {
                Format::Json => json::command(&event.data)?,
                Format::Protobuf => protobuf::command(event.attributes.kind.as_deref(), &event.data)?,
                Format::CloudEvent => return Err(unsupported("an event within an event is not read")),
            };
            (draft, Some(event.attributes))
        }
        format => {
            let event = cloudevents::binary(properties)?;
            let kind = kind.or(event.as_ref().and_then(|event| event.kind.as_deref()));
            let draft = match format {
                Format::Protobuf => protobuf::command(kind, body)?,
                Format::Json | Format::CloudEvent => json::command(body)?,
            };
            (draft, event)
        }
    };
    let key = key(&mut draft, event.as_ref(), properties, rules, fresh_id);
    let key_missing = key.is_none();
    draft.key = key.unwrap_or_default();
    let (event_trace, event_correlation_id) =
        event.map(|event| (event.trace, event.correlation_id)).unwrap_or_default();
    let trace = properties::trace(properties);
    let correlation_id =
        properties::some(properties.correlation_id()).map(str::to_owned).or(event_correlation_id);
    Ok(Decoded {
        draft,
        correlation_id: correlation_id.filter(|id| (1..=CORRELATION_ID_LENGTH_MAX).contains(&id.len())),
        reply: properties::reply_address(properties),
        trace: if trace.traceparent.is_some() { trace } else { event_trace },
        key_missing,
    })
}

/// The body's own key, else that of the event, else the message id; if there is none, the draft is told.
fn key(
    draft: &mut Draft,
    event: Option<&Attributes>,
    properties: &BasicProperties,
    rules: &Rules,
    fresh_id: Uuid,
) -> Option<String> {
    if !draft.key.is_empty() || draft.violations.iter().any(|violation| violation.field == field::KEY) {
        return Some(std::mem::take(&mut draft.key));
    }
    if let Some(event) = event {
        return Some(event.key());
    }
    if let Some(message_id) = properties::some(properties.message_id()) {
        return Some(message_id.to_owned());
    }
    if rules.accept_without_key {
        return Some(fresh_id.to_string());
    }
    draft.violations.push(FieldViolation::new(
        field::KEY,
        "is required, unless the message has a message_id or is a CloudEvent with source and id",
    ));
    None
}

fn encoding(properties: &BasicProperties) -> Result<(), Refusal> {
    match properties::some(properties.content_encoding()) {
        None => Ok(()),
        // Some clients name the character set here; JSON is UTF-8 anyway.
        Some(encoding) if ["identity", "utf-8"].iter().any(|plain| encoding.eq_ignore_ascii_case(plain)) => {
            Ok(())
        }
        Some(encoding) => {
            Err(unsupported(&format!("content encoding \"{}\" is not read", public_text(encoding))))
        }
    }
}

fn format(content_type: Option<&str>) -> Result<Format, Refusal> {
    let Some(content_type) = content_type else { return Ok(Format::Json) };
    let mut parts = content_type.split(';').map(str::trim);
    let essence = parts.next().unwrap_or_default().to_ascii_lowercase();
    let charset = parts.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim()
            .eq_ignore_ascii_case("charset")
            .then(|| value.trim().trim_matches('"').to_ascii_lowercase())
    });
    if charset.is_some_and(|charset| charset != "utf-8" && charset != "us-ascii") {
        return Err(unsupported("only UTF-8 is read"));
    }
    match essence.as_str() {
        "application/json" => Ok(Format::Json),
        "application/x-protobuf" => Ok(Format::Protobuf),
        STRUCTURED_CONTENT_TYPE => Ok(Format::CloudEvent),
        _ => Err(unsupported(&format!(
            "content type \"{}\" is not read; application/json, application/x-protobuf and {STRUCTURED_CONTENT_TYPE} are",
            public_text(&essence)
        ))),
    }
}

fn unsupported(text: &str) -> Refusal {
    Refusal::new(Reason::ContentTypeUnsupported, text)
}

#[cfg(test)]
#[path = "decode_tests.rs"]
pub(super) mod tests;

#[cfg(test)]
#[path = "round_trip_tests.rs"]
mod round_trip_tests;
