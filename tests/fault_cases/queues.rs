//! One queue is in trouble, and the broker is well.

use guest_connection_adapter::proto::Command;
use harness::{DEADLINE, Node, World};
use lapin::options::{QueueBindOptions, QueueDeclareOptions, QueuePurgeOptions};
use lapin::types::{AMQPValue, FieldTable};
use serde_json::Value;
use uuid::Uuid;

use crate::PROGRAM;
use crate::support::{QUICK, end_settled};

/// A quorum queue for the events of `key`.
async fn quorum_queue(world: &World, key: &str) -> String {
    let name = format!("test.{}", Uuid::new_v4().simple());
    let channel = world.broker.channel();
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
    let options = QueueDeclareOptions { durable: true, ..<_>::default() };
    channel.queue_declare(name.as_str().into(), options, arguments).await.expect("declared");
    let options = QueueBindOptions::default();
    let exchange = world.names.events.as_str();
    let bind =
        channel.queue_bind(name.as_str().into(), exchange.into(), key.into(), options, FieldTable::default());
    bind.await.expect("bound");
    name
}

/// Archives the connection of a new guest, and yields its key.
async fn archive(world: &World, guest: Uuid) -> String {
    let key = guest.to_string();
    world
        .client()
        .await
        .archive_guest_connection(world.upstream.archive(guest, &key))
        .await
        .expect("archived");
    key
}

fn is_confirmed(command: &Command) -> bool {
    command.event.as_ref().is_some_and(|event| event.confirmed)
}

async fn confirmed(world: &World, key: &str) {
    world.upstream.command_when(&world.adapter, key, is_confirmed).await;
}

fn is_held(status: u16, body: &Value) -> bool {
    let part = &body["parts"]["events"];
    status == 200 && part["status"] == "degraded" && part["detail"].as_str().unwrap().contains("1 connection")
}

#[tokio::test]
async fn a_queue_that_confirms_nothing_holds_up_its_own_connection_alone() {
    let node = Node::shared().await;
    let world = World::start_on(PROGRAM, &node, QUICK).await;
    let stuck = Uuid::new_v4();
    let queue = quorum_queue(&world, &format!("guest-connection.*.{stuck}")).await;
    // As a quorum queue does that has lost its majority.
    let process = format!("whereis(list_to_atom(\"%2F_{queue}\"))");
    node.eval(&format!("sys:suspend({process}).")).await;
    let held = archive(&world, stuck).await;
    for _ in 0..20 {
        confirmed(&world, &archive(&world, Uuid::new_v4()).await).await;
    }
    world.adapter.readiness(is_held).await;
    assert!(!is_confirmed(&world.upstream.command(&world.adapter, &held).await.unwrap()));
    node.eval(&format!("sys:resume({process}).")).await;
    confirmed(&world, &held).await;
    world.adapter.readiness(|_, body| body["parts"]["events"]["status"] == "ready").await;
    end_settled(world, None).await;
}

#[tokio::test]
async fn a_queue_that_has_room_again_is_published_to_again() {
    let node = Node::shared().await;
    let world = World::start_on(PROGRAM, &node, QUICK).await;
    let queue = quorum_queue(&world, "#").await;
    let pattern = format!("^{queue}$");
    let limit = r#"{"max-length":1,"overflow":"reject-publish"}"#;
    node.ctl(&["set_policy", "full", &pattern, limit, "--apply-to", "queues"]).await;
    let mut keys = Vec::new();
    let mut is_refused = false;
    while !is_refused {
        assert!(keys.len() < 100, "nothing is refused");
        keys.push(archive(&world, Uuid::new_v4()).await);
        let refused = |line: &str| line.contains("they are held and tried again");
        is_refused = world.adapter.log().all().iter().any(|line| refused(line));
    }
    node.ctl(&["clear_policy", "full"]).await;
    let purge = world.broker.channel().queue_purge(queue.as_str().into(), QueuePurgeOptions::default());
    tokio::time::timeout(DEADLINE, purge).await.expect("an answer").expect("purged");
    keys.push(archive(&world, Uuid::new_v4()).await);
    for key in &keys {
        confirmed(&world, key).await;
    }
    end_settled(world, None).await;
}
