//! What becomes of requesters, and of their upstream, without a token.

use super::*;
use crate::domain::obstacle::Obstacle;

#[test]
fn an_old_token_that_is_refused_closes_nothing() {
    let mut bench = Bench::new(2);
    let under_way = bench.take(1);
    assert!(under_way.len() > 5);
    under_way.into_iter().for_each(|t| bench.tell(t, Heard::Unauthorized { is_renewed: false }));
    assert_eq!(bench.closed(1), None);
    (0..5).for_each(|_| assert!(bench.send(1, Heard::Unauthorized { is_renewed: true })));
    assert!(bench.closed(1).is_some_and(|closed| closed.why == Why::Broken));
}

#[test]
fn without_a_token_and_without_a_sign_of_life_the_upstream_is_down_and_a_try_asks_at_once() {
    let why =
        Unauthorized::Unreachable { obstacle: Obstacle::Connect, retry_after: Some(Duration::from_secs(60)) };
    for count in [1, 2] {
        let mut bench = Bench::new(count);
        bench.no_token(1, &why);
        assert!(bench.closed(1).is_some_and(|closed| closed.why == Why::Down && closed.is_everyone));
        bench.advance(4_000);
        assert_eq!(bench.closed(1), None, "it may try, though no token is asked for otherwise");
        let ticket = bench.try_enter(1).expect("a try");
        assert!(ticket.tries_upstream);
        bench.tell(ticket, Heard::Served);
        assert!(bench.state.condition(bench.now).down.is_empty());
    }
    // Beside others that are served it is its own affair, and said once however many waited for the token.
    let mut bench = Bench::new(2);
    bench.send(2, Heard::Served);
    (0..20).for_each(|_| bench.no_token(1, &why));
    assert!(bench.closed(1).is_some_and(|closed| closed.why == Why::Broken));
    assert_eq!(bench.closed(2), None);
}

/// That one's credentials are refused, or gone, may be known without asking: it says nothing of the upstream.
#[test]
fn a_try_without_credentials_is_another_s_and_brings_nobody_back() {
    for why in [Unauthorized::Refused, Unauthorized::NotConfigured] {
        let mut bench = Bench::new(2);
        (0..10).take_while(|n| bench.send(1 + n % 2, FAILED)).count();
        bench.advance(4_000);
        let ticket = bench.try_enter(1).expect("a try");
        bench.state.release(ticket);
        bench.state.unauthorized(ticket, &why, bench.now, 1.0);
        bench.pump();
        assert!(!bench.state.condition(bench.now).down.is_empty(), "nobody has heard of it");
        assert!(bench.try_enter(2).is_some_and(|ticket| ticket.tries_upstream), "the other one tries");
    }
}
