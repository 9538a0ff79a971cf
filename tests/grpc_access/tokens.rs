//! Tokens that are not what they should be: each refused in the same words, and counted by what was wrong.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::{Value, json};
use tonic::Code;
use uuid::Uuid;

use crate::support::{
    House, Issuer, authorized, bearing, claims, claims_with, now, reason, set, setup, unauthenticated, whole,
};

/// A token of texts that nobody has checked.
fn raw(header: &Value, claims: &Value, signature: &[u8]) -> String {
    let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
    let (header, claims) = (header.to_string(), claims.to_string());
    format!("{}.{}.{}", part(header.as_bytes()), part(claims.as_bytes()), part(signature))
}

/// Tokens that are not good, with what is counted of each.
fn hostile(issuer: &Issuer) -> Vec<(&'static str, String, &'static str)> {
    let good = claims("first");
    let head = issuer.header();
    let signed = |changes: &Value| issuer.sign(&head, &claims_with(changes));
    let kid = |kid: &str| issuer.sign(&Header { kid: Some(kid.to_owned()), ..issuer.header() }, &good);
    let shared = |secret: &[u8]| {
        let head = Header { kid: Some(issuer.kid.clone()), ..Header::new(Algorithm::HS256) };
        encode(&head, &good, &EncodingKey::from_secret(secret)).unwrap()
    };
    let stranger = Issuer::rsa(&issuer.kid);
    let token = issuer.token("first");
    let (body, signature) = token.rsplit_once('.').unwrap();
    let pem = issuer.pair.public_key_pem();
    let critical = Header { crit: Some(vec!["exp".to_owned()]), ..issuer.header() };
    let own_key = Header { jku: Some("http://127.0.0.1:1/jwks".to_owned()), ..stranger.header() };
    let mut cases = vec![
        ("no algorithm", raw(&json!({"alg": "none"}), &good, b""), "token_malformed"),
        ("no algorithm, in capitals", raw(&json!({"alg": "NONE"}), &good, b"x"), "token_malformed"),
        ("the public key as a secret", shared(pem.as_bytes()), "token_algorithm"),
        ("the public key's bytes as a secret", shared(issuer.pair.public_key_raw()), "token_algorithm"),
        ("an empty secret", shared(b""), "token_algorithm"),
        (
            "an algorithm that is not allowed",
            {
                let head = Header { kid: Some(issuer.kid.clone()), ..Header::new(Algorithm::PS256) };
                issuer.sign(&head, &good)
            },
            "token_algorithm",
        ),
        (
            "an algorithm of another kind of key",
            {
                let other = Issuer::ec(&issuer.kid);
                other.sign(&other.header(), &good)
            },
            "token_key_unknown",
        ),
        ("an unknown key", kid("key-2"), "token_key_unknown"),
        ("a path for a key", kid("../../../../dev/null"), "token_key_unknown"),
        ("a question for a key", kid("x' UNION SELECT 'secret' --"), "token_key_unknown"),
        ("a command for a key", kid("|/usr/bin/id\n"), "token_key_unknown"),
        ("another one's signature", stranger.token("first"), "token_signature"),
        ("a key of its own", stranger.sign(&own_key, &good), "token_signature"),
        ("no signature", format!("{body}."), "token_signature"),
        ("two signatures", format!("{token}.{signature}"), "token_malformed"),
        (
            "claims that were changed",
            {
                let (head, _) = body.split_once('.').unwrap();
                let other = BASE64_URL_SAFE_NO_PAD.encode(claims("operator").to_string());
                format!("{head}.{other}.{signature}")
            },
            "token_signature",
        ),
        ("what must be understood", issuer.sign(&critical, &good), "token_malformed"),
        ("no expiry", signed(&json!({"exp": null})), "token_claims"),
        ("a text for an expiry", signed(&json!({"exp": "tomorrow"})), "token_claims"),
        ("expired", signed(&json!({"exp": now() - 40})), "token_expired"),
        ("good for ever", signed(&json!({"exp": now() + 10 * 366 * 24 * 3600})), "token_lifetime"),
        ("not yet valid", signed(&json!({"nbf": now() + 60})), "token_not_yet_valid"),
        ("another issuer", signed(&json!({"iss": "https://idp.example.com/"})), "token_claims"),
        ("no issuer", signed(&json!({"iss": null})), "token_claims"),
        ("another audience", signed(&json!({"aud": ["somebody", "else"]})), "token_claims"),
        ("no audience", signed(&json!({"aud": null})), "token_claims"),
        ("no subject", signed(&json!({"sub": null})), "token_claims"),
        ("an empty subject", signed(&json!({"sub": ""})), "token_claims"),
        ("a list for a subject", signed(&json!({"sub": ["first"]})), "token_claims"),
        ("somebody unknown", signed(&json!({"sub": "nobody"})), "identity_unknown"),
        ("a name that is nearly known", signed(&json!({"sub": "first "})), "identity_unknown"),
        ("too long", signed(&json!({"more": "x".repeat(7_000)})), "token_too_long"),
    ];
    for text in ["", ".", "..", "...", "a.b.c", "%%%.%%%.%%%", "e30.e30.e30", "bnVsbA.bnVsbA.bnVsbA"] {
        cases.push(("no token at all", text.to_owned(), "token_malformed"));
    }
    cases
}

#[tokio::test]
async fn a_bad_token_is_refused_in_the_same_words_whatever_is_wrong() {
    let house = House::start("").await;
    let mut client = house.adapter.client().await;
    let guest = Uuid::new_v4();
    let mut counted = BTreeMap::new();
    let mut refusals = Vec::new();
    for (case, token, kind) in hostile(&house.issuer) {
        let call = bearing(&token, house.upstream.archive(guest, "k"));
        let refused = client.archive_guest_connection(call).await.expect_err(case);
        assert_eq!(reason(&refused), unauthenticated(), "{case}");
        refusals.push(whole(&refused));
        *counted.entry(kind).or_insert(0) += 1;
        assert_eq!(house.refused(kind).await, counted[kind], "{case} is {kind}");
    }
    let (bare, kind) = (house.upstream.archive(guest, "k"), "nothing_proved");
    refusals.push(whole(&client.archive_guest_connection(bare.clone()).await.unwrap_err()));
    assert_eq!(house.refused(kind).await, 1);
    let good = house.issuer.token("first");
    for authorization in [&format!("Basic {good}"), &good, "Bearer"] {
        let call = authorized(authorization, bare.clone());
        refusals.push(whole(&client.archive_guest_connection(call).await.unwrap_err()));
    }
    let mut twice = bearing(&good, bare.clone());
    twice.metadata_mut().append("authorization", format!("Bearer {good}").parse().unwrap());
    refusals.push(whole(&client.archive_guest_connection(twice).await.unwrap_err()));
    assert_eq!(house.refused("authorization_malformed").await, 4);
    refusals.dedup();
    assert_eq!(refusals.len(), 1, "{refusals:#?}");
    assert_eq!(house.upstream.received(guest), 0);
    // What was refused says nothing in the log either, and does not fill it.
    let log = house.adapter.log().all().join("\n");
    assert!(log.contains("it did not prove who calls"), "{log}");
    for secret in ["eyJ", "nobody", "UNION", &good[20..60]] {
        assert!(!log.contains(secret), "{secret} in {log}");
    }
    client.archive_guest_connection(bearing(&good, bare)).await.expect("a good one is taken");
    assert_eq!(house.upstream.received(guest), 1);
    house.end().await;
}

#[tokio::test]
async fn clocks_may_differ_by_the_leeway() {
    let house = House::start("jwt.leeway = \"60s\"").await;
    let signed = |changes: Value| house.issuer.sign(&house.issuer.header(), &claims_with(&changes));
    for (number, changes) in [
        json!({"exp": now() - 30}),
        json!({"nbf": now() + 30}),
        json!({"exp": (now() + 100) * 10 / 10, "nbf": now()}),
    ]
    .into_iter()
    .enumerate()
    {
        house.archive(&signed(changes), &format!("k-{number}")).await.expect("within the leeway");
    }
    for changes in [json!({"exp": now() - 90}), json!({"nbf": now() + 120})] {
        let refused = house.archive(&signed(changes), "k").await.expect_err("beyond the leeway");
        assert_eq!(reason(&refused), unauthenticated());
    }
    house.end().await;
}

#[tokio::test]
async fn each_kind_of_key_verifies_its_own_tokens() {
    let (rsa, ec) = (Issuer::rsa("r"), Issuer::ec("e"));
    let upstream = harness::Upstream::start_with(2).await;
    // What is no use here does no harm.
    let mut keys: Value = serde_json::from_str(&set(&[&rsa, &ec])).unwrap();
    let mut own = keys["keys"].as_array().unwrap().clone();
    own.insert(0, json!({"kty": "oct", "kid": "r", "k": "c2VjcmV0", "alg": "HS256"}));
    own.insert(0, json!({"kty": "new", "kid": "r"}));
    keys["keys"] = Value::Array(own);
    let setup = setup(&upstream, &keys.to_string(), "");
    let adapter = setup.start_ready().await;
    let mut client = adapter.client().await;
    for (number, issuer) in [&rsa, &ec].into_iter().enumerate() {
        let anonymous = issuer.sign(&Header::new(issuer.algorithm), &claims("first"));
        for (part, token) in [issuer.token("first"), anonymous].into_iter().enumerate() {
            let call = upstream.archive(Uuid::new_v4(), &format!("k-{number}-{part}"));
            client.archive_guest_connection(bearing(&token, call)).await.expect("taken");
        }
    }
    let secret =
        encode(&Header::new(Algorithm::HS256), &claims("first"), &EncodingKey::from_secret(b"secret"));
    let call = bearing(&secret.unwrap(), upstream.archive(Uuid::new_v4(), "k"));
    assert_eq!(client.archive_guest_connection(call).await.unwrap_err().code(), Code::Unauthenticated);
    // One key in PEM form has no name: it fits any.
    let adapter = {
        assert!(adapter.terminate().await.0.success());
        crate::support::setup(&upstream, &ec.pair.public_key_pem(), "").start_ready().await
    };
    let call = bearing(&ec.token("first"), upstream.archive(Uuid::new_v4(), "pem"));
    adapter.client().await.archive_guest_connection(call).await.expect("taken");
    assert!(adapter.terminate().await.0.success());
}

#[tokio::test]
async fn without_the_section_a_token_is_refused_and_without_principals_nobody_is_asked() {
    let upstream = harness::Upstream::start().await;
    let lines =
        "principals.first = { certificate_names = [\"first.example.org\"], organizations = [\"test\"] }";
    let adapter = upstream.setup(crate::support::PROGRAM).config(lines).start_ready().await;
    let call = bearing(&Issuer::ec("e").token("first"), upstream.archive(Uuid::new_v4(), "k"));
    let refused = adapter.client().await.archive_guest_connection(call).await.unwrap_err();
    assert_eq!(reason(&refused), unauthenticated());
    assert!(adapter.terminate().await.0.success());
    let open = upstream.setup(crate::support::PROGRAM).start_ready().await;
    let call = bearing("whatever", upstream.archive(Uuid::new_v4(), "k"));
    open.client().await.archive_guest_connection(call).await.expect("as before");
    assert!(open.terminate().await.0.success());
}
