//! Log records to a collector, by OTLP/gRPC: the same that are written, but for those of the parts that carry them.

use std::time::Duration;

use opentelemetry::logs::{AnyValue, LogRecord as _, Logger as _, Severity};
use opentelemetry_otlp::{LogExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::{BatchConfigBuilder, BatchLogProcessor, SdkLogger, SdkLoggerProvider};
use serde_json::Value;
use tracing::Level;
use url::Url;

use super::COMMAND_ID;
use super::line::Record;
use crate::telemetry::Error;

/// Records that wait for the exporter, at most; what is more is dropped there, and still written.
const QUEUE_LENGTH_MAX: usize = 8192;

/// Records in one request, at most.
const BATCH_LENGTH_MAX: usize = 512;

/// How long a record waits for others, at most.
const BATCH_DELAY: Duration = Duration::from_secs(1);

/// The time for one request.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Exports records to `endpoint`.
pub(in crate::telemetry) fn provider(endpoint: &Url, resource: Resource) -> Result<SdkLoggerProvider, Error> {
    let exporter = LogExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint.as_str())
        .with_timeout(EXPORT_TIMEOUT)
        .build()?;
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE_LENGTH_MAX)
        .with_max_export_batch_size(BATCH_LENGTH_MAX)
        .with_scheduled_delay(BATCH_DELAY)
        .build();
    let processor = BatchLogProcessor::builder(exporter).with_batch_config(config).build();
    Ok(SdkLoggerProvider::builder().with_resource(resource).with_log_processor(processor).build())
}

/// Hands a record to the exporter's queue, without waiting for room there.
pub(super) fn emit(logger: &SdkLogger, record: &Record) {
    let mut exported = logger.create_log_record();
    exported.set_timestamp(record.time);
    exported.set_target(record.target.clone());
    exported.set_severity_number(severity(record.level));
    exported.set_severity_text(record.level.as_str());
    exported.set_body(record.fields.message.clone().into());
    let others = record.fields.others.iter().filter(|(name, _)| *name != COMMAND_ID);
    exported.add_attributes(others.map(|(name, value)| (name.clone(), attribute(value))));
    if let Some(command) = &record.command {
        exported.add_attribute(COMMAND_ID, command.clone());
    }
    if let Some(ids) = &record.ids {
        exported.set_trace_context(ids.trace, ids.span, Some(ids.flags));
    }
    logger.emit(exported);
}

const fn severity(level: Level) -> Severity {
    match level {
        Level::ERROR => Severity::Error,
        Level::WARN => Severity::Warn,
        Level::INFO => Severity::Info,
        Level::DEBUG => Severity::Debug,
        Level::TRACE => Severity::Trace,
    }
}

fn attribute(value: &Value) -> AnyValue {
    match value {
        Value::Bool(flag) => (*flag).into(),
        Value::String(text) => text.clone().into(),
        Value::Number(number) => match (number.as_i64(), number.as_f64()) {
            (Some(number), _) => number.into(),
            (None, Some(number)) => number.into(),
            (None, None) => number.to_string().into(),
        },
        other => other.to_string().into(),
    }
}
