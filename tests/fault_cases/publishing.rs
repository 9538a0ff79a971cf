//! Cases 10 to 14: events, dead letters and replies on their way out.

use std::time::Duration;

use harness::{Broker, DEADLINE, Direction, Names, Node, Upstream, World};
use lapin::BasicProperties;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use lapin::types::FieldTable;
use serde_json::{Value, json};
use simulator::Rule;
use uuid::Uuid;

use crate::PROGRAM;
use crate::support::{QUICK, end_settled, keys, logged, not_ready, one_consumer, sent};

fn events_are_held(status: u16, body: &Value) -> bool {
    status == 200 && body["parts"]["events"]["status"] == "degraded"
}

fn message_id(message: &harness::broker::Arrived) -> String {
    message.properties.message_id().as_ref().expect("an id").to_string()
}

#[tokio::test]
async fn case_10_an_event_without_a_queue_stays_pending_and_holds_up_its_connection_alone() {
    let (upstream, broker, names) = (Upstream::start().await, Broker::connect().await, Names::default());
    let setup = upstream.setup(PROGRAM).broker(&broker, &names);
    let adapter = setup.start_ready().await;
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    let mut client = adapter.client().await;
    client.archive_guest_connection(upstream.archive(first, "k-1")).await.unwrap();
    client.unarchive_guest_connection(upstream.unarchive(first, "k-2")).await.unwrap();
    let shown = adapter.readiness(events_are_held).await;
    assert!(shown["parts"]["events"]["detail"].as_str().unwrap().contains("held"), "{shown}");
    logged(&adapter, &["they are held and tried again"]).await;
    assert!(!upstream.command(&adapter, "k-1").await.unwrap().event.unwrap().confirmed);
    // A queue for the events of another connection alone: the broker confirms those, and hands the others back.
    let free = broker.queue().await;
    let key = format!("*.*.{second}");
    let bound = broker.channel().queue_bind(
        free.as_str().into(),
        names.events.as_str().into(),
        key.as_str().into(),
        <_>::default(),
        FieldTable::default(),
    );
    bound.await.unwrap();
    client.archive_guest_connection(upstream.archive(second, "k-3")).await.unwrap();
    let free = broker.consume(&free).await.next().await;
    assert_eq!(free.json()["data"]["command"]["idempotency_key"], "k-3");
    assert!(!upstream.command(&adapter, "k-1").await.unwrap().event.unwrap().confirmed);

    let mut events = broker.subscribe(&names.events).await;
    for (number, key) in [(1, "k-1"), (2, "k-2")] {
        let event = events.next().await.json();
        assert_eq!(event["sequence"], json!(format!("{number:020}")));
        assert_eq!(event["data"]["command"]["idempotency_key"], key);
    }
    adapter.readiness(|_, body| body["parts"]["events"]["status"] == "ready").await;
    let (status, log) = adapter.terminate().await;
    assert!(status.success());
    // The broker's client would write what was returned into the log, with names and addresses.
    let personal: Vec<_> = log.iter().filter(|line| line.contains("lapin::returned_messages")).collect();
    assert!(personal.is_empty(), "{personal:?}");
}

#[tokio::test]
async fn case_11_a_deleted_exchange_of_events_is_declared_again() {
    let mut world = World::start(PROGRAM, "").await;
    let exchange = world.names.events.clone();
    let options = ExchangeDeleteOptions::default();
    world.broker.channel().exchange_delete(exchange.as_str().into(), options).await.unwrap();
    let guest = Uuid::new_v4();
    let request = world.upstream.archive(guest, "k");
    world.client().await.archive_guest_connection(request).await.unwrap();
    world.adapter.readiness(events_are_held).await;
    world.events = world.broker.subscribe(&exchange).await;
    let event = world.events.next().await;
    let kept = world.upstream.command(&world.adapter, "k").await.unwrap().event.unwrap();
    assert_eq!(
        (message_id(&event), event.json()["id"].as_str()),
        (kept.event_id.clone(), Some(&*kept.event_id))
    );
    end_settled(world, None).await;
}

#[tokio::test]
async fn case_11_a_confirm_that_does_not_come_has_a_deadline() {
    let (mut world, proxy) = World::start_behind(PROGRAM, None, QUICK).await;
    let guest = Uuid::new_v4();
    // What is published arrives; what the broker says to it does not.
    proxy.freeze(Direction::ToClient);
    let request = world.upstream.archive(guest, "k");
    world.client().await.archive_guest_connection(request).await.unwrap();
    logged(&world.adapter, &["messages could not be published", "no confirm within 1s"]).await;
    let first = world.events.next().await;
    proxy.thaw();
    let second = world.events.next().await;
    let kept = world
        .upstream
        .command_when(&world.adapter, "k", |command| {
            command.event.as_ref().is_some_and(|event| event.confirmed)
        })
        .await;
    let id = kept.event.unwrap().event_id;
    assert_eq!((message_id(&first), message_id(&second)), (id.clone(), id));
    assert_eq!(first.body, second.body);
    assert_eq!(world.upstream.received(guest), 1);
    world.adapter.ready().await;
    world.end().await;
}

#[tokio::test]
async fn case_11_a_frozen_broker_gets_the_event_once_it_goes_on() {
    let node = Node::shared().await;
    let mut world = World::start_on(PROGRAM, &node, QUICK).await;
    let (held, guest) = (Uuid::new_v4(), Uuid::new_v4());
    world.upstream.simulator.script(Rule::patch().guest(held).delay(Duration::from_secs(1)));
    world.send(held, &world.upstream.message(held, true, "held")).await;
    world.upstream.simulator.wait_for(sent(held), DEADLINE).await.expect("it is under way");
    node.freeze().await;
    let request = world.upstream.archive(guest, "k");
    world.client().await.archive_guest_connection(request).await.expect("the other door works");
    // Neither the heartbeat nor a new connection is answered.
    for part in ["amqp.consume", "amqp.publish", "amqp.reply"] {
        not_ready(&world.adapter, part, "did not answer within 2s").await;
    }
    node.thaw().await;
    world.adapter.ready().await;
    world.reconnect().await;
    assert_eq!(keys(&mut world, 2).await, ["held", "k"]);
    let kept = world
        .upstream
        .command_when(&world.adapter, "k", |command| {
            command.event.as_ref().is_some_and(|event| event.confirmed)
        })
        .await;
    assert!(kept.event.unwrap().confirmed);
    assert_eq!((world.upstream.received(held), world.upstream.received(guest)), (1, 1));
    one_consumer(&node, &world.names.commands, 256).await;
    end_settled(world, Some(&node)).await;
}

#[tokio::test]
async fn case_12_an_event_that_was_not_confirmed_before_a_kill_is_published_after_it() {
    let (upstream, broker, names) = (Upstream::start().await, Broker::connect().await, Names::default());
    let setup = upstream.setup(PROGRAM).broker(&broker, &names);
    let adapter = setup.start_ready().await;
    let guest = Uuid::new_v4();
    // No queue is bound to the events exchange yet, so the broker cannot take the event.
    adapter.client().await.archive_guest_connection(upstream.archive(guest, "k")).await.unwrap();
    adapter.readiness(events_are_held).await;
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
async fn case_13_a_message_is_kept_until_its_dead_letter_is_placed() {
    let mut world = World::start(PROGRAM, "amqp.delivery_hold = \"1s\"").await;
    let names = world.names.clone();
    assert!(world.adapter.terminate().await.0.success());
    // Without declaring, or the adapter would put the queue back by itself.
    world.setup = world.setup.config("amqp.declare = false");
    let options = QueueDeleteOptions::default();
    world.broker.channel().queue_delete(names.dead_letters.as_str().into(), options).await.unwrap();
    world.adapter = world.setup.start_ready().await;
    let properties = BasicProperties::default().with_message_id("m-1".into());
    world.broker.publish(&names, "guest", properties, b"poison").await;
    not_ready(&world.adapter, "amqp.consume", "a dead letter could not be placed").await;
    // Others go on meanwhile.
    let guest = Uuid::new_v4();
    world.send(guest, &world.upstream.message(guest, true, "k")).await;
    assert_eq!(keys(&mut world, 1).await, ["k"]);

    let mut letters = world.broker.subscribe(&names.dead_letters).await;
    let letter = letters.next().await;
    assert_eq!((message_id(&letter).as_str(), &letter.body[..]), ("m-1", &b"poison"[..]));
    world.adapter.ready().await;
    end_settled(world, None).await;
}

#[tokio::test]
async fn case_13_a_deleted_exchange_of_dead_letters_is_declared_again() {
    let world = World::start(PROGRAM, "").await;
    let names = world.names.clone();
    let options = ExchangeDeleteOptions::default();
    world.broker.channel().exchange_delete(names.dead_letters.as_str().into(), options).await.unwrap();
    world.broker.publish(&names, "guest", BasicProperties::default(), b"poison").await;
    let letter = world.broker.consume(&names.dead_letters).await.next().await;
    assert_eq!(letter.body, b"poison");
    end_settled(world, None).await;
}

#[tokio::test]
async fn case_14_a_message_that_cannot_be_read_is_answered() {
    let world = World::start(PROGRAM, "").await;
    let mut letters = world.broker.consume(&world.names.dead_letters).await;
    let queue = world.broker.queue().await;
    let mut answers = world.broker.consume(&queue).await;
    let properties =
        BasicProperties::default().with_reply_to(queue.as_str().into()).with_correlation_id("c-1".into());
    world.broker.publish(&world.names, "guest", properties, br#"{"guest_org_id":"#).await;
    let answer = answers.next().await;
    assert_eq!(answer.properties.correlation_id().as_ref().unwrap().as_str(), "c-1");
    assert_eq!(
        (&answer.json()["status"], &answer.json()["reason"]),
        (&json!("refused"), &json!("UNDECODABLE"))
    );
    let letter = letters.next().await;
    assert_eq!(letter.table("x-guest-connection-adapter")["reason"], "UNDECODABLE");
    end_settled(world, None).await;
}
