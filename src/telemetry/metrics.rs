//! Metrics: scraped at the admin port in Prometheus' text form, and sent by OTLP/gRPC where spans go.
//!
//! Instruments come from [`meter`], once the process has its provider; before, and in tests without one, they do
//! nothing. Attributes are of few values: no ids, no addresses, no texts of others but cleaned and counted ones.

use std::collections::HashMap;
use std::sync::OnceLock;
use std::time::Duration;

use opentelemetry::metrics::Meter;
use opentelemetry::{KeyValue, global};
use opentelemetry_otlp::{MetricExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::{Instrument, PeriodicReader, SdkMeterProvider, Stream};
use opentelemetry_semantic_conventions::attribute::SERVICE_VERSION;
use prometheus::TextEncoder;

use super::instruments::instruments;
use super::{Error, Settings, catalogue, process};
use crate::domain::command::OrganizationId;

/// Series of one instrument, at most; what is more is counted in one that says `otel_metric_overflow`.
const SERIES_MAX: usize = 512;

/// The time for one request to the collector.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// The media type of [`scrape`].
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// Where the adapter's instruments come from.
#[must_use]
pub fn meter() -> Meter {
    global::meter(env!("CARGO_PKG_NAME"))
}

/// Every series of the process as it stands, in Prometheus' text form.
///
/// # Errors
/// A metric cannot be written in that form.
pub fn scrape() -> Result<String, prometheus::Error> {
    TextEncoder::new().encode_to_string(&prometheus::gather())
}

/// Makes the provider that [`meter`] and [`scrape`] go by.
pub(super) fn provider(settings: &Settings, resource: Resource) -> Result<SdkMeterProvider, Error> {
    let scraped = opentelemetry_prometheus::exporter()
        .with_registry(prometheus::default_registry().clone())
        .scope_info_enabled(false)
        .build()?;
    let mut builder = SdkMeterProvider::builder()
        .with_resource(resource)
        .with_view(|_: &Instrument| Stream::builder().with_cardinality_limit(SERIES_MAX).build().ok())
        .with_reader(scraped);
    if let Some(endpoint) = &settings.otlp_endpoint {
        let exporter = MetricExporter::builder()
            .with_tonic()
            .with_endpoint(endpoint.as_str())
            .with_timeout(EXPORT_TIMEOUT)
            .build()?;
        builder = builder.with_reader(PeriodicReader::builder(exporter).build());
    }
    Ok(builder.build())
}

/// Sets the provider for the whole process, and says what is running.
pub(super) fn install(provider: SdkMeterProvider, settings: &Settings) {
    global::set_meter_provider(provider);
    catalogue::BUILD_INFO.gauge().record(1, &[KeyValue::new(SERVICE_VERSION, env!("CARGO_PKG_VERSION"))]);
    instruments().show();
    process::observe();
    // A second list is that of a second set-up, which is refused elsewhere.
    let _ = LISTED.set(settings.organizations.iter().cloned().collect());
}

/// The requester organisations whose commands are counted apart.
static LISTED: OnceLock<HashMap<OrganizationId, String>> = OnceLock::new();

/// What the series of `requester` are told apart by, if the operator has listed it: so there are no more than were listed.
#[must_use]
pub fn listed(requester: OrganizationId) -> Option<KeyValue> {
    let name = LISTED.get()?.get(&requester)?;
    Some(KeyValue::new("organization", name.clone()))
}
