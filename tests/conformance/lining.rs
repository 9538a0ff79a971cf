//! The line of a connection: order of arrival, whoever asks first.

use chrono::TimeDelta;
use guest_connection_adapter::domain::lifecycle::{Acceptance, LINE_WAIT};
use guest_connection_adapter::domain::record::State;
use guest_connection_adapter::service::ports::{Accepted, Begun};

use super::world::*;

pub async fn a_command_is_begun_after_those_that_arrived_before<H: Harness>(world: World<H>) {
    let first = world.fresh(wish(1, "first")).await;
    let second = world.fresh(wish(1, "second").unarchive()).await;
    // A claim that is asked for with the acceptance waits as well, until it is woken.
    let third = world.waiting(wish(1, "third")).await;
    assert_eq!(third.due_time, Some(world.now() + LINE_WAIT));
    assert!(matches!(world.begin(&second).await, Begun::Waiting(_)));
    world.claimed(wish(2, "elsewhere")).await;

    let first = world.claim(&first).await;
    world.settle(&first, applied()).await;
    assert_eq!(world.command(&second).await.due_time, Some(world.now()), "woken, as the first in line");
    assert_eq!(world.command(&third).await.due_time, third.due_time, "not its turn");
    assert!(matches!(world.begin(&third).await, Begun::Waiting(_)));
    let second = world.claim(&second).await;
    world.settle(&second, applied()).await;
    assert_eq!(world.command(&third).await.due_time, Some(world.now()));
    let third = world.claim(&third).await;
    assert_eq!(world.settle(&third, applied()).await.state, State::Succeeded, "not superseded");
}

pub async fn what_nobody_sets_to_work_is_due_when_it_is_the_first_in_line<H: Harness>(world: World<H>) {
    let leave = |wish: Wish| Acceptance { is_owned: false, ..wish.acceptance() };
    let mut records = Vec::new();
    for key in ["a", "b", "c"] {
        let accepted = world.store().accept(leave(wish(1, key)), None).await.unwrap();
        let Accepted::Fresh(record, None) = accepted else { panic!("not new: {accepted:?}") };
        records.push(record);
    }
    assert_eq!(records[0].due_time, Some(world.now()));
    for record in &records {
        let due = world.store().due(<_>::default(), 10).await.unwrap();
        assert_eq!(due.iter().map(|due| due.id).collect::<Vec<_>>(), [record.id], "one at a time, in order");
        assert!(due[0].in_line);
        let claimed = world.claim(record).await;
        world.settle(&claimed, applied()).await;
    }
    assert_eq!(world.store().due(<_>::default(), 10).await.unwrap(), []);
}

pub async fn after_a_crash_the_first_of_each_line_is_due<H: Harness>(mut world: World<H>) {
    let first = world.fresh(wish(1, "first")).await;
    let second = world.fresh(wish(1, "second")).await;
    let other = world.fresh(wish(2, "other")).await;
    world.harness.reopen().await;
    let due = world.store().due(<_>::default(), 10).await.unwrap();
    // Where nobody knows of the crash all have become due by themselves.
    let of_second = (second.due_time <= Some(world.now())).then_some(second.id);
    let expected: Vec<_> = [Some(first.id), of_second, Some(other.id)].into_iter().flatten().collect();
    assert_eq!(due.iter().map(|due| due.id).collect::<Vec<_>>(), expected);
    let first = world.claim(&first).await;
    world.settle(&first, applied()).await;
    let line = world.store().line(second.command.connection, 10).await.unwrap();
    assert_eq!(line.iter().map(|due| due.id).collect::<Vec<_>>(), [second.id], "for whoever fills the lane");
}

pub async fn what_the_upstream_deferred_has_left_the_line<H: Harness>(world: World<H>) {
    world.done(wish(1, "first"), unreachable()).await;
    let second = world.claimed(wish(1, "second")).await;
    world.settle(&second, applied()).await;
}

pub async fn a_command_of_unknown_fate_goes_before_those_ahead_of_it<H: Harness>(world: World<H>) {
    let first = world.fresh(wish(1, "first")).await;
    assert!(matches!(world.begin(&first).await, Begun::Claimed(_)));
    world.advance(TERMS.lease);
    // Its claim was lost; a later one came meanwhile. Only the first may be begun.
    let second = world.waiting(wish(1, "second")).await;
    let first = world.claim(&first).await;
    let first = world.settle(&first, broken()).await;
    assert!(matches!(world.begin(&second).await, Begun::Waiting(_)));
    // Deferred and of unknown fate: it does not wait for the second, which waits for it.
    world.advance(TimeDelta::minutes(5));
    let first = world.claim(&first).await;
    world.settle(&first, applied()).await;
}

pub async fn the_line_lists_what_is_not_begun_in_order_of_arrival<H: Harness>(world: World<H>) {
    let records = [
        world.fresh(wish(1, "a")).await,
        world.fresh(wish(1, "b")).await,
        world.fresh(wish(1, "c")).await,
        world.fresh(wish(2, "elsewhere")).await,
    ];
    let connection = records[0].command.connection;
    let line = |limit| {
        let store = world.store();
        async move {
            let line = store.line(connection, limit).await.unwrap();
            line.iter().map(|due| (due.id, due.waiting)).collect::<Vec<_>>()
        }
    };
    let expected = [(records[0].id, false), (records[1].id, false), (records[2].id, false)];
    assert_eq!(line(10).await, expected);
    assert_eq!(line(2).await, expected[..2]);
    assert!(matches!(world.begin(&records[1]).await, Begun::Waiting(_)));
    world.claim(&records[0]).await;
    assert_eq!(line(10).await, [(records[1].id, true), (records[2].id, false)]);
}
