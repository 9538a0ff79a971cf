use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;

use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::json;
use uuid::Uuid;

use crate::domain::access::Scope;
use crate::jwt::Settings;
use crate::jwt::keys::Keys;

use super::*;

const ADDRESS: &str = "192.0.2.7:4711";

fn principal(name: &str) -> Principal {
    Principal {
        name: name.to_owned(),
        organizations: Scope::Only(HashSet::from([OrganizationId(Uuid::from_u128(1))])),
        methods: BTreeSet::from([Method::Archive]),
        requests_per_second: None,
    }
}

/// Knows one principal by a certificate's name and another by the subject of a token, and the key for those.
fn callers() -> (Callers, EncodingKey) {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let settings = Settings {
        issuer: "i".to_owned(),
        audience: vec!["a".to_owned()],
        algorithms: vec![Algorithm::ES256],
        leeway: Duration::ZERO,
        lifetime_max: Duration::from_secs(3600),
    };
    let keys = Keys::parse(&pair.public_key_pem()).expect("a key");
    let callers = Callers::new(Some(Arc::new(Verifier::new(settings, keys, None))));
    let policy = Policy::new([
        (principal("machine"), vec![Identity::CertificateName("spiffe://example.org/machine".to_owned())]),
        (principal("person"), vec![Identity::JwtSubject("person".to_owned())]),
    ]);
    callers.configure(policy, [("machine", None), ("person", None)].into_iter());
    (callers, EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).expect("a key"))
}

fn bearer(subject: &str, key: &EncodingKey) -> String {
    let claims =
        json!({"iss": "i", "aud": "a", "sub": subject, "exp": jsonwebtoken::get_current_timestamp() + 60});
    format!("Bearer {}", encode(&Header::new(Algorithm::ES256), &claims, key).expect("a token"))
}

/// The name of the principal that these prove, or the reason of the refusal.
async fn who(callers: &Callers, authorization: Option<&str>, names: &[&str]) -> Result<String, Reason> {
    let mut headers = HeaderMap::new();
    headers.extend(authorization.map(|value| (AUTHORIZATION, value.parse().expect("a header"))));
    let mut extensions = Extensions::new();
    let address: SocketAddr = ADDRESS.parse().expect("an address");
    let names = names.iter().map(|name| (*name).to_owned()).collect();
    extensions.insert(Peer { address: Some(address), names, ..Peer::default() });
    let caller = callers.identify(&headers, &extensions).await.map_err(|refusal| refusal.reason)?;
    assert_eq!(caller.asked_by.address.as_deref(), Some(ADDRESS));
    let name = caller.principal.expect("a principal").name.clone();
    assert_eq!(caller.asked_by.principal.as_deref(), Some(name.as_str()));
    Ok(name)
}

#[tokio::test]
async fn a_certificate_or_a_token_proves_who_calls() {
    const MACHINE: &str = "spiffe://example.org/machine";
    let (callers, key) = callers();
    let (good, unknown) = (bearer("person", &key), bearer("nobody", &key));
    let is = |name: &str| Ok(name.to_owned());
    let refused = Err(Reason::Unauthenticated);
    assert_eq!(who(&callers, None, &[MACHINE]).await, is("machine"));
    assert_eq!(who(&callers, None, &["other.example.org", MACHINE]).await, is("machine"));
    assert_eq!(who(&callers, Some(&good), &[]).await, is("person"));
    assert_eq!(who(&callers, Some(&good), &[MACHINE]).await, is("person"), "the token wins");
    assert_eq!(who(&callers, Some(&unknown), &[MACHINE]).await, is("machine"), "unless it is nobody's");
    assert_eq!(who(&callers, Some(&unknown), &[]).await, refused);
    assert_eq!(who(&callers, Some("Bearer x.y.z"), &[MACHINE]).await, refused, "a bad token spoils all");
    assert_eq!(who(&callers, Some("Basic eDp5"), &[MACHINE]).await, refused);
    assert_eq!(who(&callers, None, &[]).await, refused);
    for name in ["SPIFFE://example.org/machine", "spiffe://example.org/machine/", "person"] {
        assert_eq!(who(&callers, None, &[name]).await, refused, "{name}");
    }
}

#[tokio::test]
async fn a_changed_policy_holds_for_the_next_call_and_an_emptied_one_for_nobody() {
    let (callers, key) = callers();
    let good = bearer("person", &key);
    callers.configure(Policy::default(), std::iter::empty());
    assert_eq!(who(&callers, Some(&good), &[]).await, Err(Reason::Unauthenticated));
    let policy = Policy::new([(principal("other"), vec![Identity::JwtSubject("person".to_owned())])]);
    callers.configure(policy, [("other", Some(0.01))].into_iter());
    assert_eq!(who(&callers, Some(&good), &[]).await, Ok("other".to_owned()));
    assert_eq!(who(&callers, Some(&good), &[]).await, Err(Reason::Overloaded));
    // What was counted is kept while the rate stays, and forgotten with another one.
    let policy = || Policy::new([(principal("other"), vec![Identity::JwtSubject("person".to_owned())])]);
    callers.configure(policy(), [("other", Some(0.01))].into_iter());
    assert_eq!(who(&callers, Some(&good), &[]).await, Err(Reason::Overloaded));
    callers.configure(policy(), [("other", Some(1_000.0))].into_iter());
    assert_eq!(who(&callers, Some(&good), &[]).await, Ok("other".to_owned()));
}

#[tokio::test]
async fn without_principals_nobody_is_asked() {
    let callers = Callers::new(None);
    let caller = callers.identify(&HeaderMap::new(), &Extensions::new()).await.expect("let in");
    assert_eq!(caller.principal, None);
    assert_eq!(caller.permit(Method::Archive, OrganizationId(Uuid::from_u128(9))), Ok(()));
}
