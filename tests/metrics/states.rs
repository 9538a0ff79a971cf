//! What waits, what fails and what is lost shows in the metrics.

use std::time::Duration;

use harness::{DEADLINE, World};
use lapin::BasicProperties;
use simulator::Rule;
use tokio::time::timeout;
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

/// Sends messages until consuming is suspended for them.
async fn send_until_suspended(world: &World) {
    let suspended = |line: &String| line.contains("consuming is suspended");
    let sending = async {
        while !world.adapter.log().all().iter().any(suspended) {
            let guest = Uuid::new_v4();
            world.send(guest, &world.upstream.message(guest, true, &guest.to_string())).await;
            harness::look_again().await;
        }
    };
    timeout(DEADLINE, sending).await.expect("consuming is suspended");
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
    adapter.metric("adapter_refusals_total{door=\"grpc\",reason=\"UPSTREAM_NOT_FOUND\"}", is(0.0)).await;
    adapter.metric("adapter_submissions_total{door=\"amqp\",result=\"accepted\"}", is(4.0)).await;
    adapter.metric("adapter_store_batch_size_sum{store=\"sqlite\"}", |count| count > 7.0).await;
    adapter.metric("adapter_retries_total{reason=\"backoff\"}", is(0.0)).await;
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
    // Nothing is repeated under a claim once the breaker is open; what was deferred tries.
    adapter.metric("adapter_retries_total{reason=\"deferral\"}", some).await;
    adapter.metric("adapter_part_condition{part=\"upstream\"}", some).await;
    send_until_suspended(&world).await;
    let depth =
        format!("adapter_amqp_queue_messages{{messaging_destination_name=\"{}\"}}", world.names.commands);
    adapter.metric(&depth, some).await;
    world.adapter.kill().await;
}

#[tokio::test]
async fn a_repeated_request_is_counted_as_it_is_sent() {
    let world = World::start(PROGRAM, "").await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).times(1).status(503));
    archive(&world, guest).await;
    let request = world.upstream.archive(guest, "");
    world.client().await.archive_guest_connection(Request::new(request)).await.unwrap();
    let is = |wanted: f64| move |value: f64| (value - wanted).abs() < f64::EPSILON;
    for (reason, count) in [("backoff", 1.0), ("deferral", 0.0), ("retry_after", 0.0)] {
        world.adapter.metric(&format!("adapter_retries_total{{reason=\"{reason}\"}}"), is(count)).await;
    }
    assert_eq!(world.upstream.received(guest), 3);
    world.end().await;
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

/// The sum of all series of a name that hold this.
async fn sum(world: &World, name: &str, holds: &str) -> f64 {
    let text = world.adapter.metrics().await;
    let lines = text.lines().filter(|line| line.starts_with(name) && line.contains(holds));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

#[tokio::test]
async fn a_wish_is_counted_once_however_it_is_answered() {
    let world = World::start(PROGRAM, "").await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).times(1).delay(Duration::from_secs(3)));
    let call = |timeout: Duration| {
        let mut request = Request::new(world.upstream.archive(guest, "one"));
        request.set_timeout(timeout);
        request
    };
    let (mut first, mut again) = (world.client().await, world.client().await);
    let told = first.archive_guest_connection(call(Duration::from_secs(1))).await.unwrap_err();
    assert_eq!(told.code(), tonic::Code::DeadlineExceeded);
    again.archive_guest_connection(call(Duration::from_secs(20))).await.unwrap();
    again.archive_guest_connection(call(Duration::from_secs(20))).await.unwrap();
    let mut bad = world.upstream.archive(guest, "two");
    bad.guest_organization_id = "nobody".to_owned();
    again.archive_guest_connection(Request::new(bad)).await.unwrap_err();
    let is = |wanted: f64| move |value: f64| (value - wanted).abs() < f64::EPSILON;
    for (result, count) in [("accepted", 1.0), ("in_progress", 1.0), ("replayed", 1.0), ("refused", 1.0)] {
        let series = format!("adapter_submissions_total{{door=\"grpc\",result=\"{result}\"}}");
        world.adapter.metric(&series, is(count)).await;
    }
    world.adapter.metric("adapter_refusals_total{door=\"grpc\",reason=\"OUTCOME_PENDING\"}", is(1.0)).await;
    let calls = "rpc_server_call_duration_seconds_count";
    assert!(is(1.0)(sum(&world, calls, "rpc_response_status_code=\"DEADLINE_EXCEEDED\"").await));
    assert!(is(2.0)(sum(&world, calls, "rpc_response_status_code=\"OK\"").await));
    world.end().await;
}

#[tokio::test]
async fn what_is_given_back_or_given_up_is_no_success() {
    let lines = "upstream.breaker_failures = 2\nupstream.breaker_delay_base = \"4m\"\nupstream.breaker_delay_max = \"4m\"";
    let mut world = World::start(PROGRAM, lines).await;
    // A reply to nobody.
    let guest = Uuid::new_v4();
    let properties = BasicProperties::default().with_content_type("application/json".into());
    let nobody = properties.with_reply_to("nobody".into());
    world.send_with(guest, nobody, &world.upstream.message(guest, true, "k")).await;
    world.events.take(1).await;
    world.adapter.metric("adapter_outbox_given_up_total{kind=\"reply\"}", |count| count > 0.5).await;
    assert!(sum(&world, "adapter_outbox_delay_seconds_count", "reply").await < 0.5, "it was not delivered");
    // Messages that go back to the queue, since the API is away.
    world.upstream.simulator.script(Rule::patch().status(503));
    send_until_suspended(&world).await;
    let processed = "messaging_process_duration_seconds_count";
    assert!(sum(&world, processed, "error_type=\"UPSTREAM_PAUSED\"").await > 0.5);
    let settled =
        sum(&world, "messaging_client_operation_duration_seconds_count", "operation_name=\"ack\"").await;
    let well = sum(&world, processed, "").await - sum(&world, processed, "error_type").await;
    assert!((settled - well).abs() < 0.5, "{settled} were acknowledged, {well} ended well");
    assert!(sum(&world, "adapter_submissions_total", "result=\"left\"").await > 0.5);
    world.adapter.kill().await;
}
