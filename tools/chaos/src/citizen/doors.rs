//! One organisation's calls beside a backlog of its own messages.

use std::collections::BTreeMap;

use harness::Node;
use serde::Serialize;
use simulator::{Limit, Window};

use super::figures::{Latency, share, tally};
use super::load::{Offer, Outcome, Rate, offer, pile_up};
use super::rig::Rig;
use super::{Durations, Fault, say};
use crate::history::Door;

/// Calls per second.
const CALLS_PER_SECOND: f64 = 10.0;

/// What a call may take beside a backlog (p99), in milliseconds. Alone it takes some tens.
const P99_MAX: f64 = 1_000.0;

/// The least share of calls that succeed.
const DONE_MIN: f64 = 0.99;

/// Requests a second that the API allows in the last of the cases.
const ALLOWED: u32 = 50;

/// What the calls have seen.
#[derive(Debug, Serialize)]
pub struct Beside {
    waiting_before: u32,
    /// It has to be more than none, or the backlog was not there all the time.
    waiting_after: u32,
    allowed_per_second: Option<u32>,
    calls: Latency,
    done: f64,
    answers: BTreeMap<String, usize>,
}

/// Without a backlog, with one, and with one before an API that allows little.
pub async fn doors(node: &Node, durations: &Durations) -> Vec<Beside> {
    let mut seen = Vec::new();
    for (messages, allowed) in [(0, None), (durations.waiting, None), (durations.waiting, Some(ALLOWED))] {
        seen.push(beside(node, messages, allowed, durations).await);
        seen.last().into_iter().for_each(Beside::tell);
    }
    seen
}

async fn beside(node: &Node, messages: usize, allowed: Option<u32>, durations: &Durations) -> Beside {
    let rig = Rig::set(node, 1, "").await;
    rig.simulator.limit(allowed.map(|allowed| Limit::per_second(allowed).window(Window::Sliding)));
    pile_up(&rig.loader, "backlog", &[0], messages).await;
    let waiting_before = rig.waiting().await;
    let rate = Rate { organization: 0, door: Door::Grpc, per_second: CALLS_PER_SECOND };
    let offers = offer(&rig.loader, "door", &[rate], durations.doors).await;
    let waiting_after = rig.waiting().await;
    let calls = Latency::of(offers.iter().filter(|offer| offer.is_done()).map(Offer::seconds));
    let beside = Beside {
        waiting_before,
        waiting_after,
        allowed_per_second: allowed,
        done: share(calls.count, offers.len()),
        calls,
        answers: tally(offers.iter().map(|offer| match &offer.outcome {
            Outcome::Done => "Ok".to_owned(),
            Outcome::Refused { code, .. } => code.clone(),
        })),
    };
    rig.end().await;
    beside
}

impl Beside {
    fn tell(&self) {
        let allowed =
            self.allowed_per_second.map(|allowed| format!(", {allowed}/s allowed")).unwrap_or_default();
        say(format!(
            "  {} messages waiting ({} afterwards){allowed}: calls p50 {} p99 {} max {} ms, done {:.1} % {:?}",
            self.waiting_before,
            self.waiting_after,
            self.calls.p50_ms,
            self.calls.p99_ms,
            self.calls.max_ms,
            self.done * 100.0,
            self.answers
        ));
    }

    /// What is not as it should be.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut expect = |holds: bool, text: String| {
            if !holds {
                let Self { waiting_before, allowed_per_second, .. } = self;
                faults.push(Fault(format!(
                    "doors ({waiting_before} waiting, {allowed_per_second:?} allowed): {text}"
                )));
            }
        };
        let Self { waiting_before, waiting_after, calls, done, .. } = self;
        expect(calls.p99_ms <= P99_MAX, format!("calls take {} ms (p99)", calls.p99_ms));
        expect(*done >= DONE_MIN, format!("{:.1} % of the calls are done", done * 100.0));
        let lasting = *waiting_before == 0 || *waiting_after > 0;
        expect(lasting, "the backlog was gone before the calls were".to_owned());
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_starve_are_found() {
        let faults = |waiting_after: u32, p99_ms: f64, done: f64| {
            let calls = Latency { count: 100, p50_ms: 1.0, p99_ms, max_ms: p99_ms };
            let (waiting_before, allowed_per_second) = (20_000, None);
            let answers = BTreeMap::new();
            Beside { waiting_before, waiting_after, allowed_per_second, calls, done, answers }.faults().len()
        };
        assert_eq!(faults(1, 1_000.0, 0.99), 0);
        assert_eq!((faults(0, 1_000.0, 0.99), faults(1, 1_001.0, 0.99), faults(1, 1_000.0, 0.98)), (1, 1, 1));
    }
}
