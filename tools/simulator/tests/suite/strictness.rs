//! Every header, id, body and token of the contract is checked, answered in its form and journaled.

use std::time::Duration;

use crate::common::{Answer, Request, TOKEN, start};
use serde_json::json;
use simulator::{Config, Endpoint, Simulator};
use uuid::Uuid;

/// Sends a request that breaks the contract, and expects one violation that starts as told.
async fn refused(simulator: &Simulator, request: Request, status: u16, violation: &str) -> Answer {
    let answer = request.send(simulator.address()).await.expect("an answer");
    let entry = simulator.journal().pop().expect("an entry");
    assert_eq!(answer.status, status, "{violation}: {entry:?}");
    assert_eq!(entry.violations.len(), 1, "{violation}: {entry:?}");
    assert!(entry.violations[0].starts_with(violation), "{violation}: {entry:?}");
    assert_eq!((entry.status, entry.applied, entry.answered_at.is_some()), (Some(status), false, true));
    let detail = &answer.json()["detail"][0];
    assert!(detail["loc"].is_array() && detail["msg"].is_string(), "{detail}");
    assert!(detail["type"].is_string() && detail["code"].is_string(), "{detail}");
    answer
}

#[tokio::test]
async fn a_patch_that_keeps_to_the_contract_is_applied() {
    let (simulator, organization) = start(Config::default()).await;
    let guest = Uuid::new_v4();
    let traceparent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = Request::patch(organization, guest, true)
        .with("traceparent", traceparent)
        .with("tracestate", "a=b")
        .with("accept", "application/json")
        .with("user-agent", "test");
    let answer = request.send(simulator.address()).await.expect("an answer");
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!(body.as_object().expect("an object").len(), 16);
    assert_eq!(body["archived"], true);
    assert_eq!(body["host_organization_id"], organization.to_string());
    assert_eq!(body["guest_organization_id"], guest.to_string());
    assert_eq!(body["archived_at"], body["updated_at"]);

    let entry = simulator.journal().remove(0);
    assert_eq!((entry.seq, entry.endpoint, entry.applied_seq), (1, Endpoint::Patch, Some(1)));
    assert_eq!(
        (entry.requester, entry.target, entry.guest),
        (Some(organization), Some(organization), Some(guest))
    );
    assert_eq!((entry.archived, entry.client_organization), (Some(true), Some(organization)));
    assert_eq!(
        (entry.traceparent.as_deref(), entry.status, entry.fault),
        (Some(traceparent), Some(200), None)
    );
    assert!(simulator.violations().is_empty());
    assert!(simulator.connection(organization, guest).expect("a connection").archived);

    let body =
        Request::patch(organization, guest, false).send(simulator.address()).await.expect("an answer").json();
    assert_eq!((&body["archived"], &body["archived_at"]), (&json!(false), &json!(null)));
}

#[tokio::test]
async fn each_header_of_a_patch_is_checked() {
    let (simulator, organization) = start(Config::default()).await;
    let good = Request::patch(organization, Uuid::new_v4(), true);
    for name in ["requester-organization-id", "target-organization-id"] {
        let violation = format!("header.{name}: is ");
        refused(&simulator, good.clone().without(name), 422, &violation).await;
        let simple = organization.simple().to_string();
        for value in ["", "x", &simple, &format!("{{{organization}}}"), &format!("{organization}0")] {
            refused(&simulator, good.clone().with(name, value), 422, &violation).await;
        }
    }
    refused(&simulator, good.clone().without("content-type"), 400, "header.content-type: is missing").await;
    for value in ["text/plain", "application/json; charset=utf-8", "application/merge-patch+json"] {
        refused(&simulator, good.clone().with("content-type", value), 400, "header.content-type: is not")
            .await;
    }
    for name in ["idempotency-key", "x-request-id", "accept-encoding", "connection", "cookie", "baggage"] {
        refused(&simulator, good.clone().with(name, "x"), 400, &format!("header.{name}: is not a header"))
            .await;
    }
    let mut twice = good.clone();
    twice.headers.push(("content-type".to_owned(), "application/json".to_owned()));
    refused(&simulator, twice, 400, "header.content-type: is given more than once").await;
    for value in ["", "00-0-0-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01"] {
        refused(&simulator, good.clone().with("traceparent", value), 400, "header.traceparent: is not").await;
    }
    refused(&simulator, good.with("tracestate", "a=b"), 400, "header.tracestate: comes without").await;
}

#[tokio::test]
async fn the_token_of_a_patch_is_checked() {
    let (simulator, organization) = start(Config::default()).await;
    let good = Request::patch(organization, Uuid::new_v4(), true);
    refused(&simulator, good.clone().without("authorization"), 401, "header.authorization: is missing").await;
    let lower = format!("bearer {TOKEN}");
    for value in [TOKEN, "Bearer ", "Bearer a b", "Basic aWQ6c2VjcmV0", &lower] {
        refused(&simulator, good.clone().with("authorization", value), 401, "header.authorization: is not a")
            .await;
    }
    let unknown = good.clone().with("authorization", "Bearer unknown");
    let answer = refused(&simulator, unknown, 401, "header.authorization: is unknown").await;
    assert_eq!(answer.json()["detail"][0]["type"], "oauth");

    simulator.register_token("other", Uuid::new_v4());
    let foreign = good.clone().with("authorization", "Bearer other");
    refused(&simulator, foreign, 403, "header.requester-organization-id: is not the organisation").await;

    simulator.revoke_tokens();
    let answer = good.send(simulator.address()).await.expect("an answer");
    assert_eq!(answer.status, 401);
    let entry = simulator.journal().pop().expect("an entry");
    assert!(entry.violations.is_empty(), "a revoked token is not the client's fault: {entry:?}");
}

#[tokio::test]
async fn path_query_method_and_base_are_checked() {
    let (simulator, organization) = start(Config::default()).await;
    let guest = Uuid::new_v4();
    let good = Request::patch(organization, guest, true);
    for id in ["x", &guest.simple().to_string(), "%20"] {
        let path = format!("/v1-beta/guest-connections/{id}");
        refused(&simulator, good.clone().with_path(&path), 422, "path.guest_org_id: is not a uuid").await;
    }
    let query = format!("/v1-beta/guest-connections/{guest}?archived=true");
    refused(&simulator, good.clone().with_path(&query), 400, "query: ").await;
    let tail = format!("/v1-beta/guest-connections/{guest}/");
    let (bare, other) = (format!("/guest-connections/{guest}"), format!("/v1/guest-connections/{guest}"));
    for path in [&tail, &bare, &other, "/v1-beta/guest-connections/", "/", "/v1-beta"] {
        refused(&simulator, good.clone().with_path(path), 404, &format!("path {path} is not")).await;
    }
    for method in ["GET", "PUT", "POST", "DELETE"] {
        let answer =
            refused(&simulator, good.clone().with_method(method), 405, &format!("method {method} is not"))
                .await;
        assert_eq!(answer.json()["detail"][0]["code"], "unsupported_crud_operation");
    }
    assert_eq!(simulator.journal().pop().expect("an entry").endpoint, Endpoint::Other);
}

#[tokio::test]
async fn the_body_of_a_patch_is_checked() {
    let (simulator, organization) = start(Config::default()).await;
    let good = Request::patch(organization, Uuid::new_v4(), true);
    for (body, status, violation) in [
        ("", 400, "body: is not JSON"),
        (r#"{"archived":true"#, 400, "body: is not JSON"),
        (r#"{"archived":true} x"#, 400, "body: is not JSON"),
        ("[true]", 422, "body: is not an object"),
        ("{}", 422, "body.archived: is missing"),
        (r#"{"archived":null}"#, 422, "body.archived: is not a boolean"),
        (r#"{"archived":"true"}"#, 422, "body.archived: is not a boolean"),
        (r#"{"archived":1}"#, 422, "body.archived: is not a boolean"),
        (r#"{"archived":true,"reason":"x"}"#, 422, "body.reason: is not a field"),
        (r#"{"archived":true,"archived":true}"#, 422, "body: a field is given twice"),
    ] {
        refused(&simulator, good.clone().with_body(body), status, violation).await;
    }
    refused(&simulator, good.with_body(&" ".repeat(100_000)), 400, "body: is too long").await;
    assert_eq!(simulator.stats().applied, 0);
}

#[tokio::test]
async fn several_violations_are_reported_at_once() {
    let (simulator, organization) = start(Config::default()).await;
    let request = Request::patch(organization, Uuid::new_v4(), true)
        .with("target-organization-id", "x")
        .with_body(r#"{"archived":0,"more":1}"#);
    let answer = request.send(simulator.address()).await.expect("an answer");
    assert_eq!(answer.status, 422);
    assert_eq!(answer.json()["detail"].as_array().expect("a list").len(), 3);
    assert_eq!(simulator.stats().violations, 3);
    assert_eq!(simulator.violations().len(), 3);
}

#[tokio::test]
async fn requester_and_target_are_one_or_connected() {
    let (simulator, organization) = start(Config::default()).await;
    let (host, guest) = (Uuid::new_v4(), Uuid::new_v4());
    let patch = |target: Uuid| {
        Request::patch(organization, Uuid::new_v4(), true).with("target-organization-id", &target.to_string())
    };
    let violation = "header.target-organization-id: is not connected";
    refused(&simulator, patch(guest), 403, violation).await;
    refused(&simulator, patch(host), 403, violation).await;
    simulator.add_connection(organization, guest);
    simulator.add_connection(host, organization);
    for target in [guest, host] {
        assert_eq!(patch(target).send(simulator.address()).await.expect("an answer").status, 200);
    }
}

#[tokio::test]
async fn unknown_connections_are_404_unless_created() {
    let (simulator, organization) = start(Config { auto_create: false, ..Config::default() }).await;
    let guest = Uuid::new_v4();
    let patch = Request::patch(organization, guest, true);
    refused(&simulator, patch.clone(), 404, "path.guest_org_id: there is no such").await;
    simulator.add_connection(organization, guest);
    assert_eq!(patch.send(simulator.address()).await.expect("an answer").status, 200);
}

#[tokio::test]
async fn a_token_is_fetched_used_and_expires() {
    let (simulator, organization) = start(Config::default()).await;
    let answer = Request::token("id", "secret").send(simulator.address()).await.expect("an answer");
    assert_eq!(answer.status, 200);
    let body = answer.json();
    assert_eq!((body.as_object().expect("an object").len(), &body["expires_in"]), (2, &json!(3600)));
    let token = body["access_token"].as_str().expect("a token");
    assert_eq!(token.split('.').filter(|part| !part.is_empty()).count(), 3);

    let patch =
        Request::patch(organization, Uuid::new_v4(), true).with("authorization", &format!("Bearer {token}"));
    assert_eq!(patch.send(simulator.address()).await.expect("an answer").status, 200);
    let first = simulator.journal().remove(0);
    assert_eq!((first.endpoint, first.client_organization), (Endpoint::Token, Some(organization)));
    assert_eq!((first.applied, first.applied_seq), (true, None));

    let (simulator, organization) =
        start(Config { token_lifetime: Duration::ZERO, ..Config::default() }).await;
    let body = Request::token("id", "secret").send(simulator.address()).await.expect("an answer").json();
    let stale = format!("Bearer {}", body["access_token"].as_str().expect("a token"));
    let patch = Request::patch(organization, Uuid::new_v4(), true).with("authorization", &stale);
    refused(&simulator, patch, 401, "header.authorization: is expired").await;
}

#[tokio::test]
async fn token_requests_are_checked() {
    let (simulator, _) = start(Config::default()).await;
    let good = Request::token("id", "secret");
    for request in [Request::token("id", "wrong"), Request::token("nobody", "secret")] {
        let answer = refused(&simulator, request, 401, "client credentials").await;
        let detail = &answer.json()["detail"][0];
        assert_eq!(
            (&detail["code"], &detail["type"]),
            (&json!("oauth_invalid_client_credentials"), &json!("oauth"))
        );
    }
    let form = good
        .clone()
        .with("content-type", "application/x-www-form-urlencoded")
        .with_body("client_id=id&client_secret=secret");
    let answer = form.send(simulator.address()).await.expect("an answer");
    assert_eq!((answer.status, simulator.violations().len()), (400, 4));
    let more = json!({"client_id": "id", "client_secret": "secret", "grant_type": "client_credentials"});
    refused(&simulator, good.clone().with_body(&more.to_string()), 422, "body.grant_type: is not a field")
        .await;
    refused(&simulator, Request::token("", "secret"), 422, "body.client_id: is too short").await;
    refused(&simulator, Request::token(&"x".repeat(129), "secret"), 422, "body.client_id: is too").await;
    refused(&simulator, Request::token("id", ""), 422, "body.client_secret: is too short").await;
    refused(&simulator, Request::token("id", &"x".repeat(65)), 422, "body.client_secret: is too").await;
    refused(
        &simulator,
        good.clone().with_body(r#"{"client_id":"id"}"#),
        422,
        "body.client_secret: is missing",
    )
    .await;
    let basic = good.clone().with("authorization", "Basic aWQ6c2VjcmV0");
    refused(&simulator, basic, 400, "header.authorization: is not a header").await;
    refused(&simulator, good.with_method("GET"), 405, "method GET").await;
}
