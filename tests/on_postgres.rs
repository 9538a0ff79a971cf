//! The whole adapter with its store in PostgreSQL.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::process::Command;

use harness::{Database, World};
use tonic::Code;
use uuid::Uuid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

async fn start(database: &Database) -> World {
    World::start(PROGRAM, &format!("store.url = \"{}\"", database.url())).await
}

#[tokio::test]
async fn the_main_job_survives_a_kill_and_a_lost_connection() {
    let database = Database::create().await;
    let mut world = start(&database).await;
    let (mut client, guest) = (world.client().await, Uuid::new_v4());
    let first =
        client.archive_guest_connection(world.upstream.archive(guest, "k-1")).await.unwrap().into_inner();
    assert!(!first.replayed);
    let event = world.events.next().await.json();
    assert_eq!(event["data"]["command"]["command_id"], first.command_id);

    database.cut().await;
    world.adapter.ready().await;
    let again = loop {
        match client.archive_guest_connection(world.upstream.archive(guest, "k-1")).await {
            Ok(again) => break again.into_inner(),
            // A connection that was cut is noticed by the first that use it.
            Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status}"),
        }
        harness::look_again().await;
    };
    assert!(again.replayed && again.command_id == first.command_id, "{again:?}");

    world.adapter.kill().await;
    world.adapter = world.setup.start_ready().await;
    let mut client = world.client().await;
    let again =
        client.archive_guest_connection(world.upstream.archive(guest, "k-1")).await.unwrap().into_inner();
    assert!(again.replayed && again.command_id == first.command_id, "{again:?}");
    client.unarchive_guest_connection(world.upstream.unarchive(guest, "k-2")).await.unwrap();
    assert_eq!(world.events.next().await.json()["sequence"], format!("{:020}", 2));
    assert_eq!(world.upstream.applied(guest), [true, false]);
    world.end().await;
}

#[tokio::test]
async fn what_is_wrong_with_the_address_is_told() {
    let database = Database::create().await;
    let world = start(&database).await;
    for (url, text) in [
        ("mysql://localhost/x", "store.url: cannot be used"),
        ("postgres://user:s3cret@localhost/x", "store.url: a password must not stand in this file"),
        ("postgres://localhost/x?password=s3cret", "it must hold no password"),
    ] {
        let (status, log) =
            world.setup.clone().config(&format!("store.url = \"{url}\"")).start_in_vain().await;
        assert!(status.code() == Some(2) && log.contains(text), "{log}");
        assert!(!log.contains("s3cret"), "{log}");
    }
    // Those that started in vain have the same file.
    world.setup.write();
    let mut check = Command::new(PROGRAM);
    check.args(["check", "--config", "adapter.toml"]).current_dir(world.setup.directory());
    let output = tokio::task::spawn_blocking(move || check.output().unwrap()).await.unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && text.contains(database.url()), "{text}");
    world.end().await;
}
