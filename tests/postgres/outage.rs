//! The server goes away, comes back, or takes no writes: nothing is lost, nothing half done, and nobody has to start anew.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use guest_connection_adapter::domain::command::OrganizationId;
use guest_connection_adapter::domain::connection::Connection;
use guest_connection_adapter::domain::record::State;
use guest_connection_adapter::service::ports::{Accepted, Begun, Store};
use guest_connection_adapter::store::postgres::PostgresStore;
use harness::proxy::{Direction, FaultProxy};
use harness::{DEADLINE, look_again};
use tokio::time::timeout;
use uuid::Uuid;

use super::{PostgresHarness, settings_at};
use crate::conformance::world::{RETENTION, TERMS, World, applied, count, wish};

/// Waits until the store takes data again: both who changes commands and who keeps house, on connections of their own.
async fn takes_data(store: &Arc<dyn Store>) {
    let nobody = OrganizationId(Uuid::max());
    let connection = Connection { target: nobody, guest: nobody };
    let taking = async {
        while store.probe().await.is_err() || store.begin_heal(connection).await.is_err() {
            look_again().await;
        }
    };
    timeout(DEADLINE, taking).await.expect("it takes data again");
}

#[tokio::test]
async fn connections_that_are_cut_lose_nothing_and_leave_nothing_half_done() {
    const ROUNDS: usize = 5;
    const COMMANDS: usize = 40;
    let world = World::new(PostgresHarness::new().await);
    let store = world.store();
    for round in 0..ROUNDS {
        let cutting = world.harness.database.cut();
        let commands = (0..COMMANDS).map(|number| {
            let guest = u128::try_from(number % 8).unwrap();
            let request = wish(guest, &format!("key-{round}-{number}")).acceptance();
            store.accept(request, None)
        });
        let (ended, ()) = tokio::join!(join_all(commands), cutting);
        takes_data(&store).await;
        // What was told is true; what was not told may be either, and a repeat finds out.
        for (number, accepted) in ended.into_iter().enumerate() {
            let guest = u128::try_from(number % 8).unwrap();
            let request = wish(guest, &format!("key-{round}-{number}")).acceptance();
            let (again, is_told) = (store.accept(request, None).await.unwrap(), accepted.is_ok());
            match again {
                Accepted::InProgress(_) => {}
                Accepted::Fresh(..) => assert!(!is_told, "an accepted command is lost"),
                other => panic!("{other:?}"),
            }
        }
        world.check_books().await;
    }
    assert_eq!(world.check_books().await.registered, u64::try_from(ROUNDS * COMMANDS).unwrap());
}

#[tokio::test]
async fn a_claim_that_was_cut_off_is_ended_once() {
    let world = World::new(PostgresHarness::new().await);
    let record = world.claimed(wish(1, "k")).await;
    let finish = guest_connection_adapter::domain::lifecycle::Finish {
        id: record.id,
        epoch: record.epoch,
        ..applied()
    };
    let store = world.store();
    let (first, ()) = tokio::join!(store.finish(finish.clone()), world.harness.database.cut());
    takes_data(&store).await;
    let second = store.finish(finish).await.expect("it is answered");
    let record = world.command(&record).await;
    assert_eq!(record.state, State::Succeeded, "{first:?} {second:?}");
    assert_eq!(world.events().await.len(), 1, "{first:?} {second:?}");
    world.check_books().await;
}

#[tokio::test]
async fn a_primary_that_turns_read_only_is_left_and_found_again() {
    let world = World::new(PostgresHarness::new().await);
    let store = world.store();
    world.claimed(wish(1, "before")).await;
    world.harness.database.read_only(true).await;
    let refused = async {
        while store.probe().await.is_ok() {
            look_again().await;
        }
    };
    timeout(DEADLINE, refused).await.expect("it takes no data");
    assert!(store.accept(wish(2, "meanwhile").acceptance(), None).await.is_err());
    world.harness.database.read_only(false).await;
    takes_data(&store).await;
    world.claimed(wish(2, "meanwhile")).await;
    assert_eq!(count(&world.check_books().await, State::InFlight), 2);
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_given_up_and_work_goes_on() {
    let world = World::new(PostgresHarness::new().await);
    let database = &world.harness.database;
    world.harness.postgres().close().await.unwrap();
    let quick = settings_at(database.url(), Duration::from_millis(500));
    let clock = Arc::clone(&world.harness.clock) as _;
    let store: Arc<dyn Store> = Arc::new(PostgresStore::open(quick, TERMS, RETENTION, clock).await.unwrap());
    let Accepted::Fresh(record, _) = store.accept(wish(1, "k").acceptance(), None).await.unwrap() else {
        panic!("not new")
    };
    // Somebody else holds the connection's row.
    let other = database.connect().await;
    other.batch_execute("BEGIN; SELECT 1 FROM connections FOR UPDATE").await.unwrap();
    let error = store.begin(record.id, Uuid::now_v7(), true).await.expect_err("it is locked");
    assert!(error.to_string().contains("timeout"), "{error}");
    other.batch_execute("ROLLBACK").await.unwrap();
    let begun = store.begin(record.id, Uuid::now_v7(), true).await.unwrap();
    assert!(matches!(begun, Begun::Claimed(_)), "{begun:?}");
}

#[tokio::test]
async fn a_server_that_says_nothing_is_given_up_and_its_locks_are_had_again() {
    let world = World::new(PostgresHarness::new().await);
    let database = &world.harness.database;
    world.harness.postgres().close().await.unwrap();
    let proxy = FaultProxy::start(database.address());
    let quick = settings_at(&database.url_at(proxy.address()), Duration::from_millis(300));
    let clock = Arc::clone(&world.harness.clock) as _;
    let store: Arc<dyn Store> = Arc::new(PostgresStore::open(quick, TERMS, RETENTION, clock).await.unwrap());
    let answer = store.accept(wish(1, "k").acceptance(), None).await.unwrap();
    let Accepted::Fresh(record, _) = answer else { panic!("not new") };
    proxy.freeze(Direction::Both);
    let asked =
        async { tokio::join!(store.begin(record.id, Uuid::now_v7(), true), store.probe(), store.backlog()) };
    let (begun, probed, counted) = timeout(DEADLINE, asked).await.expect("they are answered");
    assert!(begun.is_err() && probed.is_err() && counted.is_err(), "{begun:?} {probed:?} {counted:?}");
    proxy.thaw();
    takes_data(&store).await;
    let changing = async {
        while store.begin(record.id, Uuid::now_v7(), true).await.is_err() {
            look_again().await;
        }
    };
    timeout(DEADLINE, changing).await.expect("its own session does not keep it out");
    assert_eq!(store.command(record.id).await.unwrap().unwrap().state, State::InFlight);
    store.close().await.unwrap();
}
