//! Spans to a collector, by OTLP/gRPC; and the end of all export.

use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_otlp::{SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SdkTracerProvider, TracerProviderBuilder,
};
use opentelemetry_semantic_conventions::attribute::{SERVICE_INSTANCE_ID, SERVICE_VERSION};

use super::keep::Keep;
use super::sampling::Sampling;
use super::{Error, Settings};

/// Spans that wait for the exporter, at most; what is more is dropped and counted in a log record.
const QUEUE_LENGTH_MAX: usize = 8_192;

/// Spans in one request, at most.
const BATCH_LENGTH_MAX: usize = 512;

/// How long a span waits for others, at most.
const BATCH_DELAY: Duration = Duration::from_secs(1);

/// The time for one request.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// What spans and metrics are of.
pub(super) fn resource(settings: &Settings) -> Resource {
    Resource::builder()
        .with_service_name(settings.service_name.clone())
        .with_attribute(KeyValue::new(SERVICE_VERSION, env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new(SERVICE_INSTANCE_ID, settings.service_instance.clone()))
        .build()
}

/// Makes spans, and exports them if there is an endpoint.
pub(super) fn provider(settings: &Settings, resource: Resource) -> Result<SdkTracerProvider, Error> {
    let builder = SdkTracerProvider::builder().with_resource(resource);
    match &settings.otlp_endpoint {
        Some(endpoint) => {
            let exporter = SpanExporter::builder()
                .with_tonic()
                .with_endpoint(endpoint.as_str())
                .with_timeout(EXPORT_TIMEOUT)
                .build()?;
            Ok(exporting(builder, exporter, settings).build())
        }
        // Spans still get ids and hand the caller's sampling decision on; they are kept nowhere.
        None => Ok(builder.with_sampler(Sampling::nothing()).build()),
    }
}

/// Exports log records, if that is wanted and there is an endpoint.
pub(super) fn log_provider(
    settings: &Settings,
    resource: Resource,
) -> Result<Option<SdkLoggerProvider>, Error> {
    let endpoint = settings.otlp_endpoint.as_ref().filter(|_| settings.otlp_logs);
    endpoint.map(|endpoint| super::log::otlp::provider(endpoint, resource)).transpose()
}

fn exporting(
    builder: TracerProviderBuilder,
    exporter: SpanExporter,
    settings: &Settings,
) -> TracerProviderBuilder {
    let config = BatchConfigBuilder::default()
        .with_max_queue_size(QUEUE_LENGTH_MAX)
        .with_max_export_batch_size(BATCH_LENGTH_MAX)
        .with_scheduled_delay(BATCH_DELAY)
        .build();
    let batches = BatchSpanProcessor::builder(exporter).with_batch_config(config).build();
    let builder = builder.with_sampler(Sampling::new(settings.sample_ratio, settings.keep.is_any()));
    if settings.keep.is_any() {
        builder.with_span_processor(Keep::new(batches, settings.keep))
    } else {
        builder.with_span_processor(batches)
    }
}

/// Keeps the export going. [`Guard::shutdown`] ends it.
#[must_use = "spans, metrics and log records are lost unless they are flushed at the end"]
pub struct Guard {
    spans: SdkTracerProvider,
    metrics: SdkMeterProvider,
    logs: Option<SdkLoggerProvider>,
    last_words: Box<dyn FnOnce() + Send + Sync>,
}

impl Guard {
    pub(super) fn new(spans: SdkTracerProvider, metrics: SdkMeterProvider) -> Self {
        Self { spans, metrics, logs: None, last_words: Box::new(|| {}) }
    }

    /// Keeps the export of log records going, too. `last_words` is called before it ends.
    pub(super) fn with_logs(
        self,
        logs: Option<SdkLoggerProvider>,
        last_words: impl FnOnce() + Send + Sync + 'static,
    ) -> Self {
        Self { logs, last_words: Box::new(last_words), ..self }
    }

    /// Exports what is waiting and ends, within `timeout` whatever hangs. To be called on the runtime that [`init`]
    /// was called on. Returns whether everything was exported.
    ///
    /// [`init`]: super::init
    pub async fn shutdown(self, timeout: Duration) -> bool {
        let Self { spans, metrics, logs, last_words } = self;
        last_words();
        let spans = flushed("span-flush", timeout, move || spans.shutdown_with_timeout(timeout));
        let metrics = flushed("metric-flush", timeout, move || metrics.shutdown_with_timeout(timeout));
        let logs = flushed("log-flush", timeout, move || {
            logs.map_or(Ok(()), |logs| logs.shutdown_with_timeout(timeout))
        });
        let (spans, metrics, logs) = tokio::join!(spans, metrics, logs);
        spans && metrics && logs
    }
}

/// Whether `flush` succeeded in time. The SDK blocks, and not always within its own timeout; so it gets a thread that
/// nobody needs to wait for.
async fn flushed(
    name: &str,
    timeout: Duration,
    flush: impl FnOnce() -> OTelSdkResult + Send + 'static,
) -> bool {
    let (done, ended) = tokio::sync::oneshot::channel();
    let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
        // Nobody listens any more if the timeout came first.
        let _ = done.send(flush());
    });
    let ended = tokio::time::timeout(timeout, ended).await;
    thread.is_ok() && matches!(ended, Ok(Ok(Ok(()))))
}
