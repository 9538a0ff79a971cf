//! Tokens: one request at a time, ahead of expiry, and never a storm.

use std::time::Duration;

use futures::future::join_all;
use guest_connection_adapter::domain::reply::{Reply, Unauthorized};
use guest_connection_adapter::mycreditapp::MyCreditApp;
use guest_connection_adapter::service::ports::{Authorization, Upstream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use crate::peer::{
    GUEST, REQUESTER, answer, api_client, next, organization, patch, serve, settings, token,
    with_static_token,
};

async fn upstream(
    answer: impl Fn(usize) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> (MyCreditApp, UnboundedReceiver<String>) {
    let (address, requests) = serve(answer).await;
    (MyCreditApp::new(settings(address, api_client())).unwrap(), requests)
}

async fn authorize(upstream: &MyCreditApp) -> Result<Authorization, Unauthorized> {
    upstream.authorize(organization(REQUESTER)).await
}

#[tokio::test]
async fn one_request_serves_all_who_wait() {
    let (upstream, mut requests) = upstream(|number| Some(token(&format!("t{number}"), 3600))).await;
    let authorizations = join_all((0..50).map(|_| authorize(&upstream))).await;
    for authorization in authorizations {
        assert_eq!(authorization.unwrap().header, "Bearer t0");
    }
    let request = next(&mut requests).await;
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1-beta/oauth2/token HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(!head.contains("authorization"), "{head}");
    assert_eq!(body, r#"{"client_id":"client-1","client_secret":"s3cret"}"#);
    assert!(requests.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiter_that_goes_away_takes_nothing_with_it() {
    let (release, held) = oneshot::channel();
    let held = std::sync::Mutex::new(Some(held));
    let (upstream, mut requests) = upstream(move |_| {
        let held: oneshot::Receiver<()> = held.lock().unwrap().take().expect("one request");
        tokio::task::block_in_place(|| tokio::runtime::Handle::current().block_on(held)).unwrap();
        Some(token("t", 3600))
    })
    .await;
    let first = tokio::spawn({
        let upstream = upstream.clone();
        async move { authorize(&upstream).await.map(|_| ()) }
    });
    next(&mut requests).await;
    first.abort();
    assert!(first.await.unwrap_err().is_cancelled());
    let second = authorize(&upstream);
    release.send(()).unwrap();
    assert_eq!(second.await.unwrap().header, "Bearer t");
}

#[tokio::test]
async fn who_is_not_configured_is_told_so() {
    let (upstream, mut requests) = upstream(|_| Some(token("t", 3600))).await;
    assert!(upstream.knows(organization(REQUESTER)) && !upstream.knows(organization(GUEST)));
    let stranger = upstream.authorize(organization(GUEST)).await;
    assert!(matches!(stranger, Err(Unauthorized::NotConfigured)));
    assert!(requests.try_recv().is_err());
}

#[tokio::test]
async fn a_failing_endpoint_is_asked_once_in_a_step() {
    let unavailable = |wait: Duration| Unauthorized::Unavailable { retry_after: Some(wait) };
    let cases = [
        (answer("401 Unauthorized", "", r#"{"detail": []}"#), Unauthorized::Refused),
        (answer("503 Service Unavailable", "retry-after: 90\r\n", ""), unavailable(Duration::from_secs(90))),
        (answer("200 OK", "", "<html>"), unavailable(Duration::from_secs(30))),
        (answer("302 Found", "location: /x\r\n", ""), unavailable(Duration::from_secs(30))),
        (Vec::new(), unavailable(Duration::from_secs(30))),
    ];
    for (answer, expected) in cases {
        let (upstream, mut requests) = upstream(move |_| Some(answer.clone())).await;
        assert!(authorize(&upstream).await.is_err());
        for _ in 0..20 {
            match (authorize(&upstream).await.map(|_| ()).unwrap_err(), &expected) {
                (Unauthorized::Refused, Unauthorized::Refused) => {}
                (
                    Unauthorized::Unavailable { retry_after: Some(told) },
                    Unauthorized::Unavailable { retry_after: Some(least) },
                ) => assert!(told + Duration::from_secs(5) > *least, "{told:?}"),
                (told, expected) => panic!("{told:?} instead of {expected:?}"),
            }
        }
        next(&mut requests).await;
        assert!(requests.try_recv().is_err(), "asked once: {expected:?}");
    }
}

#[tokio::test]
async fn a_refused_token_is_dropped_once() {
    let (upstream, _requests) = upstream(|number| Some(token(&format!("t{number}"), 3600))).await;
    let old = authorize(&upstream).await.unwrap();
    upstream.refuse(organization(REQUESTER), &old);
    let new = authorize(&upstream).await.unwrap();
    assert_eq!(new.header, "Bearer t1");
    upstream.refuse(organization(REQUESTER), &old);
    assert_eq!(authorize(&upstream).await.unwrap().header, "Bearer t1", "the new one stays");
}

#[tokio::test]
async fn tokens_refused_in_a_row_end_in_a_pause() {
    let (upstream, mut requests) = upstream(|_| Some(token("t", 3600))).await;
    for _ in 0..2 {
        let authorization = authorize(&upstream).await.unwrap();
        next(&mut requests).await;
        upstream.refuse(organization(REQUESTER), &authorization);
    }
    assert!(matches!(authorize(&upstream).await, Err(Unauthorized::Refused)));
    assert!(requests.try_recv().is_err());
}

#[tokio::test]
async fn an_accepted_token_ends_the_row() {
    let (upstream, _requests) =
        upstream(|number| Some(if number % 2 == 0 { token("t", 3600) } else { answer("200 OK", "", "{}") }))
            .await;
    for _ in 0..4 {
        let authorization = authorize(&upstream).await.unwrap();
        assert!(matches!(upstream.patch(patch(), authorization.clone()).await, Reply::Answered(_)));
        upstream.refuse(organization(REQUESTER), &authorization);
    }
}

#[tokio::test]
async fn a_refused_static_token_is_not_sent_again_at_once() {
    let (address, _requests) = serve(|_| None).await;
    let upstream = with_static_token(address);
    let authorization = authorize(&upstream).await.unwrap();
    assert!(!format!("{:?}", authorization.header).contains("jwt"));
    upstream.refuse(organization(REQUESTER), &authorization);
    assert!(matches!(authorize(&upstream).await, Err(Unauthorized::Refused)));
}

#[tokio::test]
async fn a_token_is_replaced_ahead_of_its_expiry_while_it_serves() {
    // The second request gets no answer: whoever asks meanwhile is served with the old token.
    let (upstream, mut requests) = upstream(|number| (number == 0).then(|| token("t0", 4))).await;
    assert_eq!(authorize(&upstream).await.unwrap().serial, 1);
    next(&mut requests).await;
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    let refreshed = async {
        loop {
            assert_eq!(authorize(&upstream).await.unwrap().serial, 1);
            tokio::select! {
                _ = requests.recv() => break,
                _ = tick.tick() => {}
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), refreshed).await.expect("a second request");
    assert_eq!(authorize(&upstream).await.unwrap().serial, 1);
}

#[test]
fn secrets_do_not_show() {
    let settings = settings("127.0.0.1:1".parse().unwrap(), api_client());
    assert!(!format!("{settings:?}").contains("s3cret"));
}
