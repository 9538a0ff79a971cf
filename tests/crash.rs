//! The process ends, by force or by request, at the worst moments.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, and tells a whole story"
)]

use std::collections::HashMap;
use std::time::{Duration, Instant};

use guest_connection_adapter::proto::{Command, CommandState};
use harness::{DEADLINE, World};
use simulator::Rule;
use uuid::Uuid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

fn is_final(command: &Command) -> bool {
    command.finish_time.is_some()
}

#[tokio::test]
async fn commands_killed_at_any_moment_all_end_with_one_event_each() {
    let mut world = World::start(PROGRAM, "").await;
    let guests: Vec<Uuid> = (0..300).map(|_| Uuid::new_v4()).collect();
    let (mut ids, mut gaps) = (HashMap::new(), Vec::new());
    for (round, batch) in guests.chunks(60).enumerate() {
        for guest in batch {
            world.send(*guest, &world.upstream.message(*guest, true, &guest.to_string())).await;
        }
        // Somewhere in the middle of the batch, at another place in each round.
        let wanted = round * 60 + 10 * (round + 1);
        let enough = |entries: &[simulator::Entry]| entries.iter().filter(|e| e.applied).count() >= wanted;
        world.upstream.simulator.wait_for(enough, DEADLINE).await.expect("some are applied");
        let killed = Instant::now();
        world.adapter.kill().await;
        world.adapter = world.setup.start_ready().await;
        while ids.len() < (round + 1) * batch.len() {
            let event = world.events.next().await.json();
            let key = event["data"]["command"]["idempotency_key"].as_str().unwrap().to_owned();
            let id = event["id"].as_str().unwrap().to_owned();
            // At least once: a confirm that was not noted is asked for again, under the same id.
            assert_eq!(ids.entry(key).or_insert_with(|| id.clone()), &id);
        }
        gaps.push(killed.elapsed());
    }
    for guest in &guests {
        let kept = world.upstream.command_when(&world.adapter, &guest.to_string(), is_final).await;
        assert_eq!(kept.state(), CommandState::Succeeded);
        assert_eq!(ids[&guest.to_string()], kept.event.unwrap().event_id);
        let applied = world.upstream.applied(*guest);
        assert!(!applied.is_empty() && applied.iter().all(|archived| *archived));
    }
    println!("{} commands; from each SIGKILL to the last missing event: {gaps:?}", guests.len());
    world.end().await;
}

#[tokio::test]
async fn what_stands_in_line_at_a_kill_goes_on_in_its_order() {
    // After the kill the others wait until the lost PATCH can take no effect any more: lease and settle.
    let lines = r#"
limits.lane_depth_max = 8
store.lease = "2s"
upstream.settle = "500ms"
upstream.attempt_timeout = "1s"
upstream.connect_timeout = "500ms"
upstream.command_timeout = "1500ms"
"#;
    let mut world = World::start(PROGRAM, lines).await;
    let guest = Uuid::new_v4();
    let slow = Rule::patch().guest(guest).delay(Duration::from_millis(2));
    world.upstream.simulator.script(slow);
    for n in 0..300 {
        world.send(guest, &world.upstream.message(guest, n % 2 == 0, &format!("k-{n}"))).await;
    }
    let some = |entries: &[simulator::Entry]| entries.iter().filter(|entry| entry.applied).count() >= 50;
    world.upstream.simulator.wait_for(some, DEADLINE).await.expect("some are applied");
    world.adapter.kill().await;
    world.adapter = world.setup.start_ready().await;
    let mut keys: Vec<String> = Vec::new();
    while keys.last().is_none_or(|key| key != "k-299") {
        let event = world.events.next().await.json();
        keys.push(event["data"]["command"]["idempotency_key"].as_str().unwrap().to_owned());
    }
    // An event whose confirm was not noted comes again, and no other may.
    keys.dedup();
    let expected: Vec<String> = (0..300).map(|n| format!("k-{n}")).collect();
    assert!(keys == expected, "out of order or superseded: {keys:?}");
    world.end().await;
}
