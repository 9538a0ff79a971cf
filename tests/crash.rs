//! The process ends, by force or by request, at the worst moments.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, and tells a whole story"
)]

use std::collections::HashMap;
use std::time::Instant;

use guest_connection_adapter::proto::{Command, CommandState};
use harness::{DEADLINE, World};
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
