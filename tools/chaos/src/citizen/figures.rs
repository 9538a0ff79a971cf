//! What was measured, in numbers.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::TimeDelta;
use serde::Serialize;
use simulator::{Endpoint, Entry};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::history::Time;
use crate::run::watch_stalls;

/// The width of the buckets in which paces are compared.
pub const BUCKET: TimeDelta = TimeDelta::milliseconds(200);

/// The same in seconds.
pub const BUCKET_SECONDS: f64 = 0.2;

/// A share of what a rate was before that counts as the full rate.
const FULL: f64 = 0.9;

/// Times in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct Latency {
    /// How many.
    pub count: usize,
    /// Half of them took no longer.
    pub p50_ms: f64,
    /// 99 of 100 took no longer.
    pub p99_ms: f64,
    /// The longest.
    pub max_ms: f64,
}

impl Latency {
    /// Of times in seconds.
    #[must_use]
    pub fn of(seconds: impl IntoIterator<Item = f64>) -> Self {
        let mut times: Vec<f64> =
            seconds.into_iter().map(|seconds| (seconds * 10_000.0).round() / 10.0).collect();
        times.sort_by(f64::total_cmp);
        let Some(max_ms) = times.last().copied() else { return Self::default() };
        // The nearest rank: the least value that so many of a hundred do not exceed.
        let rank = |percent: usize| times[(times.len() * percent).div_ceil(100).max(1) - 1];
        Self { count: times.len(), p50_ms: rank(50), p99_ms: rank(99), max_ms }
    }
}

/// A watch over this process's own stalls. Dropping it ends it.
pub struct Stall {
    longest: watch::Sender<Duration>,
    watching: JoinHandle<()>,
}

impl Stall {
    /// Watches from now on.
    #[must_use]
    pub fn watch() -> Self {
        let longest = watch::Sender::new(Duration::ZERO);
        let watching = tokio::spawn(watch_stalls(longest.clone()));
        Self { longest, watching }
    }

    /// The longest so far, in milliseconds.
    #[must_use]
    pub fn longest_ms(&self) -> f64 {
        self.longest.borrow().as_secs_f64() * 1_000.0
    }
}

impl Drop for Stall {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

/// A count as a number to calculate with.
#[must_use]
pub fn number(count: usize) -> f64 {
    f64::from(u32::try_from(count).unwrap_or(u32::MAX))
}

/// `part` of `whole`; of nothing, nothing.
#[must_use]
pub fn share(part: usize, whole: usize) -> f64 {
    if whole == 0 { 0.0 } else { number(part) / number(whole) }
}

/// How often each word comes.
#[must_use]
pub fn tally(words: impl IntoIterator<Item = String>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    words.into_iter().for_each(|word| *counts.entry(word).or_default() += 1);
    counts
}

/// The times of the PATCHes within `[from, until)`.
#[must_use]
pub fn patches(journal: &[Entry], from: Time, until: Time) -> Vec<Time> {
    let within = journal.iter().filter(|entry| entry.endpoint == Endpoint::Patch);
    within.map(|entry| entry.received_at).filter(|at| (from..until).contains(at)).collect()
}

/// How the pace came back after an outage, in buckets of [`BUCKET`].
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Return {
    /// PATCHes per second before.
    pub before_per_second: f64,
    /// The most in a bucket before.
    pub highest_before: u64,
    /// Seconds from the API's return to the end of the first bucket with 90 % of the pace before, if there was one.
    pub full_pace_after_s: Option<f64>,
    /// The most in a bucket after.
    pub highest_after: u64,
    /// How many came in each bucket after the return; the first ones.
    pub buckets: Vec<u64>,
}

impl Return {
    /// Of PATCHes at `times`; the API was there in `[settled, from)` and again from `until` on.
    #[must_use]
    pub fn of(times: &[Time], settled: Time, from: Time, until: Time) -> Self {
        let before: Vec<Time> = times.iter().copied().filter(|at| (settled..from).contains(at)).collect();
        let span = (from - settled).to_std().unwrap_or_default().as_secs_f64();
        let before_per_second = if span > 0.0 { number(before.len()) / span } else { 0.0 };
        let after = simulator::buckets(times, until, BUCKET);
        let wanted = before_per_second * BUCKET_SECONDS * FULL;
        #[allow(clippy::cast_precision_loss, reason = "a bucket holds few")]
        let full = after.iter().position(|count| *count as f64 >= wanted);
        Self {
            before_per_second,
            highest_before: simulator::buckets(&before, settled, BUCKET).into_iter().max().unwrap_or(0),
            full_pace_after_s: full.map(|bucket| number(bucket + 1) * BUCKET_SECONDS),
            highest_after: after.iter().copied().max().unwrap_or(0),
            buckets: after.into_iter().take(100).collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> Time {
        Time::UNIX_EPOCH + TimeDelta::milliseconds(ms)
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        let latency = Latency::of((1..=200).map(|ms| f64::from(ms) / 1_000.0));
        assert_eq!(latency, Latency { count: 200, p50_ms: 100.0, p99_ms: 198.0, max_ms: 200.0 });
        assert_eq!(Latency::of([0.5]), Latency { count: 1, p50_ms: 500.0, p99_ms: 500.0, max_ms: 500.0 });
        assert_eq!(Latency::of([]), Latency::default());
    }

    #[test]
    fn a_return_is_seen_in_buckets() {
        // 50 a second before; after the return a probe, silence, then a rush.
        let mut times: Vec<Time> = (0..50).map(|n| at(n * 20)).collect();
        times.push(at(5_100));
        times.extend((0..9).map(|n| at(5_600 + n)));
        times.extend((0..30).map(|n| at(5_800 + n)));
        let back = Return::of(&times, at(0), at(1_000), at(5_000));
        assert!((back.before_per_second - 50.0).abs() < f64::EPSILON);
        assert_eq!((back.highest_before, back.highest_after), (10, 30));
        assert_eq!(back.buckets, [1, 0, 0, 9, 30]);
        assert!((back.full_pace_after_s.unwrap() - 0.8).abs() < 1e-9);
        assert_eq!(Return::of(&times[..50], at(0), at(1_000), at(5_000)).full_pace_after_s, None);
    }
}
