//! A bearer token: never a panic, and good only if it is signed by the key of this target, for this adapter, in its time.

#![no_main]

use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::hmac;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::FutureExt as _;
use guest_connection_adapter::jwt::keys::Keys;
use guest_connection_adapter::jwt::{ALGORITHMS, Fault, Settings, Verifier};
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value, json};

const LEEWAY: Duration = Duration::from_secs(30);
const LIFETIME_MAX: Duration = Duration::from_secs(3600);

#[derive(Debug, Arbitrary)]
enum Input<'a> {
    Text(&'a str),
    KeySet(&'a str),
    Token(Box<Token>),
}

#[derive(Debug, Arbitrary)]
struct Token {
    algorithm: Choice,
    kid: Option<Choice>,
    issuer: Option<Choice>,
    audience: Option<Audience>,
    subject: Option<String>,
    /// Seconds from now.
    expiry: Option<i32>,
    begin: Option<i32>,
    /// More of the header, as JSON.
    head: Option<(Extra, String)>,
    signature: Signature,
}

/// What is right here, or something else.
#[derive(Debug, Arbitrary)]
enum Choice {
    Right,
    None,
    Hmac,
    Rsa,
    Other(String),
}

impl Choice {
    fn text<'a>(&'a self, right: &'a str) -> &'a str {
        match self {
            Self::Right => right,
            Self::None => "none",
            Self::Hmac => "HS256",
            Self::Rsa => "RS256",
            Self::Other(text) => text,
        }
    }
}

#[derive(Debug, Arbitrary)]
enum Audience {
    One(Choice),
    Many(Vec<Choice>),
    Number(i64),
}

#[derive(Debug, Arbitrary)]
enum Extra {
    Crit,
    Jwk,
    Jku,
    X5u,
    Typ,
}

#[derive(Debug, Arbitrary)]
enum Signature {
    Genuine,
    /// Genuine, but for one bit.
    Altered(u16),
    /// Made with the public key as a shared secret.
    Hmac,
    Bytes(Vec<u8>),
}

struct Fixture {
    pair: Ed25519KeyPair,
    verifier: Verifier,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).expect("a key");
    let x = URL_SAFE_NO_PAD.encode(pair.public_key());
    let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "key", "x": x}]});
    let keys = Keys::parse(&set.to_string()).expect("keys");
    let settings = Settings {
        issuer: "issuer".to_owned(),
        audience: vec!["adapter".to_owned()],
        algorithms: ALGORITHMS.map(|(_, algorithm)| algorithm).to_vec(),
        leeway: LEEWAY,
        lifetime_max: LIFETIME_MAX,
    };
    Fixture { pair, verifier: Verifier::new(settings, keys, None) }
});

fn subject(token: &str) -> Result<String, Fault> {
    FIXTURE.verifier.subject(token).now_or_never().expect("nothing is fetched")
}

impl Token {
    fn head(&self) -> Value {
        let mut head = Map::new();
        head.insert("alg".to_owned(), self.algorithm.text("EdDSA").into());
        if let Some(kid) = &self.kid {
            head.insert("kid".to_owned(), kid.text("key").into());
        }
        if let Some((extra, text)) = &self.head {
            let name = match extra {
                Extra::Crit => "crit",
                Extra::Jwk => "jwk",
                Extra::Jku => "jku",
                Extra::X5u => "x5u",
                Extra::Typ => "typ",
            };
            let value = serde_json::from_str(text).unwrap_or_else(|_| Value::from(text.as_str()));
            head.insert(name.to_owned(), value);
        }
        head.into()
    }

    fn claims(&self, now: u64) -> Value {
        let mut claims = Map::new();
        let after = |seconds: i32| Value::from(now.saturating_add_signed(seconds.into()));
        let audience = self.audience.as_ref().map(|audience| match audience {
            Audience::One(one) => Value::from(one.text("adapter")),
            Audience::Many(many) => many.iter().map(|one| one.text("adapter")).collect(),
            Audience::Number(number) => Value::from(*number),
        });
        let entries = [
            ("iss", self.issuer.as_ref().map(|issuer| Value::from(issuer.text("issuer")))),
            ("aud", audience),
            ("sub", self.subject.clone().map(Value::from)),
            ("exp", self.expiry.map(after)),
            ("nbf", self.begin.map(after)),
        ];
        claims.extend(entries.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))));
        claims.into()
    }

    fn text(&self, now: u64) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let text = format!("{}.{}", encode(&self.head()), encode(&self.claims(now)));
        let signature = match &self.signature {
            Signature::Genuine => FIXTURE.pair.sign(text.as_bytes()).as_ref().to_vec(),
            Signature::Altered(bit) => {
                let mut signature = FIXTURE.pair.sign(text.as_bytes()).as_ref().to_vec();
                let bit = usize::from(*bit) % (signature.len() * 8);
                signature[bit / 8] ^= 1 << (bit % 8);
                signature
            }
            Signature::Hmac => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, FIXTURE.pair.public_key().as_ref());
                hmac::sign(&key, text.as_bytes()).as_ref().to_vec()
            }
            Signature::Bytes(bytes) => bytes.clone(),
        };
        format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
    }

    fn may_be_good(&self) -> bool {
        let is_right = |choice: &Choice, right: &str| choice.text(right) == right;
        let audience = match &self.audience {
            Some(Audience::One(one)) => is_right(one, "adapter"),
            Some(Audience::Many(many)) => many.iter().any(|one| is_right(one, "adapter")),
            Some(Audience::Number(_)) | None => false,
        };
        // The clock may go on by a second meanwhile, or a few under a debugger.
        let lately = -i32::try_from(LEEWAY.as_secs()).expect("small");
        let latest = i32::try_from((LEEWAY + LIFETIME_MAX).as_secs()).expect("small") + 10;
        matches!(self.signature, Signature::Genuine)
            && is_right(&self.algorithm, "EdDSA")
            && self.kid.as_ref().is_none_or(|kid| is_right(kid, "key"))
            && self.issuer.as_ref().is_some_and(|issuer| is_right(issuer, "issuer"))
            && audience
            && self.subject.as_ref().is_some_and(|subject| !subject.is_empty())
            && self.expiry.is_some_and(|expiry| (lately..=latest).contains(&expiry))
            && self.begin.is_none_or(|begin| begin <= -lately + 10)
            && !matches!(self.head, Some((Extra::Crit, _)))
    }

    /// Good without any doubt.
    fn is_good(&self) -> bool {
        let is_timely = self.expiry.is_some_and(|expiry| (10..3600).contains(&expiry))
            && self.begin.is_none_or(|begin| begin <= 0);
        let is_plain = !matches!(self.audience, Some(Audience::Many(_))) && self.head.is_none();
        self.may_be_good() && is_timely && is_plain && self.subject.as_ref().is_some_and(|s| s.len() < 1024)
    }
}

fuzz_target!(|input: Input<'_>| {
    let token = match input {
        Input::Text(text) => return assert!(subject(text).is_err(), "nobody has signed this"),
        Input::KeySet(text) => return drop(Keys::parse(text)),
        Input::Token(token) => token,
    };
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    match subject(&token.text(now)) {
        Ok(subject) => {
            assert!(token.may_be_good(), "a bad token is taken for good");
            assert_eq!(Some(subject), token.subject);
        }
        Err(fault) => assert!(!token.is_good(), "a good token is refused: {}", fault.as_str()),
    }
});
