//! Claims: version, block, quiet time, lease (rules 2, 3, 5 and 6).

use std::time::Duration;

use chrono::TimeDelta;
use guest_connection_adapter::domain::command::CommandId;
use guest_connection_adapter::domain::error::Reason;
use guest_connection_adapter::domain::record::State;
use guest_connection_adapter::service::ports::{Accepted, Begun};
use uuid::Uuid;

use super::world::*;

pub async fn an_older_command_is_superseded_without_a_claim<H: Harness>(world: World<H>) {
    let old = world.now();
    world.advance(TimeDelta::seconds(1));
    world.done(wish(1, "new"), applied()).await;
    let Accepted::Fresh(_, Some(Begun::Ended(ended))) =
        world.accept_and_claim(wish(1, "old").unarchive().issued(old).by_amqp().reply_to("r")).await
    else {
        panic!("not ended")
    };
    assert_eq!((ended.state, ended.epoch, ended.attempts), (State::Superseded, 0, 0));
    assert!(ended.arrival > 0);
    assert_eq!(ended.outcome.as_ref().unwrap().refusal.as_ref().unwrap().reason, Reason::Superseded);
    assert_eq!(world.command(&ended).await, ended);
    assert_eq!(world.events().await.len(), 1, "only of the newer one");
    assert_eq!(world.letters().await, []);
    let replies = world.replies().await;
    assert_eq!((replies.len(), replies[0].command.as_ref().unwrap().id), (1, ended.id));
}

pub async fn a_deferred_command_is_superseded_by_a_newer_one<H: Harness>(world: World<H>) {
    let older = world.done(wish(1, "older"), unreachable()).await;
    world.advance(TimeDelta::seconds(1));
    world.done(wish(1, "newer").unarchive(), applied()).await;
    let Begun::Ended(ended) = world.begin(&older).await else { panic!("not ended") };
    assert_eq!((ended.state, ended.epoch), (State::Superseded, older.epoch));
    assert_eq!(world.events().await.len(), 1);
}

pub async fn a_command_in_flight_makes_others_wait<H: Harness>(world: World<H>) {
    let first = world.claimed(wish(1, "a")).await;
    let second = world.waiting(wish(1, "b")).await;
    assert_eq!((second.state, second.epoch, second.waiting), (State::Accepted, 0, true));
    // The first one may still send until its lease ends, and that may take effect for a while.
    assert_eq!(second.due_time, Some(world.now() + TERMS.lease + TERMS.settle));
    assert_eq!(world.command(&second).await, second);
    world.claimed(wish(2, "elsewhere")).await;
    world.settle(&first, applied()).await;
    world.claim(&second).await;
}

pub async fn a_maybe_applied_command_blocks_until_it_is_final<H: Harness>(world: World<H>) {
    let first = world.done(wish(1, "a"), broken()).await;
    assert_eq!((first.state, first.maybe_applied), (State::Deferred, true));
    let second = world.waiting(wish(1, "b").unarchive()).await;
    assert_eq!(second.due_time, first.due_time);
    let first = world.claim(&first).await;
    world.settle(&first, applied()).await;
    assert_eq!(world.command(&second).await.due_time, Some(world.now()), "woken");
    world.claim(&second).await;
}

pub async fn a_command_certainly_not_applied_blocks_nothing<H: Harness>(world: World<H>) {
    let first = world.done(wish(1, "a"), unreachable()).await;
    assert_eq!((first.state, first.maybe_applied), (State::Deferred, false));
    world.claimed(wish(1, "b")).await;
}

pub async fn waiting_commands_are_woken_by_the_end_of_the_claim<H: Harness>(world: World<H>) {
    for (guest, ending) in [(1, applied()), (2, rejected()), (3, refused()), (4, unreachable())] {
        let first = world.claimed(wish(guest, &format!("first-{guest}"))).await;
        let waiting = [
            world.waiting(wish(guest, &format!("second-{guest}"))).await,
            world.waiting(wish(guest, &format!("third-{guest}"))).await,
        ];
        let elsewhere = world.fresh(wish(100 + guest, &format!("elsewhere-{guest}"))).await;
        world.settle(&first, ending).await;
        let woken = world.command(&waiting[0]).await;
        assert_eq!((woken.due_time, woken.waiting), (Some(world.now()), true));
        assert!(world.command(&waiting[1]).await.due_time > Some(world.now()), "not its turn yet");
        assert_eq!(world.command(&elsewhere).await, elsewhere);
    }
}

pub async fn an_unanswered_attempt_leaves_a_quiet_time<H: Harness>(world: World<H>) {
    let first = world.claimed(wish(1, "a").by_amqp()).await;
    world.advance(TimeDelta::seconds(5));
    let first = world.settle(&first, unanswered(Duration::from_secs(5))).await;
    assert_eq!((first.state, first.maybe_applied), (State::Deferred, true));
    let quiet_until = world.now() - TimeDelta::seconds(5) + TERMS.settle;
    // The command itself may run again at once, and is refused for good; its first attempt may yet take effect.
    let first = world.claim(&first).await;
    let first = world.settle(&first, rejected()).await;
    assert_eq!(first.state, State::Rejected);
    let second = world.waiting(wish(1, "b")).await;
    assert_eq!(second.due_time, Some(quiet_until));
    world.advance(quiet_until - world.now() - TimeDelta::microseconds(1));
    assert!(matches!(world.begin(&second).await, Begun::Waiting(_)));
    world.advance(TimeDelta::microseconds(1));
    world.claim(&second).await;
}

pub async fn a_later_answer_does_not_clear_the_quiet_time_of_an_earlier_attempt<H: Harness>(world: World<H>) {
    let first = world.claimed(wish(1, "a")).await;
    let first = world.settle(&first, unanswered(Duration::ZERO)).await;
    let quiet_until = world.now() + TERMS.settle;
    world.advance(TimeDelta::seconds(10));
    let first = world.claim(&first).await;
    world.settle(&first, applied()).await;
    let second = world.waiting(wish(1, "b").unarchive()).await;
    assert_eq!(second.due_time, Some(quiet_until));
    world.advance(quiet_until - world.now());
    world.claim(&second).await;
}

pub async fn an_ended_lease_counts_as_sent<H: Harness>(world: World<H>) {
    let first = world.claimed(wish(1, "a")).await;
    let second = world.waiting(wish(1, "b")).await;
    world.advance(TERMS.lease);
    assert!(matches!(world.begin(&second).await, Begun::Waiting(_)), "only the first one may be begun");
    let again = world.claim(&first).await;
    assert_eq!((again.id, again.epoch, again.maybe_applied), (first.id, 2, true));
    let done = world.settle(&again, applied()).await;
    assert!(!done.maybe_applied);
    // What the lost claim sent may take effect until its quiet time is over.
    let lost_until = world.now() + TERMS.settle;
    let Begun::Waiting(second) = world.begin(&second).await else { panic!("does not wait") };
    assert_eq!(second.due_time, Some(lost_until));
    world.advance(TERMS.settle);
    world.claim(&second).await;
}

pub async fn a_claim_in_force_is_not_given_twice<H: Harness>(world: World<H>) {
    let first = world.claimed(wish(1, "a")).await;
    let Begun::Unavailable(same) = world.begin(&first).await else { panic!("given twice") };
    assert_eq!(same, first);
    let done = world.settle(&first, applied()).await;
    let Begun::Unavailable(same) = world.begin(&first).await else { panic!("begun after its end") };
    assert_eq!(same, done);
}

pub async fn an_expired_command_ends_unsent<H: Harness>(world: World<H>) {
    let expires = world.now() + TimeDelta::seconds(10);
    let record = world.fresh(wish(1, "k").by_amqp().expires(expires)).await;
    let maybe = world.done(wish(2, "maybe").expires(expires), broken()).await;
    world.advance(TimeDelta::seconds(10));
    let Begun::Ended(ended) = world.begin(&record).await else { panic!("not ended") };
    assert_eq!((ended.state, ended.attempts), (State::Failed, 0));
    let letters = world.letters().await;
    assert_eq!((letters.len(), letters[0].refusal.reason), (1, Reason::CommandExpired));
    // What may have been applied has been sent: it goes on.
    world.claim(&maybe).await;
}

pub async fn an_unknown_command_is_an_error<H: Harness>(world: World<H>) {
    let id = CommandId(Uuid::now_v7());
    world.store().begin(id, Uuid::now_v7(), true).await.unwrap_err();
    assert_eq!(world.store().command(id).await.unwrap(), None);
    assert_eq!(world.store().requester(id).await.unwrap(), None);
    world.fresh(wish(1, "k")).await;
}
