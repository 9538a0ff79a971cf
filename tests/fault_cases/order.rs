//! Idempotency and order: cases 22 to 28. Case 29 is `store_faults::outage`.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use guest_connection_adapter::proto::{Command, CommandState};
use harness::{DEADLINE, World};
use lapin::BasicProperties;
use simulator::Rule;
use tokio::sync::Barrier;
use tonic::Code;
use uuid::Uuid;

use crate::PROGRAM;
use crate::callers::{archive, event, is_refused, nothing_more_is_told, spawn_archive, until_sent};

type Script = fn(Uuid) -> Rule;

const PAIRS: usize = 40;

/// Retry-After beyond the time of a claim: the command is deferred at once, and for long.
const LATER: &str = "100";

/// Two calls and two messages for each key, all let go together, while a PATCH takes two seconds.
#[tokio::test(flavor = "multi_thread")]
async fn case_22_twins_by_both_doors_at_the_same_instant() {
    let mut world = World::start(PROGRAM, "").await;
    world.upstream.simulator.script(Rule::patch().delay(Duration::from_secs(2)));
    let keys: Vec<(Uuid, String)> =
        (0..PAIRS).map(|number| (Uuid::new_v4(), format!("k-{number}"))).collect();
    let client = world.client().await;
    let barrier = Arc::new(Barrier::new(2 * PAIRS + 1));
    let calls: Vec<_> = keys
        .iter()
        .flat_map(|twin| [twin, twin])
        .map(|(guest, key)| {
            let (mut client, barrier) = (client.clone(), barrier.clone());
            let mut request = tonic::Request::new(world.upstream.archive(*guest, key));
            request.set_timeout(DEADLINE);
            tokio::spawn(async move {
                barrier.wait().await;
                client.archive_guest_connection(request).await.map(tonic::Response::into_inner)
            })
        })
        .collect();
    let messages = keys.iter().flat_map(|twin| [twin, twin]).map(|(guest, key)| {
        let body = serde_json::to_vec(&world.upstream.message(*guest, true, key)).unwrap();
        (guest.to_string(), BasicProperties::default(), body)
    });
    let messages: Vec<_> = messages.collect();
    barrier.wait().await;
    world.broker.publish_all(&world.names, messages).await;

    let mut ids: HashMap<String, HashSet<String>> = HashMap::new();
    let mut firsts: HashMap<String, usize> = HashMap::new();
    for answer in join_all(calls).await {
        let answer = answer.unwrap().expect("an answer");
        assert_eq!(answer.guest_connection.as_ref().unwrap().archived, Some(true));
        *firsts.entry(answer.idempotency_key.clone()).or_default() += usize::from(!answer.replayed);
        ids.entry(answer.idempotency_key).or_default().insert(answer.command_id);
    }
    let mut told = HashSet::new();
    for _ in &keys {
        assert!(told.insert(event(&mut world).await), "one event each");
    }
    for (guest, key) in &keys {
        assert_eq!(ids[key].len(), 1, "{key} is one command");
        assert!(firsts[key] <= 1, "{key} was done by one of them");
        assert_eq!(world.upstream.received(*guest), 1, "{key} is one PATCH");
    }
    nothing_more_is_told(world).await;
}

#[tokio::test]
async fn case_23_a_kill_in_mid_patch_is_taken_over() {
    let mut world = World::start(PROGRAM, "").await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).times(1).hang_after_apply());
    world.send(guest, &world.upstream.message(guest, true, "k")).await;
    let applied = |entries: &[simulator::Entry]| entries.iter().any(|e| e.is_patch_of(guest) && e.applied);
    world.upstream.simulator.wait_for(applied, DEADLINE).await.expect("the PATCH is applied");
    world.adapter.kill().await;

    world.adapter = world.setup.start().await;
    // The record that was in progress holds up nobody: whoever asks now waits for the one who took it over.
    assert!(archive(&world, guest, "k").await.expect("taken over").replayed);
    let told = world.events.next().await.json();
    assert_eq!(told["type"], "ai.mycreditapp.guest-connection.archived.v1");
    let kept = world.upstream.command(&world.adapter, "k").await.unwrap();
    assert_eq!(kept.state(), CommandState::Succeeded);
    assert!(!kept.maybe_applied, "a 2xx settles it");
    assert_eq!(told["id"], kept.event.unwrap().event_id.as_str());
    assert_eq!(world.upstream.applied(guest), [true, true], "the same value again, which is harmless");
    world.adapter.ready().await;
    nothing_more_is_told(world).await;
}

/// The literal deadline of the case, by a client that does not give up by itself. It leaves the adapter 50 ms for its answer;
/// on a loaded machine tonic's own timer at the deadline may be faster, which says CANCELLED. With a longer deadline
/// `grpc_door::a_deadline_ends_the_wait_and_not_the_work` knows the one code that is right.
#[tokio::test]
async fn case_24_a_deadline_ends_the_call_and_not_the_work() {
    let mut world = World::start(PROGRAM, "").await;
    let guest = Uuid::new_v4();
    // Connections and the token are there, so that the call's time is its own.
    archive(&world, Uuid::new_v4(), "warm").await.unwrap();
    assert_eq!(event(&mut world).await, "warm");
    world.upstream.simulator.script(Rule::patch().guest(guest).times(1).delay(Duration::from_secs(1)));
    let message = prost::Message::encode_to_vec(&world.upstream.archive(guest, "k"));
    let mut frame = vec![0];
    frame.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend(message);
    let client = reqwest::Client::builder().http2_prior_knowledge().build().unwrap();
    let method = "guestconnections.v1.GuestConnectionService/ArchiveGuestConnection";
    let call = client
        .post(format!("http://{}/{method}", world.adapter.grpc))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .header("grpc-timeout", "200m")
        .body(frame);
    let answer = call.send().await.unwrap();
    let code = answer.headers()["grpc-status"].to_str().unwrap().parse::<i32>().unwrap();
    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&Code::from(code)), "{answer:?}");
    assert_eq!(world.upstream.applied(guest), [] as [bool; 0], "the answer comes before the outcome");
    let repeat = archive(&world, guest, "k").await.expect("the outcome");
    assert!(repeat.replayed);
    assert_eq!(event(&mut world).await, "k");
    assert_eq!(world.upstream.received(guest), 1, "one PATCH");
    nothing_more_is_told(world).await;
}

/// The refused attempt of m1 certainly had no effect, so m2 goes past it; then m1 is too old.
#[tokio::test]
async fn case_25_a_late_retry_does_not_overwrite_what_is_newer() {
    let mut world = World::start(PROGRAM, "").await;
    let guest = Uuid::new_v4();
    let refusal = Rule::patch().guest(guest).archived(true).status(425).header("retry-after", LATER);
    world.upstream.simulator.script(refusal);
    world.send(guest, &world.upstream.message(guest, true, "m1")).await;
    let deferred = |command: &Command| command.state() == CommandState::Deferred;
    assert!(!world.upstream.command_when(&world.adapter, "m1", deferred).await.maybe_applied);
    world.send(guest, &world.upstream.message(guest, false, "m2")).await;
    assert_eq!(event(&mut world).await, "m2");
    world.upstream.simulator.clear_faults();
    is_refused(archive(&world, guest, "m1").await, Code::FailedPrecondition, "SUPERSEDED");
    assert_eq!(world.upstream.applied(guest), [false]);
    assert_eq!(world.upstream.received(guest), 2, "m1 was not sent again");
    nothing_more_is_told(world).await;
}

/// The 503 of m1 says nothing of its effect, so m2 waits until m1 is known, and is the last in any case.
#[tokio::test]
async fn case_25_what_may_have_been_applied_goes_first() {
    let mut world = World::start(PROGRAM, "").await;
    let guest = Uuid::new_v4();
    let unknown = Rule::patch().guest(guest).times(1).status(503).header("retry-after", "2");
    world.upstream.simulator.script(unknown);
    world.send(guest, &world.upstream.message(guest, true, "m1")).await;
    until_sent(&world, guest).await;
    world.send(guest, &world.upstream.message(guest, false, "m2")).await;
    assert_eq!(event(&mut world).await, "m1");
    assert_eq!(event(&mut world).await, "m2");
    assert_eq!(world.upstream.applied(guest), [true, false]);
    assert_eq!(world.upstream.received(guest), 3);
    nothing_more_is_told(world).await;
}

#[tokio::test]
async fn case_26_a_key_names_one_command_also_while_it_runs() {
    let mut world = World::start(PROGRAM, "").await;
    let mut letters = world.broker.consume(&world.names.dead_letters).await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).times(1).delay(Duration::from_secs(2)));
    let first = spawn_archive(&world, guest, "k", DEADLINE);
    until_sent(&world, guest).await;
    let mut first = Some(first);
    for when in ["while it runs", "when it is done"] {
        let other = Uuid::new_v4();
        is_refused(archive(&world, other, "k").await, Code::FailedPrecondition, "IDEMPOTENCY_KEY_REUSED");
        let opposite = world.upstream.unarchive(guest, "k");
        let opposite = world.client().await.unarchive_guest_connection(opposite).await;
        is_refused(opposite, Code::FailedPrecondition, "IDEMPOTENCY_KEY_REUSED");
        world.send(guest, &world.upstream.message(guest, false, "k")).await;
        let letter = letters.next().await;
        assert_eq!(letter.table("x-guest-connection-adapter")["reason"], "IDEMPOTENCY_KEY_REUSED");
        assert_eq!(world.upstream.received(other), 0, "{when}");
        if let Some(first) = first.take() {
            assert_eq!(world.upstream.applied(guest), [] as [bool; 0], "it runs still");
            assert!(!first.await.unwrap().expect("its own answer").replayed);
        }
    }
    assert_eq!(world.upstream.applied(guest), [true]);
    assert_eq!(event(&mut world).await, "k");
    drop(letters);
    nothing_more_is_told(world).await;
}

#[tokio::test]
async fn case_27_a_transient_failure_is_not_remembered_as_an_answer() {
    let lines = r#"
upstream.attempt_timeout = "2s"
upstream.connect_timeout = "1s"
upstream.command_timeout = "3s"
upstream.settle = "1s"
upstream.defer_delay_base = "100s"
upstream.defer_delay_max = "100s"
"#;
    let mut world = World::start(PROGRAM, lines).await;
    let faults: [(&str, Script, &str); 3] = [
        ("refused", |guest| later(guest, 425), "UPSTREAM_UNAVAILABLE"),
        ("failed", |guest| later(guest, 503), "UPSTREAM_UNAVAILABLE"),
        ("unanswered", |guest| Rule::patch().guest(guest).times(1).hang(), "UPSTREAM_UNANSWERED"),
    ];
    for (key, fault, reason) in faults {
        let guest = Uuid::new_v4();
        world.upstream.simulator.script(fault(guest));
        // The call is over before its only attempt is.
        let refused = spawn_archive(&world, guest, key, Duration::from_secs(2)).await.unwrap();
        assert!(refused.is_err(), "{key}: {refused:?}");
        let failed = |command: &Command| command.outcome.is_some();
        let kept = world.upstream.command_when(&world.adapter, key, failed).await;
        assert_eq!(kept.outcome.as_ref().unwrap().reason, reason, "{key}");
        assert_eq!(kept.maybe_applied, key != "refused", "{key}: a lost answer is an unknown one");
        let repeat = archive(&world, guest, key).await.unwrap_or_else(|error| panic!("{key}: {error:?}"));
        assert_eq!(repeat.guest_connection.unwrap().archived, Some(true));
        assert_eq!(event(&mut world).await, key);
        assert_eq!((world.upstream.received(guest), world.upstream.applied(guest)), (2, vec![true]), "{key}");
    }
    nothing_more_is_told(world).await;
}

fn later(guest: Uuid, status: u16) -> Rule {
    Rule::patch().guest(guest).times(1).status(status).header("retry-after", LATER).into()
}

/// Another program writes to the same file all the while, a transaction after the other.
#[tokio::test(flavor = "multi_thread")]
async fn case_28_many_commands_at_once_never_find_the_database_locked() {
    let mut world = World::start(PROGRAM, "").await;
    let other = rusqlite::Connection::open(world.setup.store()).unwrap();
    other.busy_timeout(DEADLINE).unwrap();
    let (stop, stopped) = std::sync::mpsc::channel::<()>();
    let intruder = std::thread::spawn(move || {
        let mut transactions = 0;
        while stopped.try_recv().is_err() {
            other.execute_batch("BEGIN IMMEDIATE; UPDATE totals SET probe_time = 1; COMMIT").unwrap();
            transactions += 1;
        }
        transactions
    });
    let guests: Vec<Uuid> = (0..50).map(|_| Uuid::new_v4()).collect();
    let calls: Vec<_> =
        guests.iter().map(|guest| spawn_archive(&world, *guest, &guest.to_string(), DEADLINE)).collect();
    for guest in &guests {
        world.send(*guest, &world.upstream.message(*guest, false, &format!("queue-{guest}"))).await;
    }
    for call in join_all(calls).await {
        call.unwrap().expect("an answer");
    }
    let told: HashSet<String> = {
        let events = world.events.take(100).await;
        events.iter().map(|event| event.json()["data"]["command"]["idempotency_key"].to_string()).collect()
    };
    assert_eq!(told.len(), 100, "one event each");
    stop.send(()).unwrap();
    assert!(intruder.join().unwrap() > 0);
    let locked: Vec<_> =
        world.adapter.log().all().into_iter().filter(|line| line.contains("locked")).collect();
    assert!(locked.is_empty(), "{locked:?}");
    assert!(guests.iter().all(|guest| world.upstream.received(*guest) == 2), "one PATCH each");
    nothing_more_is_told(world).await;
}
