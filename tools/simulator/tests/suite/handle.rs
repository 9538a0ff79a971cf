//! The handle and the control API: overlap accounting, waiting, listening, reset, and a load.

use std::io::ErrorKind;
use std::time::Duration;

use crate::common::{DEADLINE, Request, start};
use serde_json::{Value, json};
use simulator::{Config, ConnectionReport, Entry, Rule, ScriptedRule, Simulator, Stats};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

async fn control(simulator: &Simulator, method: &str, path: &str) -> Value {
    let answer = Request::bare(method, &format!("/_control/{path}")).send(simulator.address()).await;
    let answer = answer.expect("an answer");
    assert!((200..300).contains(&answer.status), "{answer:?}");
    if answer.body.is_empty() { Value::Null } else { answer.json() }
}

#[tokio::test]
async fn overlap_is_counted_for_each_connection() {
    let (simulator, organization) = start(Config::default()).await;
    simulator.script(Rule::patch().hang());
    let guests = [Uuid::new_v4(), Uuid::new_v4()];
    let mut open = Vec::new();
    for guest in [guests[0], guests[0], guests[1]] {
        open.push(Request::patch(organization, guest, true).open(simulator.address()).await.expect("open"));
    }
    let hung = |entries: &[Entry]| entries.iter().filter(|entry| entry.fault.is_some()).count() == 3;
    simulator.wait_for(hung, DEADLINE).await.expect("three hung requests");
    let stats = simulator.stats();
    assert_eq!((stats.outstanding, stats.max_outstanding, stats.max_outstanding_per_connection), (3, 3, 2));

    drop(open);
    simulator.wait_until_idle(DEADLINE).await.expect("an idle simulator");
    simulator.clear_faults();
    for guest in guests {
        Request::patch(organization, guest, true).send(simulator.address()).await.expect("an answer");
    }
    let stats = simulator.stats();
    assert_eq!((stats.outstanding, stats.max_outstanding, stats.patches, stats.applied), (0, 3, 5, 2));
    let reports: Vec<ConnectionReport> =
        serde_json::from_value(control(&simulator, "GET", "connections").await).expect("reports");
    for report in reports {
        let most = if report.connection.guest_organization_id == guests[0] { 2 } else { 1 };
        assert_eq!((report.load.outstanding, report.load.max_outstanding), (0, most));
    }
}

#[tokio::test]
async fn requests_one_after_the_other_do_not_overlap() {
    let (simulator, organization) = start(Config::default()).await;
    let guest = Uuid::new_v4();
    simulator.script(Rule::patch().times(20).reset_after_apply());
    for turn in 0..40 {
        let answer = Request::patch(organization, guest, turn % 2 == 0).send(simulator.address()).await;
        assert_eq!(answer.is_ok(), turn >= 20);
    }
    assert_eq!(simulator.stats().max_outstanding_per_connection, 1);
}

#[tokio::test]
async fn the_control_api_does_what_the_handle_does() {
    let (simulator, organization) = start(Config::default()).await;
    let guest = Uuid::new_v4();
    let rules = json!([
        {"match": {"endpoint": "patch", "guest": guest}, "times": 1,
         "action": {"kind": "status", "status": 503, "headers": {"retry-after": "1"}, "body": {"detail": []}}},
        {"match": {"endpoint": "patch"}, "times": null, "action": {"kind": "delay", "ms": 1, "then": "continue"}},
        {"match": {"endpoint": "token"}, "action": {"kind": "reset_before_apply"}},
    ]);
    let script = Request::post("/_control/faults", &rules);
    assert_eq!(script.send(simulator.address()).await.expect("an answer").status, 204);
    for (status, turn) in [(503, 1), (200, 2)] {
        let patch = Request::patch(organization, guest, true);
        assert_eq!(patch.send(simulator.address()).await.expect("an answer").status, status, "turn {turn}");
    }
    let listed = control(&simulator, "GET", "faults").await;
    let listed: Vec<ScriptedRule> = serde_json::from_value(listed).expect("rules");
    assert_eq!(listed.iter().map(|scripted| scripted.used).collect::<Vec<_>>(), [1, 1, 0]);

    let journal: Vec<Entry> =
        serde_json::from_value(control(&simulator, "GET", "journal").await).expect("entries");
    assert_eq!(journal, simulator.journal());
    let after = control(&simulator, "GET", "journal?after=1").await;
    assert_eq!((after.as_array().expect("a list").len(), &after[0]["seq"]), (1, &json!(2)));
    let stats: Stats = serde_json::from_value(control(&simulator, "GET", "stats").await).expect("stats");
    assert_eq!(stats, simulator.stats());

    control(&simulator, "DELETE", "faults").await;
    assert_eq!(control(&simulator, "GET", "faults").await, json!([]));
    control(&simulator, "POST", "reset").await;
    assert_eq!(simulator.stats(), Stats::default());
    assert!(simulator.journal().is_empty() && simulator.connection(organization, guest).is_none());
    let add = Request::post("/_control/connections", &json!({"target": organization, "guest": guest}));
    assert_eq!(add.send(simulator.address()).await.expect("an answer").status, 201);
    control(&simulator, "POST", "revoke-tokens").await;
    let patch = Request::patch(organization, guest, true);
    assert_eq!(patch.send(simulator.address()).await.expect("an answer").status, 401);
    assert_eq!(simulator.journal()[0].seq, 3, "numbers go on after a reset");
}

#[tokio::test]
async fn rules_that_are_not_understood_are_refused_whole() {
    let (simulator, _) = start(Config::default()).await;
    for action in [
        json!({"kind": "explode"}),
        json!({"kind": "status", "status": 99}),
        json!({"kind": "status", "status": 200, "typo": 1}),
        json!({"kind": "status", "status": 200, "headers": {"bad name": ""}}),
        json!({"kind": "empty_body", "status": 500}),
    ] {
        let rules = json!([
            {"match": {"endpoint": "patch"}, "action": {"kind": "endless_body"}},
            {"match": {"endpoint": "patch"}, "action": action},
        ]);
        let answer =
            Request::post("/_control/faults", &rules).send(simulator.address()).await.expect("an answer");
        assert_eq!(answer.status, 422, "{action}");
    }
    assert_eq!(control(&simulator, "GET", "faults").await, json!([]));
}

#[tokio::test]
async fn a_reset_stops_late_effects_and_forgets_what_is_outstanding() {
    let (simulator, organization) = start(Config::default()).await;
    let guest = Uuid::new_v4();
    simulator.script(Rule::patch().times(1).apply_late(Duration::from_millis(20)));
    simulator.script(Rule::patch().hang());
    let patch = Request::patch(organization, guest, true);
    patch.send(simulator.address()).await.expect_err("a reset");
    let hung = patch.open(simulator.address()).await.expect("open");
    simulator.wait_for(|entries| entries.len() == 2, DEADLINE).await.expect("both");
    simulator.reset();
    drop(hung);
    simulator.wait_until_idle(DEADLINE).await.expect("an idle simulator");
    let late = simulator.wait_for(|entries| !entries.is_empty(), Duration::from_millis(100)).await;
    assert!(late.is_err());
    assert_eq!((simulator.stats(), simulator.connection(organization, guest)), (Stats::default(), None));
}

#[tokio::test]
async fn a_wait_ends_in_time() {
    let (simulator, _) = start(Config::default()).await;
    let passed = simulator.wait_for(|_| false, Duration::from_millis(10)).await.expect_err("nothing to see");
    assert_eq!(passed.waited, Duration::from_millis(10));
    assert!(passed.to_string().contains("0 entries"));
}

#[tokio::test]
async fn listening_can_pause_and_resume_on_the_same_port() {
    let (mut simulator, organization) = start(Config::default()).await;
    let patch = Request::patch(organization, Uuid::new_v4(), true);
    let address = simulator.address();
    for _ in 0..3 {
        let mut idle = patch.open(address).await.expect("open");
        assert_eq!(idle.answer().await.expect("an answer").status, 200);
        simulator.pause_listening().await.expect("a pause");
        assert_eq!(patch.send(address).await.expect_err("refused").kind(), ErrorKind::ConnectionRefused);
        assert_eq!(idle.more().await.expect_err("closed").kind(), ErrorKind::UnexpectedEof);
        simulator.resume_listening().await.expect("the same port");
        assert_eq!(patch.send(address).await.expect("an answer").status, 200);
    }
}

#[tokio::test]
async fn a_pause_lets_requests_under_way_finish() {
    let (mut simulator, organization) = start(Config::default()).await;
    simulator.script(Rule::patch().delay(Duration::from_millis(100)));
    let mut under_way =
        Request::patch(organization, Uuid::new_v4(), true).open(simulator.address()).await.expect("open");
    simulator.wait_for(|entries| entries.len() == 1, DEADLINE).await.expect("the request");
    simulator.pause_listening().await.expect("a pause");
    assert_eq!(under_way.answer().await.expect("an answer").status, 200);
}

#[tokio::test]
async fn shutdown_does_not_wait_for_what_hangs() {
    let (simulator, organization) = start(Config::default()).await;
    simulator.script(Rule::patch().times(1).hang());
    simulator.script(Rule::patch().times(1).endless_body());
    simulator.script(Rule::patch().drip(Duration::from_secs(60)));
    let mut open = Vec::new();
    for _ in 0..3 {
        let patch = Request::patch(organization, Uuid::new_v4(), true);
        open.push(patch.open(simulator.address()).await.expect("open"));
    }
    let met = |entries: &[Entry]| entries.iter().filter(|entry| entry.fault.is_some()).count() == 3;
    simulator.wait_for(met, DEADLINE).await.expect("three requests");
    let address = simulator.address();
    tokio::time::timeout(DEADLINE, simulator.shutdown()).await.expect("an end in time");
    let error = Request::bare("GET", "/").send(address).await.expect_err("closed");
    assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn open_connections_can_be_reset() {
    let (simulator, organization) = start(Config::default()).await;
    let mut idle =
        Request::patch(organization, Uuid::new_v4(), true).open(simulator.address()).await.expect("open");
    assert_eq!(idle.answer().await.expect("an answer").status, 200);
    simulator.reset_connections();
    let gone = tokio::time::timeout(DEADLINE, idle.more()).await.expect("in time").expect_err("reset");
    assert_eq!(gone.kind(), ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn the_journal_is_bounded() {
    let (simulator, _) = start(Config { journal_capacity: 3, ..Config::default() }).await;
    for _ in 0..5 {
        Request::bare("GET", "/").send(simulator.address()).await.expect("an answer");
    }
    assert_eq!(simulator.journal().iter().map(|entry| entry.seq).collect::<Vec<_>>(), [3, 4, 5]);
    assert_eq!(simulator.stats().journal_dropped, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_requests_are_all_in_the_journal() {
    const WORKERS: usize = 20;
    const EACH: usize = 500;
    let (simulator, organization) = start(Config::default()).await;
    let address = simulator.address();
    let workers: Vec<_> = (0..WORKERS)
        .map(|_| {
            tokio::spawn(async move {
                let guest = Uuid::new_v4();
                let patch = Request::patch(organization, guest, true);
                let mut connection = patch.open(address).await.expect("open");
                for turn in 1..=EACH {
                    assert_eq!(connection.answer().await.expect("an answer").status, 200);
                    if turn < EACH {
                        connection.stream.write_all(&patch.bytes()).await.expect("written");
                    }
                }
            })
        })
        .collect();
    for worker in workers {
        worker.await.expect("no panic");
    }
    let stats = simulator.stats();
    assert_eq!((stats.patches, stats.applied, stats.violations), (10_000, 10_000, 0));
    assert_eq!((stats.max_outstanding_per_connection, stats.outstanding), (1, 0));
    let mut order: Vec<_> = simulator.journal().iter().filter_map(|entry| entry.applied_seq).collect();
    order.sort_unstable();
    assert!(order.iter().copied().eq(1..=10_000));
}
