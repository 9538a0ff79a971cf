//! Traces, metrics and logs: a leaf that everything but the domain may use.
//!
//! - [`context`]: W3C trace context in and out of spans
//! - [`catalogue`]: every metric, in one table
//! - [`instruments`]: what is recorded to
//! - [`drift`]: how the upstream departs from its contract, counted
//! - [`export`]: spans to a collector, by OTLP/gRPC
//! - [`sampling`](self): which traces are exported
//! - [`keep`]: those that are exported since they failed or were slow
//! - [`metrics`]: metrics to a scraper and a collector
//! - [`log`]: log records to standard error and a collector, each with the ids of its span and its command
//! - [`process`](self): what the process takes of the machine
//! - [`span`]: spans, described if they are recorded
//! - [`step`]: the parts that a command's time is made of
//! - [`record`]: what a log record is; `records`: those of this folder

pub mod catalogue;
pub mod context;
pub mod drift;
pub mod export;
pub mod instruments;
pub mod keep;
pub mod log;
pub mod metrics;
mod process;
pub mod record;
#[cfg(test)]
pub(crate) mod recorded;
pub(crate) mod records;
mod sampling;
pub mod span;
pub mod step;

use opentelemetry::logs::LoggerProvider as _;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::{EnvFilter, FilterExt as _, Targets};
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::util::SubscriberInitExt as _;
use url::Url;

use crate::domain::command::OrganizationId;

pub use export::Guard;
pub use keep::Worth;
pub use log::Format;

/// What is logged and where spans go.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The form of a log record.
    pub log_format: Format,
    /// What is logged, in the syntax of [`EnvFilter`].
    pub log_filter: String,
    /// How many warnings or errors of one place in the source are logged in ten seconds; 0 is no limit.
    pub log_repeats_max: u64,
    /// The collector's address. Without one nothing is exported, yet contexts are passed on and records carry ids.
    pub otlp_endpoint: Option<Url>,
    /// Whether log records go there too.
    pub otlp_logs: bool,
    /// `service.name` of the spans.
    pub service_name: String,
    /// `service.instance.id` of the spans.
    pub service_instance: String,
    /// The share of new traces that is exported, 0 to 1. A trace that a caller began is its caller's decision.
    pub sample_ratio: f64,
    /// Of the others, which are exported all the same.
    pub keep: Worth,
    /// Requester organisations whose commands are counted apart, with their names.
    pub organizations: Vec<(OrganizationId, String)>,
}

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log filter cannot be read.
    #[error("the log filter cannot be read")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// An exporter by OTLP cannot be made.
    #[error("the exporter of spans and metrics cannot be set up")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
    /// Metrics cannot be offered to scrapers.
    #[error("metrics cannot be offered at the admin port")]
    Scrape(#[from] opentelemetry_sdk::error::OTelSdkError),
    /// The process has a subscriber already.
    #[error("telemetry is set up already")]
    Init(#[from] tracing_subscriber::util::TryInitError),
}

/// The parts that carry spans away. What they do is neither exported, which would never end, nor logged below a
/// warning, unless the filter says so.
const CARRIERS: [&str; 8] =
    ["opentelemetry", "lapin", "tonic", "h2", "hyper", "hyper_util", "tower", "reqwest"];

/// Sets telemetry up for the whole process. With an endpoint it must be called within a Tokio runtime, on which the
/// exporter's connection then lives.
///
/// # Errors
/// The settings cannot be used, or it was called before.
pub fn init(settings: &Settings) -> Result<Guard, Error> {
    let resource = export::resource(settings);
    let spans = export::provider(settings, resource.clone())?;
    let metrics = metrics::provider(settings, resource.clone())?;
    let logs = export::log_provider(settings, resource)?;
    let (subscriber, last_words) = subscriber(settings, logs.as_ref(), std::io::stderr)?;
    subscriber.try_init()?;
    span::install(spans.tracer(env!("CARGO_PKG_NAME")));
    metrics::install(metrics.clone(), settings);
    log::count();
    Ok(Guard::new(spans, metrics).with_logs(logs, last_words))
}

/// This crate, which alone vouches for what it logs below `info`.
const OURS: &str = "guest_connection_adapter";

/// Writes a returned message down with its body, which holds personal data; what is returned is told by `amqp`.
const NEVER_LOGGED: &str = "lapin::returned_messages";

/// What no filter can switch on: libraries below `info`, where they write down headers, frames and bodies, and with them
/// tokens, passwords and personal data.
fn cap() -> Targets {
    Targets::new()
        .with_default(LevelFilter::INFO)
        .with_target(OURS, LevelFilter::TRACE)
        .with_target(NEVER_LOGGED, LevelFilter::OFF)
}

/// Checks a log filter.
///
/// # Errors
/// It cannot be read.
pub fn parse_filter(text: &str) -> Result<EnvFilter, tracing_subscriber::filter::ParseError> {
    // What goes wrong with the broker is told by `amqp`, with what it means. lapin calls errors what is none: a channel that
    // was closed, a queue that was not there yet.
    let level = |carrier| if carrier == "lapin" { "off" } else { "warn" };
    let carriers = CARRIERS.map(|carrier| format!("{carrier}={}", level(carrier)));
    EnvFilter::builder().parse(format!("{},{text}", carriers.join(",")))
}

/// Makes the subscriber, and what has the last word of the log.
fn subscriber<W>(
    settings: &Settings,
    logs: Option<&SdkLoggerProvider>,
    writer: W,
) -> Result<(impl Subscriber + Send + Sync + use<W>, impl FnOnce() + Send + Sync + use<W>), Error>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let filter = parse_filter(&settings.log_filter)?.and(cap());
    let logger = logs.map(|logs| logs.logger(env!("CARGO_PKG_NAME")));
    let log = log::LogLayer::new(settings.log_format, settings.log_repeats_max, logger, writer);
    let last_words = log.last_words();
    Ok((tracing_subscriber::registry().with(log.with_filter(filter)), last_words))
}

#[cfg(test)]
#[path = "telemetry_tests.rs"]
mod tests;
