//! The gate in numbers, for metrics: how many are in which state, not who.

use std::time::Duration;

use super::Gate;
use super::state::State;
use crate::domain::traffic::Moment;
use crate::domain::traffic::breaker::Admission;

/// For so long a retry that was refused counts as want of a budget.
const EXHAUSTED_TIME: Duration = Duration::from_secs(10);

/// The gate in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Census {
    /// Upstreams whose breaker is closed, open (nothing is sent), half open (one request tries), and untried (one may try,
    /// and nobody has come who would).
    pub breakers: [u64; 4],
    /// Requests that may be under way, in all.
    pub limit: usize,
    /// Requests that are.
    pub in_use: usize,
    /// Commands that wait until they may be sent.
    pub waiting: usize,
    /// Requesters that are served, asked to pause, and broken.
    pub requesters: [u64; 3],
    /// Requesters that wanted a retry of late and had no budget for it.
    pub exhausted: u64,
}

impl Gate {
    /// How many are in which state. Looks at each of them.
    #[must_use]
    pub fn census(&self) -> Census {
        let now = self.inner.now();
        self.inner.lock().census(now)
    }
}

impl State {
    fn census(&self, now: Moment) -> Census {
        let mut census = Census::default();
        for upstream in self.upstreams.values() {
            census.breakers[phase(upstream.breaker.admission(now))] += 1;
            census.limit += upstream.concurrency.limit();
            census.in_use += upstream.in_flight;
        }
        for requester in self.requesters.values() {
            let is_broken = !requester.breaker.is_closed() || requester.token.rests_until(now).is_some();
            let is_paused = requester.paused_until.is_some_and(|until| until > now);
            census.requesters[if is_broken { 2 } else { usize::from(is_paused) }] += 1;
            census.waiting += requester.waiting();
            let exhausted = requester.exhausted_at.is_some_and(|at| now.saturating_sub(at) < EXHAUSTED_TIME);
            census.exhausted += u64::from(exhausted);
        }
        census
    }
}

const fn phase(admission: Admission) -> usize {
    match admission {
        Admission::Free => 0,
        Admission::Nothing(Some(_)) => 1,
        Admission::Nothing(None) => 2,
        Admission::Try => 3,
    }
}
