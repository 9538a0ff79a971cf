//! How many requests may be begun in a second, learnt from refusals.
//!
//! Nobody documents a limit, so there is none until the first 429. Then the rate is what was served in the last second,
//! less a little; it comes back to where it was refused on the curve of CUBIC (RFC 9438), which spends most of its time just
//! below the limit that it knows, and lingers there. If nothing is refused then the limit is higher, or gone, and the rate
//! doubles and doubles: a limit that was learnt in a bad moment must not hold an organisation up for long.

use std::collections::VecDeque;
use std::time::Duration;

use super::Moment;

/// The rate after a refusal, as a share of the rate at which it came.
const CUT: f64 = 0.95;

/// The same after a refusal soon after the last one: the limit is lower than it was taken for.
const CUT_AGAIN: f64 = 0.8;

/// What is soon.
const AGAIN: Duration = Duration::from_secs(3);

/// The effect of a cut shows after this time: upstreams count by the second.
const EFFECT: Duration = Duration::from_millis(1_200);

/// The pause after a refusal that asks for none; it doubles from refusal to refusal until something is served.
const PAUSE_MIN: Duration = Duration::from_millis(100);

/// Refusals that are further apart than this, among much that is served, have nothing to do with one another.
const APART: Duration = Duration::from_secs(2);

/// Who asks for more than this means it, however much was served.
const EDGE_MAX: Duration = Duration::from_secs(5);

/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// The curve's steepness, in shares of the known limit per cubic second: about 17 s until it is reached again.
const STEEPNESS: f64 = 1e-5;

/// Seconds at the known limit, once it is reached again.
const LINGER: f64 = 8.0;

/// Seconds in which the rate doubles after that.
const DOUBLING_LATER: f64 = 5.0;

/// Seconds in which a rate doubles that was learnt from a first refusal alone.
const DOUBLING: f64 = 3.0;

/// A limit that was not met for so long is forgotten.
const MEMORY: Duration = Duration::from_secs(600);

/// The lowest rate, in requests per second.
const RATE_MIN: f64 = 1.0;

/// From so many on, what was served in the last second tells of a limit.
const SERVED_MIN: f64 = 5.0;

/// A rate above this is as good as none.
const RATE_MAX: f64 = 1e6;

/// What was served within this time is a rate.
const SECOND: Duration = Duration::from_secs(1);

/// Requests that came late by this much may be made up for.
const SLACK: Duration = Duration::from_millis(40);

/// The same within this time, if that is little.
const MEMORY_SHORT: Duration = Duration::from_secs(3);

/// After so many cuts one soon after another it is not the rate that is refused. Then there are pauses alone,
const CUTS_MAX: u32 = 6;

/// for so long.
const MUTED: Duration = Duration::from_secs(30);

/// Entries that are kept, at most; what is faster than this is not learnt exactly.
const SERVED_MAX: usize = 4_096;

#[derive(Debug, Clone, Copy)]
struct Learnt {
    /// Where it was refused, per second.
    limit: f64,
    /// By how much it was cut.
    cut: f64,
    /// When it was cut.
    cut_at: Moment,
    /// Since when the rate rises.
    since: Moment,
    /// Whether it was refused once more since it was first learnt. What was served when the first refusal came is little
    /// more than a guess.
    is_confirmed: bool,
}

/// The pace of one organisation.
#[derive(Debug, Clone, Default)]
pub struct Pace {
    learnt: Option<Learnt>,
    /// When the next request is due if they are spread evenly.
    next: Moment,
    /// When requests were served lately.
    served: VecDeque<Moment>,
    /// Cuts one soon after another.
    cuts: u32,
    /// No rate is learnt before.
    muted_until: Moment,
    /// Refusals since something was served.
    refusals: u32,
    /// The last refusal.
    refused_at: Option<Moment>,
    /// Nothing is begun before.
    pause_until: Moment,
}

impl Pace {
    /// When the next request may be begun.
    #[must_use]
    pub fn next(&self, now: Moment) -> Moment {
        match self.learnt {
            Some(_) => self.next.max(now),
            None => self.pause_until.max(now),
        }
    }

    /// The rate, in requests per second, if one is learnt.
    #[must_use]
    pub fn rate(&self, now: Moment) -> Option<f64> {
        let learnt = self.learnt?;
        let elapsed = now.saturating_sub(learnt.since).as_secs_f64();
        if !learnt.is_confirmed {
            let rate = learnt.limit * learnt.cut * (elapsed / DOUBLING).exp2();
            return Some(rate.clamp(RATE_MIN, RATE_MAX));
        }
        let after_return = elapsed - ((1.0 - learnt.cut) / STEEPNESS).cbrt();
        let back = 1.0 + STEEPNESS * after_return.min(0.0).powi(3);
        let beyond = ((after_return - LINGER).max(0.0) / DOUBLING_LATER).exp2();
        let rate = learnt.limit * back * beyond;
        Some(rate.clamp(RATE_MIN, RATE_MAX))
    }

    /// Requests that may be under way while they are refused and none was served since: fewer from refusal to refusal.
    #[must_use]
    pub fn in_flight_max(&self) -> usize {
        match self.refusals {
            0 => usize::MAX,
            refusals => (16 >> refusals.min(8)).max(4),
        }
    }

    /// A request is begun.
    pub fn begin(&mut self, now: Moment) {
        if self.learnt.is_some_and(|learnt| now.saturating_sub(learnt.since) > MEMORY) {
            self.learnt = None;
        }
        if let Some(rate) = self.rate(now) {
            self.next = self.next.max(now.saturating_sub(SLACK)) + Duration::from_secs_f64(1.0 / rate);
        }
    }

    /// A request was served.
    pub fn serve(&mut self, now: Moment) {
        self.refusals = 0;
        self.forget(now);
        if self.served.len() == SERVED_MAX {
            self.served.pop_front();
        }
        self.served.push_back(now);
    }

    /// A request that was begun at `begun` was refused, for there were too many. `asked` is the time that the upstream asks
    /// for. Yields the time for which nothing is to be begun.
    ///
    /// A refusal among much that is served tells that the rate is at its limit: it is cut, and the command that was refused
    /// waits. Only if there is another one soon the organisation as a whole waits for as long as was asked for.
    pub fn limit(&mut self, now: Moment, begun: Moment, asked: Option<Duration>) -> Duration {
        self.forget(now);
        let served = self.served_within(now, SECOND);
        let is_apart = self.refused_at.is_none_or(|last| now.saturating_sub(last) >= APART);
        let is_edge = served >= SERVED_MIN && is_apart && asked.is_none_or(|asked| asked <= EDGE_MAX);
        self.refused_at = Some(now);
        let doublings = self.refusals.min(8);
        let own = (PAUSE_MIN * (1 << doublings)).min(PAUSE_MAX);
        let pause = if is_edge { PAUSE_MIN } else { asked.unwrap_or(own) };
        let since = now + pause;
        // What was begun before the last pause says nothing of the rate as it is.
        if begun < self.since() {
            if asked.is_some() {
                self.next = self.next.max(since);
            }
            return asked.unwrap_or_default();
        }
        self.refusals += 1;
        self.next = since;
        let (limit, cut) = match (self.rate(now), self.learnt) {
            (Some(_), Some(learnt)) if now.saturating_sub(learnt.cut_at) < EFFECT => {
                self.learnt = Some(Learnt { since, ..learnt });
                return pause;
            }
            (Some(rate), Some(learnt)) => {
                let is_again = now.saturating_sub(learnt.since) < AGAIN;
                self.cuts = if is_again { self.cuts + 1 } else { 0 };
                // What was served in a second in which the machine stood still says little.
                let lately = self.served_within(now, MEMORY_SHORT) / MEMORY_SHORT.as_secs_f64();
                (rate.min(served.max(lately).max(rate / 2.0)), if is_again { CUT_AGAIN } else { CUT })
            }
            _ => (served.max(self.served_within(now, MEMORY_SHORT) / MEMORY_SHORT.as_secs_f64()), CUT),
        };
        let is_confirmed = self.learnt.is_some();
        // Where nothing is served there is no rate to be learnt, and where it is refused at any rate none either.
        if limit <= 0.0 || now < self.muted_until || self.cuts > CUTS_MAX {
            if self.cuts > CUTS_MAX {
                self.muted_until = now + MUTED;
                self.cuts = 0;
            }
            self.learnt = None;
            self.pause_until = since;
            return pause;
        }
        self.learnt = Some(Learnt { limit, cut, cut_at: now, since, is_confirmed });
        pause
    }

    #[allow(clippy::cast_precision_loss, reason = "a few thousand at most")]
    fn served_within(&self, now: Moment, time: Duration) -> f64 {
        self.served.iter().rev().take_while(|at| **at + time > now).count() as f64
    }

    /// The end of the last pause.
    fn since(&self) -> Moment {
        self.learnt.map_or(self.pause_until, |learnt| learnt.since)
    }

    fn forget(&mut self, now: Moment) {
        while self.served.front().is_some_and(|at| *at + MEMORY_SHORT <= now) {
            self.served.pop_front();
        }
    }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
