//! What is kept and for how long: outbox, due commands, purge, crashes.

use std::collections::BTreeMap;

use chrono::TimeDelta;
use guest_connection_adapter::domain::act::{Act, ActRecord};
use guest_connection_adapter::domain::command::OrganizationId;
use guest_connection_adapter::domain::erasure::{Forgotten, Whose};
use guest_connection_adapter::domain::lifecycle::Finish;
use guest_connection_adapter::domain::message::Message;
use guest_connection_adapter::domain::record::State;
use guest_connection_adapter::service::ports::{Accepted, Begun, Due, Oldest};
use guest_connection_adapter::service::tenure::Slots;

use uuid::Uuid;

use super::world::*;

pub async fn the_outbox_is_read_in_order_and_confirmed_once<H: Harness>(world: World<H>) {
    let mut records = Vec::new();
    for guest in 1..=3 {
        records.push(world.done(wish(guest, &format!("k-{guest}")).by_amqp().reply_to("r"), applied()).await);
    }
    let rows = world.store().outbox(0, 100, Slots::ALL).await.unwrap();
    assert_eq!(rows.len(), 6);
    assert!(rows.is_sorted_by(|a, b| a.number < b.number));
    assert!(matches!((&*rows[0].message, &*rows[1].message), (Message::Event(_), Message::Reply(_))));
    let page = world.store().outbox(rows[1].number, 2, Slots::ALL).await.unwrap();
    assert_eq!(page, rows[2..4]);

    world.advance(TimeDelta::seconds(2));
    let numbers = vec![rows[2].number, rows[3].number, rows[1].number];
    world.store().confirm(numbers.clone()).await.unwrap();
    let confirmed_time = world.now();
    world.advance(TimeDelta::seconds(2));
    world.store().confirm(numbers).await.unwrap();
    let books = world.check_books().await;
    assert_eq!((books.outbox_written, books.outbox_confirmed, books.outbox_pending), (6, 3, 3));
    let left: Vec<_> =
        world.store().outbox(0, 100, Slots::ALL).await.unwrap().iter().map(|row| row.number).collect();
    assert_eq!(left, [rows[0].number, rows[4].number, rows[5].number]);
    let confirmed = world.command(&records[1]).await.event.unwrap();
    assert_eq!(confirmed.confirmed_time, Some(confirmed_time));
    assert_eq!(world.command(&records[0]).await.event.unwrap().confirmed_time, None, "only its reply");

    world.confirm_all().await;
    world.done(wish(4, "k-4"), applied()).await;
    let next = world.store().outbox(0, 100, Slots::ALL).await.unwrap();
    assert!(next[0].number > rows[5].number, "numbers are not given twice");
}

pub async fn since_when_what_is_not_done_waits_is_known<H: Harness>(world: World<H>) {
    let none = Oldest { now: world.now(), ..Oldest::default() };
    assert_eq!(world.store().oldest().await.unwrap(), none);
    let mut since = Vec::new();
    let mut step = || {
        since.push(world.now());
        world.advance(TimeDelta::seconds(1));
    };
    world.done(wish(1, "deferred"), unreachable()).await;
    step();
    world.done(wish(2, "maybe-applied"), broken()).await;
    step();
    world.fresh(wish(3, "accepted")).await;
    step();
    world.claimed(wish(4, "in-flight")).await;
    step();
    world.done(wish(5, "done"), applied()).await;
    step();
    world.done(wish(1, "later"), unreachable()).await;
    world.fresh(wish(6, "later-too")).await;
    let oldest = Oldest {
        deferred: Some(since[0]),
        maybe_applied: Some(since[1]),
        accepted: Some(since[2]),
        in_flight: Some(since[3]),
        unpublished: Some(since[4]),
        now: world.now(),
    };
    assert_eq!(world.store().oldest().await.unwrap(), oldest);
    world.confirm_all().await;
    assert_eq!(world.store().oldest().await.unwrap(), Oldest { unpublished: None, ..oldest });
}

pub async fn due_commands_come_longest_due_first_and_page_by_page<H: Harness>(world: World<H>) {
    let late = world.done(wish(1, "late"), unreachable()).await;
    let soon = Finish { defer_delay: std::time::Duration::from_secs(1), ..unreachable() };
    let soon = world.done(wish(1, "soon"), soon).await;
    let held = [world.fresh(wish(2, "held")).await, world.fresh(wish(3, "held-too")).await];
    assert_eq!(world.store().due_next().await.unwrap(), soon.due_time);
    assert_eq!(world.store().backlog().await.unwrap(), 4);
    world.advance(TimeDelta::seconds(5));
    let due: Vec<_> = world.store().due(<_>::default(), 10).await.unwrap().iter().map(|due| due.id).collect();
    assert_eq!(due, [soon.id]);
    world.advance(TERMS.hold);
    let due = world.store().due(<_>::default(), 10).await.unwrap();
    let ids = |due: &[Due]| due.iter().map(|due| due.id).collect::<Vec<_>>();
    assert_eq!(ids(&due), [soon.id, late.id, held[0].id, held[1].id], "those due at once by arrival");
    assert_eq!((due[1].connection, &due[1].trace), (late.command.connection, &late.trace));
    let mut paged = Vec::new();
    while let [due, ..] = &world
        .store()
        .due(paged.last().map_or_else(<_>::default, |due: &Due| due.cursor), 1)
        .await
        .unwrap()[..]
    {
        paged.push(due.clone());
    }
    assert_eq!(paged, due);
    let claimed = world.claim(&soon).await;
    assert_eq!(claimed.due_time, Some(world.now() + TERMS.lease));
    assert_eq!(world.store().due(<_>::default(), 10).await.unwrap().len(), 3);
}

pub async fn a_purge_forgets_commands_and_keeps_connections<H: Harness>(world: World<H>) {
    let mut done = Vec::new();
    for key in ["a", "b", "c"] {
        done.push(world.done(wish(1, key), applied()).await);
    }
    let open = world.done(wish(2, "open"), unreachable()).await;
    world.confirm_all().await;
    world.advance(RETENTION);
    assert_eq!(world.store().purge(100).await.unwrap(), 0, "not longer ago than the retention");
    world.advance(TimeDelta::microseconds(1));
    assert_eq!(world.store().purge(2).await.unwrap(), 2);
    world.check_books().await;
    assert_eq!(world.store().purge(2).await.unwrap(), 1);
    let books = world.check_books().await;
    assert_eq!((books.registered, count(&books, State::Succeeded)), (1, 0));
    assert_eq!(world.store().command(done[0].id).await.unwrap(), None);
    assert_eq!(world.command(&open).await, open);

    // The connection still knows what was applied, and its last number.
    let old = wish(1, "old").issued(done[0].effective_time);
    let answer = world.accept_and_claim(old).await;
    assert!(matches!(answer, Accepted::Fresh(_, Some(Begun::Ended(_)))), "{answer:?}");
    let next = world.done(wish(1, "a"), applied()).await;
    assert_eq!(next.event.unwrap().sequence, 4);
    assert!(next.arrival > open.arrival && next.id != done[0].id);
}

pub async fn a_purge_spares_what_is_not_told<H: Harness>(world: World<H>) {
    let told = world.done(wish(1, "told"), applied()).await;
    world.confirm_all().await;
    let untold = world.done(wish(1, "untold"), applied()).await;
    world.advance(RETENTION + TimeDelta::seconds(1));
    assert_eq!(world.store().purge(100).await.unwrap(), 1);
    assert_eq!(world.store().command(told.id).await.unwrap(), None);
    assert_eq!(world.command(&untold).await, untold);
    world.confirm_all().await;
    assert_eq!(world.store().purge(100).await.unwrap(), 1);
    assert_eq!(world.check_books().await.registered, 0);
}

pub async fn a_crash_keeps_everything_and_makes_work_due<H: Harness>(mut world: World<H>) {
    let accepted = world.fresh(wish(1, "accepted").by_amqp().reply_to("r")).await;
    let in_flight = world.claimed(wish(2, "in-flight")).await;
    let deferred = world.done(wish(3, "deferred"), unreachable()).await;
    let done = world.done(wish(4, "done"), applied()).await;
    let rows = world.store().outbox(0, 100, Slots::ALL).await.unwrap();
    let books = world.check_books().await;

    world.harness.reopen().await;

    assert_eq!(world.check_books().await, books);
    assert_eq!(world.store().outbox(0, 100, Slots::ALL).await.unwrap(), rows);
    assert_eq!(world.command(&done).await, done);
    assert_eq!(world.command(&deferred).await, deferred);
    // A store that knows its predecessor to be dead makes its work due now; else that has become due by itself.
    let now = Some(world.now());
    assert_eq!(world.command(&accepted).await, {
        let mut r = accepted.clone();
        r.due_time = r.due_time.min(now);
        r
    });
    assert_eq!(world.command(&in_flight).await.due_time, in_flight.due_time.min(now));
    let mut expected = vec![accepted.id, in_flight.id];
    if deferred.due_time <= now {
        expected.insert(0, deferred.id);
    }
    let due: Vec<_> = world.store().due(<_>::default(), 10).await.unwrap().iter().map(|due| due.id).collect();
    assert_eq!(due, expected);
    let again = world.claim(&in_flight).await;
    assert!(again.maybe_applied, "it may have been sent");
    let again = world.settle(&again, applied()).await;
    assert_eq!(again.event.unwrap().sequence, 1);
    // Work that begins after the crash gets new numbers.
    assert!(world.fresh(wish(9, "next")).await.arrival > done.arrival);
}

/// Goes through all there is, in steps of `limit`.
async fn forget<H: Harness>(world: &World<H>, whose: Whose, limit: usize) -> Forgotten {
    let (mut forgotten, mut next) = (Forgotten::default(), Some(0));
    while let Some(after) = next {
        let step = world.store().forget(whose, after, limit).await.unwrap();
        assert!(step.forgotten.commands <= limit as u64, "{step:?}");
        forgotten += step.forgotten;
        next = step.next;
    }
    world.check_books().await;
    forgotten
}

const fn organization(number: u128) -> OrganizationId {
    OrganizationId(Uuid::from_u128(number))
}

pub async fn what_is_forgotten_keeps_its_facts_and_is_told_without_a_body<H: Harness>(world: World<H>) {
    let told = world.done(wish(1, "told"), applied()).await;
    world.confirm_all().await;
    let untold = world.done(wish(1, "untold").by_amqp().reply_to("r"), applied()).await;
    let refused = world.done(wish(1, "refused").by_amqp(), rejected()).await;
    let under_way = world.claimed(wish(1, "under-way")).await;
    let other = world.done(wish(2, "other"), applied()).await;
    let guest = Whose::Guest(told.command.connection.guest);

    let forgotten = forget(&world, guest, 1).await;
    let expected =
        Forgotten { commands: 4, outcomes: 3, events: 1, dead_letters: 1, replies: 1, not_final: 1 };
    assert_eq!(forgotten, expected);
    assert_eq!(world.command(&other).await, other);
    assert_eq!(world.command(&under_way).await, under_way);
    for record in [&told, &untold, &refused] {
        let now = world.command(record).await;
        let mut facts = record.clone();
        facts.outcome.as_mut().unwrap().forget();
        facts.event = now.event;
        assert_eq!(now, facts);
        assert_eq!(now.outcome.unwrap().guest_connection, None);
    }
    let events = world.events().await;
    assert_eq!(events.len(), 2, "what was not told is told still");
    assert_eq!((events[0].id, events[0].sequence), (untold.event.unwrap().id, 2));
    assert!(events[0].guest_connection.is_none() && events[0].incomplete);
    assert!(events[1].guest_connection.is_some() && !events[1].incomplete);
    assert!(world.replies().await.iter().all(|reply| reply.outcome.guest_connection.is_none()));
    assert!(!world.letters().await[0].refusal.message.contains("not known"));

    let Accepted::Replayed(replayed) = world.accept(wish(1, "told")).await else { panic!("not replayed") };
    let outcome = replayed.outcome.unwrap();
    assert!(outcome.incomplete && outcome.refusal.is_none() && outcome.upstream_status == Some(200));

    // What was under way has its body, until it is forgotten too.
    world.settle(&under_way, applied()).await;
    let again = Forgotten { commands: 4, outcomes: 1, events: 1, ..Forgotten::default() };
    assert_eq!(forget(&world, guest, 100).await, again);
    assert_eq!(forget(&world, guest, 3).await, Forgotten { commands: 4, ..Forgotten::default() });
}

pub async fn forgetting_goes_on_after_a_crash<H: Harness>(mut world: World<H>) {
    for guest in 1..=4 {
        world.done(wish(guest, &format!("k-{guest}")), applied()).await;
    }
    let theirs = world.done(Wish { requester: 2, ..wish(5, "theirs") }, applied()).await;
    let step = world.store().forget(Whose::Organization(organization(1)), 0, 2).await.unwrap();
    assert_eq!((step.forgotten.outcomes, step.forgotten.events), (2, 2));
    world.harness.reopen().await;
    // What another asked for is of its connections too.
    let rest = Forgotten { commands: 5, outcomes: 3, events: 3, ..Forgotten::default() };
    assert_eq!(forget(&world, Whose::Organization(organization(1)), 2).await, rest);
    let again = forget(&world, Whose::Organization(theirs.command.requester), 2).await;
    assert_eq!(again, Forgotten { commands: 1, ..Forgotten::default() });
}

pub async fn acts_are_kept_and_read_newest_first<H: Harness>(mut world: World<H>) {
    let act = |address: &str| Act {
        actor: "admin".to_owned(),
        address: Some(address.to_owned()),
        act: "forget".to_owned(),
        subject: BTreeMap::from([("guest_organization_id".to_owned(), organization(9).to_string())]),
    };
    let first = world.store().begin_act(act("192.0.2.1:1")).await.unwrap();
    let begun = world.now();
    world.advance(TimeDelta::seconds(2));
    let counts = BTreeMap::from([("outcomes".to_owned(), 3)]);
    world.store().end_act(first, counts.clone()).await.unwrap();
    let ended = world.now();
    let second = world.store().begin_act(act("192.0.2.2:2")).await.unwrap();
    world.harness.reopen().await;
    let acts = world.store().acts(None, 10).await.unwrap();
    assert_eq!(acts.iter().map(|act| act.number).collect::<Vec<_>>(), [second, first]);
    assert_eq!((acts[0].finish_time, &acts[0].result), (None, &None), "it was cut off");
    let kept = ActRecord {
        number: first,
        time: begun,
        act: act("192.0.2.1:1"),
        finish_time: Some(ended),
        result: Some(counts),
    };
    assert_eq!(acts[1], kept);
    assert_eq!(world.store().acts(Some(second), 10).await.unwrap(), [kept]);
    assert_eq!(world.store().acts(None, 1).await.unwrap().len(), 1);
}

pub async fn a_probe_writes<H: Harness>(world: World<H>) {
    world.store().probe().await.unwrap();
    assert_eq!(world.check_books().await.registered, 0);
}
