//! How many requests may be under way at once: additive increase, multiplicative decrease, on latency and refusals.
//!
//! The limit grows while it is reached, twofold per window at first and after a [restart](Concurrency::restart) (TCP's slow
//! start), by one per window later. It shrinks by half the share of requests in a window that were refused or failed, as that
//! of DCTCP does (RFC 8257), and by a tenth at most: an upstream that serves so many at once and refuses the rest is asked for
//! little more, and one that fails now and then whatever the load is asked for little less. Where more than a fifth is refused,
//! or answers are much slower than usual, it does not grow meanwhile. What counts is the organisation that fares *best*: one
//! that fares badly alone says nothing of the others.

use std::collections::HashMap;
use std::time::Duration;

use super::Moment;
use crate::domain::command::OrganizationId;

/// The limit at the start.
const LIMIT_INITIAL: f64 = 16.0;

/// The limit after a restart.
const LIMIT_RESTART: f64 = 2.0;

/// The part of the limit that one window takes, at most.
const DECREASE_MAX: f64 = 0.1;

/// The same of each request that was refused: half its share in the window.
const DECREASE_REFUSED: f64 = 0.5;

/// The least time over which answers are judged together.
const WINDOW_MIN: Duration = Duration::from_millis(100);

/// The longest such time.
const WINDOW_MAX: Duration = Duration::from_secs(2);

/// Answers are slow if they take this many times what is usual, and more.
const SLOW_FACTOR: f64 = 2.0;

/// That much more, in seconds: a machine's own noise.
const SLOW_MARGIN: f64 = 0.025;

/// How fast what is usual follows quicker answers, and slower ones.
const USUAL_DOWN: f64 = 0.5;
const USUAL_UP: f64 = 0.05;

/// From this decrease on the limit counts as found, and grows by one at a time.
const DECREASE_FOUND: f64 = 0.025;

/// What was heard of an organisation.
#[derive(Debug, Clone, Copy, Default)]
struct Source {
    /// The usual latency in seconds.
    usual: Option<f64>,
    /// In this window: answers, the sum of their latencies, refusals and failures.
    answers: u32,
    seconds: f64,
    pressures: u32,
}

impl Source {
    fn is_heard(&self) -> bool {
        self.answers + self.pressures > 0
    }

    /// Judges the window and begins the next. Yields by which part of it the limit is too high.
    fn turn(&mut self) -> f64 {
        let mean = (self.answers > 0).then(|| self.seconds / f64::from(self.answers));
        let is_slow =
            mean.zip(self.usual).is_some_and(|(mean, usual)| mean > SLOW_FACTOR * usual + SLOW_MARGIN);
        if let Some(mean) = mean {
            self.usual = Some(self.usual.map_or(mean, |usual| {
                let share = if mean < usual { USUAL_DOWN } else { USUAL_UP };
                usual + share * (mean - usual)
            }));
        }
        let refused = f64::from(self.pressures) / f64::from((self.answers + self.pressures).max(1));
        *self = Self { usual: self.usual, ..Self::default() };
        if is_slow { DECREASE_MAX } else { (DECREASE_REFUSED * refused).min(DECREASE_MAX) }
    }
}

/// The limit of one upstream.
#[derive(Debug, Clone)]
pub struct Concurrency {
    limit: f64,
    limit_max: f64,
    /// Up to here it grows twofold.
    threshold: f64,
    is_reached: bool,
    sources: HashMap<OrganizationId, Source>,
    /// Those that were heard in this window.
    heard: Vec<OrganizationId>,
    window_end: Moment,
}

impl Concurrency {
    /// A limit that never exceeds `limit_max`.
    #[must_use]
    pub fn new(limit_max: usize) -> Self {
        #[allow(clippy::cast_precision_loss, reason = "configuration keeps it far below 2^52")]
        let limit_max = limit_max.max(1) as f64;
        Self {
            limit: LIMIT_INITIAL.min(limit_max),
            limit_max,
            threshold: limit_max,
            is_reached: false,
            sources: HashMap::new(),
            heard: Vec::new(),
            window_end: Moment::ZERO,
        }
    }

    /// Requests that may be under way, 1 or more.
    #[must_use]
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "it is between 1 and the configured maximum"
    )]
    pub fn limit(&self) -> usize {
        self.limit as usize
    }

    /// Someone had to wait for the limit.
    pub fn reach(&mut self) {
        self.is_reached = true;
    }

    /// A request on behalf of `source` ended at `now`, after `latency`, under `is_pressure` with a sign of too much load.
    pub fn note(&mut self, now: Moment, source: OrganizationId, latency: Duration, is_pressure: bool) {
        if self.window_end == Moment::ZERO {
            self.window_end = now + WINDOW_MIN;
        }
        let entry = self.sources.entry(source).or_default();
        if !entry.is_heard() {
            self.heard.push(source);
        }
        if is_pressure {
            entry.pressures += 1;
        } else {
            entry.answers += 1;
            entry.seconds += latency.as_secs_f64();
        }
        if now >= self.window_end {
            self.turn(now, latency);
        }
    }

    /// Starts from little again, after a time without any answers.
    pub fn restart(&mut self) {
        self.threshold = (self.limit / 2.0).max(LIMIT_RESTART);
        self.limit = LIMIT_RESTART.min(self.limit_max);
        self.is_reached = false;
    }

    /// Forgets what was heard of `source`.
    pub fn forget(&mut self, source: OrganizationId) {
        self.sources.remove(&source);
        self.heard.retain(|heard| *heard != source);
    }

    fn turn(&mut self, now: Moment, latency: Duration) {
        let decreases = self.heard.drain(..).filter_map(|id| self.sources.get_mut(&id).map(Source::turn));
        let decrease = decreases.reduce(f64::min).unwrap_or_default();
        let decreased = self.limit * (1.0 - decrease);
        if decrease >= DECREASE_FOUND {
            self.threshold = 0.0;
        }
        let growth = match self.limit {
            _ if decrease >= DECREASE_MAX || !self.is_reached => 0.0,
            limit if limit < self.threshold => limit,
            _ => 1.0,
        };
        self.limit = (decreased + growth).clamp(1.0, self.limit_max);
        self.is_reached = false;
        self.window_end = now + latency.clamp(WINDOW_MIN, WINDOW_MAX);
    }
}

#[cfg(test)]
#[path = "concurrency_tests.rs"]
mod tests;
