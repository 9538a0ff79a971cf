//! Properties of single decisions, whatever the numbers.

use proptest::prelude::*;

use super::*;
use crate::domain::error::Refusal;
use crate::domain::lifecycle;

/// Times around the start, some far away.
fn time() -> impl Strategy<Value = Timestamp> {
    let micros = prop_oneof![
        4 => -100_000_000i64..100_000_000,
        1 => -3_000_000_000_000_000i64..3_000_000_000_000_000,
    ];
    micros.prop_map(|micros| start() + TimeDelta::microseconds(micros))
}

fn duration() -> impl Strategy<Value = Duration> {
    prop_oneof![
        (0u64..100_000).prop_map(Duration::from_millis),
        (0u32..64).prop_map(|bits| Duration::from_secs(1 << bits)),
        Just(Duration::MAX)
    ]
}

fn outcome() -> Outcome {
    Outcome::refused(Some(503), Reason::UpstreamUnavailable, "not now")
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        Just(Verdict::Applied { outcome: Outcome::default() }),
        Just(Verdict::Rejected(outcome())),
        Just(Verdict::Refused(outcome())),
        (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
            |(maybe_applied, unanswered, token_refused)| {
                Verdict::Transient { outcome: outcome(), maybe_applied, unanswered, token_refused }
            }
        ),
    ]
}

fn fresh(
    record: Acceptance,
    connection: &ConnectionRecord,
    now: Timestamp,
) -> (CommandRecord, ConnectionRecord) {
    match accept(None, connection, record, false, now, &TERMS) {
        Accepted::Fresh(record, connection) => (record, connection),
        other => panic!("{other:?}"),
    }
}

proptest! {
    /// Rule 6: never later than acceptance if the caller says when, and always after the last one if it does not.
    #[test]
    fn the_effective_time_is_believed_up_to_acceptance(
        steps in proptest::collection::vec((time(), proptest::option::of(time())), 1..20),
    ) {
        let mut known = ConnectionRecord::new(connection(1));
        for (number, (now, issued)) in steps.into_iter().enumerate() {
            let mut request = request(number as u128, 1, "k");
            request.command.issue_time = issued;
            let before = known.effective_time_last;
            let (record, after) = fresh(request, &known, now);
            if let Some(issued) = issued {
                prop_assert_eq!(record.effective_time, issued.min(now));
            } else {
                prop_assert!(record.effective_time >= now);
                prop_assert!(before.is_none_or(|before| record.effective_time > before));
                let pushed = before.is_some_and(|before| before >= now);
                prop_assert!(pushed || record.effective_time == now);
            }
            prop_assert_eq!(after.effective_time_last, before.max(Some(record.effective_time)));
            known = after;
        }
    }

    /// An older command is never begun after a newer one was applied, and an applied version never goes back.
    #[test]
    fn what_is_older_than_the_applied_one_is_superseded(
        issued in time(), applied in time(), id in any::<u128>(), now in time(), certain in any::<bool>(),
    ) {
        let mut known = ConnectionRecord::new(connection(1));
        let version = crate::domain::connection::Version {
            effective_time: applied,
            command_id: CommandId(Uuid::from_u128(id)),
        };
        known.applied = Some(Applied { version, archived: false, requester: connection(1).target, certain });
        let mut request = request(1, 1, "k");
        request.command.issue_time = Some(issued);
        let (record, known) = fresh(request, &known, now);
        let older = record.version() < version;
        match begin(record, known, Situation::default(), now, Uuid::nil(), &TERMS) {
            Begun::Claimed(..) => prop_assert!(!older),
            Begun::Ended(settlement) => {
                prop_assert!(older);
                prop_assert_eq!(settlement.record.state, State::Superseded);
                prop_assert!(settlement.messages.is_empty());
                prop_assert_eq!(settlement.connection.applied.map(|applied| applied.version), Some(version));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    /// What is put off is due no sooner than asked for, and nothing is counted; its pauses add up and are never negative.
    #[test]
    fn a_pause_lasts_until_the_claim_whatever_the_numbers(
        delays in proptest::collection::vec((duration(), any::<bool>(), 0i64..100_000), 1..6), back in 0i64..100_000,
    ) {
        let (mut record, mut known) = fresh(request(1, 1, "k"), &ConnectionRecord::new(connection(1)), start());
        let mut now = start();
        for (delay, keeps_place, seconds) in delays {
            let refusal = Refusal::new(Reason::UpstreamUnavailable, "paused");
            let pause = PutOff { delay, keeps_place, refusal };
            let was_in_line = record.in_line();
            let answer = lifecycle::put_off(record, known, Situation::default(), &pause, now, Uuid::nil());
            let PutOffAnswer::Settled(settlement) = answer else { panic!("nobody holds it") };
            (record, known) = (settlement.record, settlement.connection);
            prop_assert!(record.due_time >= Some(now) && record.paused_since == Some(start()));
            prop_assert_eq!((record.epoch, record.attempts, record.paused), (0, 0, TimeDelta::zero()));
            prop_assert_eq!(record.in_line(), was_in_line && keeps_place);
            prop_assert_eq!(settlement.wake_time.is_some(), was_in_line && !keeps_place);
            now += TimeDelta::seconds(seconds);
        }
        now -= TimeDelta::seconds(back);
        let (record, _) = claim(record, known, now);
        prop_assert_eq!(record.paused, (now - start()).max(TimeDelta::zero()));
        prop_assert_eq!(record.paused_since, None);
    }

    /// A claim ends in a state that fits what was heard, with one event if it is known or doubtful, whatever the numbers.
    #[test]
    fn a_finish_settles_whatever_the_numbers(
        verdict in verdict(), maybe_applied in any::<bool>(), ago in proptest::option::of(duration()),
        delay in duration(), attempts in any::<u32>(), caller_waits in any::<bool>(), by_message in any::<bool>(),
        before in any::<u32>(), age in 0i64..10_000,
    ) {
        let mut request = request(1, 1, "k");
        request.door = if by_message { Door::Amqp } else { Door::Grpc };
        let (record, known) = fresh(request, &ConnectionRecord::new(connection(1)), start());
        let Begun::Claimed(mut record, known) =
            begin(record, known, Situation::default(), start(), Uuid::nil(), &TERMS)
        else {
            panic!("nothing is in the way")
        };
        record.attempts = before;
        let now = start() + TimeDelta::seconds(age);
        let end = Finish {
            id: record.id, epoch: record.epoch, verdict: verdict.clone(), attempts, maybe_applied,
            unanswered_ago: ago, caller_waits, defer_delay: delay, is_paused: false, event_id: Uuid::max(),
        };
        let Finished::Settled(settlement) = lifecycle::finish(record, known, end, now, &TERMS) else {
            panic!("the claim holds")
        };
        let Settlement { record, connection, messages, .. } = settlement;
        prop_assert_eq!(record.attempts, before.saturating_add(attempts));
        let expected: &[State] = match verdict {
            Verdict::Applied { .. } => &[State::Succeeded],
            Verdict::Rejected(_) => &[State::Rejected],
            Verdict::Refused(_) if maybe_applied => &[State::Rejected],
            Verdict::Refused(_) => &[State::Failed],
            Verdict::Transient { .. } if maybe_applied => &[State::Deferred, State::Abandoned],
            Verdict::Transient { .. } => &[State::Failed, State::Deferred, State::Abandoned],
        };
        prop_assert!(expected.contains(&record.state), "{:?}", record.state);
        let events = messages.iter().filter(|message| matches!(message, Message::Event(_))).count();
        let told = record.state == State::Succeeded || (maybe_applied && record.state.is_final());
        prop_assert_eq!(events, usize::from(told));
        prop_assert_eq!(connection.sequence, u64::from(told));
        prop_assert_eq!(record.due_time.is_some(), record.state == State::Deferred);
        if record.state == State::Deferred {
            prop_assert!(record.due_time >= Some(now));
        }
        // What was sent just now and got no answer keeps others away.
        if ago.is_some_and(|ago| ago < Duration::from_secs(1)) {
            prop_assert!(connection.quiet.is_some_and(|quiet| quiet.until > now));
        }
    }
}
