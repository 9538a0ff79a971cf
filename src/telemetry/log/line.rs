//! A log record, as JSON and as text.

use std::fmt::{self, Write as _};
use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};
use opentelemetry::{SpanId, TraceFlags, TraceId};
use serde_json::{Map, Value, json};
use tracing::Level;
use tracing::field::{Field, Visit};

use super::COMMAND_ID;

/// The ids of a span.
pub(super) struct Ids {
    pub trace: TraceId,
    pub span: SpanId,
    pub flags: TraceFlags,
}

/// A record that is to be written.
pub(super) struct Record {
    pub time: SystemTime,
    pub level: Level,
    pub target: String,
    pub fields: Fields,
    pub ids: Option<Ids>,
    /// The command in whose work it was written.
    pub command: Option<String>,
}

impl Record {
    fn timestamp(&self, seconds: SecondsFormat) -> String {
        DateTime::<Utc>::from(self.time).to_rfc3339_opts(seconds, true)
    }

    pub fn json(self) -> String {
        let mut record = json!({
            "timestamp": self.timestamp(SecondsFormat::Micros),
            "level": self.level.as_str(),
            "target": self.target,
            "message": self.fields.message,
            "fields": self.fields.others,
        });
        if let Some(command) = self.command {
            record["command_id"] = command.into();
        }
        if let Some(ids) = self.ids {
            record["trace_id"] = ids.trace.to_string().into();
            record["span_id"] = ids.span.to_string().into();
        }
        record.to_string()
    }

    pub fn text(self) -> String {
        let timestamp = self.timestamp(SecondsFormat::Millis);
        let message = escaped(&self.fields.message);
        let mut line = format!("{timestamp} {:>5} {}: {message}", self.level, self.target);
        // It stands behind the others, for records with a field for it and without.
        for (name, value) in self.fields.others.iter().filter(|(name, _)| *name != COMMAND_ID) {
            // Writing into a string does not fail.
            let _ = match value {
                Value::String(text) if is_plain(text) => write!(line, " {name}={text}"),
                value => write!(line, " {name}={value}"),
            };
        }
        if let Some(command) = &self.command {
            let _ = write!(line, " command={command}");
        }
        if let Some(ids) = self.ids {
            let _ = write!(line, " trace={}", ids.trace);
        }
        line
    }
}

fn is_plain(text: &str) -> bool {
    !text.is_empty() && !text.contains(|c: char| c.is_whitespace() || c.is_control() || c == '"' || c == '=')
}

/// A text without line ends and other control characters, by which a caller could forge records.
fn escaped(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut line, c| {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
        line
    })
}

/// The fields of a record or a span.
#[derive(Default)]
pub(super) struct Fields {
    pub message: String,
    pub others: Map<String, Value>,
    /// Where a record was written that came by way of the `log` crate: its target, and its line.
    pub log: Option<(String, u64)>,
}

impl Fields {
    pub fn new(message: &str) -> Self {
        Self { message: message.to_owned(), ..Self::default() }
    }

    pub fn insert(&mut self, name: &str, value: impl Into<Value>) {
        self.others.insert(name.to_owned(), value.into());
    }

    /// A field that is text.
    pub fn text(&self, name: &str) -> Option<&str> {
        self.others.get(name)?.as_str()
    }

    fn set(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("log.target", Value::String(target)) => self.log.get_or_insert_default().0 = target,
            ("log.line", Value::Number(line)) => {
                self.log.get_or_insert_default().1 = line.as_u64().unwrap_or_default();
            }
            (name, _) if name.starts_with("log.") => {}
            (name, value) => self.insert(name, value),
        }
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.set(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.set(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.set(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.set(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.set(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let causes = std::iter::successors(value.source(), |cause| cause.source());
        let text = causes.fold(value.to_string(), |text, cause| format!("{text}: {cause}"));
        self.set(field, text.into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.set(field, format!("{value:?}").into());
    }
}
