use super::*;

/// How an upstream limits requests.
enum Limit {
    /// So many in each second of the clock.
    Fixed(usize),
    /// So many in any second.
    Sliding(usize),
    /// So many at once, and this rate.
    Bucket { burst: f64, rate: f64 },
}

struct Upstream {
    limit: Limit,
    taken: VecDeque<Moment>,
    tokens: f64,
    last: Moment,
}

impl Upstream {
    fn new(limit: Limit) -> Self {
        let tokens = if let Limit::Bucket { burst, .. } = limit { burst } else { 0.0 };
        Self { limit, taken: VecDeque::new(), tokens, last: Moment::ZERO }
    }

    fn takes(&mut self, now: Moment) -> bool {
        let takes = match self.limit {
            Limit::Fixed(max) => self.taken.iter().filter(|at| at.as_secs() == now.as_secs()).count() < max,
            Limit::Sliding(max) => self.taken.iter().filter(|at| **at + SECOND > now).count() < max,
            Limit::Bucket { burst, rate } => {
                self.tokens = (self.tokens + now.saturating_sub(self.last).as_secs_f64() * rate).min(burst);
                self.last = now;
                self.tokens >= 1.0
            }
        };
        if takes {
            self.tokens -= 1.0;
            self.taken.push_back(now);
        }
        self.taken.retain(|at| *at + 2 * SECOND > now);
        takes
    }
}

/// An organisation with its own pace, and as much to send as may be.
#[derive(Default)]
struct Sender {
    pace: Pace,
    paused_until: Moment,
    /// When it was begun, when it ends, and whether it was served.
    under_way: VecDeque<(Moment, Moment, bool)>,
}

impl Sender {
    fn hear(&mut self, now: Moment, retry_after: Option<Duration>) -> (u32, u32) {
        let (mut served, mut refused) = (0, 0);
        while self.under_way.front().is_some_and(|(_, end, _)| *end <= now) {
            let Some((begun, _, is_taken)) = self.under_way.pop_front() else { break };
            if is_taken {
                served += 1;
                self.pace.serve(now);
            } else {
                refused += 1;
                let pause = self.pace.limit(now, begun, retry_after);
                self.paused_until = self.paused_until.max(now + pause);
            }
        }
        (served, refused)
    }

    fn may_send(&self, now: Moment) -> bool {
        let in_flight_max = self.pace.in_flight_max().min(16);
        self.under_way.len() < in_flight_max && now >= self.paused_until && self.pace.next(now) <= now
    }
}

/// `senders` share `limit` for `seconds`, each request taking `latency`: what was served and refused after the first 5 s.
fn run(
    limit: Limit,
    senders: usize,
    seconds: u64,
    latency: Duration,
    retry_after: Option<Duration>,
) -> (u32, u32) {
    const START: Duration = Duration::from_secs(5);
    let mut upstream = Upstream::new(limit);
    let mut senders: Vec<_> = (0..senders).map(|_| Sender::default()).collect();
    let (mut now, mut served, mut refused) = (Moment::ZERO, 0, 0);
    while now < START + Duration::from_secs(seconds) {
        for sender in &mut senders {
            let (more, less) = sender.hear(now, retry_after);
            if now >= START {
                served += more;
                refused += less;
            }
            while sender.may_send(now) {
                sender.pace.begin(now);
                let is_taken = upstream.takes(now);
                sender.under_way.push_back((now, now + latency, is_taken));
            }
        }
        // A timer that is a little late.
        now += Duration::from_micros(1300);
    }
    (served, refused)
}

#[test]
fn it_settles_just_below_a_limit_of_any_kind() {
    type Make = fn() -> Limit;
    let limits: [(&str, Make); 4] = [
        ("fixed", || Limit::Fixed(50)),
        ("sliding", || Limit::Sliding(50)),
        ("bucket of 50", || Limit::Bucket { burst: 50.0, rate: 50.0 }),
        ("bucket of 10", || Limit::Bucket { burst: 10.0, rate: 50.0 }),
    ];
    let mut stories = Vec::new();
    for (kind, limit) in limits {
        for senders in [1, 5] {
            for retry_after in [None, Some(Duration::from_secs(1))] {
                for latency_ms in [2, 20] {
                    let latency = Duration::from_millis(latency_ms);
                    let (served, refused) = run(limit(), senders, 40, latency, retry_after);
                    let share = f64::from(refused) / f64::from(served + refused);
                    let is_good = served >= 45 * 40 && share < 0.05;
                    let rate = f64::from(served) / 40.0;
                    stories.push((is_good, format!(
                        "{kind}, {senders} senders, {retry_after:?}, {latency_ms} ms: {rate:.1}/s, {:.1} % refused",
                        share * 100.0
                    )));
                }
            }
        }
    }
    let text =
        stories.iter().map(|(is_good, story)| format!("{is_good} {story}")).collect::<Vec<_>>().join("\n");
    assert!(stories.iter().all(|(is_good, _)| *is_good), "\n{text}");
}

#[test]
fn without_a_refusal_there_is_no_limit() {
    let mut pace = Pace::default();
    for n in 0..1000 {
        let now = Duration::from_millis(n);
        assert_eq!(pace.next(now), now);
        pace.begin(now);
        pace.serve(now);
    }
    assert_eq!(pace.rate(Duration::from_secs(1)), None);
}

#[test]
fn a_limit_that_was_raised_is_found_within_a_minute() {
    let mut pace = Pace::default();
    for second in [1_u64, 3] {
        let at = |ms: u64| Duration::from_millis(1000 * second + ms);
        (0..10).for_each(|n| pace.serve(at(n)));
        pace.limit(at(100), at(50), None);
    }
    let rate = |seconds: u64| pace.rate(Duration::from_secs(3 + seconds)).expect("a rate");
    let start = rate(0);
    assert!(rate(14) < 1.3 * start, "it lingers: {start} {}", rate(14));
    assert!(rate(60) > 8.0 * start, "{start} {}", rate(60));
}

#[test]
fn a_refusal_after_a_standstill_does_not_halve_the_rate() {
    let mut pace = Pace::default();
    let at = |ms: u64| Duration::from_millis(ms);
    let serve = |pace: &mut Pace, from: u64, until: u64| {
        (from..until).step_by(20).for_each(|ms| pace.serve(at(ms)));
    };
    for second in [1_000, 5_000] {
        serve(&mut pace, second - 1_000, second);
        pace.limit(at(second), at(second), None);
    }
    serve(&mut pace, 6_000, 9_200);
    let before = pace.rate(at(9_900)).expect("a rate");
    pace.limit(at(9_900), at(9_900), None);
    let after = pace.rate(at(10_000)).expect("a rate");
    assert!(after > 0.6 * before, "{before} {after}");
}

#[test]
fn what_was_begun_before_the_cut_does_not_cut_again() {
    let mut pace = Pace::default();
    (0..50).for_each(|n| pace.serve(Duration::from_millis(n)));
    let now = Duration::from_millis(100);
    pace.limit(now, Duration::from_millis(90), None);
    let rate = pace.rate(now).expect("a rate");
    assert!((rate - 47.5).abs() < 0.1, "{rate}");
    for begun in 91..100 {
        pace.limit(Duration::from_millis(105), Duration::from_millis(begun), None);
    }
    assert!(pace.rate(now).expect("a rate") >= rate);
}

#[test]
fn a_limit_is_forgotten_in_the_end_and_memory_is_bounded() {
    let mut pace = Pace::default();
    (0..100_000).for_each(|n| pace.serve(Duration::from_micros(n)));
    assert_eq!(pace.served.len(), SERVED_MAX);
    let now = Duration::from_millis(100);
    pace.limit(now, now, None);
    assert!(pace.rate(now).is_some());
    pace.begin(now + MEMORY + SECOND);
    assert_eq!(pace.rate(now), None);
}

/// Each of a hundred commands is refused once, however slowly they come.
#[test]
fn where_it_is_refused_at_any_rate_it_goes_on_with_pauses_alone() {
    let (mut sender, mut now) = (Sender::default(), Moment::ZERO);
    let retry_after = Some(Duration::from_secs(2));
    let (mut fresh, mut again, mut done) = (100, VecDeque::new(), 0);
    while done < 100 {
        assert!(now < Duration::from_secs(60), "{done} are done");
        let (served, refused) = sender.hear(now, retry_after);
        done += served;
        (0..refused).for_each(|_| again.push_back(now + Duration::from_millis(2100)));
        while sender.may_send(now) {
            let is_again = again.front().is_some_and(|at| *at <= now);
            if is_again {
                again.pop_front();
            } else if fresh > 0 {
                fresh -= 1;
            } else {
                break;
            }
            sender.pace.begin(now);
            sender.under_way.push_back((now, now + Duration::from_millis(3), is_again));
        }
        now += Duration::from_micros(1300);
    }
}

#[test]
fn where_nothing_is_served_there_are_pauses_and_no_rate() {
    let (mut pace, mut now) = (Pace::default(), SECOND);
    let mut pauses = Vec::new();
    for _ in 0..7 {
        pace.limit(now, now, None);
        // Those that were under way do not make it longer.
        pace.limit(now, now.saturating_sub(Duration::from_millis(1)), None);
        pauses.push(pace.next(now).saturating_sub(now).as_millis());
        now = pace.next(now);
    }
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000]);
    assert_eq!(pace.rate(now), None);
    pace.limit(now, now, Some(Duration::from_secs(7)));
    assert_eq!(pace.next(now), now + Duration::from_secs(7));
}
