//! Commands whose fate is unknown, and commands that are too old: how they end, seen from outside.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tells a whole story"
)]

use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use guest_connection_adapter::proto::{Command, CommandState};
use harness::broker::{Arrived, Inbox};
use harness::{DEADLINE, World};
use serde_json::json;
use simulator::{Entry, Rule};
use tonic::{Code, Request};
use tonic_types::StatusExt as _;
use uuid::Uuid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

/// Deferred commands come again soon, and are given up soon.
const BRIEF: &str = r#"
upstream.attempt_timeout = "1s"
upstream.connect_timeout = "500ms"
upstream.command_timeout = "1500ms"
upstream.retry_delay_base = "50ms"
upstream.retry_delay_max = "100ms"
upstream.defer_delay_base = "200ms"
upstream.defer_delay_max = "300ms"
upstream.settle = "1s"
store.lease = "2s"
store.give_up_after = "3s"
"#;

/// What is deferred stays so: Retry-After beyond the time of a claim.
const LATER: &str = "100";

async fn start(lines: &str) -> (World, Inbox) {
    let world = World::start(PROGRAM, lines).await;
    let letters = world.broker.consume(&world.names.dead_letters).await;
    (world, letters)
}

async fn when(world: &World, key: &str, state: CommandState) -> Command {
    world.upstream.command_when(&world.adapter, key, |command| command.state() == state).await
}

/// The next event and dead letter would be those of these two commands.
async fn nothing_more_is_told(mut world: World, mut letters: Inbox) {
    let guest = Uuid::new_v4();
    world.send(guest, &json!({"not": "a command"})).await;
    assert_eq!(letters.next().await.table("x-guest-connection-adapter")["reason"], "IDEMPOTENCY_KEY_MISSING");
    world.send(guest, &world.upstream.message(guest, true, "the-last")).await;
    let event = world.events.next().await.json();
    assert_eq!(event["data"]["command"]["idempotency_key"], "the-last");
    world.end().await;
}

/// A dead letter keeps what an operator needs to judge the command, and to send it again.
fn keeps_its_history(letter: &Arrived, command: &Command, reason: &str) {
    let own = letter.table("x-guest-connection-adapter");
    assert_eq!(own["reason"], reason, "{own:?}");
    assert_eq!(own["command_id"], command.command_id);
    assert_eq!(own["attempts"], format!("LongLongInt({})", command.attempts), "{own:?}");
    let effective: SystemTime = command.effective_time.unwrap().try_into().unwrap();
    assert_eq!(own["effective_time"].parse::<DateTime<Utc>>().unwrap(), DateTime::<Utc>::from(effective));
    assert_eq!(letter.json()["idempotency_key"], command.idempotency_key);
}

/// A caller waits, the last answer says that nothing was applied, and still the first one is not known.
#[tokio::test]
async fn an_answer_that_it_was_not_applied_does_not_settle_an_earlier_attempt() {
    let lines = BRIEF.replace("store.give_up_after = \"3s\"", "");
    let (mut world, letters) = start(&lines).await;
    let unknowns: [fn(Uuid) -> Rule; 3] = [
        |guest| Rule::patch().guest(guest).times(1).status(500).into(),
        |guest| Rule::patch().guest(guest).times(1).reset_before_apply(),
        |guest| Rule::patch().guest(guest).times(1).reset_after_apply(),
    ];
    for (number, unknown) in unknowns.into_iter().enumerate() {
        let (guest, key) = (Uuid::new_v4(), format!("k-{number}"));
        world.upstream.simulator.script(unknown(guest));
        world.upstream.simulator.script(Rule::patch().guest(guest).status(425).header("retry-after", LATER));
        let mut request = Request::new(world.upstream.archive(guest, &key));
        request.set_timeout(DEADLINE);
        let status = world.client().await.archive_guest_connection(request).await.unwrap_err();
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!((status.code(), info.reason.as_str()), (Code::Unavailable, "UPSTREAM_UNAVAILABLE"));
        assert_eq!(
            (info.metadata["command_state"].as_str(), info.metadata["maybe_applied"].as_str()),
            ("deferred", "true"),
            "never failed"
        );
        let kept = when(&world, &key, CommandState::Deferred).await;
        assert_eq!((kept.maybe_applied, kept.attempts), (true, 2));
        // It sticks over another claim that is refused likewise.
        world.send(guest, &world.upstream.message(guest, true, &key)).await;
        let again = |command: &Command| command.attempts == 3 && command.state() == CommandState::Deferred;
        assert!(world.upstream.command_when(&world.adapter, &key, again).await.maybe_applied);
        world.upstream.simulator.clear_faults();
        world.send(guest, &world.upstream.message(guest, true, &key)).await;
        let event = world.events.next().await.json();
        assert_eq!(event["type"], "ai.mycreditapp.guest-connection.archived.v1");
        assert!(!when(&world, &key, CommandState::Succeeded).await.maybe_applied, "a 2xx settles it");
    }
    nothing_more_is_told(world, letters).await;
}

#[tokio::test]
async fn what_stays_unknown_is_abandoned_with_one_indeterminate_event_and_a_dead_letter() {
    let (mut world, mut letters) = start(BRIEF).await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).status(500).applied());
    world.send(guest, &world.upstream.message(guest, true, "k")).await;
    let event = world.events.next().await.json();
    assert_eq!(event["type"], "ai.mycreditapp.guest-connection.indeterminate.v1");
    assert_eq!(event["data"]["incomplete"], true);
    assert_eq!(event["data"]["command"]["idempotency_key"], "k");
    let kept = when(&world, "k", CommandState::Abandoned).await;
    assert!(kept.maybe_applied && kept.attempts > 1);
    assert_eq!(usize::try_from(kept.attempts).unwrap(), world.upstream.received(guest), "each is counted");
    keeps_its_history(&letters.next().await, &kept, "COMMAND_ABANDONED");
    let (finished, accepted): (SystemTime, SystemTime) =
        (kept.finish_time.unwrap().try_into().unwrap(), kept.accept_time.unwrap().try_into().unwrap());
    assert!(finished.duration_since(accepted).unwrap() >= Duration::from_secs(3), "not before its time");
    // Its connection is free again.
    world.upstream.simulator.clear_faults();
    world.send(guest, &world.upstream.message(guest, false, "next")).await;
    let event = world.events.next().await.json();
    assert_eq!(
        (&event["data"]["command"]["idempotency_key"], &event["sequence"]),
        (&json!("next"), &json!(format!("{:020}", 2)))
    );
    nothing_more_is_told(world, letters).await;
}

#[tokio::test]
async fn what_was_certainly_not_applied_is_abandoned_without_an_event() {
    let (world, mut letters) = start(BRIEF).await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).maintenance());
    world.send(guest, &world.upstream.message(guest, true, "k")).await;
    let letter = letters.next().await;
    let kept = when(&world, "k", CommandState::Abandoned).await;
    assert!(!kept.maybe_applied && kept.event.is_none());
    keeps_its_history(&letter, &kept, "COMMAND_ABANDONED");
    world.upstream.simulator.clear_faults();
    nothing_more_is_told(world, letters).await;
}

#[tokio::test]
async fn an_expiry_ends_what_was_not_sent_and_only_that() {
    let lines = BRIEF.replace("store.give_up_after = \"3s\"", "");
    let (mut world, mut letters) = start(&lines).await;
    let [refused, unknown] = [(); 2].map(|()| Uuid::new_v4());
    world.upstream.simulator.script(Rule::patch().guest(refused).maintenance());
    world.upstream.simulator.script(Rule::patch().guest(unknown).status(500));
    let expires = Utc::now() + chrono::TimeDelta::seconds(4);
    for (guest, key) in [(refused, "refused"), (unknown, "unknown")] {
        let mut body = world.upstream.message(guest, true, key);
        body["expire_time"] = json!(expires.to_rfc3339());
        world.send(guest, &body).await;
    }
    let letter = letters.next().await;
    let kept = when(&world, "refused", CommandState::Failed).await;
    keeps_its_history(&letter, &kept, "COMMAND_EXPIRED");
    assert!(kept.event.is_none() && !kept.maybe_applied);
    assert_eq!(world.upstream.applied(refused), [] as [bool; 0]);
    let late = |entries: &[Entry]| entries.iter().any(|e| e.is_patch_of(refused) && e.received_at > expires);
    assert!(!late(&world.upstream.simulator.journal()), "not sent after its time");
    // The other one may have taken effect, so it goes on until that is known.
    let goes_on =
        |entries: &[Entry]| entries.iter().any(|e| e.is_patch_of(unknown) && e.received_at > expires);
    world.upstream.simulator.wait_for(goes_on, DEADLINE).await.expect("it is repeated past its time");
    world.upstream.simulator.clear_faults();
    let event = world.events.next().await.json();
    assert_eq!(event["data"]["command"]["idempotency_key"], "unknown");
    assert_eq!(event["type"], "ai.mycreditapp.guest-connection.archived.v1");
    nothing_more_is_told(world, letters).await;
}

/// A caller that was told that its command goes on does not hear how it ended.
#[tokio::test]
async fn what_ends_badly_after_its_caller_has_left_is_a_dead_letter() {
    let (mut world, mut letters) = start("").await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).times(1).delay(Duration::from_millis(1_500)));
    world.upstream.simulator.script(Rule::patch().guest(guest).status(404));
    let mut request = Request::new(world.upstream.archive(guest, "late"));
    request.set_timeout(Duration::from_secs(1));
    world.client().await.archive_guest_connection(request).await.unwrap_err();
    let letter = letters.next().await;
    keeps_its_history(&letter, &when(&world, "late", CommandState::Rejected).await, "UPSTREAM_NOT_FOUND");

    // One that hears of it needs none.
    let mut request = Request::new(world.upstream.archive(guest, "heard"));
    request.set_timeout(DEADLINE);
    let status = world.client().await.archive_guest_connection(request).await.unwrap_err();
    assert_eq!(status.code(), Code::NotFound);
    world.upstream.simulator.clear_faults();
    let guest = Uuid::new_v4();
    world.send(guest, &world.upstream.message(guest, true, "between")).await;
    assert_eq!(world.events.next().await.json()["data"]["command"]["idempotency_key"], "between");
    nothing_more_is_told(world, letters).await;
}
