//! The queue's door when something beside the command goes wrong: what must not be lost, and what must not be held up.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tells a whole story"
)]

use std::time::Duration;

use guest_connection_adapter::proto::CommandState;
use harness::{Broker, DEADLINE, World};
use lapin::BasicProperties;
use lapin::options::QueueDeclareOptions;
use lapin::types::{AMQPValue, FieldTable};
use simulator::{Entry, Rule};
use uuid::Uuid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

#[tokio::test]
async fn a_message_stays_with_the_broker_until_its_command_is_durable() {
    let mut world = World::start(PROGRAM, "amqp.delivery_hold = \"1s\"").await;
    // Another program holds the store's write lock, so nothing can be committed.
    let file = world.setup.directory().join("var/adapter.db");
    let intruder = rusqlite::Connection::open(file).unwrap();
    intruder.execute_batch("BEGIN IMMEDIATE").unwrap();
    let guest = Uuid::new_v4();
    world.send(guest, &world.upstream.message(guest, true, "k")).await;
    let suspended = |line: &str| line.contains("STORE_UNAVAILABLE");
    world.adapter.log().wait_for(DEADLINE, suspended).await.expect("consuming stops");
    world.adapter.kill().await;
    intruder.execute_batch("ROLLBACK").unwrap();
    drop(intruder);
    world.adapter = world.setup.start_ready().await;
    let event = world.events.next().await.json();
    assert_eq!(event["data"]["command"]["idempotency_key"], "k");
    assert_eq!(world.upstream.applied(guest), [true]);
    world.end().await;
}

#[tokio::test]
async fn a_reply_queue_that_takes_nothing_holds_up_no_event() {
    let mut world = World::start(PROGRAM, "").await;
    let full = format!("test.{}", Uuid::new_v4().simple());
    let mut arguments = FieldTable::default();
    arguments.insert("x-max-length".into(), AMQPValue::LongInt(1));
    arguments.insert("x-overflow".into(), AMQPValue::LongString("reject-publish".into()));
    let options = QueueDeclareOptions { exclusive: true, ..<_>::default() };
    world.broker.channel().queue_declare(full.as_str().into(), options, arguments).await.unwrap();
    for n in 0..20 {
        let guest = Uuid::new_v4();
        let properties = BasicProperties::default().with_reply_to(full.as_str().into());
        world.send_with(guest, properties, &world.upstream.message(guest, true, &format!("k-{n}"))).await;
    }
    assert_eq!(world.events.take(20).await.len(), 20);
    let given_up = |line: &str| line.contains("the reply is given up");
    world.adapter.log().wait_for(DEADLINE, given_up).await.expect("it is said");
    world.end().await;
}

#[tokio::test]
async fn a_message_that_joins_a_call_does_not_end_with_the_callers_failure() {
    let mut world = World::start(PROGRAM, "upstream.defer_delay_base = \"200ms\"").await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).status(425));
    let (mut client, mut request) =
        (world.client().await, tonic::Request::new(world.upstream.archive(guest, "k")));
    request.set_timeout(Duration::from_secs(4));
    let call = tokio::spawn(async move { client.archive_guest_connection(request).await });
    let sent = |entries: &[Entry]| entries.iter().any(|entry| entry.is_patch_of(guest));
    world.upstream.simulator.wait_for(sent, DEADLINE).await.unwrap();
    world.send(guest, &world.upstream.message(guest, true, "k")).await;
    call.await.unwrap().expect_err("the call fails");
    world
        .upstream
        .command_when(&world.adapter, "k", |command| command.state() == CommandState::Deferred)
        .await;
    world.upstream.simulator.clear_faults();
    assert_eq!(world.events.next().await.json()["data"]["command"]["idempotency_key"], "k");
    world.end().await;
}

#[tokio::test]
async fn more_messages_of_a_hanging_connection_than_the_prefetch_hold_up_no_other() {
    let lines = r#"
amqp.prefetch = 16
upstream.attempt_timeout = "25s"
upstream.settle = "1s"
"#;
    let mut world = World::start(PROGRAM, lines).await;
    let (stuck, free) = (Uuid::new_v4(), Uuid::new_v4());
    world.upstream.simulator.script(Rule::patch().guest(stuck).times(1).hang());
    let messages = (0..60).map(|n| {
        let body = world.upstream.message(stuck, n % 2 == 0, &format!("stuck-{n}"));
        (stuck.to_string(), BasicProperties::default(), serde_json::to_vec(&body).unwrap())
    });
    world.broker.publish_all(&world.names, messages.collect()).await;
    world.send(free, &world.upstream.message(free, true, "free")).await;
    let event = world.events.next().await.json();
    assert_eq!(event["data"]["command"]["idempotency_key"], "free");
    assert_eq!(world.upstream.received(stuck), 1, "it hangs still");
    // Those that were let go of are durable, and go on in their order once the hang is over.
    world.upstream.simulator.reset_connections();
    for n in 0..60 {
        let event = world.events.next().await.json();
        assert_eq!(event["data"]["command"]["idempotency_key"], format!("stuck-{n}"));
    }
    let (names, broker) = (world.names.clone(), Broker::connect().await);
    world.end().await;
    assert_eq!(broker.depth(&names.commands).await, 0);
}
