use uuid::Uuid;

use super::*;

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn organization(n: u128) -> OrganizationId {
    OrganizationId(Uuid::from_u128(n))
}

/// One window in which each of `sources` answers after its latency, or presses.
fn window(limit: &mut Concurrency, now: &mut Moment, sources: &[(u128, Option<u64>)], reached: bool) {
    if reached {
        limit.reach();
    }
    for round in 0..2 {
        for (n, (source, latency)) in sources.iter().enumerate() {
            if round == 1 && n + 1 == sources.len() {
                // The last answer ends the window.
                *now += ms(3000);
            }
            limit.note(*now, organization(*source), ms(latency.unwrap_or(1)), latency.is_none());
        }
    }
}

#[test]
fn it_doubles_until_it_is_pressed_and_then_creeps() {
    let (mut limit, mut now) = (Concurrency::new(256), ms(1));
    assert_eq!(limit.limit(), 16);
    window(&mut limit, &mut now, &[(1, Some(10))], true);
    assert_eq!(limit.limit(), 32);
    window(&mut limit, &mut now, &[(1, Some(10))], true);
    assert_eq!(limit.limit(), 64);
    window(&mut limit, &mut now, &[(1, None)], true);
    assert_eq!(limit.limit(), 57);
    window(&mut limit, &mut now, &[(1, Some(10))], true);
    assert_eq!(limit.limit(), 58);
    for _ in 0..400 {
        window(&mut limit, &mut now, &[(1, Some(10))], true);
    }
    assert_eq!(limit.limit(), 256, "and no further");
}

#[test]
fn it_does_not_grow_unless_it_is_reached() {
    let (mut limit, mut now) = (Concurrency::new(256), ms(1));
    for _ in 0..20 {
        window(&mut limit, &mut now, &[(1, Some(10))], false);
    }
    assert_eq!(limit.limit(), 16);
}

#[test]
fn slow_answers_shrink_it_and_a_new_usual_is_learnt() {
    let (mut limit, mut now) = (Concurrency::new(256), ms(1));
    for _ in 0..10 {
        window(&mut limit, &mut now, &[(1, Some(10))], false);
    }
    window(&mut limit, &mut now, &[(1, Some(200))], true);
    assert!(limit.limit() < 16);
    for _ in 0..200 {
        window(&mut limit, &mut now, &[(1, Some(200))], true);
    }
    assert!(limit.limit() > 16, "{}", limit.limit());
}

#[test]
fn one_organisation_in_trouble_does_not_shrink_it() {
    let (mut limit, mut now) = (Concurrency::new(256), ms(1));
    for _ in 0..10 {
        window(&mut limit, &mut now, &[(1, Some(10)), (2, Some(10))], false);
    }
    for trouble in [None, Some(2000)] {
        window(&mut limit, &mut now, &[(1, trouble), (2, Some(10))], false);
        assert_eq!(limit.limit(), 16);
    }
    window(&mut limit, &mut now, &[(1, None), (2, None)], false);
    assert_eq!(limit.limit(), 14);
    limit.forget(organization(1));
    window(&mut limit, &mut now, &[(2, Some(10))], false);
    assert_eq!(limit.limit(), 14);
}

#[test]
fn it_never_falls_below_one_and_starts_again_from_little() {
    let (mut limit, mut now) = (Concurrency::new(256), ms(1));
    for _ in 0..100 {
        window(&mut limit, &mut now, &[(1, None)], true);
    }
    assert_eq!(limit.limit(), 1);
    let (mut limit, mut now) = (Concurrency::new(64), ms(1));
    for _ in 0..5 {
        window(&mut limit, &mut now, &[(1, Some(5))], true);
    }
    assert_eq!(limit.limit(), 64);
    limit.restart();
    let mut limits = vec![limit.limit()];
    for _ in 0..6 {
        window(&mut limit, &mut now, &[(1, Some(5))], true);
        limits.push(limit.limit());
    }
    assert_eq!(limits, [2, 4, 8, 16, 32, 33, 34]);
}

/// A window in which so many of a hundred requests are refused.
fn refused(limit: &mut Concurrency, now: &mut Moment, share: usize) {
    limit.reach();
    for n in 0..100 {
        // The last one is an answer, and ends the window.
        limit.note(*now, organization(1), ms(10), n < share);
        if n == 98 {
            *now += ms(3000);
        }
    }
}

#[test]
fn what_fails_now_and_then_costs_little_of_it() {
    let settled = |share: usize| {
        let (mut limit, mut now) = (Concurrency::new(256), ms(1));
        for _ in 0..600 {
            refused(&mut limit, &mut now, share);
        }
        limit.limit()
    };
    assert!(settled(1) > 150, "{}", settled(1));
    assert!((15..30).contains(&settled(10)), "{}", settled(10));
    assert_eq!(settled(30), 1, "that is too much load");
}

#[test]
fn an_upstream_that_serves_so_many_at_once_is_asked_for_little_more() {
    for served in [2, 4, 16, 64, 200] {
        let (mut limit, mut now) = (Concurrency::new(256), ms(1));
        let (mut least, mut greatest) = (usize::MAX, 0);
        for window in 0..2_000 {
            let asked = limit.limit();
            refused(&mut limit, &mut now, asked.saturating_sub(served) * 100 / asked);
            if window > 1_000 {
                (least, greatest) = (least.min(limit.limit()), greatest.max(limit.limit()));
            }
        }
        assert!(least * 10 >= served * 8, "{served}: {least}");
        assert!(greatest <= served + 3, "{served}: {greatest}");
    }
}
