//! The healing of a suspect connection, decision by decision.

use chrono::TimeDelta;
use uuid::Uuid;

use super::*;
use crate::domain::connection::{Applied, Version};
use crate::domain::error::Reason;
use crate::domain::record::Outcome;

const TERMS: Terms = Terms {
    lease: TimeDelta::seconds(60),
    settle: TimeDelta::seconds(30),
    hold: TimeDelta::seconds(45),
    give_up_after: TimeDelta::hours(1),
};

fn start() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

/// Suspect since now and due now, with a value that was applied a minute ago.
fn suspect() -> ConnectionRecord {
    let organization = |number| OrganizationId(Uuid::from_u128(number));
    let mut record = ConnectionRecord::new(Connection { target: organization(1), guest: organization(2) });
    record.applied = Some(Applied {
        version: Version {
            effective_time: start() - TimeDelta::minutes(1),
            command_id: CommandId(Uuid::from_u128(7)),
        },
        archived: true,
        requester: organization(3),
        certain: true,
    });
    record.suspicion = Some(Suspicion { since: start(), due: start() });
    record
}

fn claim(record: ConnectionRecord, now: Timestamp) -> (Heal, ConnectionRecord) {
    match begin(record, None, now, &TERMS) {
        Begun::Claimed(heal, record) => (heal, record),
        other => panic!("not claimed: {other:?}"),
    }
}

fn end(heal: Heal, verdict: Verdict) -> Finish {
    Finish { heal, verdict, sent: true, unanswered_ago: None, retry_delay: Duration::from_secs(5) }
}

fn applied() -> Verdict {
    Verdict::Applied { outcome: Outcome::default() }
}

fn unanswered() -> Verdict {
    let outcome = Outcome::refused(None, Reason::UpstreamUnanswered, "no answer");
    Verdict::Transient { outcome, maybe_applied: true, unanswered: true, token_refused: false }
}

#[test]
fn the_newest_value_is_sent_with_the_credentials_that_set_it_and_others_wait_meanwhile() {
    let (heal, record) = claim(suspect(), start());
    assert_eq!((heal.archived, heal.requester.0), (true, Uuid::from_u128(3)));
    assert_eq!(heal.lease_end, start() + TERMS.lease);
    let quiet = record.quiet.expect("a quiet time");
    assert_eq!((quiet.until, quiet.command_id), (heal.lease_end + TERMS.settle, heal.command_id));
    assert_eq!(begin(record.clone(), None, start(), &TERMS), Begun::Unavailable, "given once");
    let (healed, record) = finish(record, &end(heal, applied()), start(), &TERMS);
    assert_eq!((healed, record.suspicion, record.quiet), (Healed::Yes, None, None));
    assert_eq!(record.sequence, suspect().sequence, "no event");
}

#[test]
fn it_waits_for_a_blocking_command_and_for_the_quiet_time_of_another() {
    let mut record = suspect();
    let until = start() + TimeDelta::seconds(20);
    record.quiet = Some(Quiet { until, command_id: CommandId(Uuid::from_u128(99)) });
    let Begun::Waiting(record) = begin(record, None, start(), &TERMS) else { panic!("does not wait") };
    assert_eq!(record.suspicion, Some(Suspicion { since: start(), due: until }));
    assert_eq!(begin(record.clone(), None, start(), &TERMS), Begun::Unavailable);
    claim(record, until);
}

#[test]
fn without_a_value_that_is_known_to_be_applied_there_is_nothing_to_send() {
    for applied in [None, suspect().applied.map(|applied| Applied { certain: false, ..applied })] {
        let record = ConnectionRecord { applied, ..suspect() };
        let expected = ConnectionRecord { suspicion: None, ..record.clone() };
        assert_eq!(begin(record, None, start(), &TERMS), Begun::Dropped(expected));
    }
}

#[test]
fn an_unanswered_attempt_is_repeated_after_a_while_and_others_wait_for_its_effect() {
    let (heal, record) = claim(suspect(), start());
    let unheard = Finish { unanswered_ago: Some(Duration::from_secs(4)), ..end(heal, unanswered()) };
    let now = start() + TimeDelta::seconds(4);
    let (healed, record) = finish(record, &unheard, now, &TERMS);
    assert_eq!(healed, Healed::Later);
    assert_eq!(record.quiet.map(|quiet| quiet.until), Some(start() + TERMS.settle));
    assert_eq!(record.suspicion.map(|suspicion| suspicion.due), Some(now + TimeDelta::seconds(5)));
    // The same value again does no harm, so the next attempt needs not wait for the first one's effect.
    claim(record, now + TimeDelta::seconds(5));
}

#[test]
fn an_attempt_that_was_lost_with_its_process_is_taken_over_and_its_quiet_time_kept() {
    let (lost, record) = claim(suspect(), start());
    let (heal, record) = claim(record, lost.lease_end);
    let (healed, record) = finish(record, &end(heal, applied()), lost.lease_end, &TERMS);
    assert_eq!(healed, Healed::Yes);
    assert_eq!(record.quiet.map(|quiet| quiet.until), Some(lost.lease_end + TERMS.settle));
    // The lost one was only late: nobody can tell whose value came last.
    let (healed, record) = finish(record, &end(lost, applied()), lost.lease_end, &TERMS);
    let suspicion = record.suspicion.expect("suspect again");
    assert_eq!((healed, suspicion.due), (Healed::Stale, lost.lease_end + TERMS.settle));
}

#[test]
fn what_the_upstream_refuses_for_good_or_for_too_long_is_given_up() {
    let rejected = Verdict::Rejected(Outcome::refused(Some(404), Reason::UpstreamNotFound, "gone"));
    let (heal, record) = claim(suspect(), start());
    let (healed, record) = finish(record, &end(heal, rejected), start(), &TERMS);
    assert_eq!((healed, record.suspicion), (Healed::GivenUp, None));

    let forbidden = Verdict::Refused(Outcome::refused(Some(403), Reason::UpstreamForbidden, "no"));
    for (now, expected) in [(start(), Healed::Later), (start() + TERMS.give_up_after, Healed::GivenUp)] {
        let (heal, record) = claim(suspect(), now);
        let (healed, record) = finish(record, &end(heal, forbidden.clone()), now, &TERMS);
        assert_eq!((healed, record.suspicion.is_some()), (expected, expected == Healed::Later));
    }
}

#[test]
fn a_doubt_that_arises_meanwhile_is_not_lost() {
    let (heal, mut record) = claim(suspect(), start());
    let doubt = Suspicion { since: start(), due: start() + TERMS.settle };
    record.suspicion = Some(doubt);
    let (healed, record) = finish(record, &end(heal, applied()), start(), &TERMS);
    assert_eq!((healed, record.suspicion), (Healed::Stale, Some(doubt)));
}
