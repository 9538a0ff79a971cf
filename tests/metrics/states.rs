//! What waits, what fails and what is lost shows in the metrics.

use std::time::Duration;

use harness::{DEADLINE, World};
use lapin::BasicProperties;
use simulator::Rule;
use tonic::Request;
use uuid::Uuid;

use super::PROGRAM;

/// What is deferred stays so for a while.
const LINES: &str = r#"
upstream.attempt_timeout = "20s"
upstream.command_timeout = "45s"
upstream.breaker_failures = 3
"#;

async fn archive(world: &World, guest: Uuid) {
    world
        .client()
        .await
        .archive_guest_connection(Request::new(world.upstream.archive(guest, "")))
        .await
        .unwrap();
}

#[tokio::test]
async fn the_books_balance_and_what_is_done_is_counted() {
    let mut world = World::start(PROGRAM, "").await;
    for number in 0..3 {
        archive(&world, Uuid::new_v4()).await;
        let guest = Uuid::new_v4();
        world.send(guest, &world.upstream.message(guest, true, &format!("k-{number}"))).await;
    }
    let unknown = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(unknown).status(404));
    world.send(unknown, &world.upstream.message(unknown, true, "unknown")).await;
    world.events.take(6).await;
    let is = |wanted: f64| move |value: f64| (value - wanted).abs() < f64::EPSILON;
    let adapter = &world.adapter;
    adapter.metric("adapter_books_commands{state=\"succeeded\"}", is(6.0)).await;
    adapter.metric("adapter_books_commands{state=\"rejected\"}", is(1.0)).await;
    // Six events and a dead letter.
    adapter.metric("adapter_books_outbox{state=\"written\"}", is(7.0)).await;
    adapter.metric("adapter_books_outbox{state=\"confirmed\"}", is(7.0)).await;
    for book in ["commands", "outbox"] {
        adapter.metric(&format!("adapter_books_balance{{book=\"{book}\"}}"), is(0.0)).await;
    }
    adapter.metric("adapter_commands_total{door=\"grpc\",state=\"succeeded\"}", is(3.0)).await;
    adapter.metric("adapter_commands_total{door=\"amqp\",state=\"accepted\"}", is(4.0)).await;
    adapter.metric("adapter_refusals_total{door=\"amqp\",reason=\"UPSTREAM_NOT_FOUND\"}", is(1.0)).await;
    adapter
        .metric("adapter_command_duration_seconds_count{door=\"amqp\",state=\"succeeded\"}", is(3.0))
        .await;
    adapter.metric("adapter_outbox_delay_seconds_count{kind=\"dead_letter\"}", is(1.0)).await;
    for state in ["accepted", "in_flight", "deferred", "maybe_applied", "unpublished"] {
        adapter.metric(&format!("adapter_oldest_age_seconds{{state=\"{state}\"}}"), is(0.0)).await;
    }
    let depth =
        format!("adapter_amqp_queue_messages{{messaging_destination_name=\"{}\"}}", world.names.dead_letters);
    adapter.metric(&depth, is(1.0)).await;
    let consumers =
        format!("adapter_amqp_queue_consumers{{messaging_destination_name=\"{}\"}}", world.names.commands);
    adapter.metric(&consumers, is(1.0)).await;
    world.end().await;
}

#[tokio::test]
async fn what_waits_has_an_age() {
    let world = World::start(PROGRAM, LINES).await;
    let (hung, deferred) = (Uuid::new_v4(), Uuid::new_v4());
    world.upstream.simulator.script(Rule::patch().guest(hung).times(1).delay(Duration::from_secs(15)));
    // Both in one: maybe applied, and asked to come again after the time of a claim.
    world.upstream.simulator.script(Rule::patch().guest(deferred).status(500).header("retry-after", "100"));
    for guest in [hung, deferred] {
        world.send(guest, &world.upstream.message(guest, true, &guest.to_string())).await;
    }
    let behind = world.upstream.message(hung, false, "behind");
    world.send(hung, &behind).await;
    let old = |age: f64| age > 0.0;
    for state in ["in_flight", "accepted", "deferred", "maybe_applied"] {
        world.adapter.metric(&format!("adapter_oldest_age_seconds{{state=\"{state}\"}}"), old).await;
    }
    world.adapter.metric("adapter_lane_depth_max", |depth| depth >= 2.0).await;
    world.adapter.metric("adapter_commands_under_way{way=\"message\"}", |count| count >= 2.0).await;
    world.adapter.kill().await;
}

#[tokio::test]
async fn an_event_that_no_queue_takes_shows() {
    let world = World::start(PROGRAM, "").await;
    // Nothing is bound to the exchange any more.
    let World { upstream, broker, names, adapter, events, .. } = world;
    drop(events);
    drop(broker);
    let mut client = adapter.client().await;
    client.archive_guest_connection(Request::new(upstream.archive(Uuid::new_v4(), "k"))).await.unwrap();
    adapter.metric("adapter_outbox_held{share=\"events\"}", |held| held > 0.0).await;
    adapter.metric("adapter_oldest_age_seconds{state=\"unpublished\"}", |age| age > 0.0).await;
    adapter.metric("adapter_books_outbox{state=\"pending\"}", |count| count > 0.0).await;
    adapter
        .metric("adapter_part_condition{part=\"events\"}", |condition| (condition - 1.0).abs() < 0.1)
        .await;
    let broker = harness::Broker::connect().await;
    let mut events = broker.subscribe(&names.events).await;
    events.next_within(DEADLINE).await.expect("the event");
    adapter.metric("adapter_outbox_held{share=\"events\"}", |held| held < 0.5).await;
    assert!(adapter.terminate().await.0.success());
}

#[tokio::test]
async fn an_upstream_that_fails_shows_with_what_it_keeps_in_the_queue() {
    let world = World::start(PROGRAM, LINES).await;
    world.upstream.simulator.script(Rule::patch().status(503));
    let organization = &world.upstream.organizations[0];
    for number in 0..20 {
        let guest = Uuid::new_v4();
        let message = organization.message(guest, true, &format!("k-{number}"));
        world
            .send_with(
                guest,
                BasicProperties::default().with_content_type("application/json".into()),
                &message,
            )
            .await;
    }
    let adapter = &world.adapter;
    let some = |count: f64| count > 0.0;
    adapter.metric("adapter_upstream_breakers{state=\"closed\"}", |count| count < 0.5).await;
    adapter.metric("adapter_retries_total{reason=\"backoff\"}", some).await;
    adapter.metric("adapter_part_condition{part=\"upstream\"}", some).await;
    let guest = Uuid::new_v4();
    while !world.adapter.log().all().iter().any(|line| line.contains("consuming is suspended")) {
        world.send(guest, &organization.message(guest, true, &Uuid::new_v4().to_string())).await;
        harness::look_again().await;
    }
    let depth =
        format!("adapter_amqp_queue_messages{{messaging_destination_name=\"{}\"}}", world.names.commands);
    adapter.metric(&depth, some).await;
    world.adapter.kill().await;
}

#[tokio::test]
async fn tokens_that_are_refused_show() {
    let world = World::start(PROGRAM, "").await;
    archive(&world, Uuid::new_v4()).await;
    world.adapter.metric("adapter_tokens{state=\"valid\"}", |count| (count - 1.0).abs() < f64::EPSILON).await;
    world.adapter.metric("adapter_token_age_seconds", |age| age > 0.0).await;
    world.upstream.simulator.script(Rule::token().status(401));
    world.upstream.simulator.script(Rule::patch().status(401));
    let request = world.upstream.archive(Uuid::new_v4(), "");
    world.client().await.archive_guest_connection(Request::new(request)).await.unwrap_err();
    world.adapter.metric("adapter_tokens{state=\"failing\"}", |count| count > 0.5).await;
    world.adapter.metric("adapter_requesters{state=\"broken\"}", |count| count > 0.5).await;
    assert!(world.adapter.terminate().await.0.success());
}
