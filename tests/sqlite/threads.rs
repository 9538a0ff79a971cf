//! Threads: group commit, order of calls, faults in the middle of work.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::future::join_all;
use guest_connection_adapter::domain::Timestamp;
use guest_connection_adapter::service::ports::{Accepted, Begun, Clock, Finished, Store};
use guest_connection_adapter::store::sqlite::{Settings, SqliteStore};
use rusqlite::Connection;
use uuid::Uuid;

use super::SqliteHarness;
use crate::conformance::world::{Harness as _, ManualClock, RETENTION, TERMS, World, applied, wish};
use guest_connection_adapter::domain::lifecycle::Finish;

/// A clock that breaks when it is told to.
struct BrittleClock {
    clock: Arc<ManualClock>,
    broken: AtomicBool,
}

impl Clock for BrittleClock {
    fn now(&self) -> Timestamp {
        assert!(!self.broken.load(Ordering::SeqCst), "the clock is broken");
        self.clock.now()
    }
}

#[tokio::test]
async fn a_panic_in_an_operation_is_an_error_and_the_writer_goes_on() {
    let folder = harness::private_folder();
    let clock = Arc::new(BrittleClock { clock: ManualClock::new(), broken: AtomicBool::new(false) });
    let settings = Settings::new(folder.path().join("store.db"));
    let store = SqliteStore::open(settings, TERMS, RETENTION, Arc::clone(&clock) as _).unwrap();
    clock.broken.store(true, Ordering::SeqCst);
    let error = store.accept(wish(1, "k").acceptance(), None).await.unwrap_err();
    assert!(error.to_string().contains("the clock is broken"), "{error}");
    store.due(<_>::default(), 1).await.unwrap_err();
    clock.broken.store(false, Ordering::SeqCst);
    store.accept(wish(1, "k").acceptance(), None).await.unwrap();
    assert_eq!(store.due(<_>::default(), 1).await.unwrap(), []);
    assert_eq!(store.books().await.unwrap().registered, 1);
}

#[tokio::test]
async fn calls_take_effect_in_their_order_and_need_no_polling() {
    let harness = SqliteHarness::new().await;
    let store = harness.store();
    let acceptances: Vec<_> =
        (0..300).map(|number| wish(number, &format!("k-{number}")).acceptance()).collect();
    let ids: Vec<_> = acceptances.iter().map(|acceptance| acceptance.id).collect();
    // Every third caller goes away at once; the others are polled from the last to the first.
    let mut calls = Vec::new();
    for (number, acceptance) in acceptances.into_iter().enumerate() {
        let call = store.accept(acceptance, None);
        if number % 3 > 0 {
            calls.push(call);
        }
    }
    calls.reverse();
    for call in calls {
        call.await.unwrap();
    }
    let mut last = 0;
    for id in ids {
        let record = store.command(id).await.unwrap().expect("a dropped call cancels nothing");
        assert!(record.arrival > last);
        last = record.arrival;
    }
}

#[tokio::test]
async fn concurrent_calls_share_commits_and_one_error_stays_alone() {
    let harness = SqliteHarness::new().await;
    let store = harness.store();
    let other = Connection::open(harness.path()).unwrap();
    // Another program holds the write lock until everything is queued, so that the batch is a large one.
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let before = data_version(&other);
    let calls: Vec<_> =
        (0..200).map(|n| store.accept(wish(n, &format!("k-{n}")).acceptance(), None)).collect();
    let unknown = store.begin(wish(1, "-").acceptance().id, Uuid::now_v7(), true);
    let more: Vec<_> =
        (200..400).map(|n| store.accept(wish(n, &format!("k-{n}")).acceptance(), None)).collect();
    other.execute_batch("ROLLBACK").unwrap();
    for answer in join_all(calls.into_iter().chain(more)).await {
        assert!(matches!(answer, Ok(Accepted::Fresh(_, None))), "{answer:?}");
    }
    assert!(unknown.await.unwrap_err().to_string().contains("no command"));
    assert_eq!(store.books().await.unwrap().registered, 400);
    assert!(data_version(&other) > before);
    // One frame of the log in each commit says so: the second header word that is not null.
    let commits = commits_in_log(&harness.path().with_file_name("store.db-wal"));
    assert!(commits < 40, "{commits} commits for 400 operations");
}

fn data_version(connection: &Connection) -> i64 {
    connection.query_row("PRAGMA data_version", [], |row| row.get(0)).unwrap()
}

/// Commit frames in a write-ahead log (<https://sqlite.org/fileformat2.html#the_write_ahead_log>).
fn commits_in_log(path: &std::path::Path) -> usize {
    let log = std::fs::read(path).unwrap();
    log[32..].chunks(24 + 4096).filter(|frame| frame[4..8] != [0; 4]).count()
}

#[tokio::test]
async fn a_full_queue_is_refused_at_once() {
    let folder = harness::private_folder();
    let path = folder.path().join("store.db");
    let settings = Settings { queue_length_max: 4, ..Settings::new(path.clone()) };
    let store = SqliteStore::open(settings, TERMS, RETENTION, ManualClock::new()).unwrap();
    let other = Connection::open(path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let calls: Vec<_> =
        (0..50).map(|n| store.accept(wish(n, &format!("k-{n}")).acceptance(), None)).collect();
    other.execute_batch("ROLLBACK").unwrap();
    let answers = join_all(calls).await;
    let refused = answers.iter().filter(|answer| answer.is_err()).count();
    let full = answers.iter().filter_map(|answer| answer.as_ref().err());
    assert!(
        full.clone().count() > 0 && full.clone().all(|error| error.0.contains("too many")),
        "{answers:?}"
    );
    let registered = store.books().await.unwrap().registered;
    assert_eq!(registered, 50 - refused as u64);
}

#[tokio::test]
async fn a_store_that_takes_no_data_says_so_and_recovers() {
    let world = World::new(SqliteHarness::new().await);
    let claimed = world.claimed(wish(1, "k")).await;
    let store = world.store();
    // A trigger stands for a disk that is full: the second statement of the transaction fails.
    let other = Connection::open(world.harness.path()).unwrap();
    other
        .execute_batch(
            "CREATE TRIGGER full BEFORE INSERT ON outbox BEGIN SELECT RAISE(ROLLBACK, 'no room'); END;
             CREATE TRIGGER full_probe BEFORE UPDATE ON totals BEGIN SELECT RAISE(ROLLBACK, 'no room'); END;",
        )
        .unwrap();
    let finish = Finish { id: claimed.id, epoch: claimed.epoch, ..applied() };
    let (accepted, finished) =
        tokio::join!(store.accept(wish(2, "k-2").acceptance(), None), store.finish(finish.clone()));
    assert!(finished.unwrap_err().0.contains("no room"));
    accepted.unwrap_err();
    store.probe().await.unwrap_err();
    assert_eq!(store.command(claimed.id).await.unwrap(), Some(claimed.clone()), "all or nothing");
    other.execute_batch("DROP TRIGGER full; DROP TRIGGER full_probe").unwrap();
    store.probe().await.unwrap();
    assert!(matches!(store.finish(finish).await.unwrap(), Finished::Settled(_)));
    world.check_books().await;
}

#[tokio::test]
async fn an_operation_that_fails_half_way_leaves_nothing_behind() {
    let world = World::new(SqliteHarness::new().await);
    let old = world.now() - chrono::TimeDelta::minutes(1);
    world.done(wish(1, "newer"), applied()).await;
    let claimed = world.claimed(wish(2, "claimed")).await;
    let store = world.store();
    let other = Connection::open(world.harness.path()).unwrap();
    other
        .execute_batch(
            "CREATE TRIGGER no_outbox BEFORE INSERT ON outbox BEGIN SELECT RAISE(ABORT, 'no outbox'); END",
        )
        .unwrap();
    // Both fail at their message, after their rows are written; the one between them shares their commit.
    let superseded = wish(1, "old").issued(old).by_amqp().reply_to("r").acceptance();
    let superseded_id = superseded.id;
    let finish = Finish { id: claimed.id, epoch: claimed.epoch, ..applied() };
    let (superseded, accepted, finished) = tokio::join!(
        store.accept(superseded, Some(Uuid::now_v7())),
        store.accept(wish(3, "fine").acceptance(), None),
        store.finish(finish.clone())
    );
    assert!(superseded.unwrap_err().0.contains("no outbox"));
    assert!(finished.unwrap_err().0.contains("no outbox"));
    accepted.unwrap();
    assert_eq!(store.command(superseded_id).await.unwrap(), None);
    assert_eq!(world.command(&claimed).await, claimed);
    assert_eq!(world.check_books().await.registered, 3);
    other.execute_batch("DROP TRIGGER no_outbox").unwrap();
    let Finished::Settled(done) = store.finish(finish).await.unwrap() else { panic!("stale") };
    assert_eq!(done.event.unwrap().sequence, 1, "the connection was left alone too");
}

#[tokio::test]
async fn many_callers_and_a_growing_log_lose_nothing() {
    let harness = SqliteHarness::new().await;
    let store = harness.store();
    let callers = (0..32_u128).map(|caller| {
        let store = Arc::clone(&store);
        tokio::spawn(async move {
            for round in 0..60 {
                let wish = wish(caller, &format!("{caller}-{round}"));
                let answer = store.accept(wish.acceptance(), Some(Uuid::now_v7())).await.unwrap();
                let Accepted::Fresh(_, Some(Begun::Claimed(record))) = answer else { panic!("{answer:?}") };
                let finish = Finish { id: record.id, epoch: record.epoch, ..applied() };
                assert!(matches!(store.finish(finish).await.unwrap(), Finished::Settled(_)));
            }
        })
    });
    for caller in join_all(callers).await {
        caller.unwrap();
    }
    let books = store.books().await.unwrap();
    assert_eq!((books.registered, books.outbox_written), (32 * 60, 32 * 60));
}

#[tokio::test]
async fn a_count_does_not_hold_up_the_end() {
    let harness = SqliteHarness::new().await;
    let store = harness.store();
    store.accept(wish(1, "k").acceptance(), None).await.unwrap();
    let other = Connection::open(harness.path()).unwrap();
    // To count them takes far longer than the pause between two words that it is to end.
    other
        .execute_batch(
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 200000)
             INSERT INTO outbox (command, message) SELECT 1, '' FROM numbers",
        )
        .unwrap();
    drop(other);
    let counts: Vec<_> = (0..200).map(|_| store.books()).collect();
    store.close().await.unwrap();
    let counted = join_all(counts).await;
    let failures: Vec<_> =
        counted.iter().map(|count| count.as_ref().err().map(ToString::to_string)).collect();
    let last = failures.last().unwrap().as_deref().expect("it is not waited for");
    assert!(last.contains("closed"), "{last}");
    let is_known = |text: &String| text.contains("closed") || text.contains("interrupted");
    assert!(failures.iter().flatten().all(is_known), "{failures:?}");
}

#[tokio::test]
async fn a_command_can_be_begun_before_the_end_of_the_one_before_it_is_answered() {
    let world = World::new(SqliteHarness::new().await);
    let first = world.claimed(wish(1, "first")).await;
    let store = world.store();
    let second = wish(1, "second").acceptance();
    let accepted = store.accept(second.clone(), None).await.unwrap();
    assert!(matches!(accepted, Accepted::Fresh(_, None)), "{accepted:?}");
    let blocked = store.begin(second.id, Uuid::now_v7(), true).await.unwrap();
    assert!(matches!(blocked, Begun::Waiting(_)), "{blocked:?}");
    let finish = Finish { id: first.id, epoch: first.epoch, ..applied() };
    let finishing = store.finish_followed(&finish).expect("what is asked for later is done later");
    let begun = store.begin(second.id, Uuid::now_v7(), true);
    let begun = begun.await.unwrap();
    assert!(matches!(begun, Begun::Claimed(_)), "{begun:?}");
    assert!(matches!(finishing.await.unwrap(), Finished::Settled(_)));
}
