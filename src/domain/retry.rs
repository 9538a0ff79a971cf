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
        let jitter = jitter.clamp(0.0, 1.0);
        if let Some(hint) = hint {
            return hint + (hint / 10 + self.delay_base).mul_f64(jitter);
        }
        let doublings = attempt.saturating_sub(1).min(31);
        self.delay_base.saturating_mul(1 << doublings).min(self.delay_max).mul_f64(jitter)
    }

    /// The wait before a deferred command runs again: half fixed and half jittered, so that it is never at once.
    #[must_use]
    pub fn deferral(&self, attempts: u32, hint: Option<Duration>, jitter: f64) -> Duration {
        if hint.is_some() {
            return self.delay(attempts, hint, jitter);
        }
        let doublings = attempts.saturating_sub(1).min(31);
        let bound = self.delay_base.saturating_mul(1 << doublings).min(self.delay_max);
        bound / 2 + (bound / 2).mul_f64(jitter.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_delay_stays_within_its_bounds(attempt in 0u32..1000, jitter in 0.0f64..=1.0, base_ms in 1u64..10_000, factor in 1u32..100) {
            let backoff = Backoff { delay_base: Duration::from_millis(base_ms), delay_max: Duration::from_millis(base_ms) * factor };
            prop_assert!(backoff.delay(attempt, None, jitter) <= backoff.delay_max);
            let deferral = backoff.deferral(attempt, None, jitter);
            prop_assert!(deferral >= backoff.delay_base / 2 && deferral <= backoff.delay_max);
        }

        #[test]
        fn a_hint_is_never_undercut(hint_ms in 0u64..1_000_000, jitter in 0.0f64..=1.0) {
            let backoff = Backoff { delay_base: Duration::from_millis(100), delay_max: Duration::from_secs(60) };
            let hint = Duration::from_millis(hint_ms);
            let delay = backoff.delay(3, Some(hint), jitter);
            prop_assert!(delay >= hint && delay <= hint + hint / 10 + backoff.delay_base);
        }
    }
}
