//! Pauses in the file: an older one is brought up to date, and many commands are put off in steps.

use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use guest_connection_adapter::domain::access::AskedBy;
use guest_connection_adapter::domain::command::{IdempotencyKey, OrganizationId};
use guest_connection_adapter::domain::record::State;
use guest_connection_adapter::service::ports::{BULK_LENGTH_MAX, Begun, Store as _};
use rusqlite::Connection;
use uuid::Uuid;

use super::{SqliteHarness, close_to_others, open};
use crate::conformance::world::{ManualClock, World, applied, unreachable, wish};

const REQUESTER: OrganizationId = OrganizationId(Uuid::from_u128(1));

/// As the version before pauses left it.
#[tokio::test]
async fn a_file_without_pauses_is_brought_up_to_date() {
    let folder = harness::private_folder();
    let path = folder.path().join("store.db");
    let clock = ManualClock::new();
    let database = Connection::open(&path).unwrap();
    for step in [
        include_str!("../../src/store/migrations/sqlite/0001_commands.sql"),
        include_str!("../../src/store/migrations/sqlite/0002_line.sql"),
        "INSERT INTO connections (number, target, guest) VALUES (1, zeroblob(16), zeroblob(16));
         INSERT INTO commands (id, requester, key, connection, archived, door, state, generation, epoch, attempts,
             maybe_applied, blocking, waiting, effective_time, accepted_time, due_time, finished_time)
         VALUES (randomblob(16), x'00000000000000000000000000000001', 'deferred', 1, 1, 'amqp', 'deferred', 1, 1, 1,
                 0, 0, 0, 5, 5, 1767323000000000, NULL),
             (randomblob(16), x'00000000000000000000000000000001', 'ended', 1, 1, 'amqp', 'succeeded', 1, 1, 1,
                 0, 0, 0, 4, 4, NULL, 9);
         UPDATE totals SET registered = 2;
         PRAGMA application_id = 0x67636164;
         PRAGMA user_version = 2;",
    ] {
        database.execute_batch(step).unwrap();
    }
    drop(database);
    close_to_others(&path);

    let store = open(path, &clock).unwrap();
    let found = |key| store.command_by_key(REQUESTER, IdempotencyKey::parse(key).unwrap());
    let (deferred, ended) = (found("deferred").await.unwrap(), found("ended").await.unwrap());
    for record in [deferred.as_ref().unwrap(), ended.as_ref().unwrap()] {
        assert_eq!((record.paused_since, record.paused), (None, TimeDelta::zero()));
        assert_eq!(record.asked_by, AskedBy::default(), "nobody had noted who asked");
    }
    let deferred = deferred.unwrap();
    assert_eq!(store.put_off_due(Some(REQUESTER), Duration::from_secs(5)).await.unwrap(), 1);
    assert_eq!(found("deferred").await.unwrap().unwrap().paused_since, deferred.due_time);
    assert_eq!(store.resume(None).await.unwrap(), 1);
    let begun = store.begin(deferred.id, Uuid::now_v7(), false).await.unwrap();
    assert!(matches!(begun, Begun::Claimed(record) if record.paused > TimeDelta::zero()));
}

#[tokio::test]
async fn many_are_put_off_and_resumed_step_by_step() {
    let world = World::new(SqliteHarness::new().await);
    world.done(wish(1, "deferred"), unreachable()).await;
    world.done(wish(2, "ended"), applied()).await;
    world.store().close().await.unwrap();
    let (path, clock) = (world.harness.path(), Arc::clone(&world.harness.clock));
    let columns =
        "requester, connection, archived, door, state, generation, epoch, attempts, maybe_applied, blocking,
         waiting, in_line, effective_time, accepted_time, due_time, finished_time, outcome";
    let copies = format!(
        "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {BULK_LENGTH_MAX})
         INSERT INTO commands (id, key, {columns})
         SELECT randomblob(16), key || i, {columns} FROM n JOIN commands WHERE key = 'deferred';
         UPDATE totals SET registered = (SELECT count(*) FROM commands);"
    );
    Connection::open(&path).unwrap().execute_batch(&copies).unwrap();
    let store = open(path, &clock).unwrap();
    world.advance(TimeDelta::minutes(1));
    let delay = Duration::from_secs(60);
    assert_eq!(store.put_off_due(Some(REQUESTER), delay).await.unwrap(), BULK_LENGTH_MAX);
    assert_eq!(store.put_off_due(Some(REQUESTER), delay).await.unwrap(), 1);
    assert_eq!(store.put_off_due(None, delay).await.unwrap(), 0);
    assert_eq!(store.due(<_>::default(), 1).await.unwrap(), []);
    assert_eq!(store.resume(None).await.unwrap(), BULK_LENGTH_MAX);
    assert_eq!(store.resume(Some(REQUESTER)).await.unwrap(), 1);
    assert_eq!(store.resume(Some(REQUESTER)).await.unwrap(), 0);
    let books = store.books().await.unwrap();
    let deferred = State::ALL.iter().position(|state| *state == State::Deferred).unwrap();
    assert_eq!(books.by_state[deferred], BULK_LENGTH_MAX + 1);
}
