//! The process ends, by force or by request, at the worst moments.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tells a whole story"
)]

use std::time::{Duration, Instant};

use guest_connection_adapter::proto::{Command, CommandState};
use harness::{DEADLINE, World};
use simulator::Rule;
use tokio::net::TcpListener;
use uuid::Uuid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

fn is_final(command: &Command) -> bool {
    command.finish_time.is_some()
}

#[tokio::test]
async fn a_patch_that_took_effect_unheard_before_a_kill_is_repeated_and_told_once() {
    let mut world = World::start(PROGRAM, "").await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).times(1).hang_after_apply());
    world.send(guest, &world.upstream.message(guest, true, "k")).await;
    let applied = |entries: &[simulator::Entry]| entries.iter().any(|e| e.is_patch_of(guest) && e.applied);
    world.upstream.simulator.wait_for(applied, DEADLINE).await.expect("the PATCH is applied");
    world.adapter.kill().await;

    world.adapter = world.setup.start_ready().await;
    let event = world.events.next().await.json();
    assert_eq!(event["type"], "ai.mycreditapp.guest-connection.archived.v1");
    let kept = world.upstream.command_when(&world.adapter, "k", is_final).await;
    assert_eq!(kept.state(), CommandState::Succeeded);
    assert!(!kept.maybe_applied, "a 2xx settles it");
    assert_eq!(event["id"], kept.event.unwrap().event_id.as_str());
    assert_eq!(world.upstream.applied(guest), [true, true], "the same value again, which is harmless");
    assert!(world.adapter.terminate().await.0.success());
    assert!(world.events.next_within(Duration::from_millis(1)).await.is_none(), "one event");
    assert_eq!(world.broker.depth(&world.names.commands).await, 0);
}

#[tokio::test]
async fn commands_killed_at_any_moment_all_end_with_one_event_each() {
    let mut world = World::start(PROGRAM, "").await;
    let guests: Vec<Uuid> = (0..300).map(|_| Uuid::new_v4()).collect();
    let mut killed = 0;
    for (round, batch) in guests.chunks(60).enumerate() {
        for guest in batch {
            world.send(*guest, &world.upstream.message(*guest, true, &guest.to_string())).await;
        }
        // Somewhere in the middle of the batch, at another place in each round.
        let wanted = round * 60 + 10 * (round + 1);
        let enough = |entries: &[simulator::Entry]| entries.iter().filter(|e| e.applied).count() >= wanted;
        world.upstream.simulator.wait_for(enough, DEADLINE).await.expect("some are applied");
        world.adapter.kill().await;
        killed += 1;
        world.adapter = world.setup.start_ready().await;
    }
    let mut ids = std::collections::HashMap::new();
    while ids.len() < guests.len() {
        let event = world.events.next().await.json();
        let key = event["data"]["command"]["idempotency_key"].as_str().unwrap().to_owned();
        let id = event["id"].as_str().unwrap().to_owned();
        // At least once: a confirm that was not noted is asked for again, under the same id.
        assert_eq!(ids.entry(key).or_insert_with(|| id.clone()), &id);
    }
    for guest in &guests {
        let kept = world.upstream.command_when(&world.adapter, &guest.to_string(), is_final).await;
        assert_eq!(kept.state(), CommandState::Succeeded);
        assert_eq!(ids[&guest.to_string()], kept.event.unwrap().event_id);
        let applied = world.upstream.applied(*guest);
        assert!(!applied.is_empty() && applied.iter().all(|archived| *archived));
    }
    println!("{killed} kills, {} commands", guests.len());
    world.end().await;
}

#[tokio::test]
async fn a_request_to_end_is_met_in_time_whatever_hangs() {
    // A collector that takes connections and never answers.
    let black_hole = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = black_hole.local_addr().unwrap();
    let lines = format!(
        "shutdown.drain_timeout = \"5s\"\ntelemetry.otlp_endpoint = \"http://{endpoint}\"\n\
         upstream.attempt_timeout = \"20s\"\nupstream.command_timeout = \"25s\"\ngrpc.answer_timeout = \"25s\""
    );
    let mut world = World::start(PROGRAM, &lines).await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).times(1).hang());
    world.send(guest, &world.upstream.message(guest, true, "k")).await;
    let sent = |entries: &[simulator::Entry]| entries.iter().any(|entry| entry.is_patch_of(guest));
    world.upstream.simulator.wait_for(sent, DEADLINE).await.expect("the PATCH hangs");
    let started = Instant::now();
    let (status, log) = world.adapter.terminate().await;
    assert!(status.success(), "{}", log.join("\n"));
    assert!(started.elapsed() < Duration::from_secs(5 + 2 + 2 + 3), "{:?}", started.elapsed());
    // Nothing is lost: the next process takes it up.
    world.adapter = world.setup.start_ready().await;
    let event = world.events.next().await.json();
    assert_eq!(event["data"]["command"]["idempotency_key"], "k");
    drop(black_hole);
}
