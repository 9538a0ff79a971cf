//! An API that departs from its contract fails no command: it is counted, logged once, and handed on as it was sent.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use harness::adapter::{field, record};
use harness::{Adapter, DEADLINE, Upstream};
use serde_json::{Value, json};
use simulator::Rule;
use uuid::Uuid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

/// A connection as the contract has it.
fn connection(guest: Uuid) -> Value {
    json!({
        "host_organization_id": Uuid::from_u128(1), "guest_organization_id": guest, "status": "connected",
        "guest_name": "Guest", "guest_email": "guest@guest.example", "owner_email": "owner@guest.example",
        "archived": true, "created_at": "2023-11-07T05:31:56Z", "updated_at": "2025-12-12T10:30:00.123456",
        "total_score": 1.5, "score_updated_at": null, "archived_at": "2025-12-12T10:30:00.123456",
        "active_action_type": null, "active_action_updated_at": null, "parent_organization_id": null,
    })
}

/// The times that a difference was counted.
async fn count(adapter: &Adapter, name: &str, kind: &str) -> u64 {
    let series = format!("adapter_upstream_drifts_total{{field=\"{name}\",kind=\"{kind}\"}} ");
    let text = adapter.metrics().await;
    text.lines().find_map(|line| line.strip_prefix(&series)?.parse().ok()).unwrap_or_default()
}

/// All that was counted.
async fn total(adapter: &Adapter) -> u64 {
    let text = adapter.metrics().await;
    let series = text.lines().filter(|line| line.starts_with("adapter_upstream_drifts_total{"));
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}

async fn archive(upstream: &Upstream, adapter: &Adapter, guest: Uuid, key: &str) {
    let request = upstream.archive(guest, key);
    adapter.client().await.archive_guest_connection(request).await.unwrap();
}

/// The data of the event for the command under `key`.
async fn event(adapter: &Adapter, key: &str) -> Value {
    let wanted = format!("\"idempotency_key\":\"{key}\"");
    let line = adapter.output().wait_for(DEADLINE, |line| line.contains(&wanted)).await.expect("an event");
    record(&line).expect("JSON")["data"].clone()
}

/// How often a kind of difference was logged.
fn logged(adapter: &Adapter, name: &str, kind: &str) -> usize {
    let records = adapter.log().all();
    let records = records.iter().filter_map(|line| record(line));
    records.filter(|r| field(r, "field") == Some(name) && field(r, "kind") == Some(kind)).count()
}

#[tokio::test]
async fn each_kind_of_difference_is_counted_and_fails_nothing() {
    let upstream = Upstream::start().await;
    let adapter = upstream.setup(PROGRAM).start_ready().await;
    let long = "n".repeat(100);
    let cases = [
        ("status", "unknown_value", json!("awaiting_review")),
        ("active_action_type", "unknown_value", json!("ledger_request")),
        ("novel", "unknown_field", json!({"tier": [1, null]})),
        (long.as_str(), "unknown_field", json!(1)),
        ("total_score", "mistyped", json!("high")),
        ("created_at", "mistyped", json!(1_700_000_000)),
        ("host_organization_id", "mistyped", json!("not-a-uuid")),
        ("archived", "mistyped", json!("yes")),
        ("guest_email", "null", Value::Null),
        ("archived", "null", Value::Null),
        ("archived", "other_value", json!(false)),
    ];
    for (number, (name, kind, value)) in cases.into_iter().enumerate() {
        let (guest, key) = (Uuid::new_v4(), format!("k{number}"));
        let mut body = connection(guest);
        body[name] = value;
        upstream.simulator.script(Rule::patch().guest(guest).status(200).json(body.clone()).applied());
        archive(&upstream, &adapter, guest, &key).await;
        assert_eq!(event(&adapter, &key).await["guest_connection"], body, "as it was sent");
        assert_eq!(count(&adapter, &name[..name.len().min(64)], kind).await, 1, "{name} {kind}");
        assert_eq!(
            total(&adapter).await,
            u64::try_from(number).unwrap() + 1,
            "and nothing else: {name} {kind}"
        );
    }
    for name in ["guest_name", "updated_at"] {
        let (guest, before) = (Uuid::new_v4(), total(&adapter).await);
        let mut body = connection(guest);
        body.as_object_mut().unwrap().remove(name);
        upstream.simulator.script(Rule::patch().guest(guest).status(200).json(body).applied());
        archive(&upstream, &adapter, guest, name).await;
        assert_eq!(count(&adapter, name, "missing").await, 1);
        assert_eq!(total(&adapter).await, before + 1);
    }
    for (key, rule) in [
        ("cut", Rule::patch().times(1).malformed_json()),
        ("empty", Rule::patch().times(1).empty_body(204)),
        ("half", Rule::patch().times(1).truncate_body()),
        ("html", Rule::patch().times(1).status(200).text("<html>").applied().into()),
    ] {
        upstream.simulator.script(rule);
        archive(&upstream, &adapter, Uuid::new_v4(), key).await;
        assert_eq!(event(&adapter, key).await["incomplete"], true);
    }
    assert_eq!(count(&adapter, "*", "unreadable").await, 4);
    assert_eq!(logged(&adapter, "*", "unreadable"), 1, "once");
    assert!(!adapter.log().all().iter().any(|line| line.contains("guest.example")), "no values");
}

#[tokio::test]
async fn an_answer_by_the_contract_is_no_difference() {
    let upstream = Upstream::start().await;
    let adapter = upstream.setup(PROGRAM).start_ready().await;
    let guest = Uuid::new_v4();
    archive(&upstream, &adapter, guest, "plain").await;
    upstream.simulator.script(Rule::patch().guest(guest).times(1).status(503));
    upstream.simulator.script(Rule::patch().guest(guest).times(1).maintenance());
    archive(&upstream, &adapter, guest, "after-errors").await;
    assert_eq!(total(&adapter).await, 0, "{}", adapter.metrics().await);
}

#[tokio::test]
async fn errors_and_tokens_in_another_form_are_counted_too() {
    let upstream = Upstream::start().await;
    let adapter = upstream.setup(PROGRAM).start_ready().await;
    upstream
        .simulator
        .script(Rule::token().times(1).status(200).json(json!({"access_token": "t", "novel": 1})));
    for body in [json!({"error": "oops"}), json!({"detail": "oops"}), json!({"detail": [{"msg": "oops"}]})] {
        upstream.simulator.script(Rule::patch().times(1).status(503).json(body));
    }
    upstream.simulator.script(Rule::patch().times(1).status(502).text("<html>Bad Gateway</html>"));
    archive(&upstream, &adapter, Uuid::new_v4(), "k").await;
    assert_eq!(count(&adapter, "*", "error_form").await, 4);
    assert_eq!(logged(&adapter, "*", "error_form"), 1);
    assert_eq!(count(&adapter, "*", "token_form").await, 1);
    assert_eq!(total(&adapter).await, 5);
}

#[tokio::test]
async fn the_names_of_fields_are_bounded() {
    let upstream = Upstream::start().await;
    // Each is logged once, and there are more of them than the log takes in a short time.
    let adapter = upstream.setup(PROGRAM).config("telemetry.log_repeats_max = 0").start_ready().await;
    for round in 0..5 {
        let guest = Uuid::new_v4();
        let mut body = connection(guest);
        for number in 0..30 {
            body[format!("f{round}-{number}")] = json!(1);
        }
        body["jane@guest.example"] = json!(1);
        upstream.simulator.script(Rule::patch().guest(guest).status(200).json(body).applied());
        archive(&upstream, &adapter, guest, &format!("k{round}")).await;
    }
    let text = adapter.metrics().await;
    let series = text.lines().filter(|line| line.starts_with("adapter_upstream_drifts_total{")).count();
    assert_eq!(series, 65, "{text}");
    assert!(count(&adapter, "_other", "unknown_field").await > 80);
    assert_eq!(total(&adapter).await, 5 * 31, "each is counted");
    assert_eq!(count(&adapter, "[redacted]", "unknown_field").await, 5);
    assert!(!text.contains("jane") && !adapter.log().all().iter().any(|line| line.contains("jane")));
    assert_eq!(logged(&adapter, "_other", "unknown_field"), 1);
}
