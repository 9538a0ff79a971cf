//! More than there is room for: nothing is lost, nobody waits for others, and memory has bounds.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test fails by panicking, and tells a whole story"
)]

use std::collections::BTreeSet;
use std::time::Duration;

use guest_connection_adapter::proto::CommandState;
use harness::{DEADLINE, World};
use lapin::BasicProperties;
use simulator::{Entry, Rule};
use tonic::Code;
use uuid::Uuid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

/// What is not answered for good is put off soon, and for long enough to be seen.
const DEFERRING: &str = r#"
upstream.attempt_timeout = "200ms"
upstream.connect_timeout = "100ms"
upstream.command_timeout = "300ms"
upstream.defer_delay_base = "3s"
upstream.defer_delay_max = "3s"
"#;

/// Publishes a command for each guest, keyed by its place in the list.
async fn send_all(world: &World, guests: &[Uuid], archived: impl Fn(usize) -> bool) {
    let messages = guests.iter().enumerate().map(|(n, guest)| {
        let body = world.upstream.message(*guest, archived(n), &format!("k-{n}"));
        (guest.to_string(), BasicProperties::default(), serde_json::to_vec(&body).unwrap())
    });
    world.broker.publish_all(&world.names, messages.collect()).await;
}

/// The keys of the next `count` events, in the order of their coming.
async fn keys(world: &mut World, count: usize) -> Vec<String> {
    let events = world.events.take(count).await;
    let key =
        |event: serde_json::Value| event["data"]["command"]["idempotency_key"].as_str().unwrap().to_owned();
    events.iter().map(|event| key(event.json())).collect()
}

/// Waits until consuming pauses for what holds so much.
async fn paused(world: &World, why: &str) {
    let is_paused = |_, body: &serde_json::Value| {
        body["parts"]["amqp.consume"]["detail"].as_str().is_some_and(|detail| detail.contains(why))
    };
    world.adapter.readiness(is_paused).await;
}

fn expected(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("k-{n}")).collect()
}

async fn is_overloaded(world: &World) -> bool {
    let request = world.upstream.archive(Uuid::new_v4(), &Uuid::new_v4().to_string());
    let mut request = tonic::Request::new(request);
    request.set_timeout(Duration::from_secs(2));
    match world.client().await.archive_guest_connection(request).await {
        Err(status) if status.code() == Code::ResourceExhausted => {
            assert!(status.metadata().contains_key("grpc-retry-pushback-ms"), "{status:?}");
            true
        }
        // The client may be the first to give up.
        Err(status) if [Code::DeadlineExceeded, Code::Cancelled].contains(&status.code()) => false,
        Ok(_) => false,
        Err(other) => panic!("neither taken nor overloaded: {other:?}"),
    }
}

#[tokio::test]
async fn a_connection_with_more_commands_than_its_lane_holds_keeps_its_order_and_holds_up_no_other() {
    let lines = r#"
limits.lane_depth_max = 8
amqp.prefetch = 16
upstream.attempt_timeout = "25s"
upstream.settle = "1s"
"#;
    let mut world = World::start(PROGRAM, lines).await;
    let (hot, free) = (Uuid::new_v4(), Uuid::new_v4());
    world.upstream.simulator.script(Rule::patch().guest(hot).times(1).hang());
    send_all(&world, &[hot; 200], |n| n % 2 == 0).await;
    world.send(free, &world.upstream.message(free, true, "free")).await;
    assert_eq!(keys(&mut world, 1).await, ["free"]);
    assert_eq!(world.upstream.received(hot), 1, "it hangs still");
    assert_eq!(world.broker.depth(&world.names.commands).await, 0, "all are taken");
    let call = world.upstream.archive(hot, "call");
    let refusal = world.client().await.archive_guest_connection(call).await.unwrap_err();
    assert_eq!(refusal.code(), Code::ResourceExhausted, "{refusal:?}");

    world.upstream.simulator.reset_connections();
    assert_eq!(keys(&mut world, 200).await, expected(200));
    let values: Vec<bool> = (0..200).map(|n| n % 2 == 0).collect();
    assert_eq!(world.upstream.applied(hot), values, "one PATCH each, none superseded");
    world.end().await;
}

#[tokio::test]
async fn a_line_that_outlasts_the_lease_goes_on_in_order_and_at_its_pace() {
    let lines = r#"
limits.lane_depth_max = 8
store.lease = "2s"
upstream.attempt_timeout = "1s"
upstream.connect_timeout = "500ms"
upstream.command_timeout = "1500ms"
"#;
    let mut world = World::start(PROGRAM, lines).await;
    let hot = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(hot).delay(Duration::from_millis(5)));
    send_all(&world, &[hot; 1_000], |n| n % 2 == 0).await;
    let received = keys(&mut world, 1_000).await;
    assert!(received == expected(1_000), "out of order: {received:?}");
    assert_eq!(world.upstream.applied(hot).len(), 1_000, "one PATCH each, none superseded");
    world.end().await;
}

#[tokio::test]
async fn past_what_may_be_in_flight_calls_are_refused_and_messages_stay_with_the_broker() {
    let lines = r#"
limits.in_flight_max = 4
amqp.prefetch = 2
amqp.delivery_hold = "1s"
upstream.attempt_timeout = "25s"
upstream.settle = "1s"
"#;
    let mut world = World::start(PROGRAM, lines).await;
    world.upstream.simulator.script(Rule::patch().hang());
    let guests: Vec<Uuid> = (0..40).map(|_| Uuid::new_v4()).collect();
    send_all(&world, &guests, |_| true).await;
    paused(&world, "3 commands").await;
    // A place is left to calls; once that is taken, they are refused.
    assert!(!is_overloaded(&world).await);
    assert!(is_overloaded(&world).await);
    // Each pause ends after the hold with the channel closed; what was prefetched goes back.
    world.broker.depth_when(&world.names.commands, |depth| depth >= 30).await;

    world.upstream.simulator.clear_faults();
    world.upstream.simulator.reset_connections();
    let keys: BTreeSet<_> = keys(&mut world, 40).await.into_iter().collect();
    assert_eq!(keys.len(), 40, "one event each");
    world.broker.depth_when(&world.names.commands, |depth| depth == 0).await;
    assert!(
        world.adapter.readiness(|status, _| status == 200).await["parts"]["amqp.consume"]["status"]
            == "ready"
    );
    world.end().await;
}

#[tokio::test]
async fn past_the_backlog_that_may_be_nothing_more_is_taken_in_until_it_shrinks() {
    let lines = format!("limits.backlog_max = 10\namqp.prefetch = 4\n{DEFERRING}");
    let mut world = World::start(PROGRAM, &lines).await;
    world.upstream.simulator.script(Rule::patch().status(425));
    let guests: Vec<Uuid> = (0..200).map(|_| Uuid::new_v4()).collect();
    send_all(&world, &guests, |_| true).await;
    paused(&world, "10 commands").await;
    assert!(is_overloaded(&world).await);
    assert!(world.broker.depth(&world.names.commands).await > 50, "most are still with the broker");
    world.upstream.simulator.clear_faults();
    let keys: BTreeSet<_> = keys(&mut world, 200).await.into_iter().collect();
    assert_eq!(keys.len(), 200, "one event each");
    world.end().await;
}

#[tokio::test]
async fn a_message_that_comes_when_it_has_become_full_waits_for_room_and_ends_no_channel() {
    let lines = format!("limits.backlog_max = 3\n{DEFERRING}");
    let mut world = World::start(PROGRAM, &lines).await;
    world.upstream.simulator.script(Rule::patch().status(425));
    let guests: Vec<Uuid> = (0..4).map(|_| Uuid::new_v4()).collect();
    send_all(&world, &guests[..3], |_| true).await;
    // It is full once that is counted. Until then nothing comes, and the consumer waits for a delivery.
    let full = "too many commands are not final yet; nothing more is taken in";
    world.adapter.log().wait_for(DEADLINE, |line| line.contains(full)).await.unwrap();
    let body = serde_json::to_vec(&world.upstream.message(guests[3], true, "k-3")).unwrap();
    world.broker.publish(&world.names, &guests[3].to_string(), BasicProperties::default(), &body).await;
    paused(&world, "3 commands").await;
    world.upstream.simulator.clear_faults();
    let keys: BTreeSet<_> = keys(&mut world, 4).await.into_iter().collect();
    assert_eq!(keys, expected(4).into_iter().collect());
    let log = world.adapter.log().all().join("\n");
    assert!(!log.contains("consuming is suspended"), "{log}");
    world.end().await;
}

#[tokio::test]
async fn a_caller_that_gives_up_early_leaves_no_unbounded_work() {
    let lines = r#"
limits.in_flight_max = 4
upstream.attempt_timeout = "25s"
upstream.settle = "1s"
"#;
    let world = World::start(PROGRAM, lines).await;
    world.upstream.simulator.script(Rule::patch().hang());
    let guests: Vec<Uuid> = (0..4).map(|_| Uuid::new_v4()).collect();
    for (n, guest) in guests.iter().enumerate() {
        let (mut client, request) = (world.client().await, world.upstream.archive(*guest, &format!("k-{n}")));
        let call = tokio::spawn(async move { client.archive_guest_connection(request).await });
        let is_sent = |entries: &[Entry]| entries.iter().any(|entry| entry.is_patch_of(*guest));
        world.upstream.simulator.wait_for(is_sent, DEADLINE).await.unwrap();
        call.abort();
    }
    assert!(is_overloaded(&world).await, "four go on without their callers");
    world.upstream.simulator.clear_faults();
    world.upstream.simulator.reset_connections();
    for (n, guest) in guests.iter().enumerate() {
        let is_applied = |entries: &[Entry]| entries.iter().any(|e| e.is_patch_of(*guest) && e.applied);
        world.upstream.simulator.wait_for(is_applied, DEADLINE).await.unwrap();
        let wanted =
            |command: &guest_connection_adapter::proto::Command| command.state() == CommandState::Succeeded;
        world.upstream.command_when(&world.adapter, &format!("k-{n}"), wanted).await;
    }
    assert!(!is_overloaded(&world).await);
    world.end().await;
}
