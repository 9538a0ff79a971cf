use std::sync::atomic::{AtomicU64, Ordering};

use proptest::prelude::*;
use uuid::Uuid;

use super::*;

const fn at(ms: u64) -> Moment {
    Duration::from_millis(ms)
}

fn organization(n: u128) -> OrganizationId {
    OrganizationId(Uuid::from_u128(n))
}

fn connection(n: u128) -> Connection {
    Connection { target: organization(1), guest: organization(n) }
}

/// Each of another connection.
fn failure(n: u128) -> Failure {
    static NEXT: AtomicU64 = AtomicU64::new(1000);
    let guest = u128::from(NEXT.fetch_add(1, Ordering::Relaxed));
    Failure {
        source: organization(n),
        connection: Some(connection(guest)),
        is_general: false,
        retry_after: None,
    }
}

fn terms() -> Terms {
    Terms {
        failures_max: 5,
        failure_share: 0.5,
        is_shared: false,
        delay: Backoff { delay_base: at(1000), delay_max: at(4000) },
    }
}

fn shared() -> Breaker {
    Breaker::new(Terms { is_shared: true, ..terms() })
}

/// Fails until it opens; after how many failures.
fn fail_until_open(breaker: &mut Breaker, now: Moment, sources: &[u128]) -> Option<usize> {
    (0..100)
        .find(|n| breaker.fail(now, failure(sources[n % sources.len()]), false, 1.0).is_some())
        .map(|n| n + 1)
}

#[test]
fn it_opens_on_failures_in_a_row_and_one_request_tries() {
    let mut breaker = Breaker::new(terms());
    assert_eq!(breaker.admission(at(0)), Admission::Free);
    for _ in 0..3 {
        for _ in 0..4 {
            assert_eq!(breaker.fail(at(0), failure(1), false, 1.0), None);
        }
        assert_eq!(breaker.succeed(at(0), false), None, "a success ends the row");
    }
    let mut breaker = Breaker::new(terms());
    assert_eq!(fail_until_open(&mut breaker, at(0), &[1]), Some(5));
    assert_eq!(breaker.admission(at(999)), Admission::Nothing(Some(at(1000))));
    assert_eq!(breaker.admission(at(1000)), Admission::Try);
    breaker.begin_try();
    assert_eq!(breaker.admission(at(9999)), Admission::Nothing(None), "one alone tries");
    // What was sent before it opened says nothing.
    assert_eq!(breaker.succeed(at(1100), false), None);
    assert_eq!(breaker.fail(at(1100), failure(1), false, 1.0), None);
    assert_eq!(breaker.fail(at(1200), failure(1), true, 1.0), Some(Change::Opened));
    assert_eq!(breaker.admission(at(1200)), Admission::Nothing(Some(at(3200))), "twice as long");
    breaker.begin_try();
    assert_eq!(breaker.succeed(at(3300), true), Some(Change::Closed));
    assert_eq!(breaker.admission(at(3300)), Admission::Free);
    assert_eq!(fail_until_open(&mut breaker, at(4000), &[1]), Some(5), "as if nothing had been");
    assert_eq!(breaker.admission(at(4000)), Admission::Nothing(Some(at(5000))));
}

#[test]
fn it_opens_on_a_share_of_failures() {
    let mut breaker = Breaker::new(terms());
    let opened = (0..40).find(|n| {
        breaker.succeed(at(n * 10), false);
        breaker.fail(at(n * 10), failure(1), false, 0.0).is_some()
    });
    assert_eq!(opened, Some(9), "at the twentieth request");
    // Less than the share does not, however long it goes on.
    let mut breaker = Breaker::new(terms());
    for n in 0..1000 {
        breaker.succeed(at(n * 10), false);
        breaker.succeed(at(n * 10), false);
        assert_eq!(breaker.fail(at(n * 10), failure(1), false, 0.0), None);
    }
}

#[test]
fn what_is_long_ago_does_not_count_for_the_share() {
    let mut breaker = Breaker::new(terms());
    for n in 0..9 {
        breaker.succeed(at(n), false);
        assert_eq!(breaker.fail(at(n), failure(1), false, 0.0), None);
    }
    breaker.succeed(at(20_000), false);
    assert_eq!(breaker.fail(at(20_000), failure(1), false, 0.0), None);
    assert_eq!(breaker.fail(at(20_001), failure(1), false, 0.0), None);
}

#[test]
fn one_organisation_alone_does_not_open_what_is_shared() {
    let mut breaker = shared();
    assert_eq!(fail_until_open(&mut breaker, at(0), &[1]), None);
    assert_eq!(fail_until_open(&mut breaker, at(0), &[2]), Some(1), "a second one does");
    let mut breaker = shared();
    assert_eq!(fail_until_open(&mut breaker, at(0), &[1, 2]), Some(5));
    // That no connection comes about has nothing to do with the organisation.
    let mut breaker = shared();
    let general = Failure { is_general: true, ..failure(1) };
    let opened = (1..10).find(|_| breaker.fail(at(0), general, false, 0.0).is_some());
    assert_eq!(opened, Some(5));
}

#[test]
fn one_connection_alone_does_not_open_it() {
    let mut breaker = Breaker::new(terms());
    let alone = |guest| Failure { connection: Some(connection(guest)), ..failure(1) };
    for n in 0..100 {
        assert_eq!(breaker.fail(at(n), alone(u128::from(n % 2)), false, 0.0), None);
    }
    assert_eq!(breaker.fail(at(100), alone(7), false, 0.0), Some(Change::Opened));
    // That no connection to the upstream comes about has nothing to do with it.
    let mut breaker = Breaker::new(terms());
    let general = Failure { is_general: true, ..alone(1) };
    assert_eq!((1..10).find(|_| breaker.fail(at(0), general, false, 0.0).is_some()), Some(5));
}

#[test]
fn a_hint_is_believed_for_a_while() {
    for (hint, until) in [(2_000, 2_000), (10, 1_000), (3_600_000, 30_000)] {
        let mut breaker = Breaker::new(Terms { failures_max: 1, ..terms() });
        breaker.fail(at(0), Failure { retry_after: Some(at(hint)), ..failure(1) }, false, 1.0);
        assert_eq!(breaker.admission(at(0)), Admission::Nothing(Some(at(until))), "{hint}");
    }
}

#[test]
fn a_try_that_was_not_sent_is_given_back() {
    let mut breaker = Breaker::new(terms());
    breaker.give_back(at(0));
    assert!(breaker.is_closed());
    assert_eq!(breaker.trip(at(0), 1.0), Some(Change::Opened));
    assert_eq!(breaker.trip(at(0), 1.0), None, "it is open");
    assert_eq!(breaker.admission(at(1_000)), Admission::Try);
    assert_eq!(breaker.trip(at(1_000), 1.0), Some(Change::Opened), "there is nothing to try with");
    assert_eq!(breaker.admission(at(2_000)), Admission::Nothing(Some(at(3_000))));
    breaker.begin_try();
    breaker.give_back(at(4_000));
    assert_eq!(breaker.admission(at(4_000)), Admission::Try);
}

#[test]
fn it_is_strained_before_it_opens() {
    let mut breaker = Breaker::new(terms());
    assert!(!breaker.is_strained());
    (0..3).for_each(|_| assert_eq!(breaker.fail(at(0), failure(1), false, 0.0), None));
    assert!(breaker.is_strained() && breaker.is_closed());
    breaker.succeed(at(0), false);
    assert!(!breaker.is_strained());
}

proptest! {
    /// Whatever is told, nothing is free before a try succeeded, no more than one tries, and it is never shut for ever.
    #[test]
    fn it_closes_by_a_success_alone(steps in proptest::collection::vec((0u8..6, 0u64..3000, 0u128..3, 0.0f64..1.0), 1..200)) {
        let mut breaker = shared();
        let (mut now, mut trying) = (Moment::ZERO, false);
        for (step, wait, source, jitter) in steps {
            now += at(wait);
            let was_closed = breaker.is_closed();
            let change = match step {
                0 | 1 => breaker.fail(now, failure(source), false, jitter),
                2 => breaker.succeed(now, false),
                3 if breaker.admission(now) == Admission::Try => { breaker.begin_try(); trying = true; None }
                4 if trying => { trying = false; breaker.fail(now, failure(source), true, jitter) }
                5 if trying => { trying = false; breaker.succeed(now, true) }
                _ => None,
            };
            if !was_closed && breaker.is_closed() {
                prop_assert_eq!(change, Some(Change::Closed));
            }
            match breaker.admission(now) {
                Admission::Nothing(None) => prop_assert!(trying),
                Admission::Nothing(Some(until)) => prop_assert!(until > now && until <= now + at(4000)),
                Admission::Free => prop_assert!(breaker.is_closed()),
                Admission::Try => prop_assert!(!breaker.is_closed()),
            }
        }
    }
}
