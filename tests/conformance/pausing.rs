//! Commands that are put off: their requester is paused, or the API is down.

use std::time::Duration;

use chrono::TimeDelta;
use guest_connection_adapter::domain::command::OrganizationId;
use guest_connection_adapter::domain::error::{Reason, Refusal};
use guest_connection_adapter::domain::lifecycle::{Acceptance, Finish, LINE_WAIT, PutOff};
use guest_connection_adapter::domain::record::{CommandRecord, State};
use guest_connection_adapter::service::ports::{Accepted, Begun, PutOffAnswer};
use uuid::Uuid;

use super::world::*;

const DELAY: Duration = Duration::from_secs(20);
const PAUSE: TimeDelta = TimeDelta::seconds(20);

fn paused() -> PutOff {
    let refusal = Refusal::new(Reason::UpstreamUnavailable, "paused").retry_after(DELAY);
    PutOff { delay: DELAY, keeps_place: false, refusal }
}

fn api_down() -> PutOff {
    PutOff { keeps_place: true, ..paused() }
}

fn organization(number: u128) -> OrganizationId {
    OrganizationId(Uuid::from_u128(number))
}

impl<H: Harness> World<H> {
    async fn answer_put_off(&self, record: &CommandRecord, put_off: PutOff) -> PutOffAnswer {
        let answer = self.store().put_off(record.id, Uuid::now_v7(), true, put_off).await.unwrap();
        self.check_books().await;
        answer
    }

    async fn put_off(&self, record: &CommandRecord, put_off: PutOff) -> CommandRecord {
        match self.answer_put_off(record, put_off).await {
            PutOffAnswer::Waiting(record) => {
                assert_eq!(self.command(&record).await, record);
                record
            }
            other => panic!("not put off: {other:?}"),
        }
    }

    async fn born_paused(&self, wish: Wish) -> CommandRecord {
        let request = Acceptance { put_off: Some(paused()), ..wish.acceptance() };
        match self.store().accept(request, Some(Uuid::now_v7())).await.unwrap() {
            Accepted::Fresh(record, None) => record,
            other => panic!("not put off: {other:?}"),
        }
    }

    async fn due_ids(&self) -> Vec<guest_connection_adapter::domain::command::CommandId> {
        self.store().due(<_>::default(), 100).await.unwrap().iter().map(|due| due.id).collect()
    }
}

pub async fn a_new_command_of_a_paused_requester_waits_beside_the_line<H: Harness>(mut world: World<H>) {
    let record = world.born_paused(wish(1, "k").reply_to("r")).await;
    assert_eq!((record.state, record.attempts, record.epoch), (State::Deferred, 0, 0));
    assert_eq!((record.due_time, record.paused_since), (Some(world.now() + PAUSE), Some(world.now())));
    let refusal = record.outcome.as_ref().unwrap().refusal.clone();
    assert_eq!(refusal, Some(paused().refusal));
    assert_eq!(world.command(&record).await, record);
    assert_eq!(count(&world.check_books().await, State::Deferred), 1);
    assert_eq!(world.store().line(record.command.connection, 10).await.unwrap(), []);
    // Those of others on its connection go on.
    let other = world.claimed(Wish { requester: 2, ..wish(1, "other") }).await;
    world.settle(&other, applied()).await;
    // Its pause outlasts the process.
    world.harness.reopen().await;
    assert_eq!(world.command(&record).await, record);
    // Until it is over, which it may be by the time that a store is opened again.
    let is_over = record.due_time <= Some(world.now());
    assert_eq!(world.due_ids().await, is_over.then_some(record.id).into_iter().collect::<Vec<_>>());
    world.advance(PAUSE);
    let due = world.store().due(<_>::default(), 10).await.unwrap();
    assert_eq!((due[0].id, due[0].requester, due[0].in_line), (record.id, organization(1), false));
}

pub async fn a_repeat_leaves_a_paused_command_where_it_is<H: Harness>(world: World<H>) {
    let record = world.born_paused(wish(1, "k")).await;
    let repeat = || Acceptance { put_off: Some(paused()), ..wish(1, "k").acceptance() };
    world.advance(TimeDelta::seconds(1));
    let answer = world.store().accept(repeat(), Some(Uuid::now_v7())).await.unwrap();
    let Accepted::InProgress(same) = answer else { panic!("not in progress") };
    assert_eq!(same, record);
    let Accepted::InProgress(same) = world.accept(wish(1, "k")).await else { panic!("not in progress") };
    assert_eq!((same.due_time, same.paused_since), (Some(world.now()), record.paused_since));
}

pub async fn a_failed_command_that_comes_again_has_no_pauses_of_earlier<H: Harness>(world: World<H>) {
    let record = world.born_paused(wish(1, "k")).await;
    world.advance(PAUSE);
    let record = world.claim(&record).await;
    assert_eq!((record.paused_since, record.paused), (None, PAUSE));
    world.settle(&record, refused()).await;
    world.advance(PAUSE);
    let again = world.born_paused(wish(1, "k")).await;
    assert_eq!((again.id, again.state), (record.id, State::Deferred));
    assert_eq!((again.paused_since, again.paused), (Some(world.now()), TimeDelta::zero()));
    assert_eq!(world.command(&record).await, again);
}

pub async fn a_paused_command_leaves_the_line_to_those_behind<H: Harness>(world: World<H>) {
    let first = world.fresh(wish(1, "first")).await;
    let second = world.waiting(Wish { requester: 2, ..wish(1, "second") }).await;
    let first = world.put_off(&first, paused()).await;
    assert_eq!((first.state, first.waiting, first.paused_since), (State::Deferred, false, Some(world.now())));
    assert_eq!(world.command(&second).await.due_time, Some(world.now()), "woken");
    let second = world.claim(&second).await;
    world.settle(&second, applied()).await;
    let Begun::Ended(ended) = world.begin(&first).await else { panic!("overtaken, and begun all the same") };
    assert_eq!((ended.state, ended.paused_since), (State::Superseded, None));
    assert_eq!(world.command(&ended).await, ended);
}

pub async fn while_the_api_is_down_commands_keep_their_place<H: Harness>(world: World<H>) {
    let first = world.fresh(wish(1, "first")).await;
    let second = world.fresh(Wish { requester: 2, ..wish(1, "second") }).await;
    let deferred = world.done(wish(2, "deferred"), unreachable()).await;
    for put_off_since in [world.now(); 2] {
        let now = world.now();
        let first = world.put_off(&first, api_down()).await;
        let second = world.put_off(&second, api_down()).await;
        assert_eq!((first.state, first.waiting, first.attempts), (State::Accepted, true, 0));
        assert_eq!((first.due_time, second.due_time), (Some(now + PAUSE), Some(now + LINE_WAIT)));
        assert_eq!((first.paused_since, second.paused_since), (Some(put_off_since), Some(put_off_since)));
        let line = world.store().line(first.command.connection, 10).await.unwrap();
        let line: Vec<_> = line.iter().map(|due| (due.id, due.requester)).collect();
        assert_eq!(line, [(first.id, organization(1)), (second.id, organization(2))]);
        world.advance(PAUSE);
        assert_eq!(world.due_ids().await, [deferred.id, first.id]);
    }
    let moved = world.put_off(&deferred, api_down()).await;
    assert_eq!(
        (moved.state, moved.waiting, moved.due_time),
        (State::Deferred, false, Some(world.now() + PAUSE))
    );
    assert!(matches!(world.begin(&second).await, Begun::Waiting(_)), "not its turn");
    let first = world.claim(&first).await;
    assert_eq!((first.paused_since, first.paused), (None, PAUSE * 2));
    world.settle(&first, applied()).await;
    assert_eq!(world.due_ids().await, [second.id]);
    let second = world.claim(&second).await;
    assert_eq!(world.settle(&second, applied()).await.state, State::Succeeded);
}

pub async fn only_what_nobody_works_on_is_put_off<H: Harness>(world: World<H>) {
    let held = world.claimed(wish(1, "held")).await;
    let ended = world.done(wish(2, "ended"), applied()).await;
    for record in [&held, &ended] {
        let answer = world.answer_put_off(record, paused()).await;
        assert!(matches!(&answer, PutOffAnswer::Unavailable(same) if same == record), "{answer:?}");
        assert_eq!(&world.command(record).await, record);
    }
    world.advance(TERMS.lease);
    let second = world.waiting(wish(1, "second")).await;
    let lost = world.put_off(&held, paused()).await;
    assert_eq!((lost.state, lost.maybe_applied, lost.epoch), (State::Deferred, true, held.epoch));
    // It may have been sent: it goes before all others, and those wait.
    assert!(matches!(world.begin(&second).await, Begun::Waiting(_)));
    let again = world.claim(&lost).await;
    assert_eq!(again.epoch, held.epoch + 1);
    let done = world.settle(&again, applied()).await;
    assert_eq!(done.state, State::Succeeded);
    // What the lost claim sent may still take effect.
    let Begun::Waiting(second) = world.begin(&second).await else { panic!("no quiet time") };
    assert!(second.due_time > Some(world.now() + TimeDelta::seconds(1)));
    world.store().put_off(second.id, Uuid::now_v7(), true, paused()).await.unwrap();
    let unknown = guest_connection_adapter::domain::command::CommandId(Uuid::now_v7());
    world.store().put_off(unknown, Uuid::now_v7(), true, paused()).await.unwrap_err();
}

pub async fn what_must_not_be_sent_any_more_ends_instead_of_being_put_off<H: Harness>(world: World<H>) {
    let old = world.now();
    world.advance(TimeDelta::seconds(1));
    world.done(wish(1, "newer"), applied()).await;
    let older = world.fresh(wish(1, "older").issued(old)).await;
    let soon = world.now() + TimeDelta::seconds(1);
    let expired = world.fresh(wish(2, "expired").by_amqp().expires(soon)).await;
    let maybe = world.done(wish(3, "maybe").expires(soon), broken()).await;
    world.advance(TimeDelta::seconds(1));
    for (record, state) in [(older, State::Superseded), (expired, State::Failed)] {
        let PutOffAnswer::Ended(ended) = world.answer_put_off(&record, paused()).await else {
            panic!("not ended")
        };
        assert_eq!((ended.state, ended.paused_since, ended.due_time), (state, None, None));
    }
    let letters = world.letters().await;
    assert_eq!((letters.len(), letters[0].refusal.reason), (1, Reason::CommandExpired));
    let kept = world.put_off(&maybe, paused()).await;
    assert_eq!((kept.attempts, &kept.outcome), (1, &maybe.outcome), "what an attempt heard stays");
}

/// Two pauses, an attempt after each; then time that counts.
pub async fn paused_time_does_not_count_towards_give_up_after<H: Harness>(world: World<H>) {
    let mut record = world.born_paused(wish(1, "paused")).await;
    let mut counted = world.done(wish(2, "not-paused"), unreachable()).await;
    for round in 1..=2 {
        if round == 2 {
            record = world.put_off(&record, paused()).await;
        }
        world.advance(TERMS.give_up_after);
        let claimed = world.claim(&record).await;
        assert_eq!((claimed.paused_since, claimed.paused), (None, TERMS.give_up_after * round));
        record = world.settle(&claimed, unreachable()).await;
        assert_eq!((record.state, record.paused_since), (State::Deferred, None));
        assert_eq!(world.command(&record).await, record);
        if round == 1 {
            let claimed = world.claim(&counted).await;
            counted = world.settle(&claimed, unreachable()).await;
            assert_eq!(counted.state, State::Abandoned);
        }
    }
    world.advance(TERMS.give_up_after - TimeDelta::microseconds(1));
    record = world.claim(&record).await;
    record = world.settle(&record, unreachable()).await;
    assert_eq!(record.state, State::Deferred, "not yet");
    world.advance(TimeDelta::microseconds(1));
    record = world.claim(&record).await;
    record = world.settle(&record, unreachable()).await;
    assert_eq!((record.state, record.attempts), (State::Abandoned, 4));
}

pub async fn deferred_commands_that_are_due_are_put_off_together<H: Harness>(world: World<H>) {
    let mine = world.done(wish(1, "mine"), unreachable()).await;
    let other = world.done(Wish { requester: 2, ..wish(2, "other") }, unreachable()).await;
    let accepted = world.fresh(wish(3, "accepted")).await;
    world.done(wish(5, "ended"), applied()).await;
    let first = world.claimed(wish(4, "unknown")).await;
    let in_line = world.done(Wish { requester: 2, ..wish(6, "in-line") }, unreachable()).await;
    world.claimed(wish(6, "blocks")).await;
    assert!(matches!(world.begin(&in_line).await, Begun::Waiting(_)));
    assert_eq!(world.store().put_off_due(None, DELAY).await.unwrap(), 0, "none is due");
    world.advance(TERMS.lease + TERMS.settle + TERMS.hold);
    let later = world.done(wish(7, "later"), unreachable()).await;
    let kept = [&accepted, &first, &in_line, &later];
    let mut before = Vec::new();
    for record in kept {
        before.push(world.command(record).await);
    }
    assert_eq!(world.store().put_off_due(Some(organization(1)), DELAY).await.unwrap(), 1);
    let moved =
        CommandRecord { due_time: Some(world.now() + PAUSE), paused_since: mine.due_time, ..mine.clone() };
    assert_eq!(world.command(&mine).await, moved);
    assert_eq!(world.command(&other).await, other);
    assert_eq!(world.store().put_off_due(None, DELAY).await.unwrap(), 1);
    assert_eq!(world.command(&other).await.paused_since, other.due_time);
    world.advance(PAUSE);
    // Again, in the same pause.
    assert_eq!(world.store().put_off_due(Some(organization(1)), DELAY).await.unwrap(), 2);
    let again = world.command(&mine).await;
    assert_eq!((again.due_time, again.paused_since), (Some(world.now() + PAUSE), mine.due_time));
    for (record, before) in kept.into_iter().zip(before).take(3) {
        assert_eq!(world.command(record).await, before);
    }
    world.check_books().await;
}

pub async fn what_was_put_off_is_resumed<H: Harness>(world: World<H>) {
    let mine = world.born_paused(wish(1, "mine")).await;
    let other = world.born_paused(Wish { requester: 2, ..wish(2, "other") }).await;
    let deferred = world.done(wish(3, "deferred"), unreachable()).await;
    let first = world.fresh(wish(4, "first")).await;
    let second = world.fresh(wish(4, "second")).await;
    for record in [&first, &second] {
        world.put_off(record, api_down()).await;
    }
    world.advance(TimeDelta::seconds(1));
    assert_eq!(world.store().resume(Some(organization(2))).await.unwrap(), 1);
    assert_eq!(world.due_ids().await, [other.id]);
    assert_eq!(world.store().resume(None).await.unwrap(), 2);
    assert_eq!(world.due_ids().await, [mine.id, other.id, first.id], "of a line the first");
    assert_eq!(world.command(&deferred).await, deferred, "it was not put off");
    assert_eq!(world.store().resume(None).await.unwrap(), 0);
    // They are paused until they are begun.
    let mine = world.command(&mine).await;
    assert_eq!((mine.due_time, mine.paused), (Some(world.now()), TimeDelta::zero()));
    let claimed = world.claim(&mine).await;
    assert_eq!((claimed.paused_since, claimed.paused), (None, TimeDelta::seconds(1)));
    world.check_books().await;
}

pub async fn what_is_put_off_counts_for_a_tenth<H: Harness>(world: World<H>) {
    world.fresh(wish(1, "other")).await;
    for n in 0..20 {
        let request = Acceptance { put_off: Some(paused()), ..wish(2, &format!("k-{n}")).acceptance() };
        world.store().accept(request, None).await.unwrap();
    }
    assert_eq!(world.store().backlog().await.unwrap(), 1 + 2);
    world.store().resume(None).await.unwrap();
    assert_eq!(world.store().backlog().await.unwrap(), 1 + 2, "until they are begun");
}

pub async fn a_deferral_while_nothing_is_sent_is_a_pause<H: Harness>(world: World<H>) {
    let fails = |is_paused| Finish { is_paused, defer_delay: Duration::from_secs(10), ..unreachable() };
    let record = world.done(wish(1, "k"), fails(true)).await;
    assert_eq!(record.state, State::Deferred);
    assert_eq!(record.paused_since, record.due_time.map(|due| due - TimeDelta::seconds(10)));
    // It had no time in which it could be given up.
    world.advance(TERMS.give_up_after * 2);
    let record = world.settle(&world.claim(&record).await, fails(true)).await;
    assert_eq!((record.state, record.attempts), (State::Deferred, 2));
    world.store().resume(None).await.unwrap();
    let record = world.settle(&world.claim(&record).await, fails(false)).await;
    assert_eq!((record.state, record.paused_since), (State::Deferred, None));
    world.advance(TERMS.give_up_after);
    let record = world.settle(&world.claim(&record).await, fails(false)).await;
    assert_eq!(record.state, State::Abandoned);
}
