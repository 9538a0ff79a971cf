//! An API that allows so many requests a second, and a backlog before it: how close to the limit the adapter comes, and
//! how often it runs into it.

use std::time::Duration;

use chrono::{TimeDelta, Utc};
use harness::Node;
use serde::Serialize;
use simulator::{Endpoint, Entry, Limit, RetryAfter, Window};
use tokio::time::sleep;

use super::figures::{number, share};
use super::load::pile_up;
use super::rig::Rig;
use super::{Durations, Fault, say};
use crate::history::Time;

/// Requests that the API allows in a second.
const ALLOWED: u32 = 50;

/// Organisations that share it.
const ORGANIZATIONS: usize = 5;

/// What is not looked at, at the beginning: the limit has to be learnt.
const LEARNING: TimeDelta = TimeDelta::seconds(5);

/// Goodput that there must be.
const GOODPUT_MIN: f64 = 45.0;

/// The share of requests that may be refused.
const REFUSED_MAX: f64 = 0.05;

/// How it went below a limit.
#[derive(Debug, Serialize)]
pub struct Pace {
    window: Window,
    retry_after: RetryAfter,
    /// After the limit had to be learnt.
    steady: Stretch,
    /// From the first request on.
    whole: Stretch,
    /// Requests in each second from the first on.
    seconds: Vec<u64>,
    dead_letters: u32,
    violations: Vec<String>,
}

/// A stretch of time.
#[derive(Debug, Serialize)]
struct Stretch {
    /// Applied per second.
    goodput: f64,
    requests: usize,
    refused: usize,
    refused_share: f64,
    /// The most requests in any one second.
    highest_second: u64,
}

impl Stretch {
    fn of(patches: &[&Entry], from: Time, until: Time) -> Self {
        let within: Vec<_> =
            patches.iter().filter(|entry| (from..until).contains(&entry.received_at)).collect();
        let times: Vec<Time> = within.iter().map(|entry| entry.received_at).collect();
        let refused = within.iter().filter(|entry| entry.status == Some(429)).count();
        let applied = within.iter().filter(|entry| entry.applied).count();
        Self {
            goodput: number(applied) / (until - from).to_std().unwrap_or_default().as_secs_f64(),
            requests: within.len(),
            refused,
            refused_share: share(refused, within.len()),
            highest_second: simulator::highest(&times, TimeDelta::seconds(1)),
        }
    }
}

/// Every window, with and without `Retry-After`.
pub async fn paces(node: &Node, durations: &Durations) -> Vec<Pace> {
    let mut paces = Vec::new();
    for window in [Window::FixedSecond, Window::Sliding, Window::TokenBucket { burst: 10 }] {
        for retry_after in [RetryAfter::None, RetryAfter::Seconds] {
            paces.push(pace(node, window, retry_after, durations.pace).await);
            paces.last().into_iter().for_each(Pace::tell);
        }
    }
    paces
}

async fn pace(node: &Node, window: Window, retry_after: RetryAfter, duration: Duration) -> Pace {
    let rig = Rig::set(node, ORGANIZATIONS, "").await;
    rig.simulator.limit(Some(Limit::per_second(ALLOWED).window(window).retry_after(retry_after)));
    let from = Utc::now();
    let needed = f64::from(ALLOWED) * duration.as_secs_f64() * 1.5;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "some thousands")]
    let messages = needed as usize;
    pile_up(&rig.loader, "pace", &[0, 1, 2, 3, 4], messages).await;
    sleep((from + duration - Utc::now()).to_std().unwrap_or_default()).await;
    let until = from + duration;
    let journal = rig.simulator.journal();
    let patches: Vec<&Entry> = journal.iter().filter(|entry| entry.endpoint == Endpoint::Patch).collect();
    let times: Vec<Time> = patches.iter().map(|entry| entry.received_at).collect();
    Pace {
        window,
        retry_after,
        steady: Stretch::of(&patches, from + LEARNING, until),
        whole: Stretch::of(&patches, from, until),
        seconds: simulator::buckets(&times, from, TimeDelta::seconds(1)),
        dead_letters: rig.dead_letters().await,
        violations: rig.end().await,
    }
}

impl Pace {
    fn tell(&self) {
        let text = |stretch: &Stretch| {
            format!(
                "goodput {:.1}/s, refused {:.1} % of {}, highest second {}",
                stretch.goodput,
                stretch.refused_share * 100.0,
                stretch.requests,
                stretch.highest_second
            )
        };
        say(format!("  {:?}, Retry-After {:?}:", self.window, self.retry_after));
        say(format!("    after the first 5 s: {}", text(&self.steady)));
        say(format!("    from the start:      {}", text(&self.whole)));
        say(format!("    requests by second:  {:?}", self.seconds));
    }

    /// What is not as it should be.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut expect = |holds: bool, text: String| {
            if !holds {
                let Self { window, retry_after, .. } = self;
                faults.push(Fault(format!("pace ({window:?}, Retry-After {retry_after:?}): {text}")));
            }
        };
        let Stretch { goodput, refused_share, .. } = self.steady;
        expect(goodput >= GOODPUT_MIN, format!("goodput is {goodput:.1}/s"));
        expect(refused_share < REFUSED_MAX, format!("{:.1} % are refused", refused_share * 100.0));
        expect(self.dead_letters == 0, format!("{} dead letters", self.dead_letters));
        expect(self.violations.is_empty(), format!("violations: {:?}", self.violations));
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pace_that_is_too_slow_or_refused_too_often_is_found() {
        let faults = |goodput: f64, refused_share: f64| {
            let stretch =
                || Stretch { goodput, requests: 2_000, refused: 0, refused_share, highest_second: 50 };
            let pace = Pace {
                window: Window::Sliding,
                retry_after: RetryAfter::None,
                steady: stretch(),
                whole: stretch(),
                seconds: Vec::new(),
                dead_letters: 0,
                violations: Vec::new(),
            };
            pace.faults().len()
        };
        assert_eq!((faults(45.0, 0.049), faults(44.9, 0.049), faults(45.0, 0.05)), (0, 1, 1));
    }
}
