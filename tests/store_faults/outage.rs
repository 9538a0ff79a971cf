//! The store takes nothing for a while: nothing is claimed, sent or acknowledged, and then all goes on by itself.

use std::collections::HashSet;

use guest_connection_adapter::proto::Command;
use harness::disk::{Disk, Fault};
use harness::{Broker, DEADLINE, Names, Upstream, World};
use tonic::Code;
use uuid::Uuid;

use crate::support::{
    FOR_EVER, PROGRAM, QUICK, Trouble, call, is_not_ready, is_refused, is_told, key_of, nothing_more_is_told,
    one_is_done, until_depth,
};

const MESSAGES: u32 = 5;

/// The whole story of one outage. `words` is what the operator reads.
async fn outage(trouble: Trouble, words: &str) {
    let (mut world, disk) = World::on_disk(PROGRAM, QUICK).await;
    one_is_done(&mut world).await;

    let in_trouble = trouble.begin(&world, &disk);
    let pid = world.adapter.pid();
    let caller = Uuid::new_v4();
    is_refused(&world, caller, "called").await;
    let mut guests = vec![(caller, "called".to_owned())];
    for number in 0..MESSAGES {
        let (guest, key) = (Uuid::new_v4(), format!("sent-{number}"));
        world.send(guest, &world.upstream.message(guest, true, &key)).await;
        guests.push((guest, key));
    }
    is_not_ready(&world, words).await;
    let suspended = |line: &str| line.contains("suspended") && line.contains("STORE_UNAVAILABLE");
    world.adapter.log().wait_for(DEADLINE, suspended).await.expect("consuming stops");
    until_depth(&world, MESSAGES).await;
    is_not_ready(&world, words).await;
    for (guest, key) in &guests {
        assert_eq!(world.upstream.received(*guest), 0, "{key}: no claim, no PATCH");
        let known = world.upstream.command(&world.adapter, key).await.expect_err(key);
        assert_eq!(known.code(), Code::NotFound, "{key}");
    }

    in_trouble.over();
    world.adapter.ready().await;
    assert_eq!(world.adapter.pid(), pid);
    call(&world, caller, "called", DEADLINE).await.expect("the same key, as the caller was told");
    let mut wanted: HashSet<String> = guests.iter().map(|(_, key)| key.clone()).collect();
    for event in world.events.take(guests.len()).await {
        let key = key_of(&event.json());
        assert!(wanted.remove(&key), "{key} has one event");
    }
    nothing_more_is_told(&mut world).await;
    for (guest, key) in &guests {
        assert_eq!(world.upstream.applied(*guest), [true], "{key}: one PATCH");
    }
    until_depth(&world, 0).await;
    world.end().await;
}

#[tokio::test]
async fn a_full_disk() {
    outage(Trouble::Disk(Fault::Full), "the disk is full").await;
}

#[tokio::test]
async fn case_29_a_file_that_turns_read_only() {
    outage(Trouble::Disk(Fault::ReadOnly), "read-only").await;
}

#[tokio::test]
async fn a_file_that_another_program_holds_locked() {
    outage(Trouble::Locked, "another program holds the file locked").await;
}

#[tokio::test]
async fn a_disk_that_fails_at_writing() {
    outage(Trouble::Disk(Fault::WriteFails), "I/O error at writing").await;
}

#[tokio::test]
async fn a_disk_that_makes_nothing_durable() {
    outage(Trouble::Disk(Fault::SyncFails), "I/O error at making data durable").await;
}

#[tokio::test]
async fn a_disk_that_hangs() {
    outage(Trouble::Disk(Fault::SyncSlow(FOR_EVER)), "slow or hangs").await;
}

/// What is in memory already may still be taken in and done; what cannot be read waits.
#[tokio::test]
async fn a_disk_that_fails_at_reading() {
    let (mut world, disk) = World::on_disk(PROGRAM, QUICK).await;
    one_is_done(&mut world).await;
    disk.set(Fault::ReadFails);
    is_not_ready(&world, "cannot be read").await;
    // A look-up is answered from memory, or refused; never is the command said to be unknown.
    match world.upstream.command(&world.adapter, "before").await {
        Ok(command) => assert!(command.finish_time.is_some()),
        Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
    }
    let guest = Uuid::new_v4();
    world.send(guest, &world.upstream.message(guest, true, "sent")).await;
    is_not_ready(&world, "cannot be read").await;
    disk.set(Fault::None);
    world.adapter.ready().await;
    assert_eq!(key_of(&world.events.next().await.json()), "sent");
    nothing_more_is_told(&mut world).await;
    assert!(world.upstream.applied(guest).iter().all(|archived| *archived));
    until_depth(&world, 0).await;
    world.end().await;
}

/// To go on writing to what no name leads to any more would lose it all at the next start.
#[tokio::test]
async fn a_file_that_is_moved_away() {
    let (mut world, _disk) = World::on_disk(PROGRAM, QUICK).await;
    one_is_done(&mut world).await;
    for suffix in ["", "-wal"] {
        let file = world.setup.store().with_file_name(format!("adapter.db{suffix}"));
        let elsewhere = file.with_file_name("elsewhere");
        std::fs::rename(&file, &elsewhere).unwrap();
        let detail = is_not_ready(&world, "was removed or replaced under way").await;
        assert!(detail.contains(&file.display().to_string()), "{detail}");
        let (guest, key) = (Uuid::new_v4(), format!("moved{suffix}"));
        is_refused(&world, guest, &key).await;
        assert_eq!(world.upstream.received(guest), 0);
        // A file of the same name is not the file.
        std::fs::copy(&elsewhere, &file).unwrap();
        is_refused(&world, guest, &key).await;
        std::fs::rename(&elsewhere, &file).unwrap();
        world.adapter.ready().await;
        call(&world, guest, &key, DEADLINE).await.expect("the file is back");
        is_told(&mut world, &key).await;
        assert_eq!(world.upstream.applied(guest), [true]);
    }
    nothing_more_is_told(&mut world).await;
    world.end().await;
}

/// The event goes out, and that it did cannot be noted for a long time: it is not sent again and again meanwhile.
#[tokio::test]
async fn an_event_is_not_repeated_while_its_confirm_cannot_be_noted() {
    let (upstream, broker, names) = (Upstream::start().await, Broker::connect().await, Names::default());
    let (setup, disk) = Disk::below(upstream.setup(PROGRAM).broker(&broker, &names));
    let adapter = setup.start_ready().await;
    let call = upstream.archive(Uuid::new_v4(), "k");
    adapter.client().await.archive_guest_connection(call).await.unwrap();
    // No queue is bound to the events exchange yet, so the event waits.
    adapter.readiness(|_, body| body["parts"]["events"]["status"] == "degraded").await;
    disk.set(Fault::Full);
    let mut events = broker.subscribe(&names.events).await;
    assert_eq!(key_of(&events.next().await.json()), "k");
    let again_and_again = |lines: &[String]| {
        lines.iter().filter(|line| line.contains("the outbox could not be read or marked")).count() > 3
    };
    adapter.log().wait_until(DEADLINE, again_and_again).await.expect("the relay tries");
    disk.set(Fault::None);
    let noted = |command: &Command| command.event.as_ref().is_some_and(|event| event.confirmed);
    upstream.command_when(&adapter, "k", noted).await;
    // A clean end flushes the outbox, and what was published before it is here.
    assert!(adapter.terminate().await.0.success());
    assert!(events.next_within(std::time::Duration::from_millis(1)).await.is_none(), "one event");
}

#[tokio::test]
async fn a_request_to_end_is_met_in_time_while_the_disk_hangs() {
    let lines = format!("{QUICK}shutdown.drain_timeout = \"4s\"\n");
    let (mut world, disk) = World::on_disk(PROGRAM, &lines).await;
    disk.set(Fault::SyncSlow(FOR_EVER));
    let guest = Uuid::new_v4();
    world.send(guest, &world.upstream.message(guest, true, "sent")).await;
    is_not_ready(&world, "slow or hangs").await;
    let started = std::time::Instant::now();
    let (status, log) = world.adapter.terminate().await;
    assert!(status.success(), "{}", log.join("\n"));
    assert!(started.elapsed() < std::time::Duration::from_secs(4 + 2 + 2 + 3), "{:?}", started.elapsed());
    assert_eq!(world.upstream.received(guest), 0);
    disk.set(Fault::None);
    world.adapter = world.setup.start_ready().await;
    assert_eq!(key_of(&world.events.next().await.json()), "sent");
    nothing_more_is_told(&mut world).await;
    assert_eq!(world.upstream.applied(guest), [true]);
    world.end().await;
}

/// A disk that is slow only makes everything slow.
#[tokio::test]
async fn a_slow_disk_loses_and_reorders_nothing() {
    let (mut world, disk) = World::on_disk(PROGRAM, QUICK).await;
    disk.set(Fault::SyncSlow(std::time::Duration::from_millis(250)));
    let guests = [Uuid::new_v4(), Uuid::new_v4()];
    for number in 0..4 {
        for guest in guests {
            let body = world.upstream.message(guest, number % 2 == 0, &format!("{guest}-{number}"));
            world.send(guest, &body).await;
        }
    }
    let events: Vec<_> = world.events.take(8).await.iter().map(|event| key_of(&event.json())).collect();
    for guest in guests {
        let own: Vec<_> = events.iter().filter(|key| key.starts_with(&guest.to_string())).collect();
        let wanted: Vec<_> = (0..4).map(|number| format!("{guest}-{number}")).collect();
        assert_eq!(own, wanted.iter().collect::<Vec<_>>());
        assert_eq!(world.upstream.applied(guest), [true, false, true, false]);
    }
    let slow = Uuid::new_v4();
    call(&world, slow, "slow", DEADLINE).await.expect("a call too");
    world.adapter.ready().await;
    disk.set(Fault::None);
    world.end().await;
}
