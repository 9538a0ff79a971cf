//! The rules one by one; random histories are in `history_tests.rs`.

use std::time::Duration;

use chrono::TimeDelta;
use uuid::Uuid;

use super::*;
use crate::domain::Timestamp;
use crate::domain::access::AskedBy;
use crate::domain::command::{Command, CommandId, IdempotencyKey, OrganizationId};
use crate::domain::connection::{Applied, Connection, ConnectionRecord, Quiet, Suspicion};
use crate::domain::error::Reason;
use crate::domain::message::Message;
use crate::domain::record::{CommandRecord, Door, Outcome, ReplyAddress, State};
use crate::domain::reply::Verdict;
use crate::domain::trace::TraceContext;

const TERMS: Terms = Terms {
    lease: TimeDelta::seconds(60),
    settle: TimeDelta::seconds(30),
    hold: TimeDelta::seconds(45),
    give_up_after: TimeDelta::hours(1),
};

fn start() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn connection(guest: u128) -> Connection {
    Connection { target: OrganizationId(Uuid::from_u128(1)), guest: OrganizationId(Uuid::from_u128(guest)) }
}

fn request(number: u128, guest: u128, key: &str) -> Acceptance {
    Acceptance {
        command: Command {
            requester: OrganizationId(Uuid::from_u128(1)),
            connection: connection(guest),
            archived: true,
            key: IdempotencyKey::parse(key).unwrap(),
            issue_time: None,
            expire_time: None,
        },
        id: CommandId(Uuid::from_u128(1_000_000 + number)),
        door: Door::Grpc,
        asked_by: AskedBy::default(),
        trace: TraceContext::default(),
        correlation_id: None,
        reply: None,
        is_owned: true,
        put_off: None,
    }
}

/// How an attempt may come out.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Applied,
    Rejected,
    Refused,
    Unreachable,
    Broken,
    Unanswered,
}

const ENDINGS: [Ending; 6] = [
    Ending::Applied,
    Ending::Rejected,
    Ending::Refused,
    Ending::Unreachable,
    Ending::Broken,
    Ending::Unanswered,
];

fn ending(record: &CommandRecord, ending: Ending, caller_waits: bool) -> Finish {
    let transient = |maybe_applied, unanswered| Verdict::Transient {
        outcome: Outcome::refused(None, Reason::UpstreamUnavailable, "not now"),
        maybe_applied,
        unanswered,
        token_refused: false,
    };
    let verdict = match ending {
        Ending::Applied => Verdict::Applied { outcome: Outcome::default() },
        Ending::Rejected => Verdict::Rejected(Outcome::refused(Some(404), Reason::UpstreamNotFound, "no")),
        Ending::Refused => Verdict::Refused(Outcome::refused(Some(403), Reason::UpstreamForbidden, "no")),
        Ending::Unreachable => transient(false, false),
        Ending::Broken => transient(true, false),
        Ending::Unanswered => transient(true, true),
    };
    Finish {
        id: record.id,
        epoch: record.epoch,
        verdict,
        attempts: 1,
        maybe_applied: matches!(ending, Ending::Broken | Ending::Unanswered),
        unanswered_ago: matches!(ending, Ending::Unanswered).then_some(Duration::from_secs(2)),
        caller_waits,
        defer_delay: Duration::from_secs(5),
        is_paused: false,
        event_id: Uuid::now_v7(),
    }
}

fn new_record(
    request: Acceptance,
    connection: &ConnectionRecord,
    now: Timestamp,
) -> (CommandRecord, ConnectionRecord) {
    match accept(None, connection, request, false, now, &TERMS) {
        Accepted::Fresh(record, connection) => (record, connection),
        other => panic!("not new: {other:?}"),
    }
}

fn claim(
    record: CommandRecord,
    connection: ConnectionRecord,
    now: Timestamp,
) -> (CommandRecord, ConnectionRecord) {
    match begin(record, connection, Situation::default(), now, Uuid::now_v7(), &TERMS) {
        Begun::Claimed(record, connection) => (record, connection),
        other => panic!("not claimed: {other:?}"),
    }
}

fn settle(
    record: &CommandRecord,
    connection: &ConnectionRecord,
    finish: Finish,
    now: Timestamp,
) -> Settlement {
    match super::finish(record.clone(), connection.clone(), finish, now, &TERMS) {
        Finished::Settled(settlement) => settlement,
        Finished::Stale(_) => panic!("stale"),
    }
}

fn claimed() -> (CommandRecord, ConnectionRecord) {
    let (record, connection) = new_record(request(1, 1, "k"), &ConnectionRecord::new(connection(1)), start());
    claim(record, connection, start())
}

#[test]
fn a_claim_has_a_lease_and_a_quiet_time_after_it() {
    let (record, connection) = claimed();
    assert_eq!((record.state, record.epoch), (State::InFlight, 1));
    assert_eq!(record.due_time, Some(start() + TERMS.lease));
    let quiet = Quiet { until: start() + TERMS.lease + TERMS.settle, command_id: record.id };
    assert_eq!(connection.quiet, Some(quiet));
}

#[test]
fn every_ending_leads_to_its_state() {
    use Ending::*;
    for (how, caller_waits, maybe_before, state, maybe_after) in [
        (Applied, false, false, State::Succeeded, false),
        (Applied, false, true, State::Succeeded, false),
        (Rejected, false, false, State::Rejected, false),
        (Rejected, false, true, State::Rejected, true),
        (Refused, false, false, State::Failed, false),
        (Refused, false, true, State::Rejected, true),
        (Unreachable, false, false, State::Deferred, false),
        (Unreachable, true, false, State::Failed, false),
        (Unreachable, true, true, State::Deferred, true),
        (Broken, true, false, State::Deferred, true),
        (Unanswered, true, false, State::Deferred, true),
    ] {
        let (mut record, connection) = claimed();
        record.maybe_applied = maybe_before;
        let settlement = settle(&record, &connection, ending(&record, how, caller_waits), start());
        let after = (settlement.record.state, settlement.record.maybe_applied);
        assert_eq!(after, (state, maybe_after), "{how:?}, {caller_waits}, {maybe_before}");
        // A command that may have been applied wakes nobody before it is final.
        assert_eq!(settlement.wake_time.is_some(), state.is_final() || !maybe_after, "{how:?}");
    }
}

#[test]
fn answered_claims_leave_no_quiet_time_and_unanswered_ones_do() {
    let (record, connection) = claimed();
    let now = start() + TimeDelta::seconds(5);
    for how in ENDINGS {
        let settlement = settle(&record, &connection, ending(&record, how, false), now);
        let expected = matches!(how, Ending::Unanswered)
            .then(|| Quiet { until: now - TimeDelta::seconds(2) + TERMS.settle, command_id: record.id });
        assert_eq!(settlement.connection.quiet, expected, "{how:?}");
    }
}

#[test]
fn an_answer_after_the_end_of_a_lost_lease_keeps_its_quiet_time() {
    let (record, connection) = claimed();
    let now = start() + TERMS.lease;
    let (again, connection) = claim(record, connection, now);
    assert!(again.maybe_applied);
    let settlement = settle(&again, &connection, ending(&again, Ending::Applied, false), now);
    let lost_until = start() + TERMS.lease + TERMS.settle;
    assert_eq!(settlement.connection.quiet.map(|quiet| quiet.until), Some(lost_until));
    assert_eq!(settlement.wake_time, Some(lost_until));
}

#[test]
fn a_stale_finish_raises_suspicion_only_if_something_was_sent() {
    let (record, connection) = claimed();
    let suspicion = Suspicion { since: start(), due: start() + TERMS.settle };
    for (attempts, suspicion) in [(0, None), (1, Some(suspicion))] {
        let stale = Finish { epoch: record.epoch - 1, attempts, ..ending(&record, Ending::Applied, false) };
        let expected = ConnectionRecord { suspicion, ..connection.clone() };
        let finished = super::finish(record.clone(), connection.clone(), stale, start(), &TERMS);
        assert_eq!(finished, Finished::Stale(expected));
    }
}

#[test]
fn a_version_that_would_go_back_makes_the_connection_suspect() {
    let (record, mut connection) = claimed();
    let version = crate::domain::connection::Version {
        effective_time: record.effective_time + TimeDelta::seconds(1),
        command_id: record.id,
    };
    let applied = Applied { version, archived: false, requester: record.command.requester, certain: true };
    connection.applied = Some(applied);
    let settlement = settle(&record, &connection, ending(&record, Ending::Applied, false), start());
    assert_eq!(settlement.connection.applied, Some(applied));
    let suspicion = Suspicion { since: start(), due: start() };
    assert_eq!(settlement.connection.suspicion, Some(suspicion), "to be healed as soon as it is free");
    assert_eq!(settlement.connection.sequence, 1, "the effect is told all the same");
}

#[test]
fn reply_addresses_are_bounded() {
    let (mut record, connection) = claimed();
    for number in 0..2 * REPLIES_MAX {
        let reply = ReplyAddress { reply_to: format!("queue-{number}"), correlation_id: None };
        let repeat = Acceptance { reply: Some(reply), ..request(2, 1, "k") };
        let Accepted::InProgress(next) = accept(Some(record), &connection, repeat, false, start(), &TERMS)
        else {
            panic!("not in progress")
        };
        record = next;
    }
    assert_eq!(record.replies.len(), REPLIES_MAX);
}

#[test]
fn a_waiting_command_is_not_looked_at_again_at_once() {
    let (mut blocker, _) = claimed();
    blocker.due_time = Some(start() - TimeDelta::seconds(1));
    let (record, connection) =
        new_record(request(2, 1, "k-2"), &ConnectionRecord::new(connection(1)), start());
    let Begun::Waiting(record) = begin(
        record,
        connection,
        Situation { blocker: Some(&blocker), ..<_>::default() },
        start(),
        Uuid::now_v7(),
        &TERMS,
    ) else {
        panic!("does not wait")
    };
    assert_eq!(record.due_time, Some(start() + WAIT_MIN));
}

#[path = "property_tests.rs"]
mod properties;

#[path = "history_tests.rs"]
mod histories;

#[path = "put_off_tests.rs"]
mod pauses;

#[test]
fn a_message_that_joins_a_call_is_not_left_with_its_failure() {
    let (record, connection) = claimed();
    let joining = Acceptance { door: Door::Amqp, ..request(2, 1, "k") };
    let Accepted::InProgress(record) = accept(Some(record), &connection, joining, false, start(), &TERMS)
    else {
        panic!("it is in progress");
    };
    // The caller waits, and would hear of the failure; the message would not.
    let settled = settle(&record, &connection, ending(&record, Ending::Unreachable, true), start());
    assert_eq!(settled.record.state, State::Deferred);
    let settled = settle(&record, &connection, ending(&record, Ending::Refused, true), start());
    assert_eq!(settled.record.state, State::Failed);
    assert!(matches!(settled.messages[..], [Message::DeadLetter(_)]));
}

#[test]
fn a_command_waits_for_those_that_stand_ahead_of_it_unless_all_wait_for_it() {
    let known = ConnectionRecord::new(connection(1));
    let (record, connection) = new_record(request(1, 1, "k"), &known, start());
    let now = start();
    let situation = Situation { is_behind: true, ..<_>::default() };
    let Begun::Waiting(waiting) =
        begin(record.clone(), connection.clone(), situation, now, Uuid::now_v7(), &TERMS)
    else {
        panic!("overtaken")
    };
    assert_eq!((waiting.waiting, waiting.due_time), (true, Some(now + LINE_WAIT)));
    assert!(waiting.in_line());
    let unknown = CommandRecord { state: State::Deferred, maybe_applied: true, ..record };
    assert!(!unknown.in_line());
    let begun = begin(unknown, connection, situation, now, Uuid::now_v7(), &TERMS);
    assert!(matches!(begun, Begun::Claimed(record, _) if record.state == State::InFlight));
}

#[test]
fn a_command_without_an_owner_is_due_at_once_unless_others_stand_before_it() {
    let known = ConnectionRecord::new(connection(1));
    for (is_behind, due_time) in [(false, start()), (true, start() + LINE_WAIT)] {
        let request = Acceptance { is_owned: false, ..request(1, 1, "k") };
        let Accepted::Fresh(record, _) = accept(None, &known, request, is_behind, start(), &TERMS) else {
            panic!("not new")
        };
        assert_eq!(record.due_time, Some(due_time));
    }
}
