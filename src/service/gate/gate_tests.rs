use std::collections::{HashMap, VecDeque};

use tokio::sync::oneshot::Receiver;
use uuid::Uuid;

use super::*;
use crate::domain::error::Reason;
use crate::domain::traffic::Moment;

#[path = "turns_tests.rs"]
mod turns;

#[path = "token_tests.rs"]
mod tokens;

const MS: Duration = Duration::from_millis(1);

fn settings() -> Settings {
    Settings {
        failures_max: 5,
        failure_share: 0.5,
        delay: Backoff { delay_base: Duration::from_secs(1), delay_max: Duration::from_secs(4) },
        concurrency_max: 64,
        retry_share: 0.5,
        retry_floor: 1,
    }
}

fn id(n: u128) -> OrganizationId {
    OrganizationId(Uuid::from_u128(n))
}

fn organization(upstream: &str) -> Organization {
    Organization { upstream: upstream.to_owned(), in_flight_max: None, requests_per_second: None }
}

const FAILED: Heard = Heard::Failed { retry_after: None, is_general: false };
type Turn = Receiver<Result<(Ticket, Option<&'static str>), Closed>>;

/// The gate's state, with a clock that goes on by hand.
struct Bench {
    state: State,
    epoch: Instant,
    now: Moment,
    guests: u128,
    is_reopened: bool,
}

impl Bench {
    /// For organisations 1 to `count` of one upstream.
    fn new(count: u128) -> Self {
        let mut bench = Self::empty();
        bench.configure(&(1..=count).map(|n| (id(n), organization("a"))).collect(), &[]);
        bench
    }

    fn empty() -> Self {
        let epoch = Instant::now();
        let state = State::new(settings(), epoch);
        Self { state, epoch, now: Moment::from_secs(1), guests: 0, is_reopened: false }
    }

    fn configure(&mut self, organizations: &HashMap<OrganizationId, Organization>, renewed: &[u128]) {
        let renewed = renewed.iter().map(|n| id(*n)).collect();
        self.state.configure(organizations, &renewed, self.now);
        self.pump();
    }

    fn pump(&mut self) {
        let grants = self.state.pump(self.now);
        self.is_reopened |= grants.is_reopened;
        for (turn, ticket, reason) in grants.passes {
            turn.send(Ok((ticket, reason))).expect("it waits");
        }
        for (turn, closed) in grants.turned_away {
            turn.send(Err(closed)).expect("it waits");
        }
    }

    fn advance(&mut self, ms: u64) {
        self.now += Duration::from_millis(ms);
        self.pump();
    }

    fn try_enter(&mut self, n: u128) -> Option<Ticket> {
        self.state.grant_now(id(n), self.now)
    }

    /// As many tickets as there are.
    fn take(&mut self, n: u128) -> Vec<Ticket> {
        std::iter::from_fn(|| self.try_enter(n)).collect()
    }

    fn enter(&mut self, n: u128, door: Door, patience: Patience) -> Turn {
        let (turn, granted) = oneshot::channel();
        self.state.join(id(n), door, patience, turn, self.now);
        self.pump();
        granted
    }

    fn tell(&mut self, ticket: Ticket, heard: Heard) {
        self.guests += 1;
        let connection = Connection { target: id(1), guest: id(1000 + self.guests) };
        self.state.hear(Told { ticket, connection, latency: MS, heard }, self.now, 1.0);
        self.pump();
    }

    fn give_back(&mut self, tickets: impl IntoIterator<Item = Ticket>) {
        tickets.into_iter().for_each(|ticket| self.state.give_back(ticket, self.now));
        self.pump();
    }

    /// A request for `n`, about a connection of its own. Whether it could be sent.
    fn send(&mut self, n: u128, heard: Heard) -> bool {
        let Some(ticket) = self.try_enter(n) else { return false };
        self.tell(ticket, heard);
        true
    }

    fn closed(&self, n: u128) -> Option<Closed> {
        self.state.closed(id(n), self.now)
    }

    fn fail_until_closed(&mut self, n: u128) -> Closed {
        let closed = (0..20).find_map(|_| {
            self.send(n, FAILED);
            self.closed(n)
        });
        closed.expect("it closes")
    }

    fn no_token(&mut self, n: u128, why: &Unauthorized) {
        self.state.unauthorized(Ticket::untracked(id(n), self.now), why, self.now, 1.0);
        self.pump();
    }

    fn instant(&self, ms: u64) -> Instant {
        self.epoch + self.now + Duration::from_millis(ms)
    }

    fn claim(&self) -> Patience {
        Patience::Claim(self.instant(3_600_000))
    }
}

#[test]
fn one_organisation_that_fails_is_closed_alone_and_tried_by_one() {
    let mut bench = Bench::new(5);
    (2..=5).for_each(|n| assert!(bench.send(n, Heard::Served)));
    let closed = bench.fail_until_closed(1);
    assert_eq!((closed.why, closed.is_everyone), (Why::Broken, false));
    assert_eq!(closed.refusal().reason, Reason::RequesterPaused);
    assert_eq!(closed.until, bench.instant(1000));
    assert!(!bench.send(1, Heard::Served));
    (2..=5).for_each(|n| assert!(bench.send(n, Heard::Served)));
    assert_eq!(bench.state.everyone_closed(bench.now), None);
    assert_eq!(bench.state.unavailable(bench.now), None);
    assert_eq!(bench.state.condition(bench.now).closed, [id(1)]);

    bench.advance(1000);
    assert_eq!(bench.state.appetite(id(1), bench.now), Appetite::One);
    assert_eq!(bench.state.appetite(id(1), bench.now), Appetite::Later, "one is enough");
    let ticket = bench.try_enter(1).expect("one may try");
    assert!(bench.try_enter(1).is_none());
    assert!(!bench.is_reopened);
    bench.tell(ticket, Heard::Served);
    assert!(bench.closed(1).is_none() && bench.is_reopened);
    assert_eq!(bench.state.reopened, HashSet::from([id(1)]));
    assert!(bench.state.condition(bench.now).closed.is_empty());
    assert_eq!(bench.take(1).len(), 1, "it ramps up");
}

#[test]
fn an_upstream_that_fails_for_several_is_closed_for_all() {
    let mut bench = Bench::new(3);
    let failed = (0..10).take_while(|n| bench.send(1 + n % 2, FAILED)).count();
    assert_eq!(failed, 5);
    let closed = bench.closed(3).expect("for one that has not failed too");
    assert_eq!((closed.why, closed.is_everyone), (Why::Down, true));
    assert_eq!(closed.refusal().reason, Reason::UpstreamPaused);
    assert!(bench.state.everyone_closed(bench.now).is_some());
    assert!(bench.state.unavailable(bench.now).is_some());
    assert_eq!(bench.state.condition(bench.now).down, ["a"]);

    bench.advance(1000);
    // A try is left to recovery for a while, since the queue's messages would be handed out in vain.
    assert!(bench.state.unavailable(bench.now).is_some());
    assert_eq!(bench.state.appetite(id(1), bench.now), Appetite::One);
    assert_eq!(bench.state.appetite(id(2), bench.now), Appetite::Later);
    assert!(bench.send(1, FAILED));
    assert!(!bench.send(2, Heard::Served));
    assert_eq!(bench.closed(1).map(|closed| closed.until), Some(bench.instant(2000)));
    bench.advance(4000);
    assert_eq!(bench.state.unavailable(bench.now), None, "nobody has tried");
    let ticket = bench.try_enter(2).expect("one may try");
    assert!(bench.closed(1).is_some_and(|closed| closed.is_everyone));
    bench.give_back([ticket]);
    assert!(bench.send(2, Heard::Served), "one that was not sent is given back");
    assert_eq!(bench.state.reopened.len(), 3);
    assert_eq!(bench.take(1).len(), 1, "it ramps up");
}

#[test]
fn a_single_organisation_is_the_upstream() {
    let mut bench = Bench::new(1);
    let closed = bench.fail_until_closed(1);
    assert_eq!((closed.why, closed.is_everyone), (Why::Down, true));
    // What it answers about credentials is no failure of the upstream.
    let mut bench = Bench::new(1);
    (0..5).for_each(|_| assert!(bench.send(1, Heard::Unauthorized { is_renewed: true })));
    assert!(bench.closed(1).is_some_and(|closed| closed.why == Why::Broken && !closed.is_everyone));
    assert_eq!(bench.state.unavailable(bench.now), None);
}

#[test]
fn a_try_of_one_that_is_removed_or_moves_away_is_another_s() {
    for stays_elsewhere in [false, true] {
        let mut bench = Bench::new(2);
        (0..10).take_while(|n| bench.send(1 + n % 2, FAILED)).count();
        bench.advance(4_000);
        let lost = bench.try_enter(1).expect("a try");
        assert!(bench.closed(2).is_some(), "one tries at a time");
        let mut organizations = HashMap::from([(id(2), organization("a"))]);
        if stays_elsewhere {
            organizations.insert(id(1), organization("b"));
        }
        bench.configure(&organizations, &[]);
        let found = bench.try_enter(2).expect("a try");
        // What became of the lost one says nothing of anybody any more.
        bench.tell(lost, FAILED);
        bench.tell(found, Heard::Served);
        assert_eq!((bench.closed(1), bench.closed(2)), (None, None));
    }
}

#[test]
fn one_command_that_the_upstream_fails_at_closes_nothing() {
    let mut bench = Bench::new(1);
    let connection = Connection { target: id(1), guest: id(2) };
    for _ in 0..100 {
        let ticket = bench.try_enter(1).expect("a ticket");
        let told = Told { ticket, connection, latency: MS, heard: FAILED };
        bench.state.hear(told, bench.now, 1.0);
    }
    assert_eq!(bench.closed(1), None);
}

#[test]
fn two_upstreams_fail_apart() {
    let mut bench = Bench::empty();
    bench.configure(&HashMap::from([(id(1), organization("a")), (id(2), organization("b"))]), &[]);
    let closed = bench.fail_until_closed(1);
    assert_eq!((closed.why, closed.is_everyone), (Why::Down, false));
    assert!(bench.send(2, Heard::Served));
    bench.fail_until_closed(2);
    assert!(bench.closed(1).is_some_and(|closed| closed.is_everyone));
}

#[test]
fn a_pause_that_is_asked_for_is_kept_and_waited_for_if_that_is_worth_it() {
    let mut bench = Bench::new(2);
    assert!(bench.send(1, Heard::Limited { retry_after: Some(Duration::from_secs(2)) }));
    let closed = bench.closed(1).expect("paused");
    assert_eq!((closed.why, closed.until), (Why::Paused, bench.instant(2100)));
    assert!(bench.try_enter(1).is_none() && bench.send(2, Heard::Served));
    let mut soon = bench.enter(1, Door::Grpc, Patience::Call(bench.instant(1000)));
    assert!(soon.try_recv().expect("at once").is_err());
    let mut late = bench.enter(1, Door::Grpc, Patience::Call(bench.instant(10_000)));
    bench.advance(2099);
    assert!(late.try_recv().is_err(), "it waits");
    bench.advance(1);
    let (ticket, reason) = late.try_recv().expect("in time").expect("a ticket");
    assert_eq!(reason, Some("pause"));
    bench.tell(ticket, Heard::Served);
    // A long one is clamped, and a message does not wait for it.
    assert!(bench.send(1, Heard::Limited { retry_after: Some(Duration::from_secs(3600)) }));
    assert_eq!(bench.closed(1).map(|closed| closed.until), Some(bench.instant(63_000)));
    let mut message = bench.enter(1, Door::Amqp, Patience::Message);
    assert!(message.try_recv().expect("at once").is_err());
}

#[test]
fn those_who_wait_are_turned_away_when_it_closes() {
    let mut bench = Bench::new(1);
    let held = bench.take(1);
    assert_eq!(held.len(), 16);
    let mut call = bench.enter(1, Door::Grpc, Patience::Call(bench.instant(3_600_000)));
    let mut message = bench.enter(1, Door::Amqp, Patience::Message);
    let mut claim = bench.enter(1, Door::Amqp, bench.claim());
    for (n, ticket) in held.into_iter().enumerate() {
        let connection = Connection { target: id(1), guest: id(n as u128 + 2) };
        bench.state.hear(Told { ticket, connection, latency: MS, heard: FAILED }, bench.now, 1.0);
    }
    bench.pump();
    let closed = call.try_recv().expect("told").expect_err("turned away");
    assert_eq!(closed.why, Why::Down);
    for turn in [&mut message, &mut claim] {
        assert!(turn.try_recv().expect("told").is_err());
    }
}

#[test]
fn one_of_several_never_has_all_places_and_one_in_trouble_has_a_quarter() {
    let mut bench = Bench::new(5);
    let first = bench.take(1);
    assert_eq!(first.len(), 8, "of 16");
    let second = bench.take(2);
    assert_eq!(second.len(), 8, "the rest is there for others");
    bench.give_back(first.into_iter().chain(second));
    (0..3).for_each(|_| assert!(bench.send(1, FAILED)));
    assert!(bench.state.is_strained(id(1)) && bench.closed(1).is_none());
    assert_eq!(bench.take(1).len(), 4);
    assert!(bench.state.is_constrained(id(1), bench.now) && !bench.state.is_constrained(id(2), bench.now));
    assert_eq!(Bench::new(1).take(1).len(), 16, "alone");
}

#[test]
fn organisations_and_doors_take_turns() {
    let mut bench = Bench::new(3);
    let mut held: VecDeque<_> = (0..16).map(|n| bench.try_enter(2 + n / 8).expect("a ticket")).collect();
    let mut waiting: Vec<_> =
        (0..50).map(|_| ("queue", bench.enter(1, Door::Amqp, Patience::Message))).collect();
    waiting.push(("call", bench.enter(1, Door::Grpc, Patience::Call(bench.instant(3_600_000)))));
    waiting.push(("other", bench.enter(2, Door::Amqp, Patience::Message)));
    let mut order = Vec::new();
    while let Some(ticket) = held.pop_front() {
        bench.give_back([ticket]);
        waiting.retain_mut(|(name, turn)| match turn.try_recv() {
            Ok(granted) => {
                order.push(*name);
                held.push_back(granted.expect("a ticket").0);
                false
            }
            Err(_) => true,
        });
    }
    let place = |name| order.iter().position(|n| *n == name).expect("served");
    assert_eq!(order.len(), 52);
    assert!(place("call") < 3 && place("other") < 4, "{order:?}");
}

#[test]
fn limits_that_are_configured_are_kept() {
    let mut bench = Bench::empty();
    let limited = Organization { in_flight_max: Some(2), ..organization("a") };
    let slow = Organization { requests_per_second: Some(0.01), ..organization("a") };
    bench.configure(&HashMap::from([(id(1), limited), (id(2), slow)]), &[]);
    assert_eq!((bench.take(1).len(), bench.take(2).len()), (2, 1));
    let mut rated = bench.enter(2, Door::Amqp, Patience::Message);
    assert!(rated.try_recv().is_err());
    assert!(bench.state.next_look().is_some_and(|at| at > bench.now + Duration::from_secs(90)));
    // Another limit takes effect at once.
    let organizations = HashMap::from([(id(1), organization("a")), (id(2), organization("a"))]);
    bench.configure(&organizations, &[]);
    assert!(rated.try_recv().expect("at once").is_ok());
    assert_eq!(bench.take(1).len(), 6);
}

#[test]
fn what_may_be_sent_in_a_second_is_divided_among_instances() {
    let mut bench = Bench::empty();
    let slow = Organization { requests_per_second: Some(0.01), ..organization("a") };
    bench.configure(&HashMap::from([(id(1), slow)]), &[]);
    bench.state.divide(3);
    assert_eq!(bench.take(1).len(), 1);
    let mut rated = bench.enter(1, Door::Amqp, Patience::Message);
    assert!(rated.try_recv().is_err());
    assert!(bench.state.next_look().is_some_and(|at| at > bench.now + Duration::from_secs(290)));
}

#[test]
fn other_credentials_make_it_forget_that_it_failed() {
    let mut bench = Bench::new(2);
    bench.no_token(1, &Unauthorized::Refused);
    assert!(bench.closed(1).is_some_and(|closed| closed.cause == Reason::UpstreamUnauthenticated));
    let organizations = HashMap::from([(id(1), organization("a")), (id(2), organization("a"))]);
    bench.configure(&organizations, &[]);
    assert!(bench.closed(1).is_some() && !bench.is_reopened, "nothing has changed");
    bench.configure(&organizations, &[1]);
    assert!(bench.closed(1).is_none() && bench.is_reopened);
    assert!(bench.state.reopened.contains(&id(1)));
}

#[test]
fn one_that_is_not_configured_any_more_lets_nobody_wait() {
    let mut bench = Bench::new(2);
    let held = bench.take(1);
    let mut waiting = bench.enter(1, Door::Amqp, bench.claim());
    bench.configure(&HashMap::from([(id(2), organization("a"))]), &[]);
    assert_eq!(waiting.try_recv().err(), Some(oneshot::error::TryRecvError::Closed));
    bench.give_back(held);
    assert_eq!(bench.take(2).len(), 16);
}

#[test]
fn retries_are_a_share_of_what_succeeds_and_a_few_besides() {
    let mut bench = Bench::new(1);
    assert!(bench.send(1, Heard::Served));
    let without = (0..100).take_while(|_| bench.state.may_retry(id(1), Moment::ZERO)).count();
    assert!((10..=11).contains(&without), "one a second, of ten seconds: {without}");
    (0..20).for_each(|_| assert!(bench.send(1, Heard::Served)));
    let with = (0..100).take_while(|_| bench.state.may_retry(id(1), Moment::ZERO)).count();
    assert!((9..=11).contains(&with), "half of what succeeded: {with}");
}

/// Waits, time and the way back of passes, through the gate itself.
#[tokio::test]
async fn a_pass_comes_back_by_itself_and_who_leaves_is_passed_over() {
    let gate = Gate::new(settings(), Arc::default());
    gate.configure(&HashMap::from([(id(1), organization("a"))]), &HashSet::new());
    let held: Vec<_> = std::iter::from_fn(|| gate.try_enter(id(1))).collect();
    assert_eq!(held.len(), 16);
    let far = Patience::Claim(Instant::now() + Duration::from_secs(3600));
    let mut leaver = Box::pin(gate.enter(id(1), Door::Amqp, far));
    let mut stayer = Box::pin(gate.enter(id(1), Door::Amqp, far));
    assert!(futures::poll!(&mut leaver).is_pending() && futures::poll!(&mut stayer).is_pending());
    drop(leaver);
    drop(held);
    let Ok(pass) = stayer.await else { panic!("a pass") };
    assert_eq!(pass.waited.map(|waited| waited.reason), Some("concurrency"));
    // A time that comes is not missed.
    pass.tell(
        Connection { target: id(1), guest: id(2) },
        MS,
        Heard::Limited { retry_after: Some(Duration::from_millis(20)) },
    );
    let Ok(pass) = gate.enter(id(1), Door::Amqp, far).await else { panic!("a pass") };
    assert_eq!(pass.waited.map(|waited| waited.reason), Some("pause"));
    drop(pass);
    let late = Patience::Claim(Instant::now());
    let held: Vec<_> = std::iter::from_fn(|| gate.try_enter(id(1))).collect();
    assert!(!held.is_empty() && gate.enter(id(1), Door::Amqp, late).await.is_err());
}
