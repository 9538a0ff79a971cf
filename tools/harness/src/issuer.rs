//! Issuers of bearer tokens.

use std::time::{SystemTime, UNIX_EPOCH};

use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256, RsaKeySize};
use serde_json::{Value, json};

/// What good tokens say of who made them.
pub const ISSUER: &str = "https://idp.example.org/";
/// And for whom.
pub const AUDIENCE: &str = "guest-connection-adapter";

/// Someone who signs tokens with one key.
pub struct Issuer {
    /// The key's name.
    pub kid: String,
    /// What it signs by.
    pub algorithm: Algorithm,
    /// The key itself.
    pub pair: KeyPair,
    key: EncodingKey,
}

impl Issuer {
    /// One by RS256.
    #[must_use]
    pub fn rsa(kid: &str) -> Self {
        let pair = KeyPair::generate_rsa_for(&PKCS_RSA_SHA256, RsaKeySize::_2048).unwrap();
        let key = EncodingKey::from_rsa_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self { kid: kid.to_owned(), algorithm: Algorithm::RS256, pair, key }
    }

    /// One by ES256.
    #[must_use]
    pub fn ec(kid: &str) -> Self {
        let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap();
        let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
        Self { kid: kid.to_owned(), algorithm: Algorithm::ES256, pair, key }
    }

    /// Its public key as a member of a set.
    #[must_use]
    pub fn jwk(&self) -> Value {
        let mut jwk = Jwk::from_encoding_key(&self.key, self.algorithm).unwrap();
        jwk.common.key_id = Some(self.kid.clone());
        serde_json::to_value(jwk).unwrap()
    }

    /// The header of its tokens.
    #[must_use]
    pub fn header(&self) -> Header {
        Header { kid: Some(self.kid.clone()), ..Header::new(self.algorithm) }
    }

    /// A token of any header and claims.
    #[must_use]
    pub fn sign(&self, header: &Header, claims: &Value) -> String {
        encode(header, claims, &self.key).unwrap()
    }

    /// A good token.
    #[must_use]
    pub fn token(&self, subject: &str) -> String {
        self.sign(&self.header(), &claims(subject))
    }
}

/// A set of their keys.
#[must_use]
pub fn set(issuers: &[&Issuer]) -> String {
    json!({ "keys": issuers.iter().map(|issuer| issuer.jwk()).collect::<Vec<_>>() }).to_string()
}

/// Seconds since 1970.
#[must_use]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// What a good token says.
#[must_use]
pub fn claims(subject: &str) -> Value {
    json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now(), "exp": now() + 600 })
}

/// Good claims but for some; null takes one out.
#[must_use]
pub fn claims_with(changes: &Value) -> Value {
    let mut claims = claims("first");
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => claims.as_object_mut().unwrap().remove(name),
            value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
        };
    }
    claims
}
