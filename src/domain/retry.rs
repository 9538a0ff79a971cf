//! How long to wait: pure functions of the attempt, the upstream's hint and a random number.

use std::time::Duration;

/// Bounds of a wait that doubles from attempt to attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// The upper bound of the first wait.
    pub delay_base: Duration,
    /// The upper bound of every wait.
    pub delay_max: Duration,
}

impl Backoff {
    /// The wait before attempt number `attempt` + 1 (`attempt` counts from 1), with full jitter: uniform between
    /// zero and the bound. `jitter` is uniform in 0..1.
    ///
    /// An upstream's `hint` (`Retry-After`) is a lower bound, jittered upward by up to a tenth plus one base delay
    /// so that callers who were told the same second do not come back in the same instant. Nothing shortens it, not
    /// even `delay_max`: who reads the hint bounds it.
    #[must_use]
    pub fn delay(&self, attempt: u32, hint: Option<Duration>, jitter: f64) -> Duration {
        if let Some(hint) = hint {
            return hint
                .saturating_add(part(hint / 10, jitter))
                .saturating_add(part(self.delay_base, jitter));
        }
        part(self.bound(attempt), jitter)
    }

    /// The wait before a deferred command runs again: half fixed and half jittered, so that it is never at once.
    #[must_use]
    pub fn deferral(&self, attempts: u32, hint: Option<Duration>, jitter: f64) -> Duration {
        if hint.is_some() {
            return self.delay(attempts, hint, jitter);
        }
        let bound = self.bound(attempts);
        bound / 2 + part(bound / 2, jitter)
    }

    fn bound(&self, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        self.delay_base.saturating_mul(1 << doublings).min(self.delay_max)
    }
}

/// A share of `whole`, never more than all of it: the longest durations do not survive a detour over `f64`.
fn part(whole: Duration, share: f64) -> Duration {
    if share.is_nan() {
        return whole;
    }
    Duration::try_from_secs_f64(whole.as_secs_f64() * share.clamp(0.0, 1.0)).unwrap_or(whole).min(whole)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn duration() -> impl Strategy<Value = Duration> {
        prop_oneof![
            (0u64..10_000).prop_map(Duration::from_millis),
            any::<u64>().prop_map(Duration::from_nanos),
            (any::<u64>(), 0u32..1_000_000_000).prop_map(|(seconds, nanos)| Duration::new(seconds, nanos)),
            Just(Duration::ZERO),
            Just(Duration::MAX),
        ]
    }

    fn backoff() -> impl Strategy<Value = Backoff> {
        (duration(), duration()).prop_map(|(delay_base, delay_max)| Backoff { delay_base, delay_max })
    }

    /// What a random number should be, and what it should not.
    fn jitter() -> impl Strategy<Value = f64> {
        prop_oneof![4 => 0.0f64..=1.0, 1 => any::<f64>()]
    }

    fn attempt() -> impl Strategy<Value = u32> {
        prop_oneof![0u32..40, any::<u32>()]
    }

    proptest! {
        #[test]
        fn a_delay_stays_within_its_bounds(backoff in backoff(), attempt in attempt(), jitter in jitter()) {
            let delay = backoff.delay(attempt, None, jitter);
            prop_assert!(delay <= backoff.delay_max);
            if attempt <= 1 {
                prop_assert!(delay <= backoff.delay_base);
            }
        }

        #[test]
        fn a_deferral_is_never_at_once(backoff in backoff(), attempt in attempt(), jitter in jitter()) {
            let deferral = backoff.deferral(attempt, None, jitter);
            prop_assert!(deferral >= backoff.delay_base.min(backoff.delay_max) / 2);
            prop_assert!(deferral <= backoff.delay_max);
        }

        #[test]
        fn a_hint_is_never_undercut(backoff in backoff(), attempt in attempt(), hint in duration(), jitter in jitter()) {
            for delay in [backoff.delay(attempt, Some(hint), jitter), backoff.deferral(attempt, Some(hint), jitter)] {
                prop_assert!(delay >= hint);
                prop_assert!(delay <= hint.saturating_add(hint / 10).saturating_add(backoff.delay_base));
            }
        }

        #[test]
        fn more_attempts_never_mean_a_shorter_bound(backoff in backoff(), attempt in 0u32..u32::MAX) {
            prop_assert!(backoff.delay(attempt, None, 1.0) <= backoff.delay(attempt + 1, None, 1.0));
        }
    }
}
