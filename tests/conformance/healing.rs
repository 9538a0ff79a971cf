//! Suspect connections: the newest applied value is sent again, and nothing else moves (rule 7).

use std::time::Duration;

use chrono::TimeDelta;
use guest_connection_adapter::domain::connection::Connection;
use guest_connection_adapter::domain::heal::{Finish, Heal, Healed};
use guest_connection_adapter::domain::record::CommandRecord;
use guest_connection_adapter::service::ports::{Begun, Finished};

use super::world::*;

/// A connection whose first claim ended too late, after the second one had succeeded.
async fn suspect<H: Harness>(world: &World<H>) -> CommandRecord {
    let lost = world.claimed(wish(1, "k")).await;
    world.advance(TERMS.lease);
    let current = world.claim(&lost).await;
    let done = world.settle(&current, applied()).await;
    assert!(matches!(world.finish(&lost, applied()).await, Finished::Stale));
    done
}

async fn suspects<H: Harness>(world: &World<H>) -> Vec<Connection> {
    world.store().suspects(10).await.unwrap()
}

async fn claim<H: Harness>(world: &World<H>, connection: Connection) -> Heal {
    let (heal, trace) = world.store().begin_heal(connection).await.unwrap().expect("the right to heal");
    assert!(trace.traceparent.is_some(), "that of its command");
    heal
}

fn end(heal: Heal) -> Finish {
    let verdict = applied().verdict;
    Finish { heal, verdict, sent: true, unanswered_ago: None, retry_delay: Duration::from_secs(5) }
}

pub async fn a_suspect_connection_is_healed_once_and_without_an_event<H: Harness>(world: World<H>) {
    let done = suspect(&world).await;
    let connection = done.command.connection;
    assert_eq!(suspects(&world).await, [], "not before the late attempt can take no effect any more");
    assert_eq!(world.store().begin_heal(connection).await.unwrap(), None);
    world.advance(TERMS.settle);
    assert_eq!(suspects(&world).await, [connection]);
    let heal = claim(&world, connection).await;
    assert_eq!((heal.command_id, heal.archived, heal.requester), (done.id, true, done.command.requester));
    assert_eq!(suspects(&world).await, []);
    let newer = world.waiting(wish(1, "newer").unarchive()).await;
    let before = world.messages().await;
    assert_eq!(world.store().finish_heal(end(heal)).await.unwrap(), Healed::Yes);
    assert_eq!(world.messages().await, before, "nothing is told");
    assert_eq!(world.check_books().await.suspect, 0);
    assert_eq!(world.command(&newer).await.due_time, Some(world.now()), "woken");
    world.claim(&newer).await;
}

pub async fn healing_waits_for_a_command_in_flight<H: Harness>(world: World<H>) {
    let done = suspect(&world).await;
    world.advance(TERMS.settle);
    let newer = world.claimed(wish(1, "newer").unarchive()).await;
    let connection = done.command.connection;
    assert_eq!(world.store().begin_heal(connection).await.unwrap(), None);
    let newer = world.settle(&newer, applied()).await;
    world.advance(TERMS.lease + TERMS.settle);
    let heal = claim(&world, connection).await;
    assert_eq!((heal.command_id, heal.archived), (newer.id, false), "the newest value of all");
}

pub async fn healing_that_died_with_its_process_is_done_again<H: Harness>(mut world: World<H>) {
    let done = suspect(&world).await;
    world.advance(TERMS.settle);
    let connection = done.command.connection;
    let lost = claim(&world, connection).await;
    world.harness.reopen().await;
    // Its right is in force until it ends, dead or not.
    let is_due = lost.lease_end <= world.now();
    assert_eq!(suspects(&world).await, is_due.then_some(connection).into_iter().collect::<Vec<_>>());
    world.advance(lost.lease_end - world.now());
    let heal = claim(&world, connection).await;
    assert_eq!(world.store().finish_heal(end(heal)).await.unwrap(), Healed::Yes);
    // What the lost one sent may take effect for a while, so nobody else is begun.
    let newer = world.waiting(wish(1, "newer").unarchive()).await;
    assert_eq!(newer.due_time, Some(world.now() + TERMS.settle));
    assert_eq!(world.store().finish_heal(end(lost)).await.unwrap(), Healed::Stale);
    assert_eq!(world.check_books().await.suspect, 1);
    world.advance(TERMS.settle + TimeDelta::seconds(1));
    assert!(matches!(world.begin(&newer).await, Begun::Claimed(_)));
}
