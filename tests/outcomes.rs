//! What every upstream answer means, through both doors, seen from outside.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tells a whole story"
)]

use std::collections::HashMap;
use std::time::Duration;

use guest_connection_adapter::proto::CommandState;
use harness::World;
use lapin::BasicProperties;
use serde_json::{Value, json};
use simulator::Rule;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

/// Short times, so that what takes seconds in service takes moments here.
const QUICK: &str = r#"
upstream.attempt_timeout = "1s"
upstream.connect_timeout = "500ms"
upstream.command_timeout = "3500ms"
upstream.retry_delay_base = "20ms"
upstream.retry_delay_max = "100ms"
upstream.defer_delay_base = "100ms"
upstream.defer_delay_max = "400ms"
upstream.settle = "500ms"
grpc.answer_timeout = "5s"
upstream.breaker_failures = 1000
upstream.breaker_failure_share = 1.0
"#;

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq)]
enum End {
    /// Final, remembered.
    Rejected,
    /// Final, and tried again under the same key.
    Failed,
    /// Tried again by the caller; by the queue's door deferred.
    NotApplied,
    /// Deferred by both doors until it is known.
    MaybeApplied,
}

/// Makes the rule for one guest.
type Script = fn(Uuid) -> Rule;

type Row = (&'static str, Script, Code, &'static str, End);

fn status(guest: Uuid, status: u16) -> simulator::StatusBuilder {
    Rule::patch().guest(guest).status(status)
}

/// The table of refusals and failures.
const ROWS: &[Row] = &[
    (
        "301",
        |g| status(g, 301).header("location", "http://127.0.0.1:1/").into(),
        Code::FailedPrecondition,
        "UPSTREAM_REJECTED",
        End::Rejected,
    ),
    (
        "302",
        |g| status(g, 302).header("location", "/elsewhere").into(),
        Code::FailedPrecondition,
        "UPSTREAM_REJECTED",
        End::Rejected,
    ),
    (
        "303",
        |g| status(g, 303).header("location", "/elsewhere").into(),
        Code::FailedPrecondition,
        "UPSTREAM_REJECTED",
        End::Rejected,
    ),
    (
        "307",
        |g| status(g, 307).header("location", "/elsewhere").into(),
        Code::FailedPrecondition,
        "UPSTREAM_REJECTED",
        End::Rejected,
    ),
    (
        "308",
        |g| status(g, 308).header("location", "/elsewhere").into(),
        Code::FailedPrecondition,
        "UPSTREAM_REJECTED",
        End::Rejected,
    ),
    ("400", |g| status(g, 400).into(), Code::InvalidArgument, "UPSTREAM_INVALID", End::Rejected),
    ("422", |g| status(g, 422).into(), Code::InvalidArgument, "UPSTREAM_INVALID", End::Rejected),
    ("403", |g| status(g, 403).into(), Code::PermissionDenied, "UPSTREAM_FORBIDDEN", End::Failed),
    ("404", |g| status(g, 404).into(), Code::NotFound, "UPSTREAM_NOT_FOUND", End::Rejected),
    ("410", |g| status(g, 410).into(), Code::NotFound, "UPSTREAM_NOT_FOUND", End::Rejected),
    ("405", |g| status(g, 405).into(), Code::FailedPrecondition, "UPSTREAM_REJECTED", End::Rejected),
    ("409", |g| status(g, 409).into(), Code::FailedPrecondition, "UPSTREAM_CONFLICT", End::Rejected),
    ("408", |g| status(g, 408).into(), Code::Unavailable, "UPSTREAM_UNAVAILABLE", End::MaybeApplied),
    ("425", |g| status(g, 425).into(), Code::Unavailable, "UPSTREAM_UNAVAILABLE", End::NotApplied),
    ("429", |g| status(g, 429).into(), Code::ResourceExhausted, "UPSTREAM_RATE_LIMITED", End::NotApplied),
    (
        "500",
        |g| status(g, 500).text("<html>oops</html>").into(),
        Code::Unavailable,
        "UPSTREAM_UNAVAILABLE",
        End::MaybeApplied,
    ),
    ("502", |g| status(g, 502).into(), Code::Unavailable, "UPSTREAM_UNAVAILABLE", End::MaybeApplied),
    ("503", |g| status(g, 503).into(), Code::Unavailable, "UPSTREAM_UNAVAILABLE", End::MaybeApplied),
    (
        "503 maintenance",
        |g| Rule::patch().guest(g).maintenance(),
        Code::Unavailable,
        "UPSTREAM_UNAVAILABLE",
        End::NotApplied,
    ),
    ("504", |g| status(g, 504).into(), Code::Unavailable, "UPSTREAM_UNAVAILABLE", End::MaybeApplied),
    (
        "reset before applying",
        |g| Rule::patch().guest(g).reset_before_apply(),
        Code::Unavailable,
        "UPSTREAM_UNANSWERED",
        End::MaybeApplied,
    ),
    (
        "reset after applying",
        |g| Rule::patch().guest(g).reset_after_apply(),
        Code::Unavailable,
        "UPSTREAM_UNANSWERED",
        End::MaybeApplied,
    ),
    ("hang", |g| Rule::patch().guest(g).hang(), Code::Unavailable, "UPSTREAM_UNANSWERED", End::MaybeApplied),
    (
        "dripped headers",
        |g| Rule::patch().guest(g).drip_headers(Duration::from_millis(300)),
        Code::Unavailable,
        "UPSTREAM_UNANSWERED",
        End::MaybeApplied,
    ),
];

async fn archive(world: &World, guest: Uuid, key: &str) -> Result<bool, Status> {
    let mut request = Request::new(world.upstream.archive(guest, key));
    request.set_timeout(Duration::from_secs(10));
    world.client().await.archive_guest_connection(request).await.map(|answer| answer.into_inner().replayed)
}

/// The rows with these names. The 429 stands apart, since whoever hears it holds back everything of its organisation.
fn rows(wanted: impl Fn(&str) -> bool) -> Vec<Row> {
    ROWS.iter().copied().filter(|row| wanted(row.0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_hears_what_the_table_says() {
    calls_hear(&rows(|name| name != "429")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_hears_of_too_many_requests() {
    calls_hear(&rows(|name| name == "429")).await;
}

async fn calls_hear(rows: &[Row]) {
    // All of them are tried again at once, which is more than the budget for retries has room for.
    let lines = format!("{QUICK}upstream.retry_floor = 1000\n");
    let mut world = World::start(PROGRAM, &lines).await;
    let guests: Vec<Uuid> = rows.iter().map(|_| Uuid::new_v4()).collect();
    for (row, guest) in rows.iter().zip(&guests) {
        world.upstream.simulator.script(row.1(*guest));
    }
    let calls = rows.iter().zip(&guests).map(|(row, guest)| {
        let (world, key) = (&world, row.0.replace(' ', "-"));
        async move { archive(world, *guest, &key).await }
    });
    let answers = futures::future::join_all(calls).await;
    for (((name, _, code, reason, end), guest), answer) in rows.iter().zip(&guests).zip(answers) {
        let key = name.replace(' ', "-");
        let refused = answer.expect_err(name);
        let details = refused.get_error_details();
        let info = details.error_info().unwrap_or_else(|| panic!("{name}: {refused:?}"));
        assert_eq!((refused.code(), info.reason.as_str()), (*code, *reason), "{name}: {refused:?}");
        assert_eq!(info.domain, "guest-connection-adapter");
        assert_eq!(
            details.retry_info().is_some(),
            matches!(end, End::NotApplied | End::MaybeApplied),
            "{name}"
        );
        assert_eq!(details.resource_info().is_some(), *code == Code::NotFound, "{name}");
        let sent = world.upstream.received(*guest);
        let kept = world.upstream.command(&world.adapter, &key).await.expect("it is kept");
        match end {
            End::Rejected | End::Failed => assert_eq!(sent, 1, "{name} is not retried"),
            End::NotApplied | End::MaybeApplied => assert!(sent > 1, "{name} is retried"),
        }
        let wanted = match end {
            End::Rejected => CommandState::Rejected,
            End::Failed | End::NotApplied => CommandState::Failed,
            End::MaybeApplied => CommandState::Deferred,
        };
        // A deferred one may be under way again already.
        assert!(
            kept.state() == wanted || (*end == End::MaybeApplied && kept.state() == CommandState::InFlight),
            "{name} is {kept:?}"
        );
        assert_eq!(kept.maybe_applied, *end == End::MaybeApplied, "{name}");
        if *end == End::Rejected {
            assert_eq!(archive(&world, *guest, &key).await.expect_err("replayed").code(), *code);
            assert_eq!(world.upstream.received(*guest), sent, "{name} is remembered");
        }
    }
    // Once the upstream is well, what was deferred ends by itself, and what failed by a repeat of its key.
    world.upstream.simulator.clear_faults();
    for ((name, .., end), guest) in rows.iter().zip(&guests) {
        if matches!(end, End::Failed | End::NotApplied) {
            let replayed = archive(&world, *guest, &name.replace(' ', "-")).await;
            assert!(!replayed.unwrap_or_else(|error| panic!("{name}: {error:?}")));
        }
    }
    let wanted = rows.iter().filter(|row| row.4 != End::Rejected).count();
    let mut events = HashMap::new();
    for event in world.events.take(wanted).await {
        let event = event.json();
        assert_eq!(event["type"], "ai.mycreditapp.guest-connection.archived.v1");
        *events.entry(event["data"]["command"]["idempotency_key"].to_string()).or_insert(0) += 1;
    }
    assert!(events.len() == wanted && events.values().all(|count| *count == 1), "{events:?}");
    for ((name, .., end), guest) in rows.iter().zip(&guests) {
        if *end == End::MaybeApplied {
            assert!(
                archive(&world, *guest, &name.replace(' ', "-")).await.expect(name),
                "{name} is replayed"
            );
        }
    }
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_ends_as_the_table_says() {
    messages_end(&rows(|name| name != "429")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_ends_well_after_too_many_requests() {
    messages_end(&rows(|name| name == "429")).await;
}

async fn messages_end(rows: &[Row]) {
    let mut world = World::start(PROGRAM, QUICK).await;
    let mut letters = world.broker.consume(&world.names.dead_letters).await;
    let replies = world.broker.queue().await;
    let mut inbox = world.broker.consume(&replies).await;
    let guests: Vec<Uuid> = rows.iter().map(|_| Uuid::new_v4()).collect();
    for (row, guest) in rows.iter().zip(&guests) {
        world.upstream.simulator.script(row.1(*guest));
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_reply_to(replies.as_str().into())
            .with_correlation_id(row.0.into());
        world
            .send_with(*guest, properties, &world.upstream.message(*guest, true, &row.0.replace(' ', "-")))
            .await;
    }
    let refused: Vec<_> = rows.iter().filter(|row| matches!(row.4, End::Rejected | End::Failed)).collect();
    let mut told: HashMap<String, (String, Value)> = HashMap::new();
    for letter in letters.take(refused.len()).await {
        let body = letter.json();
        let key = body["idempotency_key"].as_str().unwrap().to_owned();
        let reason = letter.table("x-guest-connection-adapter")["reason"].clone();
        assert!(told.insert(key, (reason, body)).is_none(), "one dead letter each");
    }
    for row in &refused {
        let (reason, body) = &told[&row.0.replace(' ', "-")];
        assert_eq!(reason, row.3, "{}", row.0);
        assert_eq!(body["archived"], true, "the command as the queue takes it");
    }
    for reply in inbox.take(refused.len()).await {
        let name = reply.properties.correlation_id().as_ref().unwrap().to_string();
        let row = rows.iter().find(|row| row.0 == name).unwrap();
        assert_eq!(reply.json()["reason"], row.3, "{name}");
    }
    // The rest is deferred and goes on by itself; the queue is empty, since every message was settled.
    for row in rows.iter().filter(|row| matches!(row.4, End::NotApplied | End::MaybeApplied)) {
        let (key, upstream) = (row.0.replace(' ', "-"), &world.upstream);
        upstream
            .command_when(&world.adapter, &key, |command| command.state() == CommandState::Deferred)
            .await;
    }
    world.upstream.simulator.clear_faults();
    let waiting = rows.len() - refused.len();
    for event in world.events.take(waiting).await {
        assert_eq!(event.json()["type"], "ai.mycreditapp.guest-connection.archived.v1");
    }
    for reply in inbox.take(waiting).await {
        assert_eq!(reply.json()["status"], "succeeded");
    }
    let (names, broker) = (world.names.clone(), harness::Broker::connect().await);
    world.end().await;
    assert_eq!(broker.depth(&names.commands).await, 0);
    assert_eq!(broker.depth(&names.dead_letters).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn each_entry_of_a_422_is_a_violation() {
    let world = World::start(PROGRAM, QUICK).await;
    let guest = Uuid::new_v4();
    let body = json!({"detail": [
        {"loc": ["body", "archived"], "msg": "must be a boolean", "type": "value", "code": "bool"},
        {"loc": ["path", 0], "msg": "is unknown to owner@example.com", "type": "value", "code": "x"},
    ]});
    world.upstream.simulator.script(status(guest, 422).json(body));
    let refused = archive(&world, guest, "k").await.unwrap_err();
    let details = refused.get_error_details();
    let violations: Vec<_> = details
        .bad_request()
        .unwrap()
        .field_violations
        .iter()
        .map(|v| (v.field.as_str(), v.description.as_str()))
        .collect();
    assert_eq!(violations, [("body.archived", "must be a boolean"), ("path.0", "is unknown to [redacted]")]);
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_token_is_renewed_once() {
    let world = World::start(PROGRAM, QUICK).await;
    let guest = Uuid::new_v4();
    archive(&world, guest, "k-1").await.unwrap();
    world.upstream.simulator.revoke_tokens();
    archive(&world, guest, "k-2").await.expect("with a new token");
    assert_eq!(world.upstream.received(guest), 3, "one attempt was refused");
    assert_eq!(world.upstream.simulator.stats().tokens, 2);
    world.upstream.simulator.script(status(guest, 401));
    let refused = archive(&world, guest, "k-3").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(refused.get_error_details().error_info().unwrap().reason, "UPSTREAM_UNAUTHENTICATED");
    assert_eq!(world.upstream.received(guest), 5, "one retry, no more");
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_connection_nothing_was_applied() {
    let mut world = World::start(PROGRAM, QUICK).await;
    let guest = Uuid::new_v4();
    archive(&world, guest, "k-1").await.unwrap();
    world.upstream.simulator.pause_listening().await.unwrap();
    let refused = archive(&world, guest, "k-2").await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(refused.get_error_details().error_info().unwrap().reason, "UPSTREAM_UNREACHABLE");
    assert_eq!(world.upstream.command(&world.adapter, "k-2").await.unwrap().state(), CommandState::Failed);
    let other = Uuid::new_v4();
    world.send(other, &world.upstream.message(other, true, "k-3")).await;
    world.upstream.simulator.resume_listening().await.unwrap();
    archive(&world, guest, "k-2").await.expect("the same key tries again");
    let keys: Vec<_> = world
        .events
        .take(3)
        .await
        .iter()
        .map(|e| e.json()["data"]["command"]["idempotency_key"].clone())
        .collect();
    for key in ["k-1", "k-2", "k-3"] {
        assert!(keys.contains(&json!(key)), "{keys:?}");
    }
    world.end().await;
}
