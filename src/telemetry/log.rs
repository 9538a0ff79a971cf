//! Log records to standard error, each with the ids of its span.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use chrono::{SecondsFormat, Utc};
use opentelemetry::trace::TraceContextExt as _;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer};

/// The form of a log record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object in a line, for machines.
    Json,
    /// Text, for people.
    Text,
}

/// What the span export says of itself is logged this often, at most: an absent collector is no news every second.
const EXPORT_INTERVAL: Duration = Duration::from_secs(60);

/// Writes log records.
pub(super) struct LogLayer<W> {
    format: Format,
    writer: W,
    export_logged: Mutex<Option<Instant>>,
}

impl<W> LogLayer<W> {
    pub(super) const fn new(format: Format, writer: W) -> Self {
        Self { format, writer, export_logged: Mutex::new(None) }
    }

    /// Whether a record of the span export is to be left out.
    fn is_repeated(&self) -> bool {
        let Ok(mut logged) = self.export_logged.lock() else { return true };
        let repeated = logged.is_some_and(|last| last.elapsed() < EXPORT_INTERVAL);
        if !repeated {
            *logged = Some(Instant::now());
        }
        repeated
    }
}

/// The ids of the span that is entered on this thread, as the layer for spans attaches it.
///
/// They are not looked up by way of the registry: there the log filter would hide the spans below its level.
fn ids() -> Option<Ids> {
    let context = opentelemetry::Context::current();
    let span = context.span();
    let ids = span.span_context();
    ids.is_valid().then(|| Ids { trace: ids.trace_id().to_string(), span: ids.span_id().to_string() })
}

struct Ids {
    trace: String,
    span: String,
}

impl<S, W> Layer<S> for LogLayer<W>
where
    S: Subscriber,
    W: for<'w> MakeWriter<'w> + 'static,
{
    fn on_event(&self, event: &Event<'_>, _context: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let target = fields.log_target.take().unwrap_or_else(|| event.metadata().target().to_owned());
        if target.starts_with("opentelemetry") && self.is_repeated() {
            return;
        }
        let record = Record { level: *event.metadata().level(), target, fields, ids: ids() };
        let mut line = match self.format {
            Format::Json => record.json(),
            Format::Text => record.text(),
        };
        line.push('\n');
        // A log that cannot be written has nowhere to say so.
        let _ = self.writer.make_writer_for(event.metadata()).write_all(line.as_bytes());
    }
}

struct Record {
    level: Level,
    target: String,
    fields: Fields,
    ids: Option<Ids>,
}

impl Record {
    fn json(self) -> String {
        let mut record = json!({
            "timestamp": Utc::now().to_rfc3339_opts(SecondsFormat::Micros, true),
            "level": self.level.as_str(),
            "target": self.target,
            "message": self.fields.message,
            "fields": self.fields.others,
        });
        if let Some(ids) = self.ids {
            record["trace_id"] = ids.trace.into();
            record["span_id"] = ids.span.into();
        }
        record.to_string()
    }

    fn text(self) -> String {
        let timestamp = Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true);
        let message = escaped(&self.fields.message);
        let mut line = format!("{timestamp} {:>5} {}: {message}", self.level, self.target);
        for (name, value) in &self.fields.others {
            // Writing into a string does not fail.
            let _ = match value {
                Value::String(text) if is_plain(text) => write!(line, " {name}={text}"),
                value => write!(line, " {name}={value}"),
            };
        }
        if let Some(ids) = self.ids {
            let _ = write!(line, " trace={}", &ids.trace);
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

/// The fields of a record.
#[derive(Default)]
struct Fields {
    message: String,
    others: Map<String, Value>,
    /// The target of a record that came by way of the `log` crate.
    log_target: Option<String>,
}

impl Fields {
    fn set(&mut self, field: &Field, value: Value) {
        match (field.name(), value) {
            ("message", Value::String(text)) => self.message = text,
            ("log.target", Value::String(target)) => self.log_target = Some(target),
            (name, _) if name.starts_with("log.") => {}
            (name, value) => {
                self.others.insert(name.to_owned(), value);
            }
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
