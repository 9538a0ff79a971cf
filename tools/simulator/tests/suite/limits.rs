//! The limit on the rate, rules that are removed one by one, tokens of one organisation, and counts.

use std::time::Duration;

use crate::common::{DEADLINE, Request, start};
use serde_json::json;
use simulator::{Config, Limit, RetryAfter, Rule, Scope, Simulator, Tally, Window};
use uuid::Uuid;

async fn status(simulator: &Simulator, request: Request) -> u16 {
    request.send(simulator.address()).await.expect("an answer").status
}

#[tokio::test]
async fn what_is_beyond_the_limit_gets_a_429_and_is_not_applied() {
    let limit = Limit::per_second(2).window(Window::Sliding).retry_after(RetryAfter::Seconds);
    let (simulator, organization) = start(Config { limit: Some(limit), ..Config::default() }).await;
    simulator.script(Rule::patch().times(1).delay(Duration::ZERO));
    for expected in [200, 200, 429] {
        let answer = Request::patch(organization, Uuid::new_v4(), true).send(simulator.address()).await;
        let answer = answer.expect("an answer");
        assert_eq!(answer.status, expected);
        if expected == 429 {
            assert_eq!(answer.header("retry-after"), Some("1"));
            assert_eq!(answer.json()["detail"][0]["code"], "rate_limit_exceeded");
        }
    }
    // What breaks the contract is told so, whatever the limit.
    assert_eq!(
        status(&simulator, Request::patch(organization, Uuid::new_v4(), true).with_body("")).await,
        400
    );
    assert_eq!(status(&simulator, Request::token("id", "secret")).await, 200);

    let journal = simulator.journal();
    let faults: Vec<_> = journal.iter().map(|entry| entry.fault.as_deref()).collect();
    assert_eq!(faults, [Some("delay"), None, Some("limit"), None, None]);
    let limited = &journal[2];
    assert_eq!((limited.applied, limited.requester), (false, Some(organization)));
    assert!(limited.violations.is_empty() && simulator.stats().applied == 2);
}

#[tokio::test]
async fn a_limit_comes_and_goes_by_handle_and_control_api() {
    let (simulator, organization) = start(Config::default()).await;
    let patch = || Request::patch(organization, Uuid::new_v4(), true);
    let wanted = json!({"requests_per_second": 1, "window": {"token_bucket": {"burst": 1}},
        "scope": {"requester": organization}, "retry_after": "http_date"});
    let limit = Limit::per_second(1)
        .window(Window::TokenBucket { burst: 1 })
        .scope(Scope::Requester(organization))
        .retry_after(RetryAfter::HttpDate);
    assert_eq!(serde_json::to_value(limit).expect("JSON"), wanted);

    assert_eq!(
        status(&simulator, Request::post("/_control/limit", &json!({"requests_per_second": 0}))).await,
        204
    );
    assert_eq!(status(&simulator, patch()).await, 429);
    assert_eq!(status(&simulator, Request::bare("DELETE", "/_control/limit")).await, 204);
    assert_eq!(status(&simulator, patch()).await, 200);
    assert_eq!(status(&simulator, Request::post("/_control/limit", &json!({"typo": 1}))).await, 422);
    simulator.limit(Some(Limit::per_second(0).scope(Scope::Requester(Uuid::new_v4()))));
    assert_eq!(status(&simulator, patch()).await, 200, "another's limit");
    simulator.limit(Some(limit));
    assert_eq!(status(&simulator, patch()).await, 200);
    let answer = patch().send(simulator.address()).await.expect("an answer");
    let date = answer.header("retry-after").expect("a Retry-After");
    assert!(answer.status == 429 && date.ends_with(" gmt"), "{answer:?}");
    simulator.reset();
    assert_eq!(status(&simulator, patch()).await, 200, "a reset takes the limit away");
}

#[tokio::test]
async fn one_rule_is_removed_and_the_others_stay() {
    let (simulator, organization) = start(Config::default()).await;
    let patch = || Request::patch(organization, Uuid::new_v4(), true);
    let outage = simulator.script(Rule::patch().status(503));
    let other = simulator.script(Rule::patch().status(502));
    assert_eq!(status(&simulator, patch()).await, 503);
    simulator.remove_fault(outage);
    assert_eq!(status(&simulator, patch()).await, 502);
    let path = format!("/_control/faults/{other}");
    assert_eq!(status(&simulator, Request::bare("DELETE", &path)).await, 204);
    assert_eq!(status(&simulator, Request::bare("DELETE", &path)).await, 404, "it is gone");
    assert_eq!(status(&simulator, patch()).await, 200);
}

#[tokio::test]
async fn tokens_of_one_organization_are_taken_back_and_lifetimes_change() {
    let (simulator, organization) = start(Config::default()).await;
    let other = Uuid::new_v4();
    simulator.register_token("other-token", other);
    simulator.revoke_tokens_of(organization);
    let patch = |organization| Request::patch(organization, Uuid::new_v4(), true);
    assert_eq!(status(&simulator, patch(organization)).await, 401);
    let others = patch(other).with("authorization", "Bearer other-token");
    assert_eq!(status(&simulator, others).await, 200);

    simulator.set_token_lifetime(Duration::from_secs(1));
    let token = Request::token("id", "secret").send(simulator.address()).await.expect("an answer").json();
    assert_eq!(token["expires_in"], 1);
}

#[tokio::test]
async fn patches_are_counted_by_requester_and_status() {
    let (simulator, organization) = start(Config::default()).await;
    simulator.script(Rule::patch().times(1).status(503));
    simulator.script(Rule::patch().times(1).reset_before_apply());
    for _ in 0..3 {
        let _ = Request::patch(organization, Uuid::new_v4(), true).send(simulator.address()).await;
    }
    Request::token("id", "secret").send(simulator.address()).await.expect("an answer");
    simulator.wait_until_idle(DEADLINE).await.expect("an idle simulator");
    let answer = Request::bare("GET", "/_control/tally").send(simulator.address()).await.expect("an answer");
    let tally: Tally = serde_json::from_value(answer.json()).expect("a tally");
    assert_eq!(tally, simulator.tally());
    let counts = [("200", 1), ("503", 1), ("none", 1)].map(|(status, count)| (status.to_owned(), count));
    assert_eq!(tally.by_requester, [(organization, counts.into())].into());
    assert_eq!(tally.seconds.iter().sum::<u64>(), 3);
    assert!(tally.highest_second <= 3 && tally.from == Some(simulator.journal()[0].received_at));
}
