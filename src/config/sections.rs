//! Every key, its meaning and its default.
//!
//! The doc comments are shown to operators: `example-config` and `docs/configuration.md` are made of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

pub use super::broker::{Amqp, Identify, Pem, Sasl};
pub use super::jwt::Jwt;
pub use super::telemetry::Telemetry;

/// The whole configuration.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Config {
    /// The name of the organisation for which a request that names no requester is made. If only one is configured it is
    /// that one.
    #[schemars(example = &"acme")]
    pub default_organization: Option<String>,
    /// How often it is looked whether this file, or a file with a secret that it names, has changed. Organisations that
    /// were added, changed or removed, the default one, principals and `jwt.keys_file` take effect without a restart; every
    /// other key needs one.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub organizations_check_interval: Duration,
    /// The gRPC door.
    pub grpc: Grpc,
    /// The admin door: health and metrics, and acts of administrators.
    pub admin: Admin,
    /// The MyCreditApp API.
    pub upstream: Upstream,
    /// The organisations on whose behalf calls are made, under names of your choice. Each has an API client
    /// (`client_id` and a secret) or a token that was got elsewhere. Changes take effect without a restart.
    pub organizations: BTreeMap<String, Organization>,
    /// Who may ask, under names of your choice. Once one can be known at the gRPC door (by `certificate_names` or
    /// `jwt_subjects`), every caller there has to be; messages are asked by `amqp.identify`. Changes take effect
    /// without a restart; but if all are taken away, nobody is let in until there are some again, or a restart.
    pub principals: BTreeMap<String, Principal>,
    /// Bearer tokens of callers (JWT). Without this section none are taken.
    pub jwt: Option<Jwt>,
    /// The RabbitMQ door. Without this section only gRPC is served, and events go to standard output.
    pub amqp: Option<Amqp>,
    /// The events that tell of outcomes.
    pub events: Events,
    /// The store of commands and of messages not published yet.
    pub store: Store,
    /// How much is taken in at once.
    pub limits: Limits,
    /// The relay, which publishes what the store holds.
    pub relay: Relay,
    /// Logs, traces and metrics.
    pub telemetry: Telemetry,
    /// The end of the process.
    pub shutdown: Shutdown,
}

/// The gRPC door.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Grpc {
    /// Where it listens. An address that others can reach needs `certificate_file` and `principals`, or `insecure`.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// Whether it may listen beyond loopback without TLS or without asking callers who they are. It warns at every start.
    pub insecure: bool,
    /// The file with the certificate for TLS, in PEM form, followed by those between it and its authority. Without one there
    /// is no TLS. A new certificate takes effect for new connections, without a restart.
    #[schemars(example = "tls/certificate.pem")]
    pub certificate_file: Option<PathBuf>,
    /// The file with the certificate's private key, in PEM form, readable by its owner alone.
    #[schemars(example = "tls/key.pem")]
    pub key_file: Option<PathBuf>,
    /// The file with the authorities of client certificates, in PEM form. Clients are then asked for a certificate.
    #[schemars(example = "tls/client_ca.pem")]
    pub client_ca_file: Option<PathBuf>,
    /// Whether a client must have a certificate (`required`, as without this key) or may prove itself by a bearer token
    /// instead (`optional`). One that is presented is verified in any case.
    #[schemars(example = &"required")]
    pub client_certificates: Option<ClientCertificates>,
    /// Connections at once, at most; more are closed.
    pub connections_max: usize,
    /// Connections of one address at once, at most; more are closed.
    pub connections_per_address_max: usize,
    /// Calls in flight, at most; more are refused with `OVERLOADED`.
    pub in_flight_max: usize,
    /// The largest message that is read, in bytes.
    pub message_length_max: usize,
    /// How long a call that brings no deadline waits for its answer.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub answer_timeout: Duration,
}

/// Whether clients must have a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum ClientCertificates {
    /// They must.
    Required,
    /// They may.
    Optional,
}

/// The admin door: health and metrics, and acts of administrators, who need its token.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Admin {
    /// Where it listens. Beyond loopback everything but `/livez` and `/readyz` needs the token; there is no TLS here.
    #[schemars(with = "String")]
    pub listen: SocketAddr,
    /// The file with the token of administrators, readable by its owner alone. Without a token nobody can do or read
    /// anything under `/v1/`.
    #[schemars(example = "secrets/admin_token")]
    pub token_file: Option<PathBuf>,
    /// The token itself. By environment only.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub token: Option<SecretString>,
    /// Whether health and metrics may be open to a network without the token. Said in the log at every start.
    pub insecure: bool,
}

/// The MyCreditApp API.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Upstream {
    /// The address of the API, version segment included.
    pub base_url: String,
    /// A file of certificate authorities in PEM form that are trusted beside those of the system.
    #[schemars(example = "/etc/ssl/private-ca.pem")]
    pub ca_file: Option<PathBuf>,
    /// The time for one PATCH: connecting, headers and body together.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub attempt_timeout: Duration,
    /// The time for a command's attempts and the waits between them; after it the command is deferred or failed.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub command_timeout: Duration,
    /// The time for connecting, name resolution and TLS included.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub connect_timeout: Duration,
    /// The most of an answer's body that is read, in bytes.
    pub body_length_max: usize,
    /// Idle connections that are kept, at most.
    pub idle_connections_max: usize,
    /// How long an idle connection is kept.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub idle_timeout: Duration,
    /// The longest time that the API and the network may sit on a request that was given up. No other command of the
    /// connection is sent within it.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub settle: Duration,
    /// The upper bound of the wait before the second attempt of a command; it doubles from attempt to attempt.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub retry_delay_base: Duration,
    /// The upper bound of every wait between attempts, unless the API's `Retry-After` asks for more.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub retry_delay_max: Duration,
    /// Retries of an organisation's PATCHes for each that succeeds, on average, from 0 to 1, so that retries cannot
    /// multiply an outage. A command whose retry is beyond it is deferred, or fails.
    pub retry_share: f64,
    /// Retries of an organisation in a second, besides.
    pub retry_floor: u32,
    /// PATCHes in flight to one base URL, at most. The limit that is kept adapts below it: it grows while the API answers
    /// as fast as usual, and shrinks on 429, 5xx and slow answers.
    pub in_flight_max: usize,
    /// Failures in a row after which nothing is sent for a while: of an organisation, if others are served, or of all.
    pub breaker_failures: u32,
    /// The share of failures that has the same effect, from 0 to 1, if there were 20 PATCHes or more in the last 5 to 10
    /// seconds.
    pub breaker_failure_share: f64,
    /// The upper bound of the time until one PATCH tries again; it doubles from failure to failure.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub breaker_delay_base: Duration,
    /// The upper bound of every such time, unless the API's `Retry-After` asks for more; of that, 30 s are believed.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub breaker_delay_max: Duration,
    /// The upper bound of the wait before a deferred command first runs again; it doubles from time to time.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub defer_delay_base: Duration,
    /// The upper bound of every wait of a deferred command, unless the API's `Retry-After` asks for more.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub defer_delay_max: Duration,
    /// How long before its expiry a token is replaced, at most.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub token_refresh_margin: Duration,
    /// The upper bound of the wait after a first failed token request; it doubles from failure to failure.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub token_delay_base: Duration,
    /// The upper bound of every wait after a failed token request, unless the API's `Retry-After` asks for more.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub token_delay_max: Duration,
}

/// An organisation on whose behalf calls are made.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Organization {
    /// The organisation's id, a UUID.
    #[schemars(example = "0190c1d4-7c1e-7d3a-9a53-5c1f6e1b2a77")]
    pub id: String,
    /// The id of its API client.
    #[schemars(example = "my-client")]
    pub client_id: Option<String>,
    /// The file with the API client's secret, readable by its owner alone.
    #[schemars(example = "secrets/client_secret")]
    pub client_secret_file: Option<PathBuf>,
    /// The API client's secret itself. By environment only.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub client_secret: Option<SecretString>,
    /// The file with a token, in the place of an API client.
    #[schemars(example = "secrets/token")]
    pub token_file: Option<PathBuf>,
    /// The token itself. By environment only.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub token: Option<SecretString>,
    /// The address of the API for this organisation; without one it is `upstream.base_url`.
    #[schemars(example = "https://api.mycreditapp.ai/v1-beta")]
    pub base_url: Option<String>,
    /// PATCHes of this organisation in flight, at most, by each instance.
    #[schemars(example = 8)]
    pub in_flight_max: Option<usize>,
    /// PATCHes of this organisation that are sent in a second, at most, by all instances that share a database together.
    #[schemars(example = 20.0)]
    pub requests_per_second: Option<f64>,
}

/// Someone who may ask: by which identities it is known, and what it is granted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Principal {
    /// Names in its client certificate: DNS names or URIs among the subject alternative names, SPIFFE ids included.
    #[schemars(example = ["spiffe://example.org/billing"])]
    #[serde(deserialize_with = "super::list::deserialize")]
    pub certificate_names: Vec<String>,
    /// The `sub` claims of its bearer tokens.
    #[schemars(example = ["billing"])]
    #[serde(deserialize_with = "super::list::deserialize")]
    pub jwt_subjects: Vec<String>,
    /// Its users at the broker, as the broker vouches for them in `user_id`.
    #[schemars(example = ["billing"])]
    #[serde(deserialize_with = "super::list::deserialize")]
    pub amqp_users: Vec<String>,
    /// The organisations in whose name it may ask, by their names under `organizations`; `*` is each that is configured.
    #[schemars(example = ["acme"])]
    #[serde(deserialize_with = "super::list::deserialize")]
    pub organizations: Vec<String>,
    /// What it may ask for: `archive`, `unarchive` and `get`. Without this: all of it.
    #[schemars(example = ["archive", "unarchive", "get"])]
    #[serde(deserialize_with = "super::list::deserialize")]
    pub methods: Vec<String>,
    /// Calls of it that are let in in a second, at most, by each instance.
    #[schemars(example = 100.0)]
    pub requests_per_second: Option<f64>,
}

/// The events that tell of outcomes.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Events {
    /// The CloudEvents `source`: which instance speaks, as a URI reference.
    pub source: String,
    /// What every event's `type` begins with.
    pub type_prefix: String,
    /// Whether a CloudEvent is one JSON document (`structured`) or has its attributes in headers (`binary`).
    pub mode: EventMode,
    /// What becomes of an event that no queue is bound for: kept until there is one (`hold`), or dropped (`discard`).
    pub when_unroutable: WhenUnroutable,
}

/// The form of a CloudEvent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum EventMode {
    /// One JSON document.
    Structured,
    /// Attributes in headers, data in the body.
    Binary,
}

/// What becomes of an event that no queue is bound for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhenUnroutable {
    /// Kept until there is a queue.
    Hold,
    /// Dropped.
    Discard,
}

/// The store of commands and of messages not published yet.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Store {
    /// The database file. Its directory is made if it is missing.
    pub path: PathBuf,
    /// The address of a PostgreSQL database in which commands are kept instead of in a file. One instance may use it at a
    /// time. With `sslmode=require` in it the connection is encrypted, and the server's certificate and name are verified.
    #[schemars(example = "postgres://adapter@db.example.org:5432/guest_connections?sslmode=require")]
    pub url: Option<String>,
    /// The file with the password for the database, readable by its owner alone.
    #[schemars(example = "secrets/store_password")]
    pub password_file: Option<PathBuf>,
    /// The password itself. By environment only.
    #[serde(skip_serializing)]
    #[schemars(with = "Option<String>")]
    pub password: Option<SecretString>,
    /// Certificate authorities that are trusted for the database beside those of the system, in PEM form. With
    /// `sslmode=require` in the address.
    #[schemars(example = "tls/store-ca.pem")]
    pub ca_file: Option<PathBuf>,
    /// How long a connection to the database may take to come about.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub connect_timeout: Duration,
    /// How long a statement, or a wait for a lock, may take in the database.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub statement_timeout: Duration,
    /// How long an instance that shares the database may be silent before the others take over its part of what they do
    /// together: publishing, and taking up what nobody works on. What it had claimed is taken over after `lease`.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub instance_lease: Duration,
    /// How long a command is remembered after its end, and so for how long its idempotency key is good.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub retention: Duration,
    /// How long a claim on a command holds.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub lease: Duration,
    /// How long a command is tried again before it is abandoned.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub give_up_after: Duration,
}

/// How much is taken in at once. Beyond it calls are refused with `OVERLOADED`, and messages stay with the broker.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Limits {
    /// Commands under way in this process, at most, by whatever door they came. Those that are taken up again from the
    /// store have room for a quarter of it besides.
    pub in_flight_max: usize,
    /// The bytes of their messages, at most.
    pub in_flight_bytes_max: usize,
    /// Commands of one connection that wait in memory, at most. Calls beyond are refused; messages beyond wait in the
    /// store.
    pub lane_depth_max: usize,
    /// Commands in the store that are not final, at most. It is looked at once a second. Those that wait for an organisation
    /// that is not served count for a tenth.
    pub backlog_max: u64,
    /// Threads that run what is under way. Without it half as many as there are cores for this process, and at least one:
    /// the other half is the store's, the broker client's and the kernel's.
    #[schemars(example = 2)]
    pub worker_threads: Option<usize>,
}

/// The relay.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Relay {
    /// Messages that are published together, at most.
    pub batch: usize,
    /// The upper bound of the wait after a first failure to publish; it doubles from failure to failure.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub retry_delay_base: Duration,
    /// The upper bound of every wait after a failure to publish.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub retry_delay_max: Duration,
}

/// The end of the process.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Shutdown {
    /// How long `/readyz` and gRPC health say no after SIGTERM while calls are still taken in: as long as load balancers need
    /// to look elsewhere. Messages are not taken from then on.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub notice: Duration,
    /// The time from SIGTERM to the exit, for work under way to end. What does not is taken up after the next start.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub drain_timeout: Duration,
}
