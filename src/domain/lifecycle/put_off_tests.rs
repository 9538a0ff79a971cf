//! Commands that are put off, and the clock of `give_up_after`.

use super::*;
use crate::domain::error::Refusal;

const PAUSE: TimeDelta = TimeDelta::seconds(20);

fn pause(keeps_place: bool) -> PutOff {
    let refusal = Refusal::new(Reason::UpstreamUnavailable, "paused").retry_after(Duration::from_secs(20));
    PutOff { delay: Duration::from_secs(20), keeps_place, refusal }
}

fn put_off_in(
    record: &CommandRecord,
    connection: &ConnectionRecord,
    situation: Situation<'_>,
    keeps_place: bool,
    now: Timestamp,
) -> Settlement {
    let put_off = pause(keeps_place);
    match super::put_off(record.clone(), connection.clone(), situation, &put_off, now, Uuid::now_v7()) {
        PutOffAnswer::Settled(settlement) => settlement,
        PutOffAnswer::Unavailable(record) => panic!("not available: {record:?}"),
    }
}

fn put_off(
    record: &CommandRecord,
    connection: &ConnectionRecord,
    keeps_place: bool,
    now: Timestamp,
) -> Settlement {
    put_off_in(record, connection, Situation::default(), keeps_place, now)
}

fn accepted() -> (CommandRecord, ConnectionRecord) {
    new_record(request(1, 1, "k"), &ConnectionRecord::new(connection(1)), start())
}

#[test]
fn a_new_command_of_a_paused_requester_is_born_put_off() {
    let known = ConnectionRecord::new(connection(1));
    let (record, _) =
        new_record(Acceptance { put_off: Some(pause(false)), ..request(1, 1, "k") }, &known, start());
    assert_eq!((record.state, record.attempts, record.epoch), (State::Deferred, 0, 0));
    assert_eq!((record.due_time, record.paused_since), (Some(start() + PAUSE), Some(start())));
    assert_eq!(
        record.outcome.as_ref().and_then(|outcome| outcome.refusal.clone()),
        Some(pause(false).refusal)
    );
    assert!(!record.in_line() && !record.blocks());
}

#[test]
fn a_failed_command_that_comes_again_has_no_pauses_of_earlier() {
    for is_paused in [true, false] {
        let (record, connection) = accepted();
        let record = put_off(&record, &connection, false, start()).record;
        let (record, connection) = claim(record, connection, start() + PAUSE);
        assert_eq!(record.paused, PAUSE);
        let failed = settle(&record, &connection, ending(&record, Ending::Refused, true), start() + PAUSE);
        assert_eq!(failed.record.state, State::Failed);
        let now = start() + PAUSE * 2;
        let again = Acceptance { put_off: is_paused.then(|| pause(false)), ..request(2, 1, "k") };
        let Accepted::Fresh(again, _) =
            accept(Some(failed.record), &failed.connection, again, false, now, &TERMS)
        else {
            panic!("not fresh")
        };
        assert_eq!(again.paused, TimeDelta::zero());
        let expected = if is_paused { (State::Deferred, Some(now)) } else { (State::Accepted, None) };
        assert_eq!((again.state, again.paused_since), expected);
    }
}

#[test]
fn a_repeat_does_not_make_a_command_due_while_its_requester_is_paused() {
    let (record, connection) = accepted();
    let record = put_off(&record, &connection, false, start()).record;
    let now = start() + TimeDelta::seconds(1);
    for (paused, due_time) in [(Some(pause(false)), record.due_time), (None, Some(now))] {
        let repeat = Acceptance { put_off: paused, ..request(2, 1, "k") };
        let Accepted::InProgress(same) =
            accept(Some(record.clone()), &connection, repeat, false, now, &TERMS)
        else {
            panic!("not in progress")
        };
        assert_eq!((same.due_time, same.paused_since), (due_time, record.paused_since));
    }
}

#[test]
fn a_command_of_a_paused_requester_leaves_the_line_and_wakes_it() {
    let (record, connection) = accepted();
    let settlement = put_off(&record, &connection, false, start());
    assert_eq!(settlement.wake_time, Some(start()));
    let after = settlement.record;
    assert_eq!((after.state, after.waiting, after.in_line()), (State::Deferred, false, false));
    assert_eq!((after.attempts, after.epoch), (record.attempts, record.epoch));
    assert_eq!((after.due_time, after.paused_since), (Some(start() + PAUSE), Some(start())));
    // The line has gone on already when it is put off again, in the same pause.
    let again = put_off(&after, &connection, false, start() + PAUSE);
    assert_eq!(again.wake_time, None);
    assert_eq!(again.record.paused_since, Some(start()));
    assert_eq!(again.record.due_time, Some(start() + PAUSE * 2));
}

#[test]
fn while_the_api_is_down_a_command_keeps_its_state_and_place() {
    let (record, connection) = accepted();
    let settlement = put_off(&record, &connection, true, start());
    assert_eq!((settlement.record.state, settlement.record.waiting), (State::Accepted, true));
    assert_eq!((settlement.record.due_time, settlement.wake_time), (Some(start() + PAUSE), None));
    let behind = Situation { is_behind: true, ..<_>::default() };
    let behind = put_off_in(&record, &connection, behind, true, start());
    assert_eq!(behind.record.due_time, Some(start() + LINE_WAIT), "woken when it is the first");

    let deferred = CommandRecord { state: State::Deferred, ..record };
    let settlement = put_off(&deferred, &connection, true, start());
    assert_eq!((settlement.record.state, settlement.record.waiting), (State::Deferred, false));
    assert_eq!((settlement.record.due_time, settlement.wake_time), (Some(start() + PAUSE), None));
}

#[test]
fn a_lost_claim_that_is_put_off_counts_as_sent() {
    for keeps_place in [true, false] {
        let (record, connection) = claimed();
        let held = start() + TERMS.lease - TimeDelta::microseconds(1);
        let put_off_at = |now| {
            let (record, connection) = (record.clone(), connection.clone());
            super::put_off(record, connection, Situation::default(), &pause(keeps_place), now, Uuid::nil())
        };
        assert_eq!(put_off_at(held), PutOffAnswer::Unavailable(record.clone()));
        let PutOffAnswer::Settled(settlement) = put_off_at(start() + TERMS.lease) else { panic!("held") };
        let after = settlement.record;
        assert_eq!((after.state, after.maybe_applied, after.waiting), (State::Deferred, true, false));
        assert_eq!((after.epoch, after.attempts), (record.epoch, record.attempts));
        assert_eq!(settlement.wake_time, None, "it blocks");
        assert_eq!(settlement.connection.settle_until, connection.quiet.map(|quiet| quiet.until));
    }
}

#[test]
fn what_must_not_be_sent_any_more_ends_instead() {
    for (caller_waits, letters) in [(true, 0), (false, 1)] {
        let (mut record, connection) = accepted();
        record.command.expire_time = Some(start());
        let situation = Situation { caller_waits, ..<_>::default() };
        let ended = put_off_in(&record, &connection, situation, false, start());
        assert_eq!((ended.record.state, ended.record.paused_since), (State::Failed, None));
        assert_eq!(ended.messages.len(), letters);
        record.maybe_applied = true;
        let after = put_off_in(&record, &connection, situation, false, start());
        assert_eq!(after.record.state, State::Deferred);
    }
    let (record, mut connection) = accepted();
    let version = crate::domain::connection::Version {
        effective_time: record.effective_time + TimeDelta::seconds(1),
        command_id: record.id,
    };
    connection.applied =
        Some(Applied { version, archived: false, requester: record.command.requester, certain: true });
    let ended = put_off(&record, &connection, true, start());
    assert_eq!(ended.record.state, State::Superseded);
    let again = super::put_off(
        ended.record.clone(),
        connection,
        Situation::default(),
        &pause(false),
        start(),
        Uuid::nil(),
    );
    assert_eq!(again, PutOffAnswer::Unavailable(ended.record));
}

#[test]
fn what_an_attempt_heard_stays() {
    let (record, connection) = claimed();
    let deferred = settle(&record, &connection, ending(&record, Ending::Broken, false), start());
    let after = put_off(&deferred.record, &deferred.connection, false, start());
    assert_eq!(after.record.outcome, deferred.record.outcome);
    assert_eq!(after.record.attempts, 1);
}

/// Two pauses, and an attempt after each.
#[test]
fn paused_time_does_not_count_towards_give_up_after() {
    for is_paused in [true, false] {
        let (mut record, mut connection) = accepted();
        let mut now = start();
        for round in 1..=2 {
            if is_paused {
                record = put_off(&record, &connection, false, now).record;
            }
            now += TERMS.give_up_after;
            (record, connection) = claim(record, connection, now);
            assert_eq!(record.paused_since, None);
            let settlement = settle(&record, &connection, ending(&record, Ending::Unreachable, false), now);
            (record, connection) = (settlement.record, settlement.connection);
            assert_eq!(record.paused_since, None, "deferred, not paused");
            if !is_paused {
                assert_eq!(record.state, State::Abandoned);
                break;
            }
            assert_eq!((record.state, record.paused), (State::Deferred, TERMS.give_up_after * round));
        }
        if is_paused {
            // Time that was not paused still ends it.
            now += TERMS.give_up_after;
            let (record, connection) = claim(record, connection, now);
            let ended = settle(&record, &connection, ending(&record, Ending::Unreachable, false), now);
            assert_eq!(ended.record.state, State::Abandoned);
        }
    }
}

#[test]
fn a_clock_that_is_set_back_takes_nothing_from_the_pauses() {
    let (record, connection) = accepted();
    let record = put_off(&record, &connection, false, start()).record;
    let (record, _) = claim(record, connection, start() - TimeDelta::hours(1));
    assert_eq!(record.paused, TimeDelta::zero());
}
