//! The line of a connection: order of arrival, whoever asks first.

use chrono::TimeDelta;
use guest_connection_adapter::domain::record::State;
use guest_connection_adapter::service::ports::Begun;

use super::world::*;

pub async fn a_command_is_begun_after_those_that_arrived_before<H: Harness>(world: World<H>) {
    let first = world.fresh(wish(1, "first")).await;
    let second = world.fresh(wish(1, "second").unarchive()).await;
    // A claim that is asked for with the acceptance waits as well.
    let third = world.waiting(wish(1, "third")).await;
    assert_eq!(third.due_time, first.due_time);
    assert!(matches!(world.begin(&second).await, Begun::Waiting(_)));
    world.claimed(wish(2, "elsewhere")).await;

    let first = world.claim(&first).await;
    world.settle(&first, applied()).await;
    let woken = world.command(&third).await;
    assert_eq!(woken.due_time, Some(world.now()), "due, and still behind the second");
    assert!(matches!(world.begin(&third).await, Begun::Waiting(_)));
    let second = world.claim(&second).await;
    world.settle(&second, applied()).await;
    let third = world.claim(&third).await;
    assert_eq!(world.settle(&third, applied()).await.state, State::Succeeded, "not superseded");
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

pub async fn the_line_lists_accepted_commands_that_nobody_asked_for<H: Harness>(world: World<H>) {
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
            line.iter().map(|due| due.id).collect::<Vec<_>>()
        }
    };
    assert_eq!(line(10).await, [records[0].id, records[1].id, records[2].id]);
    assert_eq!(line(2).await, [records[0].id, records[1].id]);
    assert!(matches!(world.begin(&records[1]).await, Begun::Waiting(_)));
    world.claim(&records[0]).await;
    assert_eq!(line(10).await, [records[2].id]);
}

pub async fn of_a_long_line_the_first_are_woken_and_then_those_behind_them<H: Harness>(world: World<H>) {
    let mut head = world.claimed(wish(1, "head")).await;
    let mut line = Vec::new();
    for n in 0..150 {
        line.push(world.waiting(wish(1, &format!("k-{n}"))).await);
    }
    for record in &line {
        world.settle(&head, applied()).await;
        let first = world.command(record).await;
        assert_eq!(first.due_time, Some(world.now()), "{} of the line is due", record.arrival);
        head = world.claim(record).await;
    }
}
