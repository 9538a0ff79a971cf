//! Bearer tokens: the section, its defaults and its rules.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use url::{Host, Url};

use super::fault::Faults;
use super::rules::address;
use super::sections::Config;
use crate::jwt::keys::Keys;
use crate::jwt::{self, ALGORITHMS, fetch};
use crate::mycreditapp::roots;

/// Bearer tokens of callers (JWT). Without this section none are taken.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Jwt {
    /// The issuer: what the claim `iss` must be.
    #[schemars(example = &"https://idp.example.org/")]
    pub issuer: Option<String>,
    /// Names of this adapter: the claim `aud` must hold one of them.
    #[schemars(example = ["guest-connection-adapter"])]
    #[serde(deserialize_with = "super::list::deserialize")]
    pub audience: Vec<String>,
    /// The algorithms of signatures that are accepted: of `RS256`, `RS384`, `RS512`, `PS256`, `PS384`, `PS512`, `ES256`,
    /// `ES384` and `EdDSA`. Those with a shared secret, and `none`, are never accepted.
    #[serde(deserialize_with = "super::list::deserialize")]
    pub algorithms: Vec<String>,
    /// A file with the public keys: a JSON Web Key Set, or one key in PEM form. Changes take effect without a restart.
    #[schemars(example = "tls/jwks.json")]
    pub keys_file: Option<PathBuf>,
    /// The address of a JSON Web Key Set, in the place of a file: `https`, or `http` on loopback.
    #[schemars(example = "https://idp.example.org/jwks.json")]
    pub jwks_url: Option<String>,
    /// A file of certificate authorities in PEM form that are trusted for `jwks_url` beside those of the system.
    #[schemars(example = "/etc/ssl/private-ca.pem")]
    pub jwks_ca_file: Option<PathBuf>,
    /// How often `jwks_url` is fetched; besides, when a token names a key that is not known, at a bounded rate.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub jwks_refresh_interval: Duration,
    /// How far the issuer's clock may be off, in whole seconds.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub leeway: Duration,
    /// How far in the future the expiry (`exp`) of a token may lie.
    #[serde(with = "humantime_serde")]
    #[schemars(with = "String")]
    pub lifetime_max: Duration,
    /// What `keys_file` holds.
    #[serde(skip)]
    #[schemars(skip)]
    pub keys: Option<Keys>,
}

impl Default for Jwt {
    fn default() -> Self {
        Self {
            issuer: None,
            audience: Vec::new(),
            algorithms: vec!["RS256".to_owned(), "ES256".to_owned()],
            keys_file: None,
            jwks_url: None,
            jwks_ca_file: None,
            jwks_refresh_interval: Duration::from_secs(5 * 60),
            leeway: Duration::from_secs(30),
            lifetime_max: Duration::from_secs(24 * 3600),
            keys: None,
        }
    }
}

impl Jwt {
    /// Which tokens are good.
    #[must_use]
    pub fn settings(&self) -> jwt::Settings {
        let named = ALGORITHMS.iter().filter(|(name, _)| self.algorithms.iter().any(|wanted| wanted == name));
        jwt::Settings {
            issuer: self.issuer.clone().unwrap_or_default(),
            audience: self.audience.clone(),
            algorithms: named.map(|(_, algorithm)| *algorithm).collect(),
            leeway: self.leeway,
            lifetime_max: self.lifetime_max,
        }
    }

    /// Where keys come from, if not from a file.
    #[must_use]
    pub fn fetch(&self) -> Option<fetch::Settings> {
        let url = self.jwks_url.as_deref().and_then(|url| Url::parse(url).ok())?;
        Some(fetch::Settings {
            url,
            interval: self.jwks_refresh_interval,
            ca_file: self.jwks_ca_file.clone(),
        })
    }
}

/// Reads the file of keys that is named.
pub(super) fn resolve(config: &mut Config, faults: &mut Faults) {
    let Some(jwt) = &mut config.jwt else { return };
    match jwt.keys_file.as_deref().map(Keys::read) {
        None => {}
        Some(Ok(keys)) => jwt.keys = Some(keys),
        Some(Err(message)) => faults.push("jwt.keys_file", message),
    }
}

/// Notes every rule that the section breaks.
pub(super) fn check(config: &Config, faults: &mut Faults) {
    let Some(jwt) = &config.jwt else {
        for (name, principal) in &config.principals {
            if !principal.jwt_subjects.is_empty() {
                let rule = "needs the section `jwt`: without it no token is taken";
                faults.push(format!("principals.{name}.jwt_subjects"), rule);
            }
        }
        return;
    };
    if jwt.issuer.as_ref().is_none_or(String::is_empty) {
        faults.push("jwt.issuer", "must be given");
    }
    if jwt.audience.is_empty() || jwt.audience.iter().any(String::is_empty) {
        faults.push("jwt.audience", "must hold a name of this adapter at least, and no empty one");
    }
    algorithms(jwt, faults);
    keys(jwt, faults);
    let seconds = [
        ("jwt.leeway", jwt.leeway, 0, 300),
        ("jwt.lifetime_max", jwt.lifetime_max, 1, 366 * 24 * 3600),
        ("jwt.jwks_refresh_interval", jwt.jwks_refresh_interval, 1, 24 * 3600),
    ];
    for (key, value, min, max) in seconds {
        if value.subsec_nanos() != 0 || !(min..=max).contains(&value.as_secs()) {
            faults.push(key, format!("must be whole seconds, from {min}s to {max}s"));
        }
    }
}

fn algorithms(jwt: &Jwt, faults: &mut Faults) {
    if jwt.algorithms.is_empty() {
        faults.push("jwt.algorithms", "must name an algorithm");
    }
    let known: BTreeSet<_> = ALGORITHMS.iter().map(|(name, _)| *name).collect();
    for name in jwt.algorithms.iter().filter(|name| !known.contains(name.as_str())) {
        let names = known.iter().copied().collect::<Vec<_>>().join(", ");
        faults.push("jwt.algorithms", format!("holds `{name}`, must be of {names} each"));
    }
}

fn keys(jwt: &Jwt, faults: &mut Faults) {
    if jwt.keys_file.is_some() == jwt.jwks_url.is_some() {
        faults.push("jwt", "must have either `keys_file` or `jwks_url`");
    }
    if let Some(text) = &jwt.jwks_url {
        address("jwt.jwks_url", text, &["https", "http"], faults);
        let is_open =
            |url: &Url| url.scheme() == "http" && !url.host().is_some_and(|host| is_loopback(&host));
        if Url::parse(text).is_ok_and(|url| is_open(&url)) {
            faults.push("jwt.jwks_url", "must begin with https://, unless its host is this machine");
        }
    }
    if let Some(Err(error)) = jwt.jwks_ca_file.as_deref().map(roots::read) {
        faults.push("jwt.jwks_ca_file", error.to_string());
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(address) => address.is_loopback(),
        Host::Ipv6(address) => address.is_loopback(),
    }
}
