//! When the writer waits a moment, so that more work shares its commit.
//!
//! A commit costs the same for one piece of work as for many: pages, a wait for the disk, wakings. So where work comes fast a
//! short pause saves most of the commits, as PostgreSQL's `commit_delay` does; where it comes slowly a pause would only make a
//! caller wait (<https://www.postgresql.org/docs/current/wal-configuration.html>).

use std::time::{Duration, Instant};

/// The pause before a commit.
const COMMIT_DELAY: Duration = Duration::from_micros(300);

/// The pause is made if so many pieces of work are to be expected in it.
const SIBLINGS_MIN: f64 = 2.0;

/// The weight of the newest commit in the pace.
const WEIGHT: f64 = 0.125;

/// How fast work comes.
#[derive(Debug)]
pub(super) struct Pace {
    /// Pieces of work for a commit, and the seconds from one to the next, smoothed alike.
    count: f64,
    seconds: f64,
    noted: Instant,
}

impl Pace {
    /// Of a writer that nobody has asked for anything.
    pub(super) const fn new(now: Instant) -> Self {
        Self { count: 0.0, seconds: 0.0, noted: now }
    }

    /// The pause before the next commit, if there is to be one.
    pub(super) fn delay(&self) -> Option<Duration> {
        let is_fast = self.count * COMMIT_DELAY.as_secs_f64() > SIBLINGS_MIN * self.seconds;
        is_fast.then_some(COMMIT_DELAY)
    }

    /// Notes that `count` pieces of work have come since the last call.
    pub(super) fn note(&mut self, count: usize, now: Instant) {
        let count = f64::from(u32::try_from(count).unwrap_or(u32::MAX));
        self.count += (count - self.count) * WEIGHT;
        self.seconds += (now.saturating_duration_since(self.noted).as_secs_f64() - self.seconds) * WEIGHT;
        self.noted = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(commits: &[(usize, u64)]) -> Pace {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        for (count, micros) in commits {
            now += Duration::from_micros(*micros);
            pace.note(*count, now);
        }
        pace
    }

    #[test]
    fn a_single_caller_waits_for_nobody() {
        assert_eq!(after(&[]).delay(), None);
        // Its claim, its end, and that its event is confirmed: each comes when the commit before it is done.
        assert_eq!(after(&[(1, 450); 100]).delay(), None);
    }

    #[test]
    fn many_callers_share_commits() {
        assert_eq!(after(&[(20, 1000); 100]).delay(), Some(COMMIT_DELAY));
    }

    #[test]
    fn a_pause_of_the_work_ends_the_waiting() {
        let mut commits = vec![(20, 1000); 100];
        commits.push((1, 1_000_000));
        assert_eq!(after(&commits).delay(), None);
    }

    #[test]
    fn what_comes_in_fits_and_starts_counts_by_its_time() {
        // 0.9 pieces in the time of the pause.
        let uneven: Vec<_> = (0..100).map(|index| (1, if index % 2 == 0 { 20 } else { 646 })).collect();
        assert_eq!(after(&uneven).delay(), None);
    }

    #[test]
    fn one_full_commit_after_a_rest_is_no_pace() {
        assert_eq!(after(&[(1, 1_000_000), (50, 100_000)]).delay(), None);
    }
}
