//! A row that somebody else has locked: who wants it waits, and nobody else does.

use std::sync::Arc;

use futures::FutureExt as _;
use guest_connection_adapter::service::ports::{Accepted, Begun, Store};
use harness::DEADLINE;
use tokio::time::timeout;
use tokio_postgres::Client;
use uuid::Uuid;

use super::PostgresHarness;
use crate::conformance::world::{World, applied, wish};

/// Somebody else's transaction, which has locked what `sql` says.
async fn holder(world: &World<PostgresHarness>, sql: &str) -> Client {
    let client = world.harness.database.connect().await;
    client.batch_execute(&format!("BEGIN; {sql} FOR UPDATE")).await.expect("it is locked");
    client
}

/// Somebody wants what is held as `sql` says; others get what they want meanwhile, and it is made when it is let go.
async fn holds_up_nobody_else(sql: &str) {
    let world = World::new(PostgresHarness::new().await);
    let store: Arc<dyn Store> = world.store();
    let held = world.fresh(wish(1, "held")).await;
    let free = world.fresh(wish(2, "free")).await;
    let holder = holder(&world, sql).await;
    let mut begun = store.begin(held.id, Uuid::now_v7(), true);
    let mut repeat = store.accept(wish(1, "held").acceptance(), None);
    let others = async {
        assert!(matches!(store.begin(free.id, Uuid::now_v7(), true).await, Ok(Begun::Claimed(_))));
        for number in 3..20 {
            let wish = wish(number, &format!("new-{number}"));
            let accepted = store.accept(wish.acceptance(), Some(Uuid::now_v7())).await;
            assert!(matches!(accepted, Ok(Accepted::Fresh(_, Some(Begun::Claimed(_))))), "{accepted:?}");
        }
    };
    timeout(DEADLINE, others).await.expect("they do not wait for it");
    assert!((&mut begun).now_or_never().is_none() && (&mut repeat).now_or_never().is_none());
    holder.batch_execute("ROLLBACK").await.unwrap();
    assert!(matches!(begun.await, Ok(Begun::Claimed(_))));
    assert!(matches!(repeat.await, Ok(Accepted::InProgress(_))));
    world.check_books().await;
}

#[tokio::test]
async fn a_connection_that_is_held_holds_up_nobody_else() {
    holds_up_nobody_else(
        "SELECT 1 FROM connections WHERE number = (SELECT connection FROM commands WHERE key = 'held')",
    )
    .await;
}

#[tokio::test]
async fn a_command_that_is_held_holds_up_nobody_else() {
    holds_up_nobody_else("SELECT 1 FROM commands WHERE key = 'held'").await;
}

#[tokio::test]
async fn a_row_that_is_held_and_a_change_that_is_refused_do_not_change_the_order() {
    let world = World::new(PostgresHarness::new().await);
    let store = world.store();
    let held = world.fresh(wish(1, "held")).await;
    // The database refuses one command, so that the batch is made one by one.
    let client = world.harness.database.connect().await;
    let rule = "ALTER TABLE commands ADD CONSTRAINT no_such_key CHECK (key <> 'refused') NOT VALID";
    client.batch_execute(rule).await.unwrap();
    let holder = holder(&world, "SELECT 1 FROM connections").await;
    let begun = store.begin(held.id, Uuid::now_v7(), true);
    let refused = store.accept(wish(9, "refused").acceptance(), None);
    let later = store.accept(wish(1, "later").acceptance(), Some(Uuid::now_v7()));
    let error = timeout(DEADLINE, refused).await.expect("it does not wait").expect_err("it is refused");
    assert!(
        error.to_string().contains("no_such_key") && !error.to_string().contains("Failing row"),
        "{error}"
    );
    holder.batch_execute("ROLLBACK").await.unwrap();
    let Ok(Begun::Claimed(record)) = begun.await else { panic!("the first one comes first") };
    let Ok(Accepted::Fresh(_, Some(Begun::Waiting(_)))) = later.await else { panic!("it comes second") };
    world.settle(&record, applied()).await;
    world.check_books().await;
}

#[tokio::test]
async fn many_that_wait_for_one_connection_leave_room_for_others() {
    let world = World::new(PostgresHarness::new().await);
    let store = world.store();
    world.fresh(wish(1, "held")).await;
    let holder = holder(&world, "SELECT 1 FROM connections").await;
    // More than one batch can hold.
    let mut waiting: Vec<_> =
        (0..600).map(|number| store.accept(wish(1, &format!("key-{number}")).acceptance(), None)).collect();
    let other = store.accept(wish(2, "other").acceptance(), Some(Uuid::now_v7()));
    let accepted = timeout(DEADLINE, other).await.expect("it does not wait for them");
    assert!(matches!(accepted, Ok(Accepted::Fresh(_, Some(Begun::Claimed(_))))), "{accepted:?}");
    assert!(waiting.iter_mut().all(|accepting| accepting.now_or_never().is_none()));
    holder.batch_execute("ROLLBACK").await.unwrap();
    let mut arrivals = Vec::new();
    for accepting in waiting {
        let Ok(Accepted::Fresh(record, None)) = accepting.await else { panic!("not new") };
        arrivals.push(record.arrival);
    }
    assert!(arrivals.is_sorted());
}
