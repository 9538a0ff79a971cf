//! The upstream: the MyCreditApp guest-connections API.
//!
//! - [`client`]: the one call, a PATCH
//! - [`tokens`]: bearer tokens of all organisations, which can change at run time
//! - [`slot`](self): what is known of one organisation
//! - [`http`](self): what both requests share: deadline, cap, span
//! - [`failure`](self): what a request without an answer was
//! - [`roots`]: certificate authorities beside the system's
//! - [`wire`](self): the contract's JSON and headers
//! - `records`: what is logged

mod failure;
mod http;
pub(crate) mod records;
pub mod roots;
mod slot;
pub mod wire;

pub mod client;
pub mod tokens;

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};
use url::Url;

pub use client::MyCreditApp;

use crate::domain::command::OrganizationId;
use crate::domain::retry::Backoff;

/// How to reach the API, and as whom.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Certificate authorities in PEM form, beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// The time for one request: connecting, headers and body together.
    pub attempt_timeout: Duration,
    /// The time for name resolution, TCP and TLS together. Shorter than `attempt_timeout`, so that what could not be
    /// connected is told from what was not answered.
    pub connect_timeout: Duration,
    /// The most of a body that is read, in bytes. A longer one counts as unreadable.
    pub body_length_max: usize,
    /// Idle connections that are kept, at most.
    pub idle_connections_max: usize,
    /// How long an idle connection is kept.
    pub idle_timeout: Duration,
    /// How long before its expiry a token is replaced, at most; the moment is jittered between half of it and all.
    pub token_refresh_margin: Duration,
    /// The wait after a token request that failed.
    pub token_backoff: Backoff,
    /// Who has credentials here, to begin with.
    pub organizations: HashMap<OrganizationId, Organization>,
}

/// Where an organisation's API is, and how it proves itself there.
#[derive(Debug, Clone)]
pub struct Organization {
    /// The address of the API, version segment included.
    pub base_url: Url,
    /// How it proves itself.
    pub credentials: Credentials,
}

/// How an organisation proves itself.
#[derive(Debug, Clone)]
pub enum Credentials {
    /// An API client, for which the API gives out tokens.
    Client {
        /// The client's id.
        client_id: String,
        /// The client's secret.
        client_secret: SecretString,
    },
    /// A token that was got elsewhere and does not change.
    StaticToken(SecretString),
}

impl Credentials {
    /// Whether `other` proves the same in the same way.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Client { client_id, client_secret },
                Self::Client { client_id: other_id, client_secret: other_secret },
            ) => client_id == other_id && client_secret.expose_secret() == other_secret.expose_secret(),
            (Self::StaticToken(token), Self::StaticToken(other)) => {
                token.expose_secret() == other.expose_secret()
            }
            _ => false,
        }
    }
}

/// Why no client could be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The base URL cannot be extended by a path.
    #[error("the upstream's base URL has no path to extend")]
    BaseUrl,
    /// A static token cannot be put into a header.
    #[error("the static token of organisation {0} has characters that no header may have")]
    StaticToken(OrganizationId),
    /// The file of certificate authorities cannot be used.
    #[error(transparent)]
    Roots(#[from] roots::Error),
    /// The HTTP client could not be set up, for lack of root certificates, say.
    #[error("the HTTP client could not be set up")]
    Client(#[source] reqwest::Error),
}
