//! After a failed fsync nobody knows what is on the disk. What was told as failed may be there after a crash or not; both
//! are the same promise.

use harness::World;
use harness::disk::Fault;
use tonic::Code;
use uuid::Uuid;

use crate::support::{PROGRAM, QUICK, call, is_refused, key_of, nothing_more_is_told, one_is_done};

/// What the machine's crash after the failed fsync left of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// All that was written: the process died, the machine did not.
    Written,
    /// What was durable before.
    Durable,
}

/// A call and a message meet a failing fsync, and then the process is killed.
async fn after_a_kill(left: Left) {
    let (mut world, disk) = World::on_disk(PROGRAM, QUICK).await;
    let [called, sent] = [(); 2].map(|()| Uuid::new_v4());
    one_is_done(&mut world).await;
    let log = world.setup.store().with_file_name("adapter.db-wal");
    let durable = std::fs::read(&log).unwrap();
    disk.set(Fault::SyncFails);
    is_refused(&world, called, "called").await;
    world.send(sent, &world.upstream.message(sent, true, "sent")).await;
    let refused = |line: &str| line.contains("suspended") && line.contains("STORE_UNAVAILABLE");
    world.adapter.log().wait_for(harness::DEADLINE, refused).await.expect("nothing is taken");
    world.adapter.kill().await;
    assert_eq!(world.upstream.received(called) + world.upstream.received(sent), 0);

    if left == Left::Durable {
        std::fs::write(&log, durable).unwrap();
    }
    disk.set(Fault::None);
    world.adapter = world.setup.start_ready().await;
    // The message was not acknowledged, so it comes again and ends in any case.
    let mut keys = vec![key_of(&world.events.next().await.json())];
    let turned_up = match world.upstream.command(&world.adapter, "called").await {
        Ok(_) => true,
        Err(status) if status.code() == Code::NotFound => false,
        Err(status) => panic!("{status:?}"),
    };
    assert!(left == Left::Written || !turned_up, "it was never durable");
    // A caller that was told to come again does; whether it is the first or a repeat makes no difference to it.
    call(&world, called, "called", harness::DEADLINE).await.expect("the same key");
    keys.push(key_of(&world.events.next().await.json()));
    keys.sort();
    assert_eq!(keys, ["called", "sent"]);
    nothing_more_is_told(&mut world).await;
    for guest in [called, sent] {
        assert_eq!(world.upstream.applied(guest), [true]);
    }
    world.end().await;
}

#[tokio::test]
async fn what_was_told_as_failed_may_turn_up_after_a_kill_and_is_done_once() {
    after_a_kill(Left::Written).await;
}

#[tokio::test]
async fn what_was_told_as_failed_may_be_gone_after_a_crash_and_is_done_once() {
    after_a_kill(Left::Durable).await;
}
