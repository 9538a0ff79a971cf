//! PATCH requests by requester and status, and how they came over time.

use std::collections::BTreeMap;

use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::journal::{Endpoint, Entry};

/// PATCH requests of a journal, counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// By requester and status; `none` is the status of what was never answered, the nil UUID a requester that was not
    /// told.
    pub by_requester: BTreeMap<Uuid, BTreeMap<String, u64>>,
    /// When the first came.
    pub from: Option<DateTime<Utc>>,
    /// How many came in each second from then on.
    pub seconds: Vec<u64>,
    /// The most that came within any one second.
    pub highest_second: u64,
}

impl Tally {
    /// Counts the PATCH requests of `entries`, which are in order of arrival.
    #[must_use]
    pub fn of(entries: &[Entry]) -> Self {
        let mut tally = Self::default();
        let patches: Vec<&Entry> = entries.iter().filter(|entry| entry.endpoint == Endpoint::Patch).collect();
        let Some(first) = patches.first() else { return tally };
        for entry in &patches {
            let status = entry.status.map_or_else(|| "none".to_owned(), |status| status.to_string());
            let statuses = tally.by_requester.entry(entry.requester.unwrap_or_default()).or_default();
            *statuses.entry(status).or_default() += 1;
        }
        let times: Vec<_> = patches.iter().map(|entry| entry.received_at).collect();
        tally.from = Some(first.received_at);
        tally.seconds = buckets(&times, first.received_at, TimeDelta::seconds(1));
        tally.highest_second = highest(&times, TimeDelta::seconds(1));
        tally
    }
}

/// How many of `times` lie in each stretch of `width` from `from` on, up to the last of them. Earlier ones are left out.
#[must_use]
pub fn buckets(times: &[DateTime<Utc>], from: DateTime<Utc>, width: TimeDelta) -> Vec<u64> {
    let width = width.num_microseconds().unwrap_or(i64::MAX).max(1);
    let mut counts = Vec::new();
    for time in times.iter().filter(|time| **time >= from) {
        let offset = (*time - from).num_microseconds().unwrap_or_default();
        let Ok(bucket) = usize::try_from(offset / width) else { continue };
        if counts.len() <= bucket {
            counts.resize(bucket + 1, 0);
        }
        counts[bucket] += 1;
    }
    counts
}

/// The most of `times` that lie within any stretch of `width`, which may begin anywhere.
#[must_use]
pub fn highest(times: &[DateTime<Utc>], width: TimeDelta) -> u64 {
    let mut times = times.to_vec();
    times.sort_unstable();
    let mut start = 0;
    let mut most = 0;
    for (end, time) in times.iter().enumerate() {
        while times[start] + width <= *time {
            start += 1;
        }
        most = most.max(end - start + 1);
    }
    u64::try_from(most).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: i64) -> DateTime<Utc> {
        DateTime::UNIX_EPOCH + TimeDelta::milliseconds(ms)
    }

    #[test]
    fn buckets_begin_where_they_are_told_to() {
        let times = [at(50), at(100), at(299), at(300), at(700)];
        assert_eq!(buckets(&times, at(100), TimeDelta::milliseconds(200)), [2, 1, 0, 1]);
        assert_eq!(buckets(&[], at(0), TimeDelta::seconds(1)), Vec::<u64>::new());
    }

    #[test]
    fn the_highest_second_may_begin_anywhere() {
        let times = [at(0), at(900), at(1_000), at(1_100), at(1_899), at(1_900)];
        assert_eq!(highest(&times, TimeDelta::seconds(1)), 4);
        assert_eq!(highest(&[], TimeDelta::seconds(1)), 0);
    }
}
