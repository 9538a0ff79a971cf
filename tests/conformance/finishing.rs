//! Ends: outcomes, events, dead letters, replies, stale claims (rules 7 and 8).

use chrono::TimeDelta;
use guest_connection_adapter::domain::error::Reason;
use guest_connection_adapter::domain::lifecycle::Finish;
use guest_connection_adapter::domain::message::EventKind;
use guest_connection_adapter::domain::record::State;
use guest_connection_adapter::service::ports::{Accepted, Begun, Finished};

use uuid::Uuid;

use super::world::*;

pub async fn a_success_is_told_once_with_everything<H: Harness>(world: World<H>) {
    let claimed = world.claimed(wish(1, "k")).await;
    world.advance(TimeDelta::seconds(1));
    let ending = applied();
    let done = world.settle(&claimed, ending.clone()).await;
    assert_eq!((done.state, done.attempts, done.due_time), (State::Succeeded, 1, None));
    assert_eq!(done.finished_time, Some(world.now()));
    let reference = done.event.expect("an event");
    assert_eq!((reference.id, reference.sequence, reference.confirmed_time), (ending.event_id, 1, None));
    let events = world.events().await;
    assert_eq!(events.len(), 1);
    let event = &events[0];
    assert_eq!((event.id, event.sequence, event.kind), (ending.event_id, 1, EventKind::Archived));
    assert_eq!((event.time, event.correlation_id.as_str()), (world.now(), "conversation"));
    assert_eq!((event.command.id, event.command.attempts), (done.id, 1));
    assert_eq!(&event.command.command, &done.command);
    assert_eq!(event.trace, done.trace);
    assert_eq!(event.guest_connection, done.outcome.as_ref().unwrap().guest_connection);
    assert_eq!(world.command(&done).await, done);
    assert_eq!(world.messages().await.len(), 1);
}

pub async fn a_stale_claim_writes_nothing_but_suspicion<H: Harness>(world: World<H>) {
    let lost = world.claimed(wish(1, "k")).await;
    world.advance(TERMS.lease);
    let current = world.claim(&lost).await;
    assert!(matches!(world.finish(&lost, applied()).await, Finished::Stale));
    assert_eq!(world.command(&current).await, current);
    assert_eq!(world.messages().await, []);
    let books = world.check_books().await;
    assert_eq!((books.suspect, books.finishes_refused), (1, 1));
    let done = world.settle(&current, applied()).await;
    assert!(matches!(world.finish(&current, rejected()).await, Finished::Stale), "a claim ends once");
    assert_eq!(world.command(&done).await, done);
    assert_eq!(world.check_books().await.finishes_refused, 2);
}

pub async fn a_stale_claim_that_sent_nothing_raises_no_suspicion<H: Harness>(world: World<H>) {
    let lost = world.claimed(wish(1, "k")).await;
    world.advance(TERMS.lease);
    world.claim(&lost).await;
    let nothing = Finish { attempts: 0, ..unreachable() };
    assert!(matches!(world.finish(&lost, nothing).await, Finished::Stale));
    let books = world.check_books().await;
    assert_eq!((books.suspect, books.finishes_refused), (0, 1));
}

pub async fn sequences_have_no_gaps<H: Harness>(world: World<H>) {
    for round in 0..4 {
        for guest in 1..=2 {
            world.done(wish(guest, &format!("{guest}-{round}")), applied()).await;
            world.done(wish(guest, &format!("rejected-{guest}-{round}")), rejected()).await;
        }
    }
    let events = world.events().await;
    for guest in 1..=2 {
        let connection = wish(guest, "-").acceptance().command.connection;
        let of_guest = events.iter().filter(|event| event.command.command.connection == connection);
        assert_eq!(of_guest.map(|event| event.sequence).collect::<Vec<_>>(), [1, 2, 3, 4]);
    }
}

pub async fn a_rejection_after_an_unknown_fate_is_indeterminate<H: Harness>(world: World<H>) {
    let record = world.done(wish(1, "k"), broken()).await;
    let record = world.claim(&record).await;
    let record = world.settle(&record, refused()).await;
    assert_eq!(
        (record.state, record.maybe_applied),
        (State::Rejected, true),
        "403 is saved: it may be applied"
    );
    let events = world.events().await;
    assert_eq!((events.len(), events[0].kind, events[0].incomplete), (1, EventKind::Indeterminate, true));
    assert_eq!(record.event.unwrap().sequence, 1);
    // It counts as possibly applied: an older command does not come after it.
    let old = world.now() - TimeDelta::minutes(1);
    let answer = world.accept_and_claim(wish(1, "old").issued(old)).await;
    assert!(matches!(answer, Accepted::Fresh(_, Some(Begun::Ended(_)))), "{answer:?}");
    // One that was certainly not applied tells nothing.
    world.done(wish(2, "plain"), rejected()).await;
    assert_eq!(world.events().await.len(), 1);
}

pub async fn a_command_is_given_up_in_the_end<H: Harness>(world: World<H>) {
    for (guest, ending, events) in [(1, unreachable(), 0), (2, broken(), 1)] {
        let record = world.claimed(wish(guest, &format!("k-{guest}")).reply_to("r")).await;
        let record = world.settle(&record, ending.clone()).await;
        world.advance(TERMS.give_up_after - TimeDelta::microseconds(1));
        let record = world.claim(&record).await;
        let record = world.settle(&record, ending.clone()).await;
        assert_eq!(record.state, State::Deferred, "not yet");
        world.advance(TimeDelta::seconds(1));
        let record = world.claim(&record).await;
        let record = world.settle(&record, Finish { event_id: uuid::Uuid::now_v7(), ..ending }).await;
        assert_eq!((record.state, record.attempts), (State::Abandoned, 3));
        let told = world.events().await;
        assert_eq!(told.len(), events);
        assert!(told.iter().all(|event| event.kind == EventKind::Indeterminate));
        let letter = world.letters().await.pop().expect("a dead letter");
        assert_eq!((letter.command.id, letter.refusal.reason), (record.id, Reason::CommandAbandoned));
        assert_eq!(world.replies().await.pop().expect("a reply").command.unwrap().state, State::Abandoned);
    }
}

pub async fn a_transient_failure_is_told_to_the_caller_who_waits<H: Harness>(world: World<H>) {
    let record = world.done(wish(1, "k"), Finish { caller_waits: true, ..unreachable() }).await;
    assert_eq!((record.state, record.due_time), (State::Failed, None));
    assert_eq!(world.messages().await, []);
}

pub async fn a_maybe_applied_command_is_deferred_even_if_a_caller_waits<H: Harness>(world: World<H>) {
    let record = world.done(wish(1, "k"), Finish { caller_waits: true, ..broken() }).await;
    assert_eq!((record.state, record.maybe_applied), (State::Deferred, true));
    // The flag is the command's: it sticks through a claim of which everything is known.
    let record = world.claim(&record).await;
    let record = world.settle(&record, Finish { caller_waits: true, ..unreachable() }).await;
    assert_eq!((record.state, record.maybe_applied), (State::Deferred, true));
    let record = world.claim(&record).await;
    let record = world.settle(&record, applied()).await;
    assert_eq!((record.state, record.maybe_applied), (State::Succeeded, false));
}

pub async fn dead_letters_are_for_commands_that_nobody_hears_of<H: Harness>(world: World<H>) {
    world.done(wish(1, "call"), Finish { caller_waits: true, ..rejected() }).await;
    world.done(wish(2, "failed-call"), Finish { caller_waits: true, ..refused() }).await;
    assert_eq!(world.letters().await, [], "the caller hears it");
    let gone = world.done(wish(7, "call-of-one-who-left"), rejected()).await;
    let expiring = world.fresh(wish(8, "expiring-call").expires(world.now())).await;
    assert!(matches!(world.store().begin(expiring.id, Uuid::now_v7(), false).await, Ok(Begun::Ended(_))));
    let message = world.done(wish(3, "message").by_amqp(), rejected()).await;
    let failed = world.done(wish(4, "failed-message").by_amqp(), refused()).await;
    let deferred = world.done(wish(5, "deferred-call"), unreachable()).await;
    let deferred = world.claim(&deferred).await;
    let deferred = world.settle(&deferred, rejected()).await;
    world.done(wish(6, "fine").by_amqp(), applied()).await;
    let letters = world.letters().await;
    let ids: Vec<_> = letters.iter().map(|letter| letter.command.id).collect();
    assert_eq!(ids, [gone.id, expiring.id, message.id, failed.id, deferred.id]);
    assert_eq!(letters[2].refusal.reason, Reason::UpstreamNotFound);
    assert_eq!(letters[2].command.state, State::Rejected);
}

pub async fn everyone_who_asked_gets_a_reply<H: Harness>(world: World<H>) {
    let record = world.claimed(wish(1, "k").by_amqp().reply_to("a")).await;
    world.accept(wish(1, "k").by_amqp().reply_to("b")).await;
    let record = world.settle(&record, applied()).await;
    assert_eq!(record.replies, []);
    let replies = world.replies().await;
    let addresses: Vec<_> = replies.iter().map(|reply| reply.address.clone()).collect();
    assert_eq!(addresses, [address("a"), address("b")]);
    assert!(replies.iter().all(|reply| !reply.replayed && Some(&reply.outcome) == record.outcome.as_ref()));
    assert_ne!(replies[0].id, replies[1].id);
}
