//! Log records to standard error and to a collector, each with the ids of its span and of its command.
//!
//! - `line`: a record, as JSON or text
//! - `limit`: how often one is repeated
//! - `otlp`: records to a collector, by OTLP/gRPC

mod limit;
mod line;
pub(super) mod otlp;

use std::io::Write as _;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Instant, SystemTime};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::logs::SdkLogger;
use serde::{Deserialize, Serialize};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Context, Layer};

use self::limit::{Key, LeftOut, Limiter};
use self::line::{Fields, Ids, Record};
use super::span::Span;
use super::{CARRIERS, catalogue};

/// The form of a log record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// One JSON object in a line, for machines.
    Json,
    /// Text, for people.
    Text,
}

/// The field of a record that names the command which it is about, if that is not the present span's.
const COMMAND_ID: &str = "command.id";

/// What stands for records that were left out, if the same record does not come again in time.
const LEFT_OUT: &str = "records were left out";

/// What the records of a process are counted by.
struct Counters {
    records: Counter<u64>,
    suppressed: Counter<u64>,
}

static COUNTERS: OnceLock<Counters> = OnceLock::new();

/// Begins to count records. To be called once there is a provider of metrics, and not from within a record: the provider
/// may have something to say itself.
pub(super) fn count() {
    let counters = COUNTERS.get_or_init(|| Counters {
        records: catalogue::LOG_RECORDS.counter(),
        suppressed: catalogue::LOG_SUPPRESSED.counter(),
    });
    // Shown as zero before the first, so that its increase is seen.
    counters.suppressed.add(0, &[]);
    counters.records.add(0, &[KeyValue::new("level", Level::ERROR.as_str())]);
}

/// Writes log records.
pub(super) struct LogLayer<W>(Arc<Outlet<W>>);

/// Where records go, and what of them.
struct Outlet<W> {
    format: Format,
    limiter: Mutex<Limiter>,
    logger: Option<SdkLogger>,
    writer: W,
}

impl<W> LogLayer<W>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    /// At most `repeats_max` warnings or errors of one place in the source are written in ten seconds; 0 is no limit.
    pub(super) fn new(format: Format, repeats_max: u64, logger: Option<SdkLogger>, writer: W) -> Self {
        let limiter = Mutex::new(Limiter::new(repeats_max));
        Self(Arc::new(Outlet { format, limiter, logger, writer }))
    }

    /// What says, at the end, how many records were left out and not spoken of yet.
    pub(super) fn last_words(&self) -> impl FnOnce() + Send + Sync + use<W> {
        let outlet = Arc::clone(&self.0);
        move || {
            let left_out = outlet.limiter.lock().unwrap_or_else(PoisonError::into_inner).all();
            for left_out in left_out {
                outlet.write(summary(left_out));
            }
        }
    }
}

impl<W> Outlet<W>
where
    W: for<'w> MakeWriter<'w>,
{
    /// Yields what is to be written before the record, and how many like it were left out; `None` if it is itself left
    /// out. No lock is held when something is written or counted, since that may have something to say itself.
    fn admit(&self, key: Key, record: &Record) -> Option<(Vec<LeftOut>, u64)> {
        let mut limiter = self.limiter.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        let left_out = limiter.admit(key, now, record.level, &record.target, &record.fields.message)?;
        Some((limiter.overdue(now), left_out))
    }

    fn write(&self, record: Record) {
        if let Some(counters) = COUNTERS.get() {
            counters.records.add(1, &[KeyValue::new("level", record.level.as_str())]);
        }
        if let Some(logger) = &self.logger
            && !is_carrier(&record.target)
        {
            otlp::emit(logger, &record);
        }
        let mut line = match self.format {
            Format::Json => record.json(),
            Format::Text => record.text(),
        };
        line.push('\n');
        // A log that cannot be written has nowhere to say so.
        let _ = self.writer.make_writer().write_all(line.as_bytes());
    }
}

/// Whether `target` is of what carries records away: what it says must not be carried away too.
fn is_carrier(target: &str) -> bool {
    CARRIERS.iter().any(|carrier| target.starts_with(carrier))
}

/// The ids of the present span.
fn ids() -> Option<Ids> {
    let context = opentelemetry::Context::current();
    let span = context.span();
    let ids = span.span_context();
    ids.is_valid().then(|| Ids { trace: ids.trace_id(), span: ids.span_id(), flags: ids.trace_flags() })
}

/// Says that records were left out.
fn summary(left_out: LeftOut) -> Record {
    let mut fields = Fields::new(LEFT_OUT);
    fields.insert("record", left_out.message);
    fields.insert("suppressed", left_out.count);
    Record {
        time: SystemTime::now(),
        level: left_out.level,
        target: left_out.target,
        fields,
        ids: None,
        command: None,
    }
}

impl<S, W> Layer<S> for LogLayer<W>
where
    S: Subscriber,
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let mut fields = Fields::default();
        event.record(&mut fields);
        let metadata = event.metadata();
        let log = fields.log.take();
        let (target, line) = log.unwrap_or_else(|| (metadata.target().to_owned(), 0));
        let said = fields.text(COMMAND_ID).map(str::to_owned);
        let command = said.or_else(|| Some(Span::present().command()?.to_string()));
        let level = *metadata.level();
        let mut record = Record { time: SystemTime::now(), level, target, fields, ids: ids(), command };
        let key = Key::of(metadata, &record.target, line);
        let Some((overdue, left_out)) = self.0.admit(key, &record) else {
            if let Some(counters) = COUNTERS.get() {
                counters.suppressed.add(1, &[]);
            }
            return;
        };
        for left_out in overdue {
            self.0.write(summary(left_out));
        }
        if left_out > 0 {
            record.fields.insert("suppressed", left_out);
        }
        self.0.write(record);
    }
}

/// Whether records of this level are limited.
fn is_limited(level: Level) -> bool {
    level <= Level::WARN
}
