//! The process ends, by force or by request, at the worst moments.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tells a whole story"
)]

use std::time::Duration;

use guest_connection_adapter::proto::{Command, CommandState};
use harness::{Broker, DEADLINE, Names, Upstream, World};
use simulator::Rule;
use uuid::Uuid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

fn is_final(command: &Command) -> bool {
    command.finish_time.is_some()
}

#[tokio::test]
async fn an_event_that_was_not_confirmed_before_a_kill_is_published_after_it_under_one_id() {
    let (upstream, broker, names) = (Upstream::start().await, Broker::connect().await, Names::default());
    let setup = upstream.setup(PROGRAM).broker(&broker, &names);
    let adapter = setup.start_ready().await;
    let guest = Uuid::new_v4();
    // No queue is bound to the events exchange yet, so the broker cannot take the event.
    adapter.client().await.archive_guest_connection(upstream.archive(guest, "k")).await.unwrap();
    adapter.readiness(|status, body| status == 200 && body["parts"]["events"]["status"] == "degraded").await;
    let before = upstream.command(&adapter, "k").await.unwrap().event.unwrap();
    assert!(!before.confirmed);
    adapter.kill().await;

    let mut events = broker.subscribe(&names.events).await;
    let adapter = setup.start_ready().await;
    let event = events.next().await.json();
    assert_eq!(event["id"], before.event_id.as_str());
    assert_eq!(event["data"]["guest_connection"]["archived"], true);
    let repeat = adapter.client().await.archive_guest_connection(upstream.archive(guest, "k")).await.unwrap();
    assert!(repeat.into_inner().replayed);
    assert_eq!(upstream.received(guest), 1, "no second PATCH");
    // A clean end flushes the outbox: were the event still pending, it would come again.
    assert!(adapter.terminate().await.0.success());
    assert!(events.next_within(Duration::from_millis(1)).await.is_none());
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
async fn a_request_to_end_finishes_what_is_under_way() {
    let mut world = World::start(PROGRAM, "").await;
    world.upstream.simulator.script(Rule::patch().delay(Duration::from_secs(1)));
    let guests: Vec<Uuid> = (0..10).map(|_| Uuid::new_v4()).collect();
    let client = world.client().await;
    let calls: Vec<_> = guests[..5]
        .iter()
        .map(|guest| {
            let (mut client, request) = (client.clone(), world.upstream.archive(*guest, "k-grpc"));
            let request = guest_connection_adapter::proto::ArchiveGuestConnectionRequest {
                idempotency_key: guest.to_string(),
                ..request
            };
            tokio::spawn(async move { client.archive_guest_connection(request).await })
        })
        .collect();
    for guest in &guests[5..] {
        world.send(*guest, &world.upstream.message(*guest, true, &guest.to_string())).await;
    }
    let under_way = |entries: &[simulator::Entry]| {
        guests.iter().all(|guest| entries.iter().any(|entry| entry.is_patch_of(*guest)))
    };
    world.upstream.simulator.wait_for(under_way, DEADLINE).await.expect("ten PATCHes are under way");
    let (status, log) = world.adapter.terminate().await;
    assert!(status.success(), "{}", log.join("\n"));
    for call in calls {
        let answer = call.await.unwrap().expect("a call under way is answered");
        assert!(!answer.into_inner().replayed);
    }
    // Everything was published before the end, and acknowledged.
    assert_eq!(world.events.take(10).await.len(), 10);
    assert_eq!(world.broker.depth(&world.names.commands).await, 0);
    assert!(guests.iter().all(|guest| world.upstream.received(*guest) == 1));
}
