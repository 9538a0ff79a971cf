//! What the writer keeps of what it wrote is never older than the file.

use guest_connection_adapter::domain::lifecycle::Finish;
use guest_connection_adapter::service::ports::{Accepted, Begun, Finished};
use rusqlite::Connection;
use uuid::Uuid;

use super::SqliteHarness;
use crate::conformance::world::{World, applied, unreachable, wish};

#[tokio::test]
async fn what_another_program_has_changed_is_seen() {
    let world = World::new(SqliteHarness::new().await);
    let claimed = world.claimed(wish(1, "k-1")).await;
    let lost = world.claimed(wish(2, "k-2")).await;
    let other = Connection::open(world.harness.path()).unwrap();
    other
        .execute_batch(
            "UPDATE connections SET sequence = 41; UPDATE commands SET epoch = 7 WHERE key = 'k-2'",
        )
        .unwrap();
    let done = world.settle(&claimed, applied()).await;
    assert_eq!(done.event.unwrap().sequence, 42);
    assert!(matches!(world.finish(&lost, applied()).await, Finished::Stale));
}

#[tokio::test]
async fn what_a_failure_has_taken_back_is_forgotten() {
    let world = World::new(SqliteHarness::new().await);
    let claimed = world.claimed(wish(1, "claimed")).await;
    let store = world.store();
    let other = Connection::open(world.harness.path()).unwrap();
    // Another program holds the write lock until everything is queued, so that it is one batch, after the first.
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let probe = store.probe();
    let fresh = store.accept(wish(2, "fresh").acceptance(), Some(Uuid::now_v7()));
    let finish = Finish { id: claimed.id, epoch: claimed.epoch, ..unreachable() };
    let deferred = store.finish(finish.clone());
    let unknown = store.begin(wish(3, "-").acceptance().id, Uuid::now_v7(), true);
    let again = store.finish(finish);
    other.execute_batch("ROLLBACK").unwrap();
    probe.await.unwrap();
    let Accepted::Fresh(_, Some(Begun::Claimed(fresh))) = fresh.await.unwrap() else { panic!("not claimed") };
    let Finished::Settled(deferred) = deferred.await.unwrap() else { panic!("stale") };
    assert!(unknown.await.unwrap_err().0.contains("no command"));
    assert!(matches!(again.await.unwrap(), Finished::Stale), "it was ended in the same batch");
    assert_eq!(deferred.attempts, 1, "it was ended once");
    assert_eq!(world.command(&claimed).await, deferred);
    assert_eq!(world.command(&fresh).await, fresh);
    let done = world.settle(&fresh, applied()).await;
    assert_eq!((done.attempts, done.event.unwrap().sequence), (1, 1));
}

#[tokio::test]
async fn what_another_program_has_changed_while_it_kept_the_file_is_seen() {
    let world = World::new(SqliteHarness::new().await);
    let lost = world.claimed(wish(1, "lost")).await;
    let other = Connection::open(world.harness.path()).unwrap();
    other.execute_batch("BEGIN IMMEDIATE; UPDATE commands SET epoch = 7").unwrap();
    // For longer than the writer waits for it.
    world.store().probe().await.unwrap_err();
    other.execute_batch("COMMIT").unwrap();
    assert!(matches!(world.finish(&lost, applied()).await, Finished::Stale));
}
