//! A message as a command: pure.

use lapin::BasicProperties;
use uuid::Uuid;

use super::cloudevents::{self, Attributes};
use super::{json, properties, protobuf};
use crate::domain::command::{Draft, field};
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
/// Why the message is no command. Rules of single fields are applied later, by [`Command::new`].
///
/// [`Command::new`]: crate::domain::command::Command::new
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
    draft.key = key(&mut draft, event.as_ref(), properties, rules, fresh_id)?;
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
    })
}

/// The body's own key, else that of the event, else the message id.
fn key(
    draft: &mut Draft,
    event: Option<&Attributes>,
    properties: &BasicProperties,
    rules: &Rules,
    fresh_id: Uuid,
) -> Result<String, Refusal> {
    if !draft.key.is_empty() || draft.violations.iter().any(|violation| violation.field == field::KEY) {
        return Ok(std::mem::take(&mut draft.key));
    }
    if let Some(event) = event {
        return Ok(event.key());
    }
    if let Some(message_id) = properties::some(properties.message_id()) {
        return Ok(message_id.to_owned());
    }
    if rules.accept_without_key {
        return Ok(fresh_id.to_string());
    }
    let mut violations = std::mem::take(&mut draft.violations);
    violations.push(FieldViolation::new(
        field::KEY,
        "is required, unless the message has a message_id or is a CloudEvent with source and id",
    ));
    Err(Refusal { reason: Reason::IdempotencyKeyMissing, ..Refusal::invalid(violations) })
}

fn encoding(properties: &BasicProperties) -> Result<(), Refusal> {
    match properties::some(properties.content_encoding()) {
        None => Ok(()),
        Some(encoding) if encoding.eq_ignore_ascii_case("identity") => Ok(()),
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
