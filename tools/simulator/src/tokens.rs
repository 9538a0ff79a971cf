//! API clients and the tokens they hold.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::Utc;
use serde_json::json;
use uuid::Uuid;

use crate::config::Client;

/// How long an expired token is known as such.
const EXPIRED_KEPT: Duration = Duration::from_secs(60);

struct Grant {
    organization: Uuid,
    /// None for a token that never expires.
    expires_at: Option<Instant>,
    revoked: bool,
}

/// What a bearer token is worth.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Valid(Uuid),
    /// Taken back by the test, which the client can't know.
    Revoked(Uuid),
    /// Too old, of which a client may be innocent that sent it in time.
    Expired(Uuid),
    Invalid,
}

/// All clients and tokens. It has no `Debug`, since it is full of secrets.
#[derive(Default)]
pub(crate) struct Tokens {
    clients: HashMap<String, Client>,
    grants: HashMap<String, Grant>,
}

impl Tokens {
    pub(crate) fn register_client(&mut self, client: Client) {
        self.clients.insert(client.client_id.clone(), client);
    }

    pub(crate) fn register_token(&mut self, token: String, organization: Uuid) {
        self.grants.insert(token, Grant { organization, expires_at: None, revoked: false });
    }

    /// The organisation of a client, if its secret is right.
    pub(crate) fn authenticate(&self, client_id: &str, client_secret: &str) -> Option<Uuid> {
        let client = self.clients.get(client_id)?;
        (client.client_secret == client_secret).then_some(client.organization_id)
    }

    /// Issues a token that looks like a JWT. Those that expired a while ago are forgotten on the way.
    pub(crate) fn issue(&mut self, organization: Uuid, lifetime: Duration) -> String {
        let now = Instant::now();
        self.grants.retain(|_, grant| grant.expires_at.is_none_or(|at| at + EXPIRED_KEPT > now));
        let issued_at = Utc::now().timestamp();
        let claims = json!({
            "sub": organization,
            "iat": issued_at,
            "exp": issued_at.saturating_add_unsigned(lifetime.as_secs()),
            "jti": Uuid::new_v4(),
        });
        let head = URL_SAFE_NO_PAD.encode(r#"{"alg":"none","typ":"JWT"}"#);
        let token = format!("{head}.{}.dW5zaWduZWQ", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let expires_at = now.checked_add(lifetime);
        self.grants.insert(token.clone(), Grant { organization, expires_at, revoked: false });
        token
    }

    pub(crate) fn standing(&self, token: &str) -> Standing {
        match self.grants.get(token) {
            Some(grant) if grant.expires_at.is_some_and(|at| at <= Instant::now()) => {
                Standing::Expired(grant.organization)
            }
            Some(grant) if grant.revoked => Standing::Revoked(grant.organization),
            Some(grant) => Standing::Valid(grant.organization),
            None => Standing::Invalid,
        }
    }

    /// Takes back every token, or those of one organisation; clients can fetch new ones.
    pub(crate) fn revoke(&mut self, only: Option<Uuid>) {
        let theirs =
            self.grants.values_mut().filter(|grant| only.is_none_or(|only| grant.organization == only));
        theirs.for_each(|grant| grant.revoked = true);
    }
}
