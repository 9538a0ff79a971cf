//! Ten thousand commands through each door: as many outcomes and events, and at most one PATCH for each key.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tells a whole story"
)]

use std::collections::{HashMap, HashSet};

use futures::StreamExt as _;
use guest_connection_adapter::proto::get_command_request::Lookup;
use guest_connection_adapter::proto::{CommandKey, CommandState, GetCommandRequest};
use harness::World;
use lapin::BasicProperties;
use uuid::Uuid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");
const COMMANDS: usize = 10_000;
const CONNECTIONS: usize = 2_000;

/// The commands: several of each connection, so that lanes are used, each under a key of its own.
fn commands() -> Vec<(Uuid, bool, String)> {
    let guests: Vec<Uuid> = (0..CONNECTIONS).map(|_| Uuid::new_v4()).collect();
    (0..COMMANDS)
        .map(|n| (guests[n % CONNECTIONS], (n / CONNECTIONS).is_multiple_of(2), format!("key-{n}")))
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_calls() {
    let mut world = World::start(PROGRAM, "").await;
    let commands = commands();
    let started = std::time::Instant::now();
    let mut client = world.client().await;
    client = client.max_decoding_message_size(1 << 20);
    let calls = futures::stream::iter(&commands).map(|(guest, archived, key)| {
        let (mut client, upstream) = (client.clone(), &world.upstream);
        async move {
            if *archived {
                client
                    .archive_guest_connection(upstream.archive(*guest, key))
                    .await
                    .unwrap()
                    .into_inner()
                    .command_id
            } else {
                let call = client.unarchive_guest_connection(upstream.unarchive(*guest, key));
                call.await.unwrap().into_inner().command_id
            }
        }
    });
    let ids: Vec<String> = calls.buffer_unordered(64).collect().await;
    println!("{COMMANDS} calls in {:?}", started.elapsed());
    assert_eq!(ids.iter().collect::<HashSet<_>>().len(), COMMANDS);
    check(&mut world, &commands).await;
    world.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_messages() {
    let mut world = World::start(PROGRAM, "").await;
    let commands = commands();
    let messages = commands.iter().map(|(guest, archived, key)| {
        let body = serde_json::to_vec(&world.upstream.message(*guest, *archived, key)).unwrap();
        let properties = BasicProperties::default().with_content_type("application/json".into());
        (guest.to_string(), properties.with_delivery_mode(2), body)
    });
    let messages = messages.collect();
    let started = std::time::Instant::now();
    world.broker.publish_all(&world.names, messages).await;
    check(&mut world, &commands).await;
    println!("{COMMANDS} messages in {:?}", started.elapsed());
    let (names, broker) = (world.names.clone(), harness::Broker::connect().await);
    world.end().await;
    assert_eq!(broker.depth(&names.commands).await, 0, "everything was acknowledged");
    assert_eq!(broker.depth(&names.dead_letters).await, 0);
}

/// What was promised, seen from outside.
async fn check(world: &mut World, commands: &[(Uuid, bool, String)]) {
    let mut events = HashSet::new();
    let mut sequences: HashMap<String, Vec<String>> = HashMap::new();
    for arrived in world.events.take(COMMANDS).await {
        let event = arrived.json();
        let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
        assert!(events.insert(text(&event["data"]["command"]["idempotency_key"])), "one event for each key");
        sequences.entry(text(&event["subject"])).or_default().push(text(&event["sequence"]));
    }
    for (subject, numbers) in &sequences {
        let wanted: Vec<String> = (1..=numbers.len()).map(|n| format!("{n:020}")).collect();
        assert_eq!(*numbers, wanted, "the events of {subject} are in order, without gaps");
    }
    let stats = world.upstream.simulator.stats();
    assert_eq!((stats.patches, stats.applied), (COMMANDS as u64, COMMANDS as u64), "one PATCH for each key");
    assert_eq!(stats.max_outstanding_per_connection, 1);
    let client = world.client().await;
    let requester = world.upstream.requester.to_string();
    let lookups = futures::stream::iter(commands).map(|(_, archived, key)| {
        let mut client = client.clone();
        let key = CommandKey { requester_organization_id: requester.clone(), idempotency_key: key.clone() };
        async move {
            let request = GetCommandRequest { lookup: Some(Lookup::Key(key)) };
            let command = client.get_command(request).await.unwrap().into_inner().command.unwrap();
            assert_eq!((command.state(), command.archived), (CommandState::Succeeded, *archived));
        }
    });
    lookups.buffer_unordered(64).collect::<Vec<()>>().await;
}
