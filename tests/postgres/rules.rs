//! What the database itself does not let happen, and what it cannot write down as it is.

use guest_connection_adapter::domain::lifecycle::Acceptance;
use guest_connection_adapter::service::ports::Accepted;

use super::PostgresHarness;
use crate::conformance::world::{World, wish};

#[tokio::test]
async fn two_claims_on_a_connection_cannot_be_stored_and_an_epoch_cannot_fall() {
    let world = World::new(PostgresHarness::new().await);
    let first = world.claimed(wish(1, "first")).await;
    let second = world.waiting(wish(1, "second")).await;
    let client = world.harness.database.connect().await;
    let error = client
        .execute("UPDATE commands SET state = 'in_flight', waiting = false WHERE id = $1", &[&second.id.0])
        .await
        .expect_err("there is one in flight");
    assert_eq!(error.as_db_error().unwrap().constraint(), Some("commands_in_flight"));
    let error = client
        .execute("UPDATE commands SET epoch = epoch - 1 WHERE id = $1", &[&first.id.0])
        .await
        .expect_err("it is fenced");
    assert!(error.as_db_error().unwrap().message().contains("epoch"), "{error}");
}

#[tokio::test]
async fn a_text_with_a_nul_harms_neither_its_command_nor_others() {
    let world = World::new(PostgresHarness::new().await);
    let store = world.store();
    let odd = Acceptance { correlation_id: Some("a\0b".to_owned()), ..wish(1, "odd").acceptance() };
    let (odd, even) = tokio::join!(store.accept(odd, None), store.accept(wish(2, "even").acceptance(), None));
    let Accepted::Fresh(odd, None) = odd.unwrap() else { panic!("not new") };
    assert!(matches!(even.unwrap(), Accepted::Fresh(_, None)));
    assert_eq!(world.command(&odd).await.correlation_id.as_deref(), Some("a\u{fffd}b"));
}

#[tokio::test]
async fn changes_of_one_connection_are_made_in_the_order_of_calls() {
    const COUNT: usize = 100;
    let world = World::new(PostgresHarness::new().await);
    let store = world.store();
    let asked = (0..COUNT).map(|number| store.accept(wish(1, &format!("key-{number}")).acceptance(), None));
    let mut arrivals = Vec::new();
    for accepted in futures::future::join_all(asked).await {
        let Accepted::Fresh(record, None) = accepted.unwrap() else { panic!("not new") };
        arrivals.push(record.arrival);
    }
    assert!(arrivals.is_sorted(), "{arrivals:?}");
    world.check_books().await;
}

#[tokio::test]
async fn the_same_key_at_once_is_one_command() {
    let world = World::new(PostgresHarness::new().await);
    let store = world.store();
    let asked = (0..20).map(|guest| store.accept(wish(guest, "one-key").acceptance(), None));
    let answers = futures::future::join_all(asked).await;
    let fresh = answers.iter().filter(|answer| matches!(answer, Ok(Accepted::Fresh(..)))).count();
    let conflicts = answers.iter().filter(|answer| matches!(answer, Ok(Accepted::Conflict))).count();
    assert_eq!((fresh, conflicts), (1, 19));
}
