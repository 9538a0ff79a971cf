//! Every fault as a raw client sees it.

use std::io::ErrorKind;
use std::time::{Duration, Instant};

use crate::common::{Answer, DEADLINE, Request, start};
use chrono::TimeDelta;
use serde_json::json;
use simulator::{Config, Entry, Rule, Simulator, TimeForm};
use tokio::time::timeout;
use uuid::Uuid;

struct Fixture {
    simulator: Simulator,
    organization: Uuid,
    guest: Uuid,
}

impl Fixture {
    async fn new(rule: impl Into<Rule>) -> Self {
        let (simulator, organization) = start(Config::default()).await;
        simulator.script(rule);
        Self { simulator, organization, guest: Uuid::new_v4() }
    }

    fn patch(&self) -> Request {
        Request::patch(self.organization, self.guest, true)
    }

    async fn send(&self) -> std::io::Result<Answer> {
        self.patch().send(self.simulator.address()).await
    }

    async fn open(&self) -> crate::common::Connection {
        self.patch().open(self.simulator.address()).await.expect("a connection")
    }

    fn last(&self) -> Entry {
        self.simulator.journal().pop().expect("an entry")
    }

    async fn last_when(&self, predicate: impl Fn(&Entry) -> bool) -> Entry {
        let seen = |entries: &[Entry]| entries.last().is_some_and(&predicate);
        self.simulator.wait_for(seen, DEADLINE).await.expect("the entry in time").pop().expect("an entry")
    }

    /// Waits until nothing is outstanding: the simulator has seen the connection go.
    async fn idle(&self) {
        self.simulator.wait_until_idle(DEADLINE).await.expect("an idle simulator");
    }
}

#[tokio::test]
async fn a_status_has_its_headers_and_body() {
    let rule = Rule::patch().times(1).status(429).header("retry-after", "2").text("<html>slow down</html>");
    let fixture = Fixture::new(rule).await;
    let answer = fixture.send().await.expect("an answer");
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("2")));
    assert_eq!(answer.header("content-type"), Some("text/plain; charset=utf-8"));
    assert_eq!(answer.body, b"<html>slow down</html>");
    let entry = fixture.last();
    assert_eq!((entry.status, entry.applied, entry.fault.as_deref()), (Some(429), false, Some("status")));
    assert!(entry.violations.is_empty());
    assert_eq!(fixture.send().await.expect("an answer").status, 200, "the rule is used up");
}

#[tokio::test]
async fn a_status_can_apply_and_speaks_the_contracts_form_by_default() {
    let fixture = Fixture::new(Rule::patch().times(1).status(502).applied()).await;
    let answer = fixture.send().await.expect("an answer");
    assert_eq!((answer.status, &answer.json()["detail"][0]["code"]), (502, &json!("scripted_fault")));
    assert!(fixture.last().applied);
    fixture.simulator.script(Rule::patch().times(1).status(409).json(json!({"detail": []})));
    assert_eq!(fixture.send().await.expect("an answer").json(), json!({"detail": []}));
    fixture.simulator.script(Rule::patch().times(1).status(307).header("location", "http://elsewhere/"));
    let answer = fixture.send().await.expect("an answer");
    assert_eq!((answer.header("location"), answer.body.len()), (Some("http://elsewhere/"), 0));
    fixture.simulator.script(Rule::patch().maintenance());
    let answer = fixture.send().await.expect("an answer");
    assert_eq!(answer.json()["detail"][0]["code"], "service_under_maintenance");
    assert!(!fixture.last().applied);
}

#[tokio::test]
async fn a_reset_is_a_reset() {
    let fixture = Fixture::new(Rule::patch().times(1).reset_before_apply()).await;
    fixture.simulator.script(Rule::patch().reset_after_apply());
    for applied in [false, true] {
        let error = fixture.send().await.expect_err("no answer");
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        let entry = fixture.last();
        assert_eq!((entry.applied, entry.status, entry.answered_at), (applied, None, None));
        assert!(entry.ended_at.is_some(), "what was reset is not outstanding");
        assert_eq!(fixture.simulator.stats().outstanding, 0);
    }
}

#[tokio::test]
async fn a_late_effect_comes_after_the_reset() {
    let fixture = Fixture::new(Rule::patch().times(1).apply_late(Duration::from_secs(1))).await;
    assert_eq!(fixture.send().await.expect_err("no answer").kind(), ErrorKind::ConnectionReset);
    let entry = fixture.last();
    assert_eq!((entry.applied, entry.fault.as_deref()), (false, Some("apply_late")));
    let other = Request::patch(fixture.organization, fixture.guest, false);
    assert_eq!(other.send(fixture.simulator.address()).await.expect("an answer").status, 200);
    assert!(
        !fixture.simulator.connection(fixture.organization, fixture.guest).expect("a connection").archived
    );

    let entries =
        fixture.simulator.wait_for(|entries| entries[0].applied, DEADLINE).await.expect("the effect");
    assert_eq!((entries[0].applied_seq, entries[1].applied_seq), (Some(2), Some(1)));
    assert!(
        fixture.simulator.connection(fixture.organization, fixture.guest).expect("a connection").archived
    );
}

#[tokio::test]
async fn a_late_effect_comes_though_the_client_has_left() {
    let fixture = Fixture::new(Rule::patch().hang_and_apply_late(Duration::from_secs(1))).await;
    let connection = fixture.open().await;
    fixture.last_when(|entry| entry.fault.is_some()).await;
    assert_eq!(fixture.simulator.stats().outstanding, 1);
    drop(connection);
    fixture.idle().await;
    assert!(!fixture.last().applied);
    let entry = fixture.last_when(|entry| entry.applied).await;
    assert_eq!((entry.status, entry.answered_at), (None, None));
}

#[tokio::test]
async fn a_hang_ends_when_the_client_closes() {
    let fixture = Fixture::new(Rule::patch().times(1).hang()).await;
    fixture.simulator.script(Rule::patch().hang_after_apply());
    for applied in [false, true] {
        let mut connection = fixture.open().await;
        let entry = fixture.last_when(|entry| entry.fault.is_some() && entry.applied == applied).await;
        assert_eq!((entry.status, entry.ended_at), (None, None));
        let silence = timeout(Duration::from_millis(50), connection.more()).await;
        assert!(silence.is_err(), "nothing is answered");
        assert_eq!(fixture.simulator.stats().outstanding, 1);
        drop(connection);
        fixture.idle().await;
        assert!(fixture.last().ended_at.is_some());
    }
}

#[tokio::test]
async fn delays_add_up_and_go_on() {
    let fixture = Fixture::new(Rule::patch().delay(Duration::from_millis(60))).await;
    fixture.simulator.script(Rule::patch().delay_after_apply(Duration::from_millis(60)));
    fixture.simulator.script(Rule::patch().times(1).status(500).applied());
    for (status, fault) in [(500, "delay+delay+status"), (200, "delay+delay")] {
        let start = Instant::now();
        assert_eq!(fixture.send().await.expect("an answer").status, status);
        assert!(start.elapsed() >= Duration::from_millis(120));
        let entry = fixture.last();
        assert_eq!(entry.fault.as_deref(), Some(fault));
        assert!(
            entry.answered_at.expect("answered") - entry.applied_at.expect("applied")
                >= TimeDelta::milliseconds(60)
        );
    }
}

#[tokio::test]
async fn a_drip_comes_byte_by_byte() {
    let fixture = Fixture::new(Rule::patch().drip(Duration::from_millis(1))).await;
    let mut connection = fixture.open().await;
    let head = timeout(DEADLINE, connection.head()).await.expect("in time").expect("a head");
    assert_eq!(head.status, 200);
    assert_eq!(fixture.last().answered_at, None);
    assert!(fixture.last().status_at.is_some());
    assert_eq!(fixture.simulator.stats().outstanding, 1);
    drop(connection);
    fixture.idle().await;
    assert_eq!(fixture.send().await.expect("an answer").json()["archived"], true);
    let entry = fixture.last_when(|entry| entry.answered_at.is_some()).await;
    assert_eq!((entry.status, entry.applied), (Some(200), true));
}

#[tokio::test]
async fn headers_can_drip_too() {
    let fixture = Fixture::new(Rule::patch().drip_headers(Duration::from_millis(1))).await;
    let mut connection = fixture.open().await;
    let first = timeout(DEADLINE, connection.more()).await.expect("in time").expect("a byte");
    assert!(first < 15, "no whole status line comes at once");
    assert!(fixture.last().applied);
    assert_eq!(fixture.simulator.stats().outstanding, 1);
    let answer = timeout(DEADLINE, connection.answer()).await.expect("in time").expect("an answer");
    assert_eq!(answer.json()["archived"], true);
    fixture.idle().await;
}

#[tokio::test]
async fn an_endless_body_does_not_end() {
    let fixture = Fixture::new(Rule::patch().endless_body()).await;
    let mut connection = fixture.open().await;
    let head = timeout(DEADLINE, connection.head()).await.expect("in time").expect("a head");
    assert_eq!((head.status, head.header("transfer-encoding")), (200, Some("chunked")));
    let mut bytes = 0;
    while bytes < 4 * 1024 * 1024 {
        bytes += timeout(DEADLINE, connection.more()).await.expect("in time").expect("more");
    }
    assert!(fixture.last().applied);
    drop(connection);
    fixture.idle().await;
    assert_eq!(fixture.last().answered_at, None);
}

#[tokio::test]
async fn bodies_can_be_malformed_empty_or_truncated() {
    let fixture = Fixture::new(Rule::patch().times(1).malformed_json()).await;
    let answer = fixture.send().await.expect("an answer");
    assert_eq!(answer.status, 200);
    assert!(serde_json::from_slice::<serde_json::Value>(&answer.body).is_err());
    assert!(answer.body.starts_with(b"{"));

    for status in [200, 204] {
        fixture.simulator.script(Rule::patch().times(1).empty_body(status));
        let answer = fixture.send().await.expect("an answer");
        assert_eq!((answer.status, answer.body.len()), (status, 0));
        assert_eq!(answer.header("content-length"), (status == 200).then_some("0"));
    }

    fixture.simulator.script(Rule::patch().times(1).truncate_body());
    let mut connection = fixture.open().await;
    let head = timeout(DEADLINE, connection.head()).await.expect("in time").expect("a head");
    let length: usize = head.header("content-length").expect("a length").parse().expect("a number");
    let mut have = head.body.len();
    let error = loop {
        match timeout(DEADLINE, connection.more()).await.expect("in time") {
            Ok(count) => have += count,
            Err(error) => break error,
        }
    };
    assert_eq!((error.kind(), have), (ErrorKind::UnexpectedEof, length / 2));
    assert!(fixture.simulator.journal().iter().all(|entry| entry.applied));
}

#[tokio::test]
async fn content_can_mislead() {
    let fixture = Fixture::new(Rule::patch().times(1).wrong_archived()).await;
    assert_eq!(fixture.send().await.expect("an answer").json()["archived"], false);
    assert!(
        fixture.simulator.connection(fixture.organization, fixture.guest).expect("a connection").archived
    );

    fixture.simulator.script(Rule::patch().times(1).time_form(TimeForm::Zoneless));
    let zoneless = fixture.send().await.expect("an answer").json()["updated_at"].to_string();
    assert_eq!(zoneless.len(), r#""2025-12-12T10:30:00.123456""#.len());
    let zoned = fixture.send().await.expect("an answer").json()["updated_at"].to_string();
    assert!(zoned.ends_with("Z\"") && zoned.len() == r#""2023-11-07T05:31:56Z""#.len());

    fixture.simulator.script(Rule::patch().times(1).extra_fields());
    let body = fixture.send().await.expect("an answer").json();
    assert_eq!((&body["status"], &body["risk_band"]), (&json!("awaiting_review"), &json!("B2")));
    assert_eq!(body["active_action_type"], "ledger_request");
}

#[tokio::test]
async fn rules_match_and_are_consumed_in_order() {
    let (simulator, organization) = start(Config::default()).await;
    let (one, two) = (Uuid::new_v4(), Uuid::new_v4());
    simulator.script(Rule::patch().guest(one).archived(true).times(1).status(500));
    simulator.script(Rule::patch().requester(organization).times(2).status(502));
    simulator.script(Rule::patch().requester(two).status(504));
    let mut statuses = Vec::new();
    for (guest, archived) in [(one, false), (one, true), (one, true), (two, true)] {
        let request = Request::patch(organization, guest, archived);
        statuses.push(request.send(simulator.address()).await.expect("an answer").status);
    }
    assert_eq!(statuses, [502, 500, 502, 200]);
    simulator.script(Rule::token().times(1).status(503));
    for status in [503, 200] {
        let answer = Request::token("id", "secret").send(simulator.address()).await.expect("an answer");
        assert_eq!(answer.status, status);
    }
    simulator.script(Rule::token().times(1).reset_after_apply());
    let error = Request::token("id", "secret").send(simulator.address()).await.expect_err("no answer");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
#[should_panic(expected = "for PATCH only")]
async fn a_rule_that_can_not_work_is_refused() {
    Fixture::new(Rule::token().wrong_archived()).await;
}
