//! Tokens: one request at a time, ahead of expiry, and never a storm.

use std::time::Duration;

use futures::future::join_all;
use guest_connection_adapter::domain::command::OrganizationId;
use guest_connection_adapter::domain::reply::{Reply, Unauthorized};
use guest_connection_adapter::domain::retry::Backoff;
use guest_connection_adapter::mycreditapp::{MyCreditApp, Settings};
use guest_connection_adapter::service::ports::{Authorization, Upstream};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::oneshot;

use crate::peer::{
    GUEST, REQUESTER, answer, api_client, api_client_with, at, next, organization, patch, serve, settings,
    token, with_static_token,
};

async fn upstream(
    answer: impl Fn(usize) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> (MyCreditApp, UnboundedReceiver<String>) {
    let (address, requests) = serve(answer).await;
    (MyCreditApp::new(settings(address, api_client())).unwrap(), requests)
}

async fn authorize(upstream: &MyCreditApp) -> Result<Authorization, Unauthorized> {
    upstream.authorize(organization(REQUESTER), false).await
}

#[tokio::test]
async fn one_request_serves_all_who_wait() {
    let (upstream, mut requests) = upstream(|number| Some(token(&format!("t{number}"), 3600))).await;
    assert!(!upstream.is_ready(organization(REQUESTER)));
    let authorizations = join_all((0..100).map(|_| authorize(&upstream))).await;
    for authorization in authorizations {
        assert_eq!(authorization.unwrap().header, "Bearer t0");
    }
    let request = next(&mut requests).await;
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("POST /v1-beta/oauth2/token HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert!(!head.contains("authorization"), "{head}");
    assert_eq!(body, r#"{"client_id":"client-1","client_secret":"s3cret"}"#);
    assert!(upstream.is_ready(organization(REQUESTER)));
    for _ in 0..20 {
        assert_eq!(authorize(&upstream).await.unwrap().header, "Bearer t0", "it is kept");
    }
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
    let stranger = upstream.authorize(organization(GUEST), false).await;
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
        (answer("200 OK", "content-type: text/html\r\n", "<html>"), unavailable(Duration::from_secs(30))),
        (
            answer("200 OK", "", r#"{"access_token": 7, "expires_in": 60}"#),
            unavailable(Duration::from_secs(30)),
        ),
        (answer("200 OK", "", r#"{"access_token": "a b"}"#), unavailable(Duration::from_secs(30))),
        (answer("200 OK", "", "\u{1}\u{7f}"), unavailable(Duration::from_secs(30))),
        (answer("200 OK", "", &huge()), unavailable(Duration::from_secs(30))),
        (answer("302 Found", "location: /x\r\n", ""), unavailable(Duration::from_secs(30))),
        (Vec::new(), unavailable(Duration::from_secs(30))),
    ];
    for (answer, expected) in cases {
        let (upstream, mut requests) = upstream(move |_| Some(answer.clone())).await;
        assert!(authorize(&upstream).await.is_err());
        assert!(!upstream.is_ready(organization(REQUESTER)));
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

/// A good answer, but for its length.
fn huge() -> String {
    format!(r#"{{"access_token": "t", "expires_in": 60, "padding": "{}"}}"#, "x".repeat(128 * 1024))
}

#[tokio::test]
async fn a_lifetime_of_any_kind_does_and_is_used_for_a_while() {
    for expires_in in ["0", "-5", "1e300", "18446744073709551615", "\"300\"", "\"soon\"", "null", "[]", "{}"]
    {
        let body = format!(r#"{{"access_token": "t", "expires_in": {expires_in}}}"#);
        let (upstream, mut requests) = upstream(move |_| Some(answer("200 OK", "", &body))).await;
        for _ in 0..20 {
            assert_eq!(authorize(&upstream).await.unwrap().header, "Bearer t", "{expires_in}");
        }
        next(&mut requests).await;
        assert!(requests.try_recv().is_err(), "{expires_in}");
    }
    let (upstream, _requests) = upstream(|_| Some(answer("200 OK", "", r#"{"access_token": "t"}"#))).await;
    assert_eq!(authorize(&upstream).await.unwrap().header, "Bearer t", "no lifetime at all");
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_given_up() {
    for answered in [None, Some(b"HTTP/1.1 200 OK\r\ncontent-length: 99\r\n\r\n{".to_vec())] {
        let (upstream, mut requests) = upstream(move |_| answered.clone()).await;
        let waiting = join_all((0..20).map(|_| authorize(&upstream)));
        let ended = tokio::time::timeout(Duration::from_secs(10), waiting).await.expect("an end");
        for end in ended {
            let Err(Unauthorized::Unavailable { retry_after: Some(wait) }) = end.map(|_| ()) else {
                panic!("no token, and when to come again");
            };
            assert!(wait >= Duration::from_secs(30));
        }
        next(&mut requests).await;
        assert!(requests.try_recv().is_err());
    }
}

/// Callers who ask all the time, at an endpoint that fails four times.
#[tokio::test]
async fn requests_to_a_failing_endpoint_are_as_far_apart_as_the_back_off_says() {
    let times = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let noted = times.clone();
    let (address, _requests) = serve(move |number| {
        noted.lock().unwrap().push(std::time::Instant::now());
        // What Retry-After asks for is more than the back-off's own bound.
        Some(match number {
            0..2 => answer("503 Service Unavailable", "", ""),
            2 => answer("429 Too Many Requests", "retry-after: 1\r\n", ""),
            3 => answer("200 OK", "", "<html>"),
            _ => token("t", 3600),
        })
    })
    .await;
    let backoff = Backoff { delay_base: Duration::from_millis(100), delay_max: Duration::from_millis(400) };
    let usual = settings(address, api_client());
    // So long that a loaded machine gives no request up.
    let attempt_timeout = Duration::from_secs(10);
    let upstream = MyCreditApp::new(Settings { token_backoff: backoff, attempt_timeout, ..usual }).unwrap();
    let callers = join_all((0..20).map(|_| async {
        while authorize(&upstream).await.is_err() {
            harness::look_again().await;
        }
    }));
    tokio::time::timeout(Duration::from_secs(20), callers).await.expect("a token in the end");
    let times = times.lock().unwrap();
    assert_eq!(times.len(), 5);
    let least = [50, 100, 1000, 200].map(Duration::from_millis);
    for (pair, least) in times.windows(2).zip(least) {
        let wait = pair[1] - pair[0];
        assert!(wait >= least, "{wait:?} instead of {least:?}");
    }
}

/// One endpoint, twenty organisations without a token: each asks as often as its own back-off says.
#[tokio::test]
async fn many_organisations_of_one_failing_endpoint_ask_once_each() {
    let (address, mut requests) = serve(|_| Some(answer("503 Service Unavailable", "", ""))).await;
    let organizations: Vec<_> = (1..=20).map(|id| OrganizationId(uuid::Uuid::from_u128(id))).collect();
    let configured =
        organizations.iter().map(|id| (*id, at(address, api_client_with(&format!("secret-{id}")))));
    let settings = Settings { organizations: configured.collect(), ..settings(address, api_client()) };
    let upstream = MyCreditApp::new(settings).unwrap();
    let callers = organizations.iter().flat_map(|id| std::iter::repeat_n(*id, 10));
    let calls = callers.map(|id| upstream.authorize(id, false));
    assert!(join_all(calls).await.iter().all(Result::is_err));
    for id in &organizations {
        assert!(upstream.authorize(*id, false).await.is_err(), "it pauses");
    }
    let mut secrets = std::collections::HashSet::new();
    for _ in &organizations {
        let request = next(&mut requests).await;
        secrets.insert(request.split_once("\r\n\r\n").unwrap().1.to_owned());
    }
    assert_eq!(secrets.len(), organizations.len());
    assert!(requests.try_recv().is_err());
}

#[test]
fn secrets_do_not_show() {
    let settings = settings("127.0.0.1:1".parse().unwrap(), api_client());
    assert!(!format!("{settings:?}").contains("s3cret"));
}
