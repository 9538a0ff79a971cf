//! CloudEvents 1.0 that carry a command: structured JSON, and binary with attributes as headers. Both header prefixes
//! of the AMQP binding are read.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use lapin::BasicProperties;
use lapin::types::FieldTable;
use uuid::Uuid;

use super::json::Members;
use super::properties;
use crate::domain::error::{FieldViolation, Refusal};
use crate::domain::trace::TraceContext;
use crate::telemetry::context;

/// Prefixes of headers that are attributes.
const PREFIXES: [&str; 2] = ["cloudEvents:", "cloudEvents_"];

/// The attributes that matter here.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Who sent it.
    pub source: String,
    /// Which event of `source` it is.
    pub id: String,
    /// What it is.
    pub kind: Option<String>,
    /// The conversation.
    pub correlation_id: Option<String>,
    /// The trace in which it was made.
    pub trace: TraceContext,
}

/// A structured event, taken apart.
#[derive(Debug)]
pub struct Structured {
    /// Its attributes.
    pub attributes: Attributes,
    /// The content type of its data; JSON if it is absent.
    pub content_type: Option<String>,
    /// Its data.
    pub data: Vec<u8>,
}

impl Attributes {
    /// The idempotency key of an event that names none itself: the same for the same event, whoever hands it on.
    #[must_use]
    pub fn key(&self) -> String {
        let namespace = Uuid::new_v5(&Uuid::NAMESPACE_URL, self.source.as_bytes());
        Uuid::new_v5(&namespace, self.id.as_bytes()).to_string()
    }

    /// Takes the attributes out of `attribute`, and notes what is missing.
    fn read(mut attribute: impl FnMut(&str) -> Option<String>, violations: &mut Vec<FieldViolation>) -> Self {
        let mut missing = |name: &str, rule: &str| {
            if !violations.iter().any(|violation| violation.field == name) {
                violations.push(FieldViolation::new(name, rule));
            }
        };
        let version = attribute("specversion");
        if version.as_deref() != Some("1.0") {
            missing("specversion", "must be 1.0");
        }
        let source = attribute("source").unwrap_or_default();
        let id = attribute("id").unwrap_or_default();
        for (name, value) in [("source", &source), ("id", &id)] {
            if value.is_empty() {
                missing(name, "is required");
            }
        }
        let traceparent = attribute("traceparent");
        let tracestate = attribute("tracestate");
        let trace = context::from_headers(|name| match name {
            TraceContext::TRACEPARENT => traceparent.as_deref(),
            TraceContext::TRACESTATE => tracestate.as_deref(),
            _ => None,
        });
        Self { source, id, kind: attribute("type"), correlation_id: attribute("correlationid"), trace }
    }
}

/// The attributes among the headers, if the message is an event in binary mode.
///
/// # Errors
/// `INVALID_FIELDS` if required attributes are missing or not text.
pub fn binary(properties: &BasicProperties) -> Result<Option<Attributes>, Refusal> {
    let Some(headers) = properties.headers().as_ref().map(FieldTable::inner) else { return Ok(None) };
    let is_event = |prefix: &&str| headers.contains_key(format!("{prefix}specversion").as_str());
    let Some(prefix) = PREFIXES.into_iter().find(is_event) else { return Ok(None) };
    let mut violations = Vec::new();
    let attribute = |name: &str| {
        headers.get(format!("{prefix}{name}").as_str()).and_then(properties::text).map(str::to_owned)
    };
    let attributes = Attributes::read(attribute, &mut violations);
    if violations.is_empty() { Ok(Some(attributes)) } else { Err(Refusal::invalid(violations)) }
}

/// Takes a structured event apart.
///
/// # Errors
/// `UNDECODABLE` if `body` is not a JSON object, `INVALID_FIELDS` if required attributes or the data are missing or
/// have another type.
pub fn structured(body: &[u8]) -> Result<Structured, Refusal> {
    let mut members = Members::read(body)?;
    let content_type = members.text("datacontenttype");
    let inline = members.raw("data").map(|data| data.get().as_bytes().to_vec());
    let encoded = members.text("data_base64").and_then(|text| {
        let data = BASE64_STANDARD.decode(text).ok();
        if data.is_none() {
            members.violation("data_base64", "must be Base64");
        }
        data
    });
    let mut violations = std::mem::take(&mut members.violations);
    let attributes = Attributes::read(|name| members.text(name), &mut violations);
    violations.append(&mut members.violations);
    let data = match (inline, encoded) {
        (Some(data), None) | (None, Some(data)) => data,
        (Some(_), Some(_)) => {
            violations.push(FieldViolation::new("data_base64", "must not stand beside data"));
            Vec::new()
        }
        (None, None) => {
            if !violations.iter().any(|violation| violation.field.starts_with("data")) {
                violations.push(FieldViolation::new("data", "is required"));
            }
            Vec::new()
        }
    };
    if violations.is_empty() {
        Ok(Structured { attributes, content_type, data })
    } else {
        Err(Refusal::invalid(violations))
    }
}
