//! Several instances on one database: how they divide the work, and what becomes of it when one of them is gone or silent.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::{BoxFuture, join_all};
use guest_connection_adapter::domain::command::CommandId;
use guest_connection_adapter::domain::lifecycle::{Acceptance, Finish};
use guest_connection_adapter::domain::message::Message;
use guest_connection_adapter::domain::retry::Backoff;
use guest_connection_adapter::domain::seat::Seat;
use guest_connection_adapter::service::ports::{
    Accepted, Begun, DueCursor, Finished, Publication, Publisher, Store,
};
use guest_connection_adapter::service::readiness::Readiness;
use guest_connection_adapter::service::relay::{self, Relay, Share, WhenUnroutable};
use guest_connection_adapter::service::tenure::{Slots, Tenure};
use guest_connection_adapter::store::postgres::{OpenError, PostgresStore, Settings};
use harness::proxy::{Direction, FaultProxy};
use harness::{DEADLINE, Database, look_again};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{PostgresHarness, settings_at};
use crate::conformance::world::{ManualClock, RETENTION, TERMS, World, applied, wish};

const LEASE: Duration = Duration::from_secs(2);

struct Place {
    database: Database,
    clock: Arc<ManualClock>,
}

impl Place {
    async fn new() -> Self {
        Self { database: Database::create().await, clock: ManualClock::new() }
    }

    async fn instance(&self) -> Arc<PostgresStore> {
        self.instance_at(self.database.url(), LEASE).await
    }

    async fn instance_at(&self, url: &str, lease: Duration) -> Arc<PostgresStore> {
        let settings = Settings { instance_lease: Some(lease), ..settings_at(url, Duration::from_secs(10)) };
        let opened = PostgresStore::open(settings, TERMS, RETENTION, Arc::clone(&self.clock) as _);
        Arc::new(opened.await.expect("a store"))
    }
}

/// What an instance may publish at present.
fn slots(store: &Arc<PostgresStore>) -> Slots {
    store.tenure().round().slots
}

fn seat(store: &Arc<PostgresStore>) -> Seat {
    *store.tenure().seat().borrow()
}

/// Waits until it is so.
async fn when(what: &str, mut is_so: impl FnMut() -> bool) {
    let waiting = async {
        while !is_so() {
            look_again().await;
        }
    };
    timeout(DEADLINE, waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

/// Waits until these, in the order of their starts, have divided all slots.
async fn divided(stores: &[&Arc<PostgresStore>]) {
    let count = u32::try_from(stores.len()).unwrap();
    when("the slots are divided", || {
        stores.iter().zip(0..).all(|(store, index)| {
            let seat = Seat { index, count };
            slots(store) == Slots::of(seat) && self::seat(store) == seat
        })
    })
    .await;
}

/// While `waiting`, no slot is held by two.
async fn held_by_one(stores: &[&Arc<PostgresStore>], waiting: impl Future<Output = ()>) {
    let watching = async {
        loop {
            for (place, store) in stores.iter().enumerate() {
                // Both rounds are there at once, so that neither can pass to the other in between.
                let round = store.tenure().round();
                for other in &stores[place + 1..] {
                    assert_eq!(round.slots.and(slots(other)), Slots::NONE);
                }
            }
            look_again().await;
        }
    };
    tokio::select! {
        () = waiting => {}
        () = watching => {}
    }
}

#[tokio::test]
async fn slots_are_divided_and_pass_on_when_one_leaves() {
    let place = Place::new().await;
    // Long enough that nothing here happens for want of a word.
    let lease = Duration::from_secs(3_600);
    let url = place.database.url();
    let first = place.instance_at(url, lease).await;
    divided(&[&first]).await;
    let second = place.instance_at(url, lease).await;
    held_by_one(&[&first, &second], divided(&[&first, &second])).await;
    let third = place.instance_at(url, lease).await;
    held_by_one(&[&first, &second, &third], divided(&[&first, &second, &third])).await;
    first.close().await.unwrap();
    held_by_one(&[&second, &third], divided(&[&second, &third])).await;
}

#[tokio::test]
async fn one_that_is_silent_stops_before_others_begin_and_comes_back() {
    let place = Place::new().await;
    let proxy = FaultProxy::start(place.database.address());
    let far = place.instance_at(&place.database.url_at(proxy.address()), LEASE).await;
    let near = place.instance().await;
    divided(&[&far, &near]).await;
    proxy.freeze(Direction::Both);
    held_by_one(&[&far, &near], divided(&[&near])).await;
    assert_eq!(slots(&far), Slots::NONE);
    proxy.thaw();
    held_by_one(&[&far, &near], divided(&[&far, &near])).await;
}

#[tokio::test]
async fn what_a_round_is_at_work_on_passes_on_after_it() {
    let place = Place::new().await;
    let first = place.instance().await;
    divided(&[&first]).await;
    let round = first.tenure().round();
    let second = place.instance().await;
    when("they know of one another", || seat(&first).count == 2 && seat(&second).count == 2).await;
    let client = place.database.connect().await;
    let owned = "SELECT count(DISTINCT owner) FROM outbox_slots WHERE owner IS NOT NULL";
    for _ in 0..20 {
        let owners: i64 = client.query_one(owned, &[]).await.unwrap().get(0);
        assert!(owners == 1 && slots(&second) == Slots::NONE, "{:?}", slots(&second));
        look_again().await;
    }
    drop(round);
    divided(&[&first, &second]).await;
}

/// Takes everything, and keeps until when it might.
#[derive(Default)]
struct Taker(Mutex<Vec<Option<Instant>>>);

impl Publisher for Taker {
    fn publish(
        &self,
        messages: Vec<Arc<Message>>,
        until: Option<Instant>,
    ) -> BoxFuture<'_, Vec<Publication>> {
        self.0.lock().unwrap().push(until);
        Box::pin(async move { vec![Publication::Confirmed; messages.len()] })
    }
}

#[tokio::test]
async fn the_relay_publishes_for_no_longer_than_its_slots_are_held() {
    let place = Place::new().await;
    let (store, taker) = (place.instance().await, Arc::new(Taker::default()));
    let settings = relay::Settings {
        share: Share::Events,
        batch_max: 10,
        backoff: Backoff { delay_base: Duration::from_millis(10), delay_max: Duration::from_millis(50) },
        when_unroutable: WhenUnroutable::Hold,
    };
    let (publisher, part) = (Arc::clone(&taker) as Arc<dyn Publisher>, Readiness::default().part("events"));
    let relay = Relay::new(settings, Arc::clone(&store) as _, publisher, store.changes(), part);
    let stop = CancellationToken::new();
    let running = tokio::spawn(relay.run(stop.clone()));
    let accepted = store.accept(wish(1, "k").acceptance(), Some(Uuid::now_v7())).await.unwrap();
    let Accepted::Fresh(_, Some(Begun::Claimed(record))) = accepted else { panic!("{accepted:?}") };
    store.finish(Finish { id: record.id, epoch: record.epoch, ..applied() }).await.unwrap();
    when("it is published", || !taker.0.lock().unwrap().is_empty()).await;
    let until = taker.0.lock().unwrap()[0].expect("a time");
    assert!(until <= Instant::now() + LEASE, "{:?}", until - Instant::now());
    stop.cancel();
    running.await.unwrap();
}

#[tokio::test]
async fn recovery_is_divided() {
    const COUNT: u128 = 40;
    let place = Place::new().await;
    let (first, second) = (place.instance().await, place.instance().await);
    divided(&[&first, &second]).await;
    let accepted = join_all((0..COUNT).map(|guest| {
        let request = wish(guest, &format!("key-{guest}")).acceptance();
        first.accept(Acceptance { is_owned: false, ..request }, None)
    }));
    assert!(accepted.await.iter().all(Result::is_ok));
    let due = async |store: &Arc<PostgresStore>| -> HashSet<CommandId> {
        store.due(DueCursor::default(), 1_000).await.unwrap().into_iter().map(|due| due.id).collect()
    };
    let (mine, others) = (due(&first).await, due(&second).await);
    assert_eq!(mine.len() + others.len(), usize::try_from(COUNT).unwrap());
    assert!(mine.is_disjoint(&others) && mine.len() >= 10 && others.len() >= 10, "{mine:?}");
    assert!(first.due_next().await.unwrap().is_some() && second.due_next().await.unwrap().is_some());
    // What one of them may take up, only one of two that ask for it at once gets.
    for id in &mine {
        let ask = |store: &Arc<PostgresStore>| store.begin(*id, Uuid::now_v7(), false);
        let (one, other) = tokio::join!(ask(&first), ask(&second));
        let claims = [one, other].map(|begun| matches!(begun.unwrap(), Begun::Claimed(_)));
        assert!(claims[0] != claims[1], "{claims:?}");
    }
    second.close().await.unwrap();
    divided(&[&first]).await;
    assert!(due(&first).await.is_superset(&others));
}

#[tokio::test]
async fn an_end_is_told_to_the_others_and_found_by_them() {
    let place = Place::new().await;
    let (first, second) = (place.instance().await, place.instance().await);
    divided(&[&first, &second]).await;
    let accepted = first.accept(wish(1, "k").acceptance(), Some(Uuid::now_v7())).await.unwrap();
    let Accepted::Fresh(_, Some(Begun::Claimed(record))) = accepted else { panic!("{accepted:?}") };
    assert!(second.finals(vec![record.id]).await.unwrap().is_empty());
    let mut changes = second.changes();
    changes.mark_unchanged();
    let finish = Finish { id: record.id, epoch: record.epoch, ..applied() };
    assert!(matches!(first.finish(finish).await.unwrap(), Finished::Settled(_)));
    let found = async {
        loop {
            changes.changed().await.expect("the store is there");
            if let [record] = &second.finals(vec![record.id]).await.unwrap()[..] {
                return record.clone();
            }
        }
    };
    assert_eq!(timeout(DEADLINE, found).await.expect("it is told").id, record.id);
    // The slot of its event is held by one of them.
    let slots = Tenure::round(&first.tenure()).slots;
    let (mine, others) =
        tokio::join!(first.outbox(0, 10, slots), second.outbox(0, 10, Slots::ALL.without(slots)));
    assert_eq!(mine.unwrap().len() + others.unwrap().len(), 1);
}

#[tokio::test]
async fn an_event_is_not_read_while_an_earlier_one_of_its_connection_has_been_passed_over() {
    let world = World::new(PostgresHarness::new().await);
    for (guest, key) in [(1, "a"), (2, "b"), (1, "c"), (3, "d")] {
        world.done(wish(guest, key), applied()).await;
    }
    let read = async |after: i64| -> Vec<i64> {
        let rows = world.store().outbox(after, 10, Slots::ALL).await.unwrap();
        rows.iter().map(|row| row.number).collect()
    };
    let numbers = read(0).await;
    // As if the first of the connection had been written late, when those up to the second one had been read.
    assert_eq!(read(numbers[1]).await, [numbers[3]]);
    world.store().confirm(vec![numbers[0]]).await.unwrap();
    assert_eq!(read(numbers[1]).await, numbers[2..]);
}

#[tokio::test]
async fn many_that_start_at_once_migrate_once() {
    let place = Place::new().await;
    let stores = join_all((0..6).map(|_| place.instance())).await;
    let client = place.database.connect().await;
    let versions = client.query("SELECT version FROM schema_versions", &[]).await.unwrap();
    assert_eq!(versions.len(), 1);
    when("they know of one another", || stores.iter().all(|store| seat(store).count == 6)).await;
}

#[tokio::test]
async fn who_waits_for_the_migration_of_another_has_all_the_time_it_takes() {
    let place = Place::new().await;
    let client = place.database.connect().await;
    client.batch_execute("SELECT pg_advisory_lock(1734566244)").await.unwrap();
    let quick = settings_at(place.database.url(), Duration::from_millis(200));
    let opening = tokio::spawn(PostgresStore::open(quick, TERMS, RETENTION, Arc::clone(&place.clock) as _));
    // The server says that it waits for longer than its statements may take.
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event = 'advisory'
        AND clock_timestamp() - query_start > interval '600 ms'";
    let waits = async {
        while client.query_one(waiting, &[]).await.unwrap().get::<_, i64>(0) != 1 {
            assert!(!opening.is_finished(), "it waits");
            look_again().await;
        }
    };
    timeout(DEADLINE, waits).await.expect("it waits for long");
    client.batch_execute("SELECT pg_advisory_unlock(1734566244)").await.unwrap();
    opening.await.unwrap().expect("a store");
}

#[tokio::test]
async fn one_that_retires_leaves_its_part_to_the_others_and_can_still_be_written_by() {
    let place = Place::new().await;
    let url = place.database.url();
    let lease = Duration::from_secs(3_600);
    let (first, second) = (place.instance_at(url, lease).await, place.instance_at(url, lease).await);
    divided(&[&first, &second]).await;
    let accepted = first.accept(wish(1, "k").acceptance(), None).await.unwrap();
    let Accepted::Fresh(record, None) = accepted else { panic!("{accepted:?}") };
    first.retire();
    held_by_one(&[&first, &second], divided(&[&second])).await;
    assert_eq!(slots(&first), Slots::NONE);
    // What it was to begin is due for others as soon as it says so.
    let due = async || second.due(DueCursor::default(), 10).await.unwrap().len();
    assert_eq!(due().await, 0);
    first.release(vec![record.id]).await.unwrap();
    assert_eq!(due().await, 1);
    assert!(first.accept(wish(2, "l").acceptance(), None).await.is_ok());
    first.close().await.unwrap();
    // Who is alone keeps all until it closes.
    second.retire();
    assert_eq!(slots(&second), Slots::ALL);
}

#[tokio::test]
async fn a_program_works_with_the_schema_of_the_next_and_not_with_one_that_needs_more() {
    let place = Place::new().await;
    let first = place.instance().await;
    let client = place.database.connect().await;
    // The next version adds a column and a table; those of this one go on, and come and go, beside it.
    let next = "ALTER TABLE commands ADD COLUMN novelty TEXT; CREATE TABLE novelties (number BIGINT);
        INSERT INTO schema_versions (version, needs) VALUES (2, 1)";
    client.batch_execute(next).await.unwrap();
    let second = place.instance().await;
    divided(&[&first, &second]).await;
    for (store, key) in [(&first, "a"), (&second, "b")] {
        let claim = Some(Uuid::now_v7());
        assert!(store.accept(wish(1, key).acceptance(), claim).await.is_ok());
    }
    client.batch_execute("INSERT INTO schema_versions (version, needs) VALUES (3, 2)").await.unwrap();
    let settings = settings_at(place.database.url(), Duration::from_secs(10));
    let opened = PostgresStore::open(settings, TERMS, RETENTION, Arc::clone(&place.clock) as _).await;
    let error = opened.err().expect("it is refused");
    assert!(matches!(error, OpenError::TooNew { found: 3, needs: 2, known: 1 }), "{error}");
}
