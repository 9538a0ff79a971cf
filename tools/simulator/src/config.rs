//! What a simulator is started with.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use uuid::Uuid;

use crate::connection::TimeForm;
use crate::limit::Limit;

/// Settings of one simulator. `Config::default()` suits a test: a free loopback port, no clients, no delay.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The path in front of every endpoint, version segment included.
    pub base_path: String,
    /// API clients that may fetch tokens.
    pub clients: Vec<Client>,
    /// Tokens that are valid from the start and never expire.
    pub tokens: Vec<StaticToken>,
    /// How long a fetched token is valid; `expires_in` is this in whole seconds.
    pub token_lifetime: Duration,
    /// How long every PATCH waits before it is applied.
    pub delay: Duration,
    /// How many PATCHes are let through; none means all.
    pub limit: Option<Limit>,
    /// Whether the first PATCH of an unknown connection creates it; otherwise it is answered with 404.
    pub auto_create: bool,
    /// How times are rendered unless a fault says otherwise.
    pub time_form: TimeForm,
    /// Whether every 200 carries fields and enum values that the contract does not know.
    pub extra_fields: bool,
    /// How many journal entries are kept; past it the oldest are dropped and counted.
    pub journal_capacity: usize,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            base_path: "/v1-beta".to_owned(),
            clients: Vec::new(),
            tokens: Vec::new(),
            token_lifetime: Duration::from_secs(3600),
            delay: Duration::ZERO,
            limit: None,
            auto_create: true,
            time_form: TimeForm::Zoned,
            extra_fields: false,
            journal_capacity: 2_000_000,
        }
    }
}

/// An API client, which belongs to exactly one organisation. Its secret is not shown by `Debug`.
#[derive(Clone)]
pub struct Client {
    /// The public name of the client.
    pub client_id: String,
    /// What it proves itself with.
    pub client_secret: String,
    /// The organisation it acts for.
    pub organization_id: Uuid,
}

impl fmt::Debug for Client {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Client")
            .field("client_id", &self.client_id)
            .field("organization_id", &self.organization_id)
            .finish_non_exhaustive()
    }
}

/// A bearer token that was not fetched from the token endpoint. It is not shown by `Debug`.
#[derive(Clone)]
pub struct StaticToken {
    /// The bearer token.
    pub token: String,
    /// The organisation it acts for.
    pub organization_id: Uuid,
}

impl fmt::Debug for StaticToken {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("StaticToken")
            .field("organization_id", &self.organization_id)
            .finish_non_exhaustive()
    }
}
