//! Files that are replaced while the adapter runs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use harness::adapter::replace_file;
use harness::tls::{self, Authority, Issued, SERVER, TlsClient};
use harness::{DEADLINE, look_again};
use rcgen::date_time_ymd;
use tokio::time::timeout;

use crate::support::{BILLING, Place, billing};

/// Waits until new connections are shown this certificate.
async fn until_shown(place: &Place, client: &TlsClient, issued: &Issued) {
    let shown = async {
        loop {
            let stream = client.connect(place.adapter.grpc).await.unwrap();
            if stream.get_ref().1.peer_certificates().unwrap()[0] == issued.certificate {
                return;
            }
            look_again().await;
        }
    };
    timeout(DEADLINE, shown).await.expect("the new certificate is shown");
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_rotate_under_load_without_a_failed_call() {
    let place = Arc::new(Place::start(true, &billing()).await);
    let own = place.clients.client(BILLING);
    let client = TlsClient::new(&place.servers, Some(&own));
    let kept = client.channel(place.adapter.grpc).await.unwrap();
    let (stop, calls) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let mut load = tokio::task::JoinSet::new();
    for number in 0..4 {
        let (place, client, kept) = (place.clone(), client.clone(), kept.clone());
        let (stop, calls) = (stop.clone(), calls.clone());
        load.spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                // Half of them call on a connection that outlives it all, the others on a new one each.
                let call = if number % 2 == 0 {
                    place.call_on(kept.clone()).await
                } else {
                    place.call(&client).await
                };
                call.expect("no call fails");
                calls.fetch_add(1, Ordering::SeqCst);
            }
        });
    }
    for _ in 0..5 {
        let next = place.servers.server();
        tls::replace(place.setup.directory(), &next);
        until_shown(&place, &client, &next).await;
    }
    let before = calls.load(Ordering::SeqCst);
    let more = async {
        while calls.load(Ordering::SeqCst) < before + 20 && !load.is_empty() {
            look_again().await;
        }
    };
    timeout(DEADLINE, more).await.expect("calls go on");
    stop.store(true, Ordering::SeqCst);
    while let Some(ended) = load.join_next().await {
        ended.expect("no call failed");
    }
    assert_eq!(place.certificate("ready").await, "");
    assert!(
        place
            .metric("adapter_grpc_certificate_reloads_total{result=\"applied\"}", |count| count >= 5.0)
            .await
            >= 5.0
    );
}

#[tokio::test]
async fn another_client_authority_counts_for_new_connections() {
    let place = Place::start(true, &billing()).await;
    let next = Authority::new();
    let (old_own, new_own) = (place.clients.client(BILLING), next.client(BILLING));
    let old = TlsClient::new(&place.servers, Some(&old_own));
    let new = TlsClient::new(&place.servers, Some(&new_own));
    let kept = old.channel(place.adapter.grpc).await.unwrap();
    place.call_on(kept.clone()).await.unwrap();
    place.call(&new).await.unwrap_err();
    replace_file(&tls::client_ca_file(place.setup.directory()), &next.pem());
    let taken = async {
        while place.call(&new).await.is_err() {
            look_again().await;
        }
    };
    timeout(DEADLINE, taken).await.expect("the new authority counts");
    place.call(&old).await.unwrap_err();
    place.call_on(kept).await.unwrap();
}

#[tokio::test]
async fn a_broken_file_keeps_the_last_good_state_and_says_so() {
    let place = Place::start(false, "").await;
    let client = TlsClient::new(&place.servers, None);
    let directory = place.setup.directory().to_owned();
    let good = place.servers.server();
    for (number, (breaks, told)) in [
        (tls::certificate_file(&directory), "holds no certificate"),
        (tls::key_file(&directory), "holds no private key"),
    ]
    .into_iter()
    .enumerate()
    {
        replace_file(&breaks, "not PEM\n");
        let detail = place.certificate("degraded").await;
        assert!(detail.contains(told) && detail.contains("still used"), "{detail}");
        place.call(&client).await.unwrap();
        tls::replace(&directory, &good);
        assert_eq!(place.certificate("ready").await, "");
        // The organisations' files hold no fault for longer than these do.
        place.adapter.readiness(|_, body| body["parts"]["organizations"]["status"] == "ready").await;
        let refused = "adapter_grpc_certificate_reloads_total{result=\"refused\"}";
        #[allow(clippy::cast_precision_loss, reason = "a small number")]
        place.metric(refused, |count| count > number as f64).await;
    }
    // A key of another certificate.
    replace_file(&tls::key_file(&directory), &place.servers.server().key_pem);
    assert!(place.certificate("degraded").await.contains("cannot be used with the certificate"));
    place.call(&client).await.unwrap();
    let log = place.adapter.log().all().join("\n");
    assert!(log.contains("the changed files for TLS are at fault"), "{log}");
    assert!(!log.contains("PRIVATE KEY"), "{log}");
}

#[tokio::test]
async fn the_end_of_a_certificate_shows_a_week_before() {
    let place = Place::start(false, "").await;
    let mut params = Authority::params(SERVER);
    params.not_after = date_time_ymd(2090, 1, 1);
    tls::replace(place.setup.directory(), &place.servers.issue(&params));
    let expiry = place.metric("adapter_grpc_certificate_expiry_seconds", |value| value < 3.8e9).await;
    assert!((expiry - 3_786_912_000.0).abs() < 1.0, "{expiry}");
    let soon = SystemTime::now() + Duration::from_secs(3 * 24 * 3600 + 3600);
    params.not_after = soon.into();
    tls::replace(place.setup.directory(), &place.servers.issue(&params));
    assert!(place.certificate("degraded").await.contains("expires in 3 days"));
    let expected = soon.duration_since(UNIX_EPOCH).unwrap().as_secs_f64();
    place.metric("adapter_grpc_certificate_expiry_seconds", |value| (value - expected).abs() < 2.0).await;
}
