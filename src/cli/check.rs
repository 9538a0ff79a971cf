//! What `check` prints of a good configuration: no secrets.

use std::fmt::Write as _;
use std::path::Path;

use crate::config::sections::Sasl;
use crate::config::{Config, Faults};
use crate::store::postgres::{OpenError, Schema, Target};
use crate::store::sqlite;

/// What the store is, and how it is found. Nothing is written to it. A database that cannot be reached is no fault of the
/// configuration: it may be there when the adapter starts.
pub(super) fn store(config: &Config) -> Result<String, Faults> {
    let fault = |error: &OpenError| Faults::one("store.url", error.to_string());
    let target = config.store.database().map_err(|rule| Faults::one("store.url", rule))?;
    let (Some(url), Some(target)) = (&config.store.url, target) else {
        sqlite::check_permissions(&config.store.path)
            .map_err(|error| Faults::one("store.path", error.to_string()))?;
        return Ok(config.store.path.display().to_string());
    };
    match schema(&target) {
        Ok(Schema { found: 0, known }) => Ok(format!("{url}, empty: `serve` makes schema version {known}")),
        Ok(Schema { found, known }) if found < known => {
            Ok(format!("{url}, schema version {found}: `serve` brings it to version {known}"))
        }
        Ok(Schema { found, .. }) => Ok(format!("{url}, schema version {found}, up to date")),
        Err(error @ OpenError::TooNew { .. }) => Err(fault(&error)),
        Err(error) => Ok(format!("{url}\n             at present {error}")),
    }
}

fn schema(target: &Target) -> Result<Schema, OpenError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| OpenError::Connect(error.to_string()))?.block_on(target.schema())
}

/// The configuration in a few lines.
pub(super) fn summary(config: &Config, file: Option<&Path>, store: &str) -> String {
    let file = file.map_or_else(|| "none".to_owned(), |file| file.display().to_string());
    let broker = config.amqp.as_ref().map_or_else(
        || "none; events go to standard output".to_owned(),
        |amqp| {
            let user = match amqp.sasl {
                Sasl::Plain => format!("as {}", amqp.username),
                Sasl::External => "by client certificate".to_owned(),
            };
            let queues = match (amqp.partitions, amqp.partitions_from) {
                (0, None) => "one queue".to_owned(),
                (partitions, None) => format!("{partitions} partitions"),
                (partitions, Some(from)) => format!("{partitions} partitions, in the place of {from}"),
            };
            format!("{} {user}, {queues}", amqp.uri)
        },
    );
    let collector = config.telemetry.otlp_endpoint.as_deref().unwrap_or("none");
    let mut text = format!(
        "The configuration is good.\n  \
         file       {file}\n  \
         gRPC       {}\n  \
         admin      {}\n  \
         upstream   {}\n  \
         broker     {broker}\n  \
         store      {store}\n  \
         collector  {collector}\n",
        config.grpc.listen, config.admin.listen, config.upstream.base_url,
    );
    if config.organizations.is_empty() {
        text.push_str("  organizations  none: every command will be refused\n");
    }
    for (name, organization) in &config.organizations {
        let kind = if organization.client_id.is_some() { "an API client" } else { "a static token" };
        // Writing into a string does not fail.
        let _ = write!(text, "  organization {name}: {} by {kind}", organization.id);
        if let Some(base_url) = &organization.base_url {
            let _ = write!(text, ", at {base_url}");
        }
        if let Some(in_flight_max) = organization.in_flight_max {
            let _ = write!(text, ", {in_flight_max} in flight at most");
        }
        if let Some(rate) = organization.requests_per_second {
            let _ = write!(text, ", {rate} a second at most");
        }
        text.push('\n');
    }
    if let Some(requester) = config.default_requester() {
        let _ = writeln!(text, "  without a requester: {requester}");
    }
    text
}
