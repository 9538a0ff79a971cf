//! What the parts are given of the configuration.

use std::collections::HashMap;

use secrecy::{ExposeSecret, SecretString};
use url::Url;
use uuid::Uuid;

use super::fault::{Fault, Faults};
use super::sections::{Amqp, Config, Organization, Store};
use crate::domain::command::OrganizationId;
use crate::domain::retry::Backoff;
use crate::mycreditapp::{self, Credentials};
use crate::store::postgres;
use crate::telemetry;

impl Store {
    /// How to reach the database, if commands are kept in one.
    ///
    /// # Errors
    /// Why it cannot be, as a sentence without a subject that shows no password.
    pub fn database(&self) -> Result<Option<postgres::Target>, String> {
        let Some(url) = &self.url else { return Ok(None) };
        let password = self.password.as_ref().map(ExposeSecret::expose_secret);
        let (connect, statement) = (self.connect_timeout, self.statement_timeout);
        postgres::Target::new(url, password, self.ca_file.as_deref(), connect, statement)
            .map(Some)
            .map_err(|error| format!("cannot be used (its value is not shown): {error}"))
    }
}

impl Config {
    /// How to reach the API, and as whom.
    ///
    /// # Errors
    /// None for a configuration that was loaded: what could fail was checked.
    pub fn upstream(&self) -> Result<mycreditapp::Settings, Faults> {
        let upstream = &self.upstream;
        let mut organizations = HashMap::new();
        for (name, organization) in &self.organizations {
            let key = format!("organizations.{name}");
            let id = organization.organization_id().map_err(|rule| fault(&format!("{key}.id"), rule))?;
            let credentials = organization.credentials().map_err(|rule| fault(&key, rule))?;
            let base_url = match &organization.base_url {
                Some(own) => address(&format!("{key}.base_url"), own)?,
                None => address("upstream.base_url", &upstream.base_url)?,
            };
            organizations.insert(id, mycreditapp::Organization { base_url, credentials });
        }
        Ok(mycreditapp::Settings {
            ca_file: upstream.ca_file.clone(),
            attempt_timeout: upstream.attempt_timeout,
            connect_timeout: upstream.connect_timeout,
            body_length_max: upstream.body_length_max,
            idle_connections_max: upstream.idle_connections_max,
            idle_timeout: upstream.idle_timeout,
            token_refresh_margin: upstream.token_refresh_margin,
            token_backoff: Backoff {
                delay_base: upstream.token_delay_base,
                delay_max: upstream.token_delay_max,
            },
            organizations,
        })
    }

    /// The organisation for which a request that names none is made: the one that is chosen, or the only one.
    #[must_use]
    pub fn default_requester(&self) -> Option<OrganizationId> {
        let chosen = match &self.default_organization {
            Some(name) => self.organizations.get(name),
            None => self.organizations.values().next().filter(|_| self.organizations.len() == 1),
        };
        chosen?.organization_id().ok()
    }

    /// What is logged and where spans go. Each call names a new instance.
    ///
    /// # Errors
    /// None for a configuration that was loaded: what could fail was checked.
    pub fn telemetry(&self) -> Result<telemetry::Settings, Faults> {
        let endpoint = self.telemetry.otlp_endpoint.as_deref().map(Url::parse).transpose();
        Ok(telemetry::Settings {
            log_format: self.telemetry.log_format,
            log_filter: self.telemetry.log_filter.clone(),
            log_repeats_max: self.telemetry.log_repeats_max,
            otlp_endpoint: endpoint.map_err(|error| fault("telemetry.otlp_endpoint", &error.to_string()))?,
            otlp_logs: self.telemetry.otlp_logs,
            service_name: env!("CARGO_PKG_NAME").to_owned(),
            service_instance: Uuid::new_v4().to_string(),
            sample_ratio: self.telemetry.sample_ratio,
        })
    }
}

fn address(key: &str, text: &str) -> Result<Url, Faults> {
    Url::parse(text).map_err(|error| fault(key, &error.to_string()))
}

fn fault(key: &str, message: &str) -> Faults {
    Faults(vec![Fault { key: key.to_owned(), message: message.to_owned() }])
}

impl Organization {
    /// Whether `other` says the same, secrets included.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let text =
            |secret: &Option<SecretString>| secret.as_ref().map(|secret| secret.expose_secret().to_owned());
        let shown = |organization: &Self| serde_json::to_value(organization).ok();
        shown(self) == shown(other)
            && text(&self.client_secret) == text(&other.client_secret)
            && text(&self.token) == text(&other.token)
    }

    /// Whether `other` proves itself in the same way at the same place: what was learnt of the one is true of the other.
    #[must_use]
    pub fn has_same_credentials(&self, other: &Self) -> bool {
        let bare = |organization: &Self| Self {
            in_flight_max: None,
            requests_per_second: None,
            ..organization.clone()
        };
        bare(self).is_same(&bare(other))
    }

    /// The organisation's id.
    ///
    /// # Errors
    /// The rule that it breaks, as a sentence without a subject.
    pub fn organization_id(&self) -> Result<OrganizationId, &'static str> {
        OrganizationId::parse(&self.id)
    }

    /// How it proves itself.
    ///
    /// # Errors
    /// The rule that its keys break, as a sentence without a subject.
    pub fn credentials(&self) -> Result<Credentials, &'static str> {
        match (&self.client_id, &self.client_secret, &self.token) {
            (Some(client_id), Some(secret), None) => {
                Ok(Credentials::Client { client_id: client_id.clone(), client_secret: secret.clone() })
            }
            (None, None, Some(token)) => Ok(Credentials::StaticToken(token.clone())),
            (_, _, Some(_)) => Err("must have either a client or a token, not both"),
            (None, None, None) => Err("must have `client_id` and `client_secret_file`, or `token_file`"),
            (None, Some(_), None) => Err("must have `client_id` beside the client's secret"),
            (Some(_), None, None) => Err("must have `client_secret_file` beside `client_id`"),
        }
    }
}

impl Amqp {
    /// The password: the one given, or that of the user which every broker comes with. `None` if another user has none.
    #[must_use]
    pub fn password(&self) -> Option<SecretString> {
        let default = || (self.username == Self::DEFAULT_USER).then(|| Self::DEFAULT_USER.into());
        self.password.clone().or_else(default)
    }
}
