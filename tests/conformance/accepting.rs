//! Acceptance: new, known, conflicting; and effective times (rule 6).

use chrono::TimeDelta;
use guest_connection_adapter::domain::access::AskedBy;
use guest_connection_adapter::domain::record::{Door, State};
use guest_connection_adapter::service::ports::{Accepted, Begun, Finished};

use super::world::*;

pub async fn a_new_command_is_durable_and_due_after_its_hold<H: Harness>(world: World<H>) {
    let issued = world.now() - TimeDelta::seconds(3);
    let expires = world.now() + TimeDelta::hours(1);
    let record = world.fresh(wish(1, "k").issued(issued).expires(expires).by_amqp().reply_to("r")).await;
    assert_eq!(record.state, State::Accepted);
    assert!(record.arrival > 0);
    assert_eq!((record.generation, record.epoch, record.attempts), (1, 0, 0));
    assert_eq!(record.due_time, Some(world.now() + TERMS.hold));
    assert_eq!(record.accepted_time, world.now());
    assert_eq!((record.command.issue_time, record.command.expire_time), (Some(issued), Some(expires)));
    assert_eq!(record.replies, vec![address("r")]);
    assert_eq!(world.command(&record).await, record);
    let by_key = world.store().command_by_key(record.command.requester, record.command.key.clone()).await;
    assert_eq!(by_key.unwrap(), Some(record.clone()));
    assert_eq!(world.store().due(<_>::default(), 10).await.unwrap(), []);
    assert_eq!(world.store().due_next().await.unwrap(), record.due_time);
    world.advance(TERMS.hold);
    assert_eq!(world.store().due(<_>::default(), 10).await.unwrap()[0].id, record.id);
    assert!(world.messages().await.is_empty());
    assert_eq!(count(&world.check_books().await, State::Accepted), 1);
}

pub async fn acceptance_and_claim_are_one_call<H: Harness>(world: World<H>) {
    let Accepted::Fresh(accepted, Some(Begun::Claimed(claimed))) = world.accept_and_claim(wish(1, "k")).await
    else {
        panic!("no claim");
    };
    assert_eq!((accepted.state, claimed.state), (State::Accepted, State::InFlight));
    assert_eq!((accepted.id, accepted.arrival), (claimed.id, claimed.arrival));
    assert_eq!(claimed.epoch, 1);
    assert_eq!(claimed.due_time, Some(world.now() + TERMS.lease));
    assert_eq!(world.command(&claimed).await, claimed);
    assert_eq!(count(&world.check_books().await, State::InFlight), 1);
}

pub async fn a_final_outcome_is_replayed<H: Harness>(world: World<H>) {
    let first = world.done(wish(1, "k"), applied()).await;
    let written = world.check_books().await.outbox_written;
    let Accepted::Replayed(again) = world.accept_and_claim(wish(1, "k")).await else {
        panic!("not replayed")
    };
    assert_eq!(again, first);
    let outcome = again.outcome.expect("an outcome");
    let text = outcome.guest_connection.expect("the connection as it was sent");
    assert_eq!(text.as_str(), r#"{"archived":true,  "new_field":{"a":1.50}}"#);
    assert_eq!(world.check_books().await.outbox_written, written, "a replay publishes nothing");
}

pub async fn a_replay_answers_the_address_that_asks<H: Harness>(world: World<H>) {
    let first = world.done(wish(1, "k"), applied()).await;
    world.accept(wish(1, "k").by_amqp().reply_to("late")).await;
    let replies = world.replies().await;
    assert_eq!(replies.len(), 1);
    assert!(replies[0].replayed);
    assert_eq!(replies[0].address, address("late"));
    assert_eq!(Some(&replies[0].outcome), first.outcome.as_ref());
    assert_eq!(world.command(&first).await, first);
}

pub async fn a_rejection_and_a_supersession_are_replayed<H: Harness>(world: World<H>) {
    world.done(wish(1, "rejected"), rejected()).await;
    let Accepted::Replayed(record) = world.accept(wish(1, "rejected")).await else { panic!("not replayed") };
    assert_eq!(record.state, State::Rejected);

    let old = world.now();
    world.advance(TimeDelta::seconds(1));
    world.done(wish(1, "new"), applied()).await;
    world.accept_and_claim(wish(1, "old").issued(old)).await;
    let Accepted::Replayed(record) = world.accept(wish(1, "old")).await else { panic!("not replayed") };
    assert_eq!(record.state, State::Superseded);
}

pub async fn other_parameters_conflict_in_every_state<H: Harness>(world: World<H>) {
    let old = world.now();
    world.advance(TimeDelta::seconds(1));
    world.fresh(wish(1, "accepted")).await;
    world.claimed(wish(2, "in-flight")).await;
    world.done(wish(3, "deferred"), unreachable()).await;
    world.done(wish(4, "succeeded"), applied()).await;
    world.done(wish(5, "rejected"), rejected()).await;
    world.done(wish(6, "newer"), applied()).await;
    world.accept_and_claim(wish(6, "superseded").issued(old)).await;
    world.done(wish(7, "failed"), refused()).await;
    let abandoned = world.done(wish(8, "abandoned"), unreachable()).await;
    world.advance(TERMS.give_up_after);
    let abandoned = world.claim(&abandoned).await;
    world.settle(&abandoned, unreachable()).await;
    let before = world.check_books().await;
    assert!(before.by_state.iter().all(|count| *count > 0), "every state is there: {before:?}");
    let keys =
        ["accepted", "in-flight", "deferred", "succeeded", "rejected", "superseded", "failed", "abandoned"];
    for (guest, key) in (1..).zip(keys) {
        for other in [wish(guest, key).unarchive(), wish(99, key)] {
            let answer = world.accept_and_claim(other).await;
            assert!(matches!(answer, Accepted::Conflict), "{key}: {answer:?}");
        }
    }
    assert_eq!(world.check_books().await, before);
}

pub async fn a_key_belongs_to_its_requester<H: Harness>(world: World<H>) {
    let first = world.fresh(wish(1, "k")).await;
    let second = world.fresh(Wish { requester: 2, ..wish(1, "k").unarchive() }).await;
    assert_ne!(first.id, second.id);
    assert!(second.arrival > first.arrival);
}

pub async fn a_duplicate_finds_the_first_in_progress<H: Harness>(world: World<H>) {
    let first = world.claimed(wish(1, "k")).await;
    let Accepted::InProgress(same) = world.accept_and_claim(wish(1, "k")).await else {
        panic!("not in progress")
    };
    assert_eq!(same, first);
    let Accepted::InProgress(joined) = world.accept_and_claim(wish(1, "k").by_amqp()).await else {
        panic!("not in progress")
    };
    assert_eq!(
        joined,
        guest_connection_adapter::domain::record::CommandRecord { door: Door::Amqp, ..first.clone() }
    );
    assert_eq!(world.store().requester(first.id).await.unwrap(), Some(first.command.requester));
    assert_eq!(world.store().command(first.id).await.unwrap(), Some(joined), "it is kept");
    assert_eq!(world.check_books().await.registered, 1);
}

pub async fn the_first_one_who_asked_is_kept<H: Harness>(mut world: World<H>) {
    let someone = |name: &str| AskedBy { principal: Some(name.to_owned()), address: None };
    let ask = |name: &str| Wish { asked_by: someone(name), ..wish(1, "k") };
    let first = world.claimed(ask("first")).await;
    assert_eq!(first.asked_by, someone("first"));
    world.accept(ask("second").by_amqp()).await;
    let ended = world.settle(&first, refused()).await;
    assert_eq!(ended.asked_by, someone("first"));
    // It had failed: the same key is taken up again, for whoever asks.
    let again = world.claimed(ask("third")).await;
    assert_eq!((again.id, &again.asked_by), (first.id, &someone("first")));
    world.harness.reopen().await;
    assert_eq!(world.command(&first).await.asked_by, someone("first"));
    let unknown = world.fresh(Wish { asked_by: AskedBy::default(), ..wish(2, "other") }).await;
    assert_eq!(world.command(&unknown).await.asked_by, AskedBy::default());
}

pub async fn addresses_of_duplicates_are_kept_once<H: Harness>(world: World<H>) {
    let first = world.claimed(wish(1, "k").by_amqp().reply_to("a")).await;
    for reply_to in ["a", "b", "b"] {
        world.accept(wish(1, "k").by_amqp().reply_to(reply_to)).await;
    }
    assert_eq!(world.command(&first).await.replies, vec![address("a"), address("b")]);
}

pub async fn a_failed_command_is_reopened_under_its_identity<H: Harness>(world: World<H>) {
    let failed = world.done(wish(1, "k").issued(world.now()), refused()).await;
    assert_eq!(failed.state, State::Failed);
    world.advance(TimeDelta::seconds(5));
    let Accepted::Fresh(_, Some(Begun::Claimed(again))) =
        world.accept_and_claim(wish(1, "k").by_amqp()).await
    else {
        panic!("not reopened")
    };
    assert_eq!((again.id, again.arrival), (failed.id, failed.arrival));
    assert_eq!(again.effective_time, failed.effective_time);
    assert_eq!((again.state, again.door), (State::InFlight, Door::Amqp));
    assert_eq!((again.epoch, again.accepted_time), (2, world.now()));
    assert_eq!((again.outcome.as_ref(), again.finished_time), (None, None));
    let Finished::Settled(done) = world.finish(&again, applied()).await else { panic!("stale") };
    assert_eq!((done.state, done.attempts), (State::Succeeded, 2));
    assert_eq!(world.check_books().await.registered, 1);
}

pub async fn a_repeat_makes_a_deferred_command_due<H: Harness>(world: World<H>) {
    let deferred = world.done(wish(1, "k"), unreachable()).await;
    assert_eq!(deferred.state, State::Deferred);
    assert_eq!(deferred.due_time, Some(world.now() + TimeDelta::seconds(10)));
    assert!(world.store().due(<_>::default(), 10).await.unwrap().is_empty());
    let Accepted::InProgress(record) = world.accept(wish(1, "k")).await else { panic!("not in progress") };
    assert_eq!(record.due_time, Some(world.now()));
    assert_eq!(world.store().due(<_>::default(), 10).await.unwrap()[0].id, deferred.id);
}

pub async fn an_issue_time_counts_but_never_a_later_one_than_acceptance<H: Harness>(world: World<H>) {
    let now = world.now();
    let past = now - TimeDelta::minutes(5);
    assert_eq!(world.fresh(wish(1, "past").issued(past)).await.effective_time, past);
    let future = world.fresh(wish(1, "future").issued(now + TimeDelta::hours(1))).await;
    assert_eq!(future.effective_time, now);
}

pub async fn without_issue_times_effective_times_rise_even_if_the_clock_steps_back<H: Harness>(
    world: World<H>,
) {
    let first = world.fresh(wish(1, "a")).await;
    assert_eq!(first.effective_time, world.now());
    let second = world.fresh(wish(1, "b")).await;
    assert_eq!(second.effective_time, first.effective_time + TimeDelta::microseconds(1));
    world.advance(TimeDelta::minutes(-10));
    let third = world.fresh(wish(1, "c")).await;
    assert_eq!(third.effective_time, second.effective_time + TimeDelta::microseconds(1));
    let elsewhere = world.fresh(wish(2, "d")).await;
    assert_eq!(elsewhere.effective_time, world.now());
}
