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
                self.tokens = (self.tokens + (now - self.last).as_secs_f64() * rate).min(burst);
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

/// Offers as much as the pace lets through for `seconds`, with `in_flight` requests of `latency` each; served and refused.
fn run(limit: Limit, seconds: u64, latency: Duration, retry_after: Option<Duration>) -> (u32, u32) {
    let (mut upstream, mut pace) = (Upstream::new(limit), Pace::default());
    let (mut now, mut paused_until) = (Moment::ZERO, Moment::ZERO);
    let mut under_way: VecDeque<(Moment, Moment, bool)> = VecDeque::new();
    let (mut served, mut refused) = (0, 0);
    while now < Duration::from_secs(seconds) {
        while under_way.front().is_some_and(|(_, end, _)| *end <= now) {
            let Some((begun, _, is_taken)) = under_way.pop_front() else { break };
            if is_taken {
                served += 1;
                pace.serve(now);
            } else {
                refused += 1;
                paused_until = paused_until.max(now + retry_after.unwrap_or_default());
                pace.limit(now, begun, retry_after);
            }
        }
        if under_way.len() < 16 && now >= paused_until && pace.next(now) <= now {
            pace.begin(now);
            let is_taken = upstream.takes(now);
            under_way.push_back((now, now + latency, is_taken));
        } else {
            // A timer that is a little late.
            now += Duration::from_micros(1300);
        }
    }
    (served, refused)
}

#[test]
fn it_settles_just_below_a_limit_of_any_kind() {
    let limits: [fn() -> Limit; 3] =
        [|| Limit::Fixed(50), || Limit::Sliding(50), || Limit::Bucket { burst: 50.0, rate: 50.0 }];
    for (kind, limit) in limits.iter().enumerate() {
        for retry_after in [None, Some(Duration::from_secs(1))] {
            for latency_ms in [2, 20] {
                let (served, refused) = run(limit(), 60, Duration::from_millis(latency_ms), retry_after);
                let story = format!(
                    "kind {kind}, {retry_after:?}, {latency_ms} ms: {served} served, {refused} refused"
                );
                assert!(served >= 45 * 60, "{story}");
                assert!(f64::from(refused) < 0.05 * f64::from(served + refused), "{story}");
            }
        }
    }
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
fn a_limit_that_was_raised_is_found_within_two_minutes() {
    let mut pace = Pace::default();
    (0..10).for_each(|n| pace.serve(Duration::from_millis(n)));
    pace.limit(Duration::from_millis(100), Duration::from_millis(50), None);
    let rate = |seconds| pace.rate(Duration::from_secs(seconds)).expect("a rate");
    assert!(rate(1) < 10.0 && rate(14) < 10.1);
    assert!(rate(120) > 200.0);
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

#[test]
fn where_nothing_is_served_there_are_pauses_and_no_rate() {
    let (mut pace, mut now) = (Pace::default(), SECOND);
    let mut pauses = Vec::new();
    for _ in 0..7 {
        pace.limit(now, now, None);
        // Those that were under way do not make it longer.
        pace.limit(now, now - Duration::from_millis(1), None);
        pauses.push((pace.next(now) - now).as_millis());
        now = pace.next(now);
    }
    assert_eq!(pauses, [100, 200, 400, 800, 1600, 2000, 2000]);
    assert_eq!(pace.rate(now), None);
    pace.limit(now, now, Some(Duration::from_secs(7)));
    assert_eq!(pace.next(now), now + Duration::from_secs(7));
}
