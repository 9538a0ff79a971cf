//! Twins of a command that is not final: accepted behind another one, in flight, waiting, deferred.

use std::time::Duration;

use guest_connection_adapter::proto::CommandState;
use harness::DEADLINE;
use serde_json::json;
use simulator::{Entry, Rule};
use uuid::Uuid;

use crate::support::{Door, LATER, PATIENT, Scene, is_in_progress};

const HASTY: Duration = Duration::from_secs(3);

/// The PATCH is under way for so long.
fn long(guest: Uuid) -> Rule {
    Rule::patch().guest(guest).times(1).delay(Duration::from_secs(9))
}

async fn until_sent(scene: &Scene, guest: Uuid) {
    let sent = |entries: &[Entry]| entries.iter().any(|entry| entry.is_patch_of(guest));
    scene.world.upstream.simulator.wait_for(sent, DEADLINE).await.expect("a PATCH is under way");
}

/// Twins of the command `k` come while it is in `state`; `go_on` lets it end. The first came by `door`.
async fn twins(
    mut scene: Scene,
    guest: Uuid,
    door: Door,
    state: CommandState,
    go_on: impl AsyncFnOnce(&mut Scene),
) {
    let first = match door {
        Door::Grpc => Some(scene.spawn_call(guest, true, "k", DEADLINE)),
        Door::Amqp => {
            scene.send(guest, true, "k", "first").await;
            None
        }
    };
    let begun = scene.until("k", state).await;
    let patient = scene.spawn_call(guest, true, "k", DEADLINE);
    scene.send(guest, true, "k", "twin").await;
    is_in_progress(&scene.call(guest, "k", HASTY).await);
    scene.conflicts(guest, "k").await;

    go_on(&mut scene).await;
    let patient = patient.await.unwrap().expect("the first one's answer");
    assert_eq!((&patient.command_id, patient.replayed), (&begun.command_id, true));
    if let Some(first) = first {
        let first = first.await.unwrap().expect("an answer");
        assert_eq!(first.command_id, patient.command_id);
        assert_eq!(first.guest_connection, patient.guest_connection);
    }
    assert_eq!(scene.event().await, "k");
    for _ in 0..=usize::from(door == Door::Amqp) {
        let (name, reply) = scene.reply().await;
        assert!(["first", "twin"].contains(&name.as_str()), "{name}");
        assert_eq!(
            (&reply["status"], &reply["command_id"]),
            (&json!("succeeded"), &json!(begun.command_id)),
            "{reply}"
        );
    }
    scene.nothing_more_is_told().await;
}

async fn in_flight(door: Door) {
    let (scene, guest) = (Scene::start(PATIENT).await, Uuid::new_v4());
    scene.world.upstream.simulator.script(long(guest));
    let go_on = async |scene: &mut Scene| {
        scene.until("k", CommandState::Succeeded).await;
        assert_eq!(scene.world.upstream.received(guest), 1, "one PATCH");
    };
    twins(scene, guest, door, CommandState::InFlight, go_on).await;
}

#[tokio::test]
async fn a_call_in_flight() {
    in_flight(Door::Grpc).await;
}

#[tokio::test]
async fn a_message_in_flight() {
    in_flight(Door::Amqp).await;
}

/// Behind a head that takes its time.
async fn accepted(door: Door) {
    let (scene, guest) = (Scene::start(PATIENT).await, Uuid::new_v4());
    scene.world.upstream.simulator.script(long(guest));
    let head = scene.spawn_call(guest, false, "head", DEADLINE);
    until_sent(&scene, guest).await;
    // The head's event comes first; it is taken when the twins go on.
    let go_on = async |scene: &mut Scene| {
        head.await.unwrap().expect("the head is done");
        assert_eq!(scene.event().await, "head");
        scene.until("k", CommandState::Succeeded).await;
        assert_eq!(scene.world.upstream.applied(guest), [false, true], "one PATCH each");
        assert_eq!(scene.world.upstream.received(guest), 2);
    };
    twins(scene, guest, door, CommandState::Accepted, go_on).await;
}

#[tokio::test]
async fn a_call_in_line() {
    accepted(Door::Grpc).await;
}

#[tokio::test]
async fn a_message_in_line() {
    accepted(Door::Amqp).await;
}

/// Behind a deferred command that may have been applied: not even the queue's order goes past it.
async fn waiting(door: Door) {
    let (scene, guest) = (Scene::start(PATIENT).await, Uuid::new_v4());
    let unknown = Rule::patch().guest(guest).status(503).header("retry-after", LATER);
    scene.world.upstream.simulator.script(unknown);
    scene.world.send(guest, &scene.world.upstream.message(guest, false, "blocker")).await;
    assert!(scene.until("blocker", CommandState::Deferred).await.maybe_applied);
    let go_on = async |scene: &mut Scene| {
        assert_eq!(scene.world.upstream.received(guest), 1, "only the blocker was sent");
        scene.world.upstream.simulator.clear_faults();
        // The blocker's own key brings it forward, and so what waits for it.
        let answer = scene.spawn_call(guest, false, "blocker", DEADLINE).await.unwrap();
        answer.expect("the blocker is done");
        assert_eq!(scene.event().await, "blocker");
        scene.until("k", CommandState::Succeeded).await;
        assert_eq!(scene.world.upstream.applied(guest), [false, true]);
        assert_eq!(scene.world.upstream.received(guest), 3);
    };
    twins(scene, guest, door, CommandState::Accepted, go_on).await;
}

#[tokio::test]
async fn a_call_that_waits() {
    waiting(Door::Grpc).await;
}

#[tokio::test]
async fn a_message_that_waits() {
    waiting(Door::Amqp).await;
}

/// A deferred command is run by whoever asks for it again.
async fn deferred(twin: Door, status: u16) {
    let (mut scene, guest) = (Scene::start(PATIENT).await, Uuid::new_v4());
    let later = Rule::patch().guest(guest).status(status).header("retry-after", LATER);
    scene.world.upstream.simulator.script(later);
    scene.send(guest, true, "k", "first").await;
    let deferred = scene.until("k", CommandState::Deferred).await;
    scene.conflicts(guest, "k").await;
    assert_eq!(scene.world.upstream.received(guest), 1, "a conflict runs nothing");
    scene.world.upstream.simulator.clear_faults();
    match twin {
        Door::Grpc => {
            let answer = scene.call(guest, "k", DEADLINE).await.expect("it is run at once");
            assert_eq!(answer.command_id, deferred.command_id);
        }
        Door::Amqp => scene.send(guest, true, "k", "twin").await,
    }
    assert_eq!(scene.event().await, "k");
    for _ in 0..=usize::from(twin == Door::Amqp) {
        let (name, reply) = scene.reply().await;
        assert_eq!((&reply["status"], &reply["replayed"]), (&json!("succeeded"), &json!(false)), "{name}");
    }
    assert_eq!((scene.world.upstream.received(guest), scene.world.upstream.applied(guest)), (2, vec![true]));
    scene.nothing_more_is_told().await;
}

#[tokio::test]
async fn a_deferred_command_and_a_call() {
    deferred(Door::Grpc, 425).await;
}

#[tokio::test]
async fn a_deferred_command_that_may_have_been_applied_and_a_call() {
    deferred(Door::Grpc, 503).await;
}

#[tokio::test]
async fn a_deferred_command_and_a_message() {
    deferred(Door::Amqp, 425).await;
}
