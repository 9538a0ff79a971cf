//! Logs, traces and metrics: the section and its rules.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::Url;
use uuid::Uuid;

use super::fault::{Fault, Faults};
use super::rules::{address, within};
use super::sections::Config;
use crate::telemetry::context::Across;
use crate::telemetry::{self, Format, Worth};

/// Organisations that are counted apart, at most.
const ORGANIZATIONS_MAX: usize = 32;

/// Logs, traces and metrics.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Telemetry {
    /// The form of a log record: `json` or `text`. Records go to standard error.
    pub log_format: Format,
    /// What is logged: a level, or levels by module, such as `info,guest_connection_adapter=debug`. Libraries are not
    /// logged below `info`, whatever it says: there they write down headers and messages, secrets included.
    pub log_filter: String,
    /// How many warnings or errors of one place in the source are logged in ten seconds. What is left out is counted and
    /// said with the next that is logged. 0 is no limit.
    pub log_repeats_max: u64,
    /// The collector that spans and metrics are sent to by OTLP/gRPC, such as `http://127.0.0.1:4317`. Without one none
    /// are sent; metrics can still be scraped at the admin port.
    #[schemars(example = "http://127.0.0.1:4317")]
    pub otlp_endpoint: Option<String>,
    /// Whether log records go to `otlp_endpoint`, too. They are written to standard error all the same.
    pub otlp_logs: bool,
    /// The share of new traces that is exported, from 0 to 1. For a trace that a caller began, and for a message that is
    /// linked to its sender's, the sender's decision to export it is followed.
    pub sample_ratio: f64,
    /// Whether traces in which something failed are exported also if they are not of that share. Then every span is
    /// recorded, which costs nearly as much as to export them all.
    pub keep_errors: bool,
    /// The same for traces in which a span took at least this long.
    #[serde(with = "humantime_serde::option")]
    #[schemars(with = "Option<String>", example = "2s")]
    pub keep_slower_than: Option<Duration>,
    /// How the trace of a message goes on behind the queue: `link` (a trace of its own, linked to the sender's) or `parent`
    /// (the sender's trace goes on).
    pub across_queue: Across,
    /// Names of organisations (`organizations.<name>`) whose commands are counted apart, 32 at most. Metrics of all others
    /// are not told apart, so that many organisations do not mean many series.
    #[serde(deserialize_with = "super::list::deserialize")]
    #[schemars(example = ["acme"])]
    pub organizations: Vec<String>,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            log_format: Format::Text,
            log_filter: "info".to_owned(),
            log_repeats_max: 20,
            otlp_endpoint: None,
            otlp_logs: false,
            sample_ratio: 1.0,
            keep_errors: false,
            keep_slower_than: None,
            across_queue: Across::Link,
            organizations: Vec::new(),
        }
    }
}

/// Notes every rule that it breaks.
pub(super) fn check(config: &Config, faults: &mut Faults) {
    let telemetry = &config.telemetry;
    if let Err(error) = telemetry::parse_filter(&telemetry.log_filter) {
        faults.push("telemetry.log_filter", format!("is `{}`, not a filter: {error}", telemetry.log_filter));
    }
    if let Some(endpoint) = &telemetry.otlp_endpoint {
        address("telemetry.otlp_endpoint", endpoint, &["http"], faults);
    } else if telemetry.otlp_logs {
        faults.push("telemetry.otlp_logs", "is true without `telemetry.otlp_endpoint`");
    }
    within("telemetry.sample_ratio", telemetry.sample_ratio, 0.0, 1.0, faults);
    if telemetry.sample_ratio.is_nan() {
        faults.push("telemetry.sample_ratio", "is not a number");
    }
    if telemetry.keep_slower_than == Some(Duration::ZERO) {
        faults.push("telemetry.keep_slower_than", "is 0s, must be longer");
    }
    let count = telemetry.organizations.len();
    if count > ORGANIZATIONS_MAX {
        faults.push(
            "telemetry.organizations",
            format!("has {count} names, must have {ORGANIZATIONS_MAX} at most"),
        );
    }
    for name in &telemetry.organizations {
        if !config.organizations.contains_key(name) {
            faults.push("telemetry.organizations", format!("names `{name}`, which is no organisation here"));
        }
    }
}

impl Config {
    /// What is logged and where spans go. Each call names a new instance.
    ///
    /// # Errors
    /// None for a configuration that was loaded: what could fail was checked.
    pub fn telemetry(&self) -> Result<telemetry::Settings, Faults> {
        let telemetry = &self.telemetry;
        let endpoint = telemetry.otlp_endpoint.as_deref().map(Url::parse).transpose();
        let key = "telemetry.otlp_endpoint".to_owned();
        let fault = |error: url::ParseError| Faults(vec![Fault { key, message: error.to_string() }]);
        let listed = telemetry.organizations.iter().filter_map(|name| {
            let organization = self.organizations.get(name)?;
            Some((organization.organization_id().ok()?, name.clone()))
        });
        Ok(telemetry::Settings {
            log_format: telemetry.log_format,
            log_filter: telemetry.log_filter.clone(),
            log_repeats_max: telemetry.log_repeats_max,
            otlp_endpoint: endpoint.map_err(fault)?,
            otlp_logs: telemetry.otlp_logs,
            service_name: env!("CARGO_PKG_NAME").to_owned(),
            service_instance: Uuid::new_v4().to_string(),
            sample_ratio: telemetry.sample_ratio,
            keep: Worth { errors: telemetry.keep_errors, slower_than: telemetry.keep_slower_than },
            organizations: listed.collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn faults(change: impl FnOnce(&mut Telemetry)) -> String {
        let (mut config, mut faults) = (Config::default(), Faults::default());
        change(&mut config.telemetry);
        check(&config, &mut faults);
        faults.to_string()
    }

    #[test]
    fn each_rule_is_told() {
        assert_eq!(faults(|_| {}), "");
        let told = faults(|telemetry| telemetry.otlp_logs = true);
        assert_eq!(told, "telemetry.otlp_logs: is true without `telemetry.otlp_endpoint`");
        let told = faults(|telemetry| telemetry.keep_slower_than = Some(Duration::ZERO));
        assert_eq!(told, "telemetry.keep_slower_than: is 0s, must be longer");
        let told = faults(|telemetry| telemetry.organizations = vec!["acme".to_owned()]);
        assert_eq!(told, "telemetry.organizations: names `acme`, which is no organisation here");
        let told = faults(|telemetry| telemetry.organizations = vec!["acme".to_owned(); 33]);
        assert!(told.starts_with("telemetry.organizations: has 33 names, must have 32 at most"), "{told}");
        let told = faults(|telemetry| telemetry.sample_ratio = f64::NAN);
        assert!(told.contains("telemetry.sample_ratio: is not a number"), "{told}");
    }
}
