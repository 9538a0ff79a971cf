//! Bytes of any kind where a token, a set of keys or a request is read: refused or taken, never a panic.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use chrono::{DateTime, TimeDelta};
use futures::FutureExt as _;
use guest_connection_adapter::grpc::convert::{Lookup, Wish};
use guest_connection_adapter::jwt::keys::Keys;
use guest_connection_adapter::jwt::{Fault, Settings, Verifier};
use guest_connection_adapter::proto;
use jsonwebtoken::Algorithm;
use proptest::prelude::*;
use prost::Message as _;
use uuid::Uuid;

use crate::support::{AUDIENCE, ISSUER, Issuer};

fn verifier() -> Verifier {
    let settings = Settings {
        issuer: ISSUER.to_owned(),
        audience: vec![AUDIENCE.to_owned()],
        algorithms: vec![Algorithm::ES256, Algorithm::RS256],
        leeway: Duration::from_secs(30),
        lifetime_max: Duration::from_secs(3600),
    };
    Verifier::new(settings, Keys::parse(&Issuer::ec("e").pair.public_key_pem()).unwrap(), None)
}

/// Texts that look like the parts of a token.
fn part() -> impl Strategy<Value = String> {
    let header = prop_oneof![
        Just(r#"{"alg":"ES256"}"#.to_owned()),
        Just(r#"{"alg":"ES256","kid":"e","jwk":{"kty":"oct","k":"eA"}}"#.to_owned()),
        Just(r#"{"alg":["ES256"]}"#.to_owned()),
        Just(
            r#"{"iss":"https://idp.example.org/","aud":"guest-connection-adapter","sub":"x","exp":1e300}"#
                .to_owned()
        ),
        r#"\{"(alg|kid|exp|crit)":("[ -~]{0,12}"|-?[0-9]{1,25}|null|\[\]|\{\})\}"#,
        any::<String>(),
    ];
    prop_oneof![4 => header.prop_map(|text| BASE64_URL_SAFE_NO_PAD.encode(text)), 1 => "[ -~]{0,40}"]
}

proptest! {
    #[test]
    fn no_text_is_a_good_token_but_those_that_were_signed(parts in prop::collection::vec(part(), 0..5), any in any::<String>()) {
        let verifier = verifier();
        for text in [parts.join("."), any] {
            let subject = verifier.subject(&text).now_or_never().expect("nothing to wait for");
            prop_assert!(subject.is_err(), "{text}");
        }
    }

    #[test]
    fn no_text_breaks_the_reading_of_keys(text in any::<String>(), inner in "[ -~]{0,60}") {
        let _ = Keys::parse(&text);
        let _ = Keys::parse(&format!("{{\"keys\": [{{\"kty\": \"RSA\", \"n\": \"{inner}\", \"e\": \"AQAB\"}}]}}"));
        let _ = Keys::parse(&format!("-----BEGIN PUBLIC KEY-----\n{inner}\n-----END PUBLIC KEY-----\n"));
    }

    #[test]
    fn no_request_breaks_its_reading(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        texts in prop::array::uniform4(any::<String>()),
        times in prop::array::uniform2((any::<i64>(), any::<i32>())),
    ) {
        let now = DateTime::from_timestamp(1_765_535_400, 0).unwrap();
        let [issue, expire] = times.map(|(seconds, nanos)| Some(prost_types::Timestamp { seconds, nanos }));
        let [guest, requester, target, key] = texts;
        let built = proto::ArchiveGuestConnectionRequest {
            guest_organization_id: guest,
            requester_organization_id: requester,
            target_organization_id: target,
            idempotency_key: key,
            issue_time: issue,
            expire_time: expire,
        };
        let read = proto::ArchiveGuestConnectionRequest::decode(bytes.as_slice());
        for request in [Some(built), read.ok()].into_iter().flatten() {
            let command = Wish::from(request).command(now, TimeDelta::days(7), Uuid::nil(), None);
            prop_assert!(command.map_or(true, |command| !command.key.as_str().chars().any(char::is_control)));
        }
        if let Ok(question) = proto::GetCommandRequest::decode(bytes.as_slice()) {
            let _ = Lookup::read(question, None);
        }
    }
}

#[test]
fn a_token_of_any_length_is_looked_at_no_further_than_the_limit() {
    let token = "a".repeat(1 << 20);
    assert_eq!(verifier().subject(&token).now_or_never(), Some(Err(Fault::TooLong)));
}
