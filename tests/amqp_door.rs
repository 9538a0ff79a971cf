//! The queue's door over a real broker: order, keys, odd messages, and what the broker cannot route.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tells a whole story"
)]

use harness::{Broker, DEADLINE, Names, Upstream, World};
use lapin::BasicProperties;
use simulator::{Entry, Rule};
use uuid::Uuid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

fn plain() -> BasicProperties {
    BasicProperties::default().with_content_type("application/json".into())
}

#[tokio::test]
async fn commands_of_one_connection_go_one_by_one_in_their_order() {
    let mut world = World::start(PROGRAM, "").await;
    let guest = Uuid::new_v4();
    let wanted: Vec<bool> = (0..50).map(|n| n % 2 == 0).collect();
    let messages = wanted.iter().enumerate().map(|(n, archived)| {
        let body = world.upstream.message(guest, *archived, &format!("k-{n}"));
        (guest.to_string(), plain(), serde_json::to_vec(&body).unwrap())
    });
    world.broker.publish_all(&world.names, messages.collect()).await;
    for (n, event) in world.events.take(50).await.iter().enumerate() {
        let event = event.json();
        assert_eq!(event["data"]["command"]["idempotency_key"], format!("k-{n}"));
        assert_eq!(event["sequence"], format!("{:020}", n + 1));
    }
    assert_eq!(world.upstream.applied(guest), wanted);
    assert_eq!(world.upstream.simulator.stats().max_outstanding_per_connection, 1);
    world.end().await;
}

#[tokio::test]
async fn a_connection_that_hangs_holds_up_no_other() {
    let mut world = World::start(PROGRAM, "").await;
    let stuck = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(stuck).times(1).hang());
    for n in 0..20 {
        world.send(stuck, &world.upstream.message(stuck, n % 2 == 0, &format!("stuck-{n}"))).await;
    }
    let sent = |entries: &[Entry]| entries.iter().any(|entry| entry.is_patch_of(stuck));
    world.upstream.simulator.wait_for(sent, DEADLINE).await.unwrap();
    for n in 0..50 {
        let guest = Uuid::new_v4();
        world.send(guest, &world.upstream.message(guest, true, &format!("free-{n}"))).await;
    }
    for event in world.events.take(50).await {
        let event = event.json();
        let key = event["data"]["command"]["idempotency_key"].as_str().unwrap();
        assert!(key.starts_with("free-"), "{key} came before the hang was over");
    }
    let hanging = world.upstream.simulator.journal();
    assert_eq!(hanging.iter().filter(|entry| entry.is_patch_of(stuck)).count(), 1, "it hangs still");
}

#[tokio::test]
async fn events_without_a_queue_are_dropped_if_so_configured() {
    let (upstream, broker, names) = (Upstream::start().await, Broker::connect().await, Names::default());
    let setup =
        upstream.setup(PROGRAM).broker(&broker, &names).config("events.when_unroutable = \"discard\"");
    let adapter = setup.start_ready().await;
    let guest = Uuid::new_v4();
    adapter.client().await.archive_guest_connection(upstream.archive(guest, "k-1")).await.unwrap();
    let dropped = |line: &str| line.contains("it is given up");
    adapter.log().wait_for(DEADLINE, dropped).await.expect("it is said");
    let mut events = broker.subscribe(&names.events).await;
    adapter.client().await.unarchive_guest_connection(upstream.unarchive(guest, "k-2")).await.unwrap();
    assert_eq!(events.next().await.json()["data"]["command"]["idempotency_key"], "k-2");
    assert!(adapter.terminate().await.0.success());
}

#[tokio::test]
async fn events_can_be_binary() {
    let mut world = World::start(PROGRAM, "events.mode = \"binary\"").await;
    let guest = Uuid::new_v4();
    world.send(guest, &world.upstream.message(guest, true, "k")).await;
    let event = world.events.next().await;
    assert_eq!(event.properties.content_type().as_ref().unwrap().as_str(), "application/json");
    let header = |name: &str| event.header(&format!("cloudEvents:{name}"));
    assert_eq!(header("specversion").as_deref(), Some("1.0"));
    assert_eq!(header("type").as_deref(), Some("ai.mycreditapp.guest-connection.archived.v1"));
    assert_eq!(header("sequence"), Some(format!("{:020}", 1)));
    assert_eq!(event.json()["guest_connection"]["archived"], true);
    world.end().await;
}

#[tokio::test]
async fn a_dead_letter_can_be_sent_again_as_it_is() {
    let mut world = World::start(PROGRAM, "").await;
    let mut letters = world.broker.consume(&world.names.dead_letters).await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).times(1).status(403));
    world.send(guest, &world.upstream.message(guest, true, "k")).await;
    let letter = letters.next().await;
    assert_eq!(letter.table("x-guest-connection-adapter")["reason"], "UPSTREAM_FORBIDDEN");
    // The right was given meanwhile.
    world.broker.publish(&world.names, &guest.to_string(), letter.properties.clone(), &letter.body).await;
    let event = world.events.next().await.json();
    assert_eq!(event["data"]["command"]["idempotency_key"], "k");
    assert_eq!(world.upstream.applied(guest), [true]);
    world.end().await;
}
