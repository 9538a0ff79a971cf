//! The way back after an outage: what has waited meanwhile must not come all at once.
//!
//! The upstream has shown before the outage what it bears. For a while no more than twice as much is sent, then more and more,
//! until what has waited is gone or there is no need to hold back any longer.

use std::time::Duration;

use super::Moment;

/// What may be sent at first, as a multiple of what was served before.
const FACTOR: f64 = 2.0;

/// The least that counts as served before, in requests per second.
const RATE_MIN: f64 = 20.0;

/// How long it stays at that.
const HOLD: Duration = Duration::from_secs(30);

/// Seconds in which it doubles afterwards.
const DOUBLING: f64 = 10.0;

/// How long it is held back at all.
const END: Duration = Duration::from_secs(90);

/// Requests that came late by this much may be made up for.
const SLACK: Duration = Duration::from_millis(20);

/// Seconds over which it is counted what was served.
const SECONDS: usize = 10;

/// How much was served lately.
#[derive(Debug, Clone, Default)]
pub struct Throughput {
    counts: [u32; SECONDS],
    /// The second that is counted now.
    second: u64,
}

impl Throughput {
    /// A request was served.
    pub fn serve(&mut self, now: Moment) {
        self.turn(now);
        self.counts[place(self.second)] += 1;
    }

    /// The most requests that were served in one of the last ten seconds: some of them may have been troubled already.
    #[must_use]
    pub fn rate(&mut self, now: Moment) -> f64 {
        self.turn(now);
        f64::from(self.counts.iter().copied().max().unwrap_or_default())
    }

    fn turn(&mut self, now: Moment) {
        let second = now.as_secs();
        let passed = second.saturating_sub(self.second).min(SECONDS as u64);
        for next in second + 1 - passed..=second {
            self.counts[place(next)] = 0;
        }
        self.second = second.max(self.second);
    }
}

#[allow(clippy::cast_possible_truncation, reason = "a remainder below ten")]
const fn place(second: u64) -> usize {
    (second % SECONDS as u64) as usize
}

/// A bound on the rate that rises.
#[derive(Debug, Clone, Copy)]
pub struct Ramp {
    base: f64,
    since: Moment,
    next: Moment,
}

impl Ramp {
    /// From `now` on, after `before` requests were served in a second.
    #[must_use]
    pub const fn new(before: f64, now: Moment) -> Self {
        Self { base: FACTOR * before.max(RATE_MIN), since: now, next: now }
    }

    /// Whether there is no need of it any more.
    #[must_use]
    pub fn is_over(&self, now: Moment) -> bool {
        now.saturating_sub(self.since) >= END
    }

    /// The rate, in requests per second.
    #[must_use]
    pub fn rate(&self, now: Moment) -> f64 {
        let rising = now.saturating_sub(self.since).saturating_sub(HOLD);
        self.base * (rising.as_secs_f64() / DOUBLING).exp2()
    }

    /// When the next request may be begun.
    #[must_use]
    pub fn next(&self, now: Moment) -> Moment {
        self.next.max(now)
    }

    /// A request is begun.
    pub fn begin(&mut self, now: Moment) {
        self.next = self.next.max(now.saturating_sub(SLACK)) + Duration::from_secs_f64(1.0 / self.rate(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_served_is_told_per_second() {
        let mut throughput = Throughput::default();
        assert!(throughput.rate(Duration::from_secs(5)).abs() < f64::EPSILON);
        for second in 100..130_u64 {
            (0..60).for_each(|n| throughput.serve(Duration::from_millis(second * 1000 + n * 16)));
            let rate = throughput.rate(Duration::from_millis(second * 1000 + 999));
            assert!((rate - 60.0).abs() < 0.1, "{second}: {rate}");
        }
        assert!((throughput.rate(Duration::from_millis(138_500)) - 60.0).abs() < 0.1, "still");
        assert!(throughput.rate(Duration::from_secs(1000)).abs() < f64::EPSILON);
    }

    #[test]
    fn it_holds_back_and_then_lets_go() {
        let start = Duration::from_secs(1000);
        let mut ramp = Ramp::new(60.0, start);
        let (mut begun, mut now) = (0, start);
        while now < start + Duration::from_secs(10) {
            while ramp.next(now) <= now {
                ramp.begin(now);
                begun += 1;
            }
            now += Duration::from_millis(7);
        }
        assert!((1190..=1210).contains(&begun), "{begun} in ten seconds");
        let after = |seconds| ramp.rate(start + Duration::from_secs(seconds));
        assert!((after(30) - 120.0).abs() < 0.1 && (after(50) - 480.0).abs() < 0.1);
        assert!(!ramp.is_over(start + Duration::from_secs(89)) && ramp.is_over(start + END));
        assert!(
            (Ramp::new(0.0, start).rate(start) - 40.0).abs() < f64::EPSILON,
            "after little, still something"
        );
    }
}
