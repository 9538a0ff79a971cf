//! The store fails between the PATCH and the end of its claim: the outcome is not lost.

use std::time::Duration;

use guest_connection_adapter::proto::CommandState;
use harness::disk::{Disk, Fault};
use harness::{DEADLINE, World};
use simulator::{Entry, Rule};
use uuid::Uuid;

use crate::support::{PROGRAM, QUICK, Trouble, is_not_ready, key_of, nothing_more_is_told, until_depth};

/// Sends a command by the queue, and begins the trouble while its PATCH is under way.
async fn sent_before<'a>(
    world: &World,
    disk: &'a Disk,
    trouble: Trouble,
    guest: Uuid,
) -> crate::support::InTrouble<'a> {
    let slow = Rule::patch().guest(guest).times(1).delay_after_apply(Duration::from_millis(800));
    world.upstream.simulator.script(slow);
    world.send(guest, &world.upstream.message(guest, true, "k")).await;
    let applied = |entries: &[Entry]| entries.iter().any(|entry| entry.is_patch_of(guest) && entry.applied);
    world.upstream.simulator.wait_for(applied, DEADLINE).await.expect("the PATCH takes effect");
    trouble.begin(world, disk)
}

async fn kept_over(trouble: Trouble) {
    let (mut world, disk) = World::on_disk(PROGRAM, QUICK).await;
    let guest = Uuid::new_v4();
    let in_trouble = sent_before(&world, &disk, trouble, guest).await;
    let waits = |line: &str| line.contains("the outcome could not be stored yet");
    world.adapter.log().wait_for(DEADLINE, waits).await.expect("it is tried again");
    let command = world.upstream.command(&world.adapter, "k").await.unwrap();
    assert_eq!(command.state(), CommandState::InFlight, "nothing is told that is not stored");

    in_trouble.over();
    assert_eq!(key_of(&world.events.next().await.json()), "k");
    nothing_more_is_told(&mut world).await;
    assert_eq!(world.upstream.applied(guest), [true], "the outcome was kept: nothing had to be repeated");
    let command = world.upstream.command(&world.adapter, "k").await.unwrap();
    assert_eq!((command.state(), command.attempts), (CommandState::Succeeded, 1));
    until_depth(&world, 0).await;
    world.end().await;
}

#[tokio::test]
async fn an_outcome_is_kept_over_a_full_disk() {
    kept_over(Trouble::Disk(Fault::Full)).await;
}

#[tokio::test]
async fn an_outcome_is_kept_over_a_failing_fsync() {
    kept_over(Trouble::Disk(Fault::SyncFails)).await;
}

#[tokio::test]
async fn an_outcome_is_kept_over_a_read_only_file() {
    kept_over(Trouble::Disk(Fault::ReadOnly)).await;
}

/// The lock is waited for by SQLite itself, for a time within the lease.
#[tokio::test]
async fn an_outcome_is_kept_over_a_locked_file() {
    kept_over(Trouble::Locked).await;
}

#[tokio::test]
async fn an_outcome_that_cannot_be_stored_within_the_lease_is_stored_after_it() {
    let lines = r#"
amqp.delivery_hold = "20s"
upstream.attempt_timeout = "1500ms"
upstream.connect_timeout = "500ms"
upstream.command_timeout = "2s"
upstream.settle = "1s"
store.lease = "3s"
"#;
    let (mut world, disk) = World::on_disk(PROGRAM, lines).await;
    let guest = Uuid::new_v4();
    let in_trouble = sent_before(&world, &disk, Trouble::Disk(Fault::Full), guest).await;
    let is_over = |line: &str| line.contains("the outcome could not be stored within its lease");
    world.adapter.log().wait_for(DEADLINE, is_over).await.expect("the lease ends");
    is_not_ready(&world, "the disk is full").await;
    until_depth(&world, 1).await;

    in_trouble.over();
    assert_eq!(key_of(&world.events.next().await.json()), "k");
    nothing_more_is_told(&mut world).await;
    assert_eq!(world.upstream.applied(guest), [true], "nothing had to be repeated");
    let command = world.upstream.command(&world.adapter, "k").await.unwrap();
    assert_eq!((command.state(), command.maybe_applied), (CommandState::Succeeded, false));
    until_depth(&world, 0).await;
    world.end().await;
}

/// Rule 4: the lease counts from before the claim was asked for, so a claim that comes late is worth nothing.
#[tokio::test]
async fn a_claim_that_took_too_long_to_store_sends_nothing() {
    let lines = r#"
upstream.attempt_timeout = "1s"
upstream.connect_timeout = "500ms"
upstream.command_timeout = "2s"
upstream.defer_delay_base = "100ms"
upstream.defer_delay_max = "200ms"
store.lease = "3s"
"#;
    let (mut world, disk) = World::on_disk(PROGRAM, lines).await;
    disk.set(Fault::SyncSlow(Duration::from_millis(2_500)));
    let guest = Uuid::new_v4();
    world.send(guest, &world.upstream.message(guest, true, "k")).await;
    let deferred = |command: &guest_connection_adapter::proto::Command| {
        command.state() == CommandState::Deferred && command.outcome.is_some()
    };
    let command = world.upstream.command_when(&world.adapter, "k", deferred).await;
    assert_eq!((command.attempts, command.maybe_applied), (0, false));
    assert_eq!(world.upstream.received(guest), 0);
    disk.set(Fault::None);
    assert_eq!(key_of(&world.events.next().await.json()), "k");
    assert_eq!(world.upstream.applied(guest), [true]);
    world.end().await;
}
