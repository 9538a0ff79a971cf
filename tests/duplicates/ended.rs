//! Twins of a command that is final.

use std::time::{Duration, SystemTime};

use guest_connection_adapter::proto::CommandState;
use harness::DEADLINE;
use serde_json::{Value, json};
use simulator::Rule;
use tonic::Code;
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::support::{Door, LATER, PATIENT, Scene, is_refused};

/// Twins of the final command `k`, whose first came by `door`, hear the same, and nothing else happens.
async fn hear_the_same(scene: &mut Scene, guest: Uuid, code: Code, reason: Option<&str>) {
    scene.conflicts(guest, "k").await;
    let kept = scene.settled("k").await;
    let sent = scene.world.upstream.received(guest);
    for _ in ["once", "twice"] {
        let answer = scene.call(guest, "k", DEADLINE).await;
        match reason {
            None => {
                let answer = answer.expect("replayed");
                assert_eq!((&answer.command_id, answer.replayed), (&kept.command_id, true));
            }
            Some(reason) => {
                let status = is_refused(&answer, code, reason);
                let details = status.get_error_details();
                assert_eq!(details.error_info().unwrap().metadata["command_id"], kept.command_id);
            }
        }
        scene.send(guest, true, "k", "twin").await;
        let (name, reply) = scene.reply().await;
        assert_eq!((name.as_str(), &reply["replayed"]), ("twin", &json!(true)));
        assert_eq!(reply["command_id"], kept.command_id);
        assert_eq!(reply["reason"], reason.map_or(Value::Null, Value::from), "{reply}");
    }
    assert_eq!(scene.world.upstream.received(guest), sent, "no second PATCH");
    assert_eq!(scene.world.upstream.command(&scene.world.adapter, "k").await.unwrap(), kept);
}

async fn first(scene: &mut Scene, door: Door, guest: Uuid, state: CommandState) {
    match door {
        Door::Grpc => {
            let answer = scene.call(guest, "k", DEADLINE).await;
            assert_eq!(answer.is_ok(), state == CommandState::Succeeded, "{answer:?}");
        }
        Door::Amqp => {
            scene.send(guest, true, "k", "first").await;
            assert_eq!(scene.reply().await.0, "first");
        }
    }
    scene.until("k", state).await;
}

#[tokio::test]
async fn a_succeeded_command() {
    for door in [Door::Grpc, Door::Amqp] {
        let (mut scene, guest) = (Scene::start(PATIENT).await, Uuid::new_v4());
        first(&mut scene, door, guest, CommandState::Succeeded).await;
        assert_eq!(scene.event().await, "k");
        hear_the_same(&mut scene, guest, Code::Ok, None).await;
        assert_eq!(scene.world.upstream.received(guest), 1);
        scene.nothing_more_is_told().await;
    }
}

#[tokio::test]
async fn a_rejected_command() {
    for door in [Door::Grpc, Door::Amqp] {
        let (mut scene, guest) = (Scene::start(PATIENT).await, Uuid::new_v4());
        scene.world.upstream.simulator.script(Rule::patch().guest(guest).times(1).status(404));
        first(&mut scene, door, guest, CommandState::Rejected).await;
        if door == Door::Amqp {
            let letter = scene.letters.next().await;
            assert_eq!(letter.table("x-guest-connection-adapter")["reason"], "UPSTREAM_NOT_FOUND");
        }
        hear_the_same(&mut scene, guest, Code::NotFound, Some("UPSTREAM_NOT_FOUND")).await;
        assert_eq!(scene.world.upstream.received(guest), 1);
        scene.nothing_more_is_told().await;
    }
}

#[tokio::test]
async fn a_superseded_command() {
    let (mut scene, guest) = (Scene::start(PATIENT).await, Uuid::new_v4());
    scene.spawn_call(guest, false, "newer", DEADLINE).await.unwrap().unwrap();
    assert_eq!(scene.event().await, "newer");
    let mut older = scene.world.upstream.archive(guest, "k");
    let long_ago = SystemTime::now() - Duration::from_secs(60);
    older.issue_time = Some(long_ago.into());
    let answer = scene.world.client().await.archive_guest_connection(older).await;
    is_refused(&answer.map(tonic::Response::into_inner), Code::FailedPrecondition, "SUPERSEDED");
    // A twin that does not say when it was issued is the same command all the same.
    hear_the_same(&mut scene, guest, Code::FailedPrecondition, Some("SUPERSEDED")).await;
    assert_eq!(scene.world.upstream.applied(guest), [false]);
    scene.nothing_more_is_told().await;
}

#[tokio::test]
async fn an_abandoned_command() {
    let lines = r#"
upstream.attempt_timeout = "1s"
upstream.connect_timeout = "500ms"
upstream.command_timeout = "1500ms"
upstream.defer_delay_base = "200ms"
upstream.defer_delay_max = "200ms"
store.lease = "2s"
store.give_up_after = "2500ms"
"#;
    let (mut scene, guest) = (Scene::start(lines).await, Uuid::new_v4());
    scene.world.upstream.simulator.script(Rule::patch().guest(guest).status(425));
    first(&mut scene, Door::Amqp, guest, CommandState::Abandoned).await;
    let letter = scene.letters.next().await;
    assert_eq!(letter.table("x-guest-connection-adapter")["reason"], "COMMAND_ABANDONED");
    hear_the_same(&mut scene, guest, Code::FailedPrecondition, Some("COMMAND_ABANDONED")).await;
    scene.nothing_more_is_told().await;
}

/// What failed may be tried again under its key, by either door, and is then done once.
#[tokio::test]
async fn a_failed_command() {
    for door in [Door::Grpc, Door::Amqp] {
        let (mut scene, guest) = (Scene::start(PATIENT).await, Uuid::new_v4());
        let refusal = Rule::patch().guest(guest).times(1).status(425).header("retry-after", LATER);
        scene.world.upstream.simulator.script(refusal);
        first(&mut scene, Door::Grpc, guest, CommandState::Failed).await;
        let failed = scene.world.upstream.command(&scene.world.adapter, "k").await.unwrap();
        scene.conflicts(guest, "k").await;
        // Twins at once: one of them does it.
        let calls = [(); 2].map(|()| scene.spawn_call(guest, true, "k", DEADLINE));
        if door == Door::Amqp {
            scene.send(guest, true, "k", "twin").await;
        }
        for call in calls {
            let answer = call.await.unwrap().expect("tried again");
            assert_eq!(answer.command_id, failed.command_id, "the same command");
        }
        assert_eq!(scene.event().await, "k");
        if door == Door::Amqp {
            assert_eq!(scene.reply().await.1["status"], "succeeded");
        }
        assert_eq!(scene.world.upstream.received(guest), 2, "the refused one and another");
        scene.nothing_more_is_told().await;
    }
}
