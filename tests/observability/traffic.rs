//! Work of each kind for an adapter: by both doors, done at once, after a retry, after a deferral, refused and repeated.

use std::time::Duration;

use guest_connection_adapter::proto::{CommandState, GetCommandRequest};
use harness::{Upstream, World};
use lapin::BasicProperties;
use serde_json::json;
use simulator::Rule;
use tonic::Code;
use uuid::Uuid;

/// Short times, so that what takes seconds in service takes moments here, and an API that fails for one connection only.
const LINES: &str = r#"
upstream.command_timeout = "1500ms"
upstream.attempt_timeout = "1s"
upstream.connect_timeout = "500ms"
upstream.retry_delay_base = "20ms"
upstream.retry_delay_max = "100ms"
upstream.defer_delay_base = "100ms"
upstream.defer_delay_max = "400ms"
upstream.settle = "500ms"
upstream.breaker_failures = 1000
upstream.breaker_failure_share = 1.0
"#;

/// An adapter with a broker and an upstream. `lines` are added to its configuration.
pub async fn start(lines: &str) -> World {
    World::start(crate::PROGRAM, &format!("{LINES}{lines}")).await
}

/// Has it do everything that it can do, and waits until it has.
pub async fn run(world: &World) {
    calls(world).await;
    messages(world).await;
}

async fn calls(world: &World) {
    let (upstream, mut client) = (&world.upstream, world.client().await);
    let guest = Uuid::now_v7();
    client.archive_guest_connection(upstream.archive(guest, "done")).await.expect("it is archived");
    client.archive_guest_connection(upstream.archive(guest, "done")).await.expect("it is told again");
    client.unarchive_guest_connection(upstream.unarchive(guest, "undone")).await.expect("it is unarchived");
    upstream.command(&world.adapter, "done").await.expect("it is kept");

    let retried = Uuid::now_v7();
    upstream.simulator.script(Rule::patch().guest(retried).times(1).status(503));
    client
        .archive_guest_connection(upstream.archive(retried, "retried"))
        .await
        .expect("it is archived at last");

    let unknown = Uuid::now_v7();
    upstream.simulator.script(Rule::patch().guest(unknown).status(404));
    let refused = client.archive_guest_connection(upstream.archive(unknown, "rejected")).await;
    assert_eq!(refused.expect_err("it is not known there").code(), Code::NotFound);

    let other = client.archive_guest_connection(upstream.archive(unknown, "done")).await;
    assert_eq!(other.expect_err("the key is another's").code(), Code::FailedPrecondition);
    let nothing = client.get_command(GetCommandRequest::default()).await;
    assert_eq!(nothing.expect_err("it names nothing").code(), Code::InvalidArgument);

    // An answer that differs from the contract.
    let odd = Uuid::now_v7();
    let body = json!({"guest_organization_id": odd, "archived": true, "novel": 1});
    upstream.simulator.script(Rule::patch().guest(odd).times(1).status(200).json(body).applied());
    client.archive_guest_connection(upstream.archive(odd, "odd")).await.expect("it counts");
}

async fn messages(world: &World) {
    let upstream = &world.upstream;
    let guest = Uuid::now_v7();
    let replies = world.broker.queue().await;
    let mut answers = world.broker.consume(&replies).await;
    let properties = BasicProperties::default().with_reply_to(replies.as_str().into());
    world.send_with(guest, properties, &upstream.message(guest, true, "message")).await;
    assert_eq!(answers.next().await.json()["status"], "succeeded");
    world.send(guest, &upstream.message(guest, true, "message")).await;

    // Three of one connection, the later of which wait.
    let busy = Uuid::now_v7();
    upstream.simulator.script(Rule::patch().guest(busy).delay(Duration::from_millis(100)));
    for key in ["first", "second", "third"] {
        world.send(busy, &upstream.message(busy, true, key)).await;
    }
    until(upstream, world, "third", CommandState::Succeeded).await;

    // The broker returns a reply to nobody.
    let properties = BasicProperties::default().with_reply_to("test.nobody".into());
    world.send_with(guest, properties, &upstream.message(guest, false, "unheard")).await;
    until(upstream, world, "unheard", CommandState::Succeeded).await;

    let deferred = Uuid::now_v7();
    let rule = upstream.simulator.script(Rule::patch().guest(deferred).status(503));
    world.send(deferred, &upstream.message(deferred, true, "deferred")).await;
    until(upstream, world, "deferred", CommandState::Deferred).await;
    upstream.simulator.remove_fault(rule);
    until(upstream, world, "deferred", CommandState::Succeeded).await;

    // A command that is refused for good, and what is none: two dead letters.
    let unknown = Uuid::now_v7();
    upstream.simulator.script(Rule::patch().guest(unknown).status(404));
    world.send(unknown, &upstream.message(unknown, true, "dead")).await;
    world.send(unknown, &json!("no command")).await;
    world.broker.depth_when(&world.names.dead_letters, |depth| depth == 2).await;
}

async fn until(upstream: &Upstream, world: &World, key: &str, state: CommandState) {
    upstream.command_when(&world.adapter, key, |command| command.state() == state).await;
}
