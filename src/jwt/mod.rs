//! Bearer tokens: JSON Web Tokens (RFC 7519) that somebody else signs and this adapter verifies, by the rules of RFC 8725.
//!
//! - [`keys`]: the public keys that they are verified with
//! - [`fetch`]: those keys from a URL
//! - `records`: what is logged

pub mod fetch;
pub mod keys;
pub(crate) mod records;

use std::fmt;
use std::sync::{PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, Validation, decode, decode_header};
use serde::Deserialize;
use tokio_util::sync::CancellationToken;

use self::fetch::Refresh;
use self::keys::Keys;
use crate::service::readiness::Part;

/// The algorithms that may be allowed: those with a public key. With a shared secret (HS256 and its like), or with none,
/// whoever can verify a token can make one.
pub const ALGORITHMS: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// The longest token that is looked at, in bytes.
pub const TOKEN_LENGTH_MAX: usize = 8 * 1024;

/// Keys that a token without a `kid` is tried against, at most.
const TRIES_MAX: usize = 4;

/// Which tokens are good.
#[derive(Debug, Clone)]
pub struct Settings {
    /// What `iss` must be.
    pub issuer: String,
    /// What `aud` must hold one of.
    pub audience: Vec<String>,
    /// What `alg` must be one of.
    pub algorithms: Vec<Algorithm>,
    /// How far the issuer's clock may be off; whole seconds.
    pub leeway: Duration,
    /// How far in the future `exp` may lie.
    pub lifetime_max: Duration,
}

/// Why a token is not good. Callers are not told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It is longer than [`TOKEN_LENGTH_MAX`].
    TooLong,
    /// It is no JWT, or says `crit` of what is not understood here.
    Malformed,
    /// Its algorithm is not allowed.
    Algorithm,
    /// There is no key of its `kid` for its algorithm.
    UnknownKey,
    /// Its signature is not that of its key.
    Signature,
    /// Its `exp` is over.
    Expired,
    /// Its `nbf` is not reached.
    NotYetValid,
    /// A claim is missing, has another form, or names another issuer or audience.
    Claims,
    /// It is good for longer than it may be.
    Lifetime,
}

impl Fault {
    /// Its name in logs and metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::TooLong => "token_too_long",
            Self::Malformed => "token_malformed",
            Self::Algorithm => "token_algorithm",
            Self::UnknownKey => "token_key_unknown",
            Self::Signature => "token_signature",
            Self::Expired => "token_expired",
            Self::NotYetValid => "token_not_yet_valid",
            Self::Claims => "token_claims",
            Self::Lifetime => "token_lifetime",
        }
    }
}

/// What is read of a token.
#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: f64,
}

/// Verifies tokens.
pub struct Verifier {
    settings: Settings,
    keys: RwLock<Keys>,
    refresh: Option<Refresh>,
}

impl Verifier {
    /// One that takes its keys from `keys`, and from where `refresh` says, if it does.
    #[must_use]
    pub fn new(settings: Settings, keys: Keys, refresh: Option<Refresh>) -> Self {
        Self { settings, keys: RwLock::new(keys), refresh }
    }

    /// Replaces the keys.
    pub fn set_keys(&self, keys: Keys) {
        *self.keys.write().unwrap_or_else(PoisonError::into_inner) = keys;
    }

    /// Whether they come from a URL.
    #[must_use]
    pub const fn is_fetching(&self) -> bool {
        self.refresh.is_some()
    }

    fn keys(&self) -> Keys {
        self.keys.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Keeps the keys fresh until `stop`, if they come from a URL, and tells `part` how that goes.
    pub async fn run(&self, part: Part, stop: CancellationToken) {
        if let Some(refresh) = &self.refresh {
            let run = refresh.run(|keys| self.set_keys(keys), &part);
            stop.run_until_cancelled(run).await;
        }
    }

    /// The subject of `token`, if the token is good. May wait for keys that are fetched because of it.
    ///
    /// # Errors
    /// Why it is not good.
    pub async fn subject(&self, token: &str) -> Result<String, Fault> {
        let header = self.header(token)?;
        match self.verify(token, &header) {
            Err(Fault::UnknownKey) => {}
            verified => return verified,
        }
        let Some(refresh) = &self.refresh else { return Err(Fault::UnknownKey) };
        refresh.ask().await;
        self.verify(token, &header)
    }

    /// What can be said of a token without a key.
    fn header(&self, token: &str) -> Result<Header, Fault> {
        if token.len() > TOKEN_LENGTH_MAX {
            return Err(Fault::TooLong);
        }
        // `none` is no algorithm that can be read.
        let header = decode_header(token).map_err(|_| Fault::Malformed)?;
        if !self.settings.algorithms.contains(&header.alg) {
            return Err(Fault::Algorithm);
        }
        if header.crit.is_some() {
            return Err(Fault::Malformed);
        }
        Ok(header)
    }

    fn verify(&self, token: &str, header: &Header) -> Result<String, Fault> {
        let validation = self.validation(header.alg);
        let keys = self.keys();
        let mut fault = Fault::UnknownKey;
        for key in keys.fitting(header.kid.as_deref(), header.alg).take(TRIES_MAX) {
            match decode::<Claims>(token, key, &validation) {
                Ok(data) => return self.accept(data.claims),
                Err(error) => fault = of(error.kind()),
            }
            if fault != Fault::Signature {
                break;
            }
        }
        Err(fault)
    }

    /// The algorithm is one of those that are allowed, and of those that the key is for.
    fn validation(&self, algorithm: Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.leeway = self.settings.leeway.as_secs();
        validation.validate_nbf = true;
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.set_issuer(&[&self.settings.issuer]);
        validation.set_audience(&self.settings.audience);
        validation
    }

    fn accept(&self, claims: Claims) -> Result<String, Fault> {
        if claims.sub.is_empty() {
            return Err(Fault::Claims);
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let latest = now + self.settings.leeway + self.settings.lifetime_max;
        if claims.exp > latest.as_secs_f64() {
            return Err(Fault::Lifetime);
        }
        Ok(claims.sub)
    }
}

/// A key's bytes are not for logs, public as they are.
impl fmt::Debug for Verifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verifier").field("settings", &self.settings).finish_non_exhaustive()
    }
}

fn of(kind: &ErrorKind) -> Fault {
    match kind {
        ErrorKind::InvalidAlgorithm | ErrorKind::InvalidAlgorithmName | ErrorKind::MissingAlgorithm => {
            Fault::Algorithm
        }
        ErrorKind::ExpiredSignature => Fault::Expired,
        ErrorKind::ImmatureSignature => Fault::NotYetValid,
        // The form of the token itself was read before: what is JSON here are its claims.
        ErrorKind::MissingRequiredClaim(_)
        | ErrorKind::InvalidClaimFormat(_)
        | ErrorKind::InvalidIssuer
        | ErrorKind::InvalidAudience
        | ErrorKind::InvalidSubject
        | ErrorKind::Json(_)
        | ErrorKind::Utf8(_) => Fault::Claims,
        ErrorKind::InvalidToken | ErrorKind::Base64(_) => Fault::Malformed,
        // A key that does not do is as good as another one's signature.
        _ => Fault::Signature,
    }
}
