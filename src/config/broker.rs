//! The section of the broker, and the rules for the credentials and the senders in it.

use std::path::PathBuf;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use schemars::JsonSchema;
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::fault::Faults;
use super::rules::within;
use super::sections::Config;
use crate::mycreditapp::roots;

/// More queues than anybody has instances.
const PARTITIONS_MAX: u16 = 64;

/// Numbers are added to names, which have 255 bytes at most.
const PARTITIONED_NAME_LENGTH_MAX: usize = 240;

/// The RabbitMQ door.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Amqp {
    /// The broker's address with the virtual host as its path; `%2f` is the virtual host `/`.
    pub uri: String,
    /// The user.
    pub username: String,
    /// The file with the password, readable by its owner alone. Without one the password is that of RabbitMQ's
    /// default user.
    #[schemars(example = "secrets/amqp_password")]
    pub password_file: Option<PathBuf>,
    /// The password itself. By environment only.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub password: Option<SecretString>,
    /// How the adapter proves who it is: by user and password (`plain`), or by its client certificate (`external`), from
    /// which the broker takes the user.
    pub sasl: Sasl,
    /// Certificate authorities in PEM form that may vouch for the broker, beside the system's. With an address that
    /// begins with `amqps://`, as the next two.
    #[schemars(example = "/etc/ssl/private-ca.pem")]
    pub ca_file: Option<PathBuf>,
    /// The client certificate in PEM form, followed by those between it and its authority.
    #[schemars(example = "tls/certificate.pem")]
    pub certificate_file: Option<PathBuf>,
    /// Its private key in PEM form, readable by its owner alone.
    #[schemars(example = "tls/key.pem")]
    pub key_file: Option<PathBuf>,
    /// What these files hold.
    #[serde(skip)]
    pub pem: Pem,
    /// Whether a message must come from one of the `amqp_users` of a principal (`user_id`, after the property that the
    /// broker checks), or nobody is asked (`none`).
    pub identify: Identify,
    /// The principal as which senders count whose messages have no `user_id`; without `identify` that is everybody.
    #[schemars(example = &"billing")]
    pub principal: Option<String>,
    /// Whether exchanges, queues and bindings are declared at start. Otherwise they must be there.
    pub declare: bool,
    /// Over how many queues commands are spread, by their guest, so that their order is kept however many instances there
    /// are; at most 64. 0 is one queue that all instances share, in whatever order. Before you change it on a system that
    /// runs, read "Changing the number" in `docs/amqp.md`.
    pub partitions: u16,
    /// The number of partitions that is being left; 0 is the one queue. Only while `partitions` is being changed.
    #[schemars(example = 2)]
    pub partitions_from: Option<u16>,
    /// Deliveries in hand, at most, of all partitions together; but at least one of each.
    pub prefetch: u16,
    /// The exchange that commands are published to.
    pub commands_exchange: String,
    /// The queue that commands are taken from.
    pub commands_queue: String,
    /// The exchange that dead letters are published to.
    pub dead_letters_exchange: String,
    /// The queue that keeps dead letters.
    pub dead_letters_queue: String,
    /// The exchange that events are published to.
    pub events_exchange: String,
    /// The largest body that is read, in bytes.
    pub body_length_max: usize,
    /// How long a delivery is held, at most, until its command is final or deferred. Its row is durable by then.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub delivery_hold: Duration,
    /// How long connecting may take, and each step of opening a channel.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub connect_timeout: Duration,
    /// The interval of heartbeats, in whole seconds, unless the broker wants a shorter one. A connection on which
    /// nothing came for twice as long is given up.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub heartbeat: Duration,
    /// How often it is looked whether exchanges, queues and bindings are still there; what is declared at start is then
    /// declared again.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub check_interval: Duration,
    /// How long the broker may take to confirm what was published.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub confirm_timeout: Duration,
    /// Whether a message without an idempotency key is taken all the same, under a key of its own.
    pub accept_without_key: bool,
    /// The upper bound of the wait before the connection is first made again; it doubles from failure to failure.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub reconnect_delay_base: Duration,
    /// The upper bound of every wait before the connection is made again.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub reconnect_delay_max: Duration,
}

/// What files for TLS hold, in PEM form.
#[derive(Debug, Clone, Default)]
pub struct Pem {
    /// Certificate authorities.
    pub ca: Option<String>,
    /// A certificate, and those between it and its authority.
    pub certificate: Option<String>,
    /// Its private key.
    pub key: Option<SecretString>,
}

/// How the adapter proves to the broker who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Sasl {
    /// By user and password.
    Plain,
    /// By its client certificate.
    External,
}

/// By what the sender of a message is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Identify {
    /// By nothing.
    None,
    /// By the property `user_id`, which the broker checks.
    UserId,
}

impl Config {
    /// Whether the senders of messages without a `user_id` count as the principal of this name.
    pub(super) fn is_unnamed_sender(&self, name: &str) -> bool {
        self.amqp.as_ref().is_some_and(|amqp| amqp.principal.as_deref() == Some(name))
    }

    /// Whether messages are obeyed whoever sends them, though somebody seems to think otherwise: there are principals.
    #[must_use]
    pub fn obeys_any_sender(&self) -> bool {
        let is_open = |amqp: &Amqp| amqp.identify == Identify::None && amqp.principal.is_none();
        self.amqp.as_ref().is_some_and(is_open) && !self.principals.is_empty()
    }
}

/// Notes every rule that is broken.
pub(super) fn check(config: &Config, faults: &mut Faults) {
    let Some(amqp) = &config.amqp else { return };
    encryption(amqp, faults);
    login(amqp, faults);
    partitions(amqp, faults);
    if let Some(name) = amqp.principal.as_ref().filter(|name| !config.principals.contains_key(*name)) {
        faults.push("amqp.principal", format!("is `{name}`, must be a name under `principals`"));
    }
    let has_users = config.principals.values().any(|principal| !principal.amqp_users.is_empty());
    if amqp.identify == Identify::UserId && amqp.principal.is_none() && !has_users {
        let rule = "is `user_id`, but no principal has `amqp_users`: every message would be refused";
        faults.push("amqp.identify", rule);
    }
}

fn partitions(amqp: &Amqp, faults: &mut Faults) {
    within("amqp.partitions", amqp.partitions, 0, PARTITIONS_MAX, faults);
    if let Some(from) = amqp.partitions_from {
        within("amqp.partitions_from", from, 0, PARTITIONS_MAX, faults);
        if from == amqp.partitions {
            faults.push("amqp.partitions_from", format!("is {from}, as `amqp.partitions` is"));
        }
    }
    if amqp.partitions == 0 && amqp.partitions_from.is_none() {
        return;
    }
    for (key, name) in
        [("amqp.commands_queue", &amqp.commands_queue), ("amqp.commands_exchange", &amqp.commands_exchange)]
    {
        if name.len() > PARTITIONED_NAME_LENGTH_MAX {
            let rule =
                format!("must have at most {PARTITIONED_NAME_LENGTH_MAX} bytes with `amqp.partitions`");
            faults.push(key, format!("is `{name}`, {rule}"));
        }
    }
}

fn encryption(amqp: &Amqp, faults: &mut Faults) {
    let files = [
        ("ca_file", amqp.ca_file.is_some()),
        ("certificate_file", amqp.certificate_file.is_some()),
        ("key_file", amqp.key_file.is_some()),
    ];
    if !amqp.uri.starts_with("amqps:") {
        for (name, _) in files.into_iter().filter(|(_, given)| *given) {
            faults.push(format!("amqp.{name}"), "is for an `amqp.uri` that begins with amqps:// only");
        }
    }
    for (name, other) in [(1, 2), (2, 1)].map(|(one, other)| (files[one], files[other])) {
        if name.1 && !other.1 {
            faults.push(format!("amqp.{}", name.0), format!("needs `amqp.{}` beside it", other.0));
        }
    }
    if let Some(Err(error)) = amqp.ca_file.as_deref().map(roots::read) {
        faults.push("amqp.ca_file", error.to_string());
    }
    if let (Some(certificate), Some(key)) = (&amqp.pem.certificate, &amqp.pem.key)
        && let Err((name, rule)) = pair(certificate, key.expose_secret())
    {
        faults.push(format!("amqp.{name}"), rule);
    }
}

/// Whether a certificate and a key, both in PEM form, can be used together.
fn pair(certificate: &str, key: &str) -> Result<(), (&'static str, String)> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect();
    let chain = chain.ok().filter(|chain| !chain.is_empty());
    let chain = chain.ok_or_else(|| ("certificate_file", "holds no certificate in PEM form".to_owned()))?;
    // What the parser says of it could quote it.
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())
        .map_err(|_| ("key_file", "holds no private key in PEM form".to_owned()))?;
    CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider())
        .map(drop)
        .map_err(|error| ("key_file", format!("cannot be used with `amqp.certificate_file`: {error}")))
}

fn login(amqp: &Amqp, faults: &mut Faults) {
    match amqp.sasl {
        Sasl::Plain if amqp.password().is_none() && amqp.password_file.is_none() => {
            faults.push("amqp.password_file", format!("must be given for the user `{}`", amqp.username));
        }
        Sasl::Plain => {}
        Sasl::External => {
            if amqp.certificate_file.is_none() {
                faults.push("amqp.sasl", "is `external`, which needs `amqp.certificate_file`");
            }
            if amqp.password_file.is_some() || amqp.password.is_some() {
                faults.push("amqp.sasl", "is `external`, which takes no password beside it");
            }
        }
    }
}

#[cfg(test)]
#[path = "broker_tests.rs"]
mod tests;
