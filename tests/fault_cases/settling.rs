//! Cases 1 to 9: settling, and the connection to the broker.

use std::time::Duration;

use harness::{DEADLINE, Node, World};
use simulator::Rule;
use uuid::Uuid;

use crate::PROGRAM;

#[tokio::test]
async fn case_01_an_ack_on_a_closed_connection_is_none() {
    let node = Node::shared().await;
    let mut world = World::start_on(PROGRAM, &node, "").await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).delay(Duration::from_secs(3)));
    world.send(guest, &world.upstream.message(guest, true, "k")).await;
    let sent = |entries: &[simulator::Entry]| entries.iter().any(|entry| entry.is_patch_of(guest));
    world.upstream.simulator.wait_for(sent, DEADLINE).await.expect("the PATCH is under way");
    node.ctl(&["close_all_connections", "test"]).await;
    world.reconnect().await;
    let event = world.events.next().await.json();
    assert_eq!(event["data"]["command"]["idempotency_key"], "k");
    assert_eq!(world.upstream.applied(guest), [true]);
    world.end().await;
}
