//! What it costs to verify a token, and what a refusal costs.

use std::time::{Duration, Instant};

use guest_connection_adapter::jwt::keys::Keys;
use guest_connection_adapter::jwt::{Settings, Verifier};

use crate::support::{AUDIENCE, ISSUER, Issuer, set};

/// Tokens of each kind.
const ROUNDS: u32 = 2_000;

#[tokio::test]
async fn verifying_a_token_takes_little_beside_a_call() {
    for issuer in [Issuer::rsa("r"), Issuer::ec("e")] {
        let settings = Settings {
            issuer: ISSUER.to_owned(),
            audience: vec![AUDIENCE.to_owned()],
            algorithms: vec![issuer.algorithm],
            leeway: Duration::from_secs(30),
            lifetime_max: Duration::from_secs(3600),
        };
        let verifier = Verifier::new(settings, Keys::parse(&set(&[&issuer])).unwrap(), None);
        let token = issuer.token("first");
        let started = Instant::now();
        for _ in 0..ROUNDS {
            assert_eq!(verifier.subject(&token).await.as_deref(), Ok("first"));
        }
        let each = started.elapsed() / ROUNDS;
        println!("{:?}: {each:?} for a token", issuer.algorithm);
        // A debug build on a busy machine; a call, with its commit, takes milliseconds.
        assert!(each < Duration::from_millis(5), "{each:?}");
    }
}
