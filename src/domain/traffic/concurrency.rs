//! How many requests may be under way at once: additive increase, multiplicative decrease, on latency and refusals.
//!
//! The limit grows while it is reached and nothing suggests too much load, twofold per window at first and after a
//! [restart](Concurrency::restart) (TCP's slow start), by one per window later. It shrinks when *every* organisation that was
//! heard in a window met refusals or answers much slower than usual: one that fares badly alone says nothing of the others.

use std::collections::HashMap;
use std::time::Duration;

use super::Moment;
use crate::domain::command::OrganizationId;

/// The limit at the start.
const LIMIT_INITIAL: f64 = 16.0;

/// The limit after a restart.
const LIMIT_RESTART: f64 = 2.0;

/// What the limit is multiplied by at too much load.
const DECREASE: f64 = 0.9;

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

    /// Judges the window and begins the next. Whether it met too much load.
    fn turn(&mut self) -> bool {
        let mean = (self.answers > 0).then(|| self.seconds / f64::from(self.answers));
        let is_slow =
            mean.zip(self.usual).is_some_and(|(mean, usual)| mean > SLOW_FACTOR * usual + SLOW_MARGIN);
        if let Some(mean) = mean {
            self.usual = Some(self.usual.map_or(mean, |usual| {
                let share = if mean < usual { USUAL_DOWN } else { USUAL_UP };
                usual + share * (mean - usual)
            }));
        }
        let is_pressed = self.pressures > 0;
        *self = Self { usual: self.usual, ..Self::default() };
        is_pressed || is_slow
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
        let mut all_loaded = true;
        for source in self.heard.drain(..) {
            let is_loaded = self.sources.get_mut(&source).is_some_and(Source::turn);
            all_loaded &= is_loaded;
        }
        if all_loaded {
            self.limit = (self.limit * DECREASE).max(1.0);
            self.threshold = self.limit;
        } else if self.is_reached {
            let grown = if self.limit < self.threshold { self.limit * 2.0 } else { self.limit + 1.0 };
            self.limit = grown.min(self.limit_max);
        }
        self.is_reached = false;
        self.window_end = now + latency.clamp(WINDOW_MIN, WINDOW_MAX);
    }
}

#[cfg(test)]
#[path = "concurrency_tests.rs"]
mod tests;
