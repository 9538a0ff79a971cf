//! Organisations that change while they are in use.

use std::collections::HashMap;
use std::sync::mpsc::{Sender, channel};

use guest_connection_adapter::domain::reply::{Reply, Unauthorized};
use guest_connection_adapter::mycreditapp::{Credentials, MyCreditApp};
use guest_connection_adapter::service::ports::{Authorization, Upstream};

use crate::peer::{
    GUEST, REQUESTER, answer, api_client, api_client_with, at, next, organization, patch, serve, settings,
    token,
};

async fn authorize(upstream: &MyCreditApp) -> Result<Authorization, Unauthorized> {
    upstream.authorize(organization(REQUESTER), false).await
}

fn static_token(token: &str) -> Credentials {
    Credentials::StaticToken(token.into())
}

/// The requester with these credentials, alone.
fn replace(upstream: &MyCreditApp, address: std::net::SocketAddr, credentials: Credentials) {
    upstream.replace(HashMap::from([(organization(REQUESTER), at(address, credentials))])).unwrap();
}

/// The token of the authorization, as soon as it is another one.
async fn another(upstream: &MyCreditApp, old: &Authorization) -> Authorization {
    let changed = async {
        loop {
            let authorization = authorize(upstream).await.expect("the old one serves, or the new one");
            if authorization.serial != old.serial {
                return authorization;
            }
            harness::look_again().await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), changed).await.expect("a new token")
}

#[tokio::test]
async fn an_organisation_that_stays_keeps_its_token_and_another_joins() {
    let (address, mut requests) = serve(|number| Some(token(&format!("t{number}"), 3600))).await;
    let upstream = MyCreditApp::new(settings(address, api_client())).unwrap();
    let before = authorize(&upstream).await.unwrap();
    next(&mut requests).await;
    let other = organization(GUEST);
    assert!(!upstream.knows(other));
    let both = HashMap::from([
        (organization(REQUESTER), at(address, api_client())),
        (other, at(address, static_token("other.jwt"))),
    ]);
    upstream.replace(both).unwrap();
    assert_eq!(authorize(&upstream).await.unwrap().serial, before.serial);
    assert!(upstream.knows(other) && upstream.is_ready(other));
    assert_eq!(upstream.authorize(other, false).await.unwrap().header, "Bearer other.jwt");
    assert!(requests.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_old_token_serves_until_the_new_secret_has_given_one() {
    let (release, held) = channel::<()>();
    let held = std::sync::Mutex::new(held);
    let (address, mut requests) = serve(move |number| {
        if number == 1 {
            tokio::task::block_in_place(|| held.lock().unwrap().recv()).unwrap();
        }
        Some(token(&format!("t{number}"), 3600))
    })
    .await;
    let upstream = MyCreditApp::new(settings(address, api_client())).unwrap();
    let old = authorize(&upstream).await.unwrap();
    assert!(next(&mut requests).await.contains("s3cret"));
    replace(&upstream, address, api_client_with("rotated"));
    // Nobody has asked for a token since.
    assert!(next(&mut requests).await.contains(r#""client_secret":"rotated""#));
    assert!(upstream.is_ready(organization(REQUESTER)));
    assert_eq!(authorize(&upstream).await.unwrap().serial, old.serial);
    release.send(()).unwrap();
    let new = another(&upstream, &old).await;
    assert_eq!(new.header, "Bearer t1");
    // A late 401 for the old one says nothing of the new one.
    upstream.refuse(organization(REQUESTER), &old);
    assert_eq!(authorize(&upstream).await.unwrap().serial, new.serial);
    assert!(requests.try_recv().is_err());
}

#[tokio::test]
async fn a_new_secret_that_is_refused_leaves_the_old_token_in_use() {
    let (address, mut requests) = serve(|number| {
        Some(if number == 0 { token("t0", 3600) } else { answer("401 Unauthorized", "", "{}") })
    })
    .await;
    let upstream = MyCreditApp::new(settings(address, api_client())).unwrap();
    authorize(&upstream).await.unwrap();
    next(&mut requests).await;
    replace(&upstream, address, api_client_with("wrong"));
    next(&mut requests).await;
    for _ in 0..20 {
        assert_eq!(authorize(&upstream).await.unwrap().header, "Bearer t0");
    }
    assert!(requests.try_recv().is_err(), "and it is not asked again and again");
}

#[tokio::test]
async fn a_new_secret_is_tried_at_once_whatever_the_old_one_met() {
    let failures = ["401 Unauthorized", "503 Service Unavailable"];
    for failure in failures {
        let (address, mut requests) =
            serve(move |number| Some(if number == 0 { answer(failure, "", "{}") } else { token("t", 60) }))
                .await;
        let upstream = MyCreditApp::new(settings(address, api_client())).unwrap();
        assert!(authorize(&upstream).await.is_err());
        next(&mut requests).await;
        replace(&upstream, address, api_client());
        assert!(authorize(&upstream).await.is_err(), "the same secret as before waits its time");
        replace(&upstream, address, api_client_with("rotated"));
        assert!(next(&mut requests).await.contains("rotated"), "{failure}");
        assert_eq!(authorize(&upstream).await.unwrap().header, "Bearer t");
    }
}

/// Answers the first request when told to, with a refusal, and the rest with a token.
async fn slow_refusal()
-> (MyCreditApp, std::net::SocketAddr, Sender<()>, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let (release, held) = channel::<()>();
    let held = std::sync::Mutex::new(held);
    let (address, requests) = serve(move |number| {
        if number > 0 {
            return Some(token("new", 3600));
        }
        tokio::task::block_in_place(|| held.lock().unwrap().recv()).unwrap();
        Some(answer("401 Unauthorized", "", "{}"))
    })
    .await;
    (MyCreditApp::new(settings(address, api_client())).unwrap(), address, release, requests)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_the_old_secret_still_gets_says_nothing_of_the_new_one() {
    let (upstream, address, release, mut requests) = slow_refusal().await;
    let waiting = tokio::spawn({
        let upstream = upstream.clone();
        async move { authorize(&upstream).await }
    });
    next(&mut requests).await;
    replace(&upstream, address, api_client_with("rotated"));
    assert!(next(&mut requests).await.contains("rotated"));
    let new = authorize(&upstream).await.unwrap();
    release.send(()).unwrap();
    let waited = waiting.await.unwrap().expect("who waited is not refused for the old secret");
    assert_eq!((waited.serial, waited.header), (new.serial, new.header));
    assert_eq!(authorize(&upstream).await.unwrap().serial, new.serial);
}

#[tokio::test]
async fn another_static_token_is_used_from_now_on() {
    let (address, mut requests) = serve(|_| Some(answer("200 OK", "", "{}"))).await;
    let upstream = MyCreditApp::new(settings(address, static_token("first.jwt"))).unwrap();
    let first = authorize(&upstream).await.unwrap();
    upstream.refuse(organization(REQUESTER), &first);
    assert!(!upstream.is_ready(organization(REQUESTER)));
    replace(&upstream, address, static_token("second.jwt"));
    assert!(upstream.is_ready(organization(REQUESTER)));
    let second = authorize(&upstream).await.unwrap();
    assert_eq!(second.header, "Bearer second.jwt");
    // One that cannot be used changes nothing.
    let broken = HashMap::from([(organization(REQUESTER), at(address, static_token("third jwt")))]);
    assert!(upstream.replace(broken).is_err());
    assert_eq!(authorize(&upstream).await.unwrap().serial, second.serial);
    assert!(matches!(upstream.patch(patch(), second).await, Reply::Answered(_)));
    assert!(next(&mut requests).await.contains("authorization: Bearer second.jwt"));
}

#[tokio::test]
async fn a_client_in_the_place_of_a_token_and_back() {
    let (address, _requests) = serve(|_| Some(token("issued", 3600))).await;
    let upstream = MyCreditApp::new(settings(address, static_token("static.jwt"))).unwrap();
    let first = authorize(&upstream).await.unwrap();
    replace(&upstream, address, api_client());
    assert_eq!(another(&upstream, &first).await.header, "Bearer issued");
    replace(&upstream, address, static_token("back.jwt"));
    assert_eq!(authorize(&upstream).await.unwrap().header, "Bearer back.jwt");
    let refused = authorize(&upstream).await.unwrap();
    upstream.refuse(organization(REQUESTER), &refused);
    replace(&upstream, address, api_client());
    assert_eq!(authorize(&upstream).await.unwrap().header, "Bearer issued", "a refused one serves no longer");
}

#[tokio::test]
async fn who_is_removed_is_not_known_any_more() {
    let (address, mut requests) = serve(|_| Some(token("t", 3600))).await;
    let upstream = MyCreditApp::new(settings(address, api_client())).unwrap();
    let authorization = authorize(&upstream).await.unwrap();
    next(&mut requests).await;
    upstream.replace(HashMap::new()).unwrap();
    assert!(!upstream.knows(organization(REQUESTER)) && !upstream.is_ready(organization(REQUESTER)));
    assert!(matches!(authorize(&upstream).await, Err(Unauthorized::NotConfigured)));
    let reply = upstream.patch(patch(), authorization.clone()).await;
    assert!(matches!(reply, Reply::Unauthorized(Unauthorized::NotConfigured)), "{reply:?}");
    // Who comes back begins anew.
    replace(&upstream, address, api_client());
    let again = authorize(&upstream).await.unwrap();
    upstream.refuse(organization(REQUESTER), &authorization);
    assert_eq!(authorize(&upstream).await.unwrap().serial, again.serial);
}

#[tokio::test]
async fn a_token_of_one_api_is_never_sent_to_another() {
    let (here, _requests) = serve(|_| Some(token("here", 3600))).await;
    let (there, mut requests) = serve(|_| Some(token("there", 3600))).await;
    let upstream = MyCreditApp::new(settings(here, api_client())).unwrap();
    let old = authorize(&upstream).await.unwrap();
    replace(&upstream, there, api_client());
    assert!(!upstream.is_ready(organization(REQUESTER)));
    let reply = upstream.patch(patch(), old).await;
    assert!(matches!(reply, Reply::Unauthorized(Unauthorized::Unavailable { .. })), "{reply:?}");
    let new = authorize(&upstream).await.unwrap();
    assert_eq!(new.header, "Bearer there");
    assert!(matches!(upstream.patch(patch(), new).await, Reply::Answered(_)));
    assert!(next(&mut requests).await.starts_with("POST /v1-beta/oauth2/token"));
    assert!(next(&mut requests).await.contains("authorization: Bearer there"));
    assert!(requests.try_recv().is_err());
}
