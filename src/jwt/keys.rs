//! Public keys: a JSON Web Key Set (RFC 7517) or one key in PEM form.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

/// The longest text that keys are read from, in bytes.
pub const LENGTH_MAX: usize = 256 * 1024;

/// Keys of one set, at most.
const KEYS_MAX: usize = 64;

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

struct Key {
    /// Its `kid`. A key in PEM form has none.
    id: Option<String>,
    /// What it may be used for.
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
}

/// Keys that tokens are verified with. Cloning shares them.
#[derive(Clone, Default)]
pub struct Keys {
    keys: Arc<[Key]>,
    /// What they were read from.
    text: Arc<str>,
}

impl Keys {
    /// Reads keys: JSON is a key set, anything else PEM. Keys of a set that are no use here are passed by.
    ///
    /// # Errors
    /// Why not, as a sentence without a subject.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.len() > LENGTH_MAX {
            return Err("is larger than 256 KiB");
        }
        let keys = if text.trim_start().starts_with('{') { set(text)? } else { vec![pem(text)?] };
        if keys.is_empty() {
            return Err("holds no key that a signature could be verified with");
        }
        if keys.len() > KEYS_MAX {
            return Err("holds more than 64 keys");
        }
        Ok(Self { keys: keys.into(), text: text.into() })
    }

    /// Reads the keys in the file at `path`.
    ///
    /// # Errors
    /// Why not, as a sentence.
    pub fn read(path: &Path) -> Result<Self, String> {
        let shown = path.display();
        let metadata =
            std::fs::metadata(path).map_err(|error| format!("`{shown}` cannot be read: {error}"))?;
        if !metadata.is_file() {
            return Err(format!("`{shown}` is not a file"));
        }
        if metadata.len() > u64::try_from(LENGTH_MAX).unwrap_or(u64::MAX) {
            return Err(format!("`{shown}` is larger than 256 KiB"));
        }
        let text =
            std::fs::read_to_string(path).map_err(|error| format!("`{shown}` cannot be read: {error}"))?;
        Self::parse(&text).map_err(|rule| format!("`{shown}` {rule}"))
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys for `algorithm` that have this id or none. Without an id: all that are for the algorithm.
    pub(super) fn fitting(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &DecodingKey> {
        let keys = self.keys.iter().filter(move |key| {
            let is_named = id.is_none() || key.id.is_none() || key.id.as_deref() == id;
            is_named && key.algorithms.contains(&algorithm)
        });
        keys.map(|key| &key.decoding)
    }
}

impl PartialEq for Keys {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl fmt::Debug for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("count", &self.keys.len()).finish_non_exhaustive()
    }
}

fn set(text: &str) -> Result<Vec<Key>, &'static str> {
    let set: Value = serde_json::from_str(text).map_err(|_| "is not JSON, as it seems to be")?;
    let keys = set.get("keys").and_then(Value::as_array).ok_or("is JSON without a list of `keys`")?;
    if keys.iter().any(|key| key.get("d").is_some()) {
        return Err("holds a private key, must hold public ones only");
    }
    Ok(keys.iter().filter_map(|key| of_set(serde_json::from_value(key.clone()).ok()?)).collect())
}

/// A key of a set, unless it is of another kind or for another purpose. Shared secrets are of another kind.
fn of_set(jwk: Jwk) -> Option<Key> {
    if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return None;
    }
    let of_kind = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => RSA.to_vec(),
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            EllipticCurve::P521 | EllipticCurve::Ed25519 => return None,
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            vec![Algorithm::EdDSA]
        }
        AlgorithmParameters::OctetKeyPair(_) | AlgorithmParameters::OctetKey(_) => return None,
    };
    let own = jwk.common.key_algorithm;
    let algorithms: Vec<_> =
        of_kind.into_iter().filter(|algorithm| own.is_none_or(|own| is_of(own, *algorithm))).collect();
    let decoding = DecodingKey::from_jwk(&jwk).ok()?;
    (!algorithms.is_empty()).then_some(Key { id: jwk.common.key_id, algorithms, decoding })
}

/// Both have the same names.
fn is_of(own: KeyAlgorithm, algorithm: Algorithm) -> bool {
    own.to_string() == format!("{algorithm:?}")
}

fn pem(text: &str) -> Result<Key, &'static str> {
    if text.contains("PRIVATE KEY") {
        return Err("holds a private key, must hold a public one");
    }
    let bytes = text.as_bytes();
    let rsa = || Some((DecodingKey::from_rsa_pem(bytes).ok()?, RSA.to_vec()));
    let curve = || Some((DecodingKey::from_ec_pem(bytes).ok()?, vec![Algorithm::ES256, Algorithm::ES384]));
    let edwards = || Some((DecodingKey::from_ed_pem(bytes).ok()?, vec![Algorithm::EdDSA]));
    let read = rsa().or_else(curve).or_else(edwards);
    let (decoding, algorithms) = read.ok_or("is neither a key set in JSON nor a public key in PEM form")?;
    Ok(Key { id: None, algorithms, decoding })
}
