//! An organisation that fares badly on its own must not keep the upstream from being found back.

use super::*;

/// The upstream fails for organisations 1 to `count`, and a try may be made.
fn down(count: u128) -> Bench {
    let mut bench = Bench::new(count);
    (0..10).take_while(|n| bench.send(1 + n % count, FAILED)).count();
    assert!((1..=count).all(|n| bench.closed(n).is_some_and(|closed| closed.why == Why::Down)));
    bench.advance(4_000);
    bench
}

/// To the moment at which a try may be made.
fn wait(bench: &mut Bench) {
    let until = bench.closed(1).expect("it is open").until;
    bench.now = until.saturating_duration_since(bench.epoch);
    bench.pump();
}

fn why(bench: &Bench, n: u128) -> Option<Why> {
    bench.closed(n).map(|closed| closed.why)
}

fn appetite(bench: &mut Bench, n: u128) -> Appetite {
    bench.state.appetite(id(n), bench.now)
}

#[test]
fn who_failed_to_find_it_back_leaves_the_next_try_to_others() {
    let mut bench = down(3);
    assert!(bench.send(1, FAILED));
    wait(&mut bench);
    assert_eq!((why(&bench, 1), why(&bench, 2)), (Some(Why::Down), None));
    assert!(matches!(appetite(&mut bench, 1), Appetite::Closed(_)));
    assert_eq!(appetite(&mut bench, 2), Appetite::One);
    assert!(!bench.send(1, FAILED) && bench.send(2, Heard::Served));
    assert!((1..=3).all(|n| bench.closed(n).is_none()));
}

#[test]
fn it_tries_again_if_nobody_else_does() {
    let mut bench = down(2);
    assert!(bench.send(1, FAILED));
    bench.advance(4_000);
    assert_eq!(why(&bench, 1), None, "its wait for others is over");
    assert!(bench.send(1, Heard::Served));
    assert_eq!(why(&bench, 2), None);
}

#[test]
fn while_others_are_to_try_it_hears_of_the_outage() {
    let mut bench = down(2);
    assert!(bench.send(1, FAILED));
    wait(&mut bench);
    let answer_by = bench.instant(60_000);
    for (door, patience) in [(Door::Grpc, Patience::Call(answer_by)), (Door::Amqp, Patience::Message)] {
        let refused = bench.enter(1, door, patience).try_recv().expect("at once").expect_err("refused");
        assert_eq!((refused.why, refused.refusal().reason), (Why::Down, Reason::UpstreamPaused));
        assert!(refused.is_everyone, "a message stays in the queue");
    }
    let mut tries = bench.enter(2, Door::Amqp, Patience::Message);
    let (ticket, _) = tries.try_recv().expect("at once").expect("granted");
    bench.tell(ticket, Heard::Served);
    assert!(bench.enter(1, Door::Amqp, Patience::Message).try_recv().expect("at once").is_ok());
}

#[test]
fn tries_that_fail_for_one_alone_are_its_own_trouble() {
    let mut bench = down(3);
    for n in 1..=3 {
        assert_eq!(why(&bench, 1), None, "try {n}");
        assert!(bench.send(1, FAILED));
        assert_eq!(why(&bench, 2).is_some(), n < 3, "try {n}");
        bench.advance(if n < 3 { 10_000 } else { 0 });
    }
    // Nobody else had anything to send. Now it is put off, and whoever comes next may try at once.
    assert_eq!((why(&bench, 1), why(&bench, 2)), (Some(Why::Broken), None));
    assert!(bench.send(2, Heard::Served));
    assert_eq!((why(&bench, 1), why(&bench, 3)), (Some(Why::Broken), None), "it stays broken");
    bench.advance(4_000);
    assert!(bench.send(1, Heard::Served));
    assert_eq!(why(&bench, 1), None);
}

#[test]
fn in_an_outage_of_all_nobody_is_told_apart() {
    let mut bench = down(3);
    for _ in 0..10 {
        let first = (1..=3).find(|n| bench.send(*n, FAILED));
        assert!(first.is_some());
        assert!((1..=3).all(|n| why(&bench, n) == Some(Why::Down)));
        wait(&mut bench);
    }
}
