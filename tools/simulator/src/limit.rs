//! A limit on the rate of PATCH requests, as an API or its gateway may have one.

use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::http::HeaderValue;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

const SECOND: Duration = Duration::from_secs(1);

/// How many PATCH requests are let through. What is beyond is answered with 429 at once and not applied; it does not
/// count itself. Requests that break the contract do not count either.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Requests per second; 0 lets none through.
    pub requests_per_second: u32,
    /// Over which time they are counted.
    #[serde(default)]
    pub window: Window,
    /// Whose requests are counted together.
    #[serde(default)]
    pub scope: Scope,
    /// What a 429 says of the time to wait.
    #[serde(default)]
    pub retry_after: RetryAfter,
}

/// Over which time requests are counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Window {
    /// Each second of the clock, so that twice as many may pass within one second around its turn.
    #[default]
    FixedSecond,
    /// The last second before each request.
    Sliding,
    /// A bucket that is filled steadily and holds this many at most.
    TokenBucket {
        /// At least 1.
        burst: u32,
    },
}

/// Whose requests are counted together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// All.
    #[default]
    Api,
    /// Those of each requester.
    EachRequester,
    /// Those of this requester; the others have no limit.
    Requester(Uuid),
}

/// What a 429 says of the time to wait. Both forms are rounded up to whole seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryAfter {
    /// Nothing.
    #[default]
    None,
    /// A number of seconds, until one more request would be let through.
    Seconds,
    /// The same as a point in time.
    HttpDate,
}

impl Limit {
    /// So many in each second of the clock, over all requesters, without a word on the time to wait.
    #[must_use]
    pub fn per_second(requests: u32) -> Self {
        Self {
            requests_per_second: requests,
            window: Window::default(),
            scope: Scope::default(),
            retry_after: RetryAfter::default(),
        }
    }

    /// Counts over this time.
    #[must_use]
    pub fn window(self, window: Window) -> Self {
        Self { window, ..self }
    }

    /// Counts these requests together.
    #[must_use]
    pub fn scope(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    /// Lets a 429 say how long to wait.
    #[must_use]
    pub fn retry_after(self, retry_after: RetryAfter) -> Self {
        Self { retry_after, ..self }
    }
}

/// A limit and what was counted.
#[derive(Debug)]
pub(crate) struct Limiter {
    limit: Limit,
    /// The time since the epoch when the monotonic clock was read, so that fixed seconds are those of the clock.
    began: (Duration, Instant),
    meters: HashMap<Option<Uuid>, Meter>,
}

impl Limiter {
    pub(crate) fn new(limit: Limit) -> Self {
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { limit, began: (since_epoch, Instant::now()), meters: HashMap::new() }
    }

    /// Lets a request through, or yields the 429's `Retry-After`, if it has one.
    pub(crate) fn take(&mut self, requester: Option<Uuid>) -> Result<(), Option<HeaderValue>> {
        let key = match self.limit.scope {
            Scope::Api => None,
            Scope::EachRequester => requester,
            Scope::Requester(only) if requester == Some(only) => requester,
            Scope::Requester(_) => return Ok(()),
        };
        let (limit, now) = (self.limit, self.began.0 + self.began.1.elapsed());
        let meter = self.meters.entry(key).or_insert_with(|| Meter::new(&limit, now));
        meter.take(&limit, now).map_err(|wait| header(limit.retry_after, now, wait))
    }
}

fn header(form: RetryAfter, now: Duration, wait: Duration) -> Option<HeaderValue> {
    let whole = |duration: Duration| duration.as_secs() + u64::from(duration.subsec_nanos() > 0);
    match form {
        RetryAfter::None => None,
        RetryAfter::Seconds => Some(HeaderValue::from(whole(wait).max(1))),
        RetryAfter::HttpDate => {
            let at = i64::try_from(whole(now + wait))
                .ok()
                .and_then(|at| DateTime::<Utc>::from_timestamp(at, 0))?;
            HeaderValue::try_from(at.format("%a, %d %b %Y %H:%M:%S GMT").to_string()).ok()
        }
    }
}

/// What was counted of the requests that belong together.
#[derive(Debug)]
enum Meter {
    Fixed { second: u64, count: u32 },
    Sliding(VecDeque<Duration>),
    Bucket { tokens: f64, at: Duration },
}

impl Meter {
    fn new(limit: &Limit, now: Duration) -> Self {
        match limit.window {
            Window::FixedSecond => Self::Fixed { second: now.as_secs(), count: 0 },
            Window::Sliding => Self::Sliding(VecDeque::new()),
            Window::TokenBucket { burst } => Self::Bucket { tokens: f64::from(burst.max(1)), at: now },
        }
    }

    /// Counts a request that came `now`, or yields the time until one would be let through.
    fn take(&mut self, limit: &Limit, now: Duration) -> Result<(), Duration> {
        let rate = limit.requests_per_second;
        match self {
            Self::Fixed { second, count } => {
                if *second != now.as_secs() {
                    (*second, *count) = (now.as_secs(), 0);
                }
                if *count >= rate {
                    return Err(Duration::from_secs(now.as_secs() + 1).saturating_sub(now));
                }
                *count += 1;
                Ok(())
            }
            Self::Sliding(passed) => {
                while passed.front().is_some_and(|at| *at + SECOND <= now) {
                    passed.pop_front();
                }
                if passed.len() >= rate as usize {
                    return Err(passed.front().map_or(SECOND, |at| (*at + SECOND).saturating_sub(now)));
                }
                passed.push_back(now);
                Ok(())
            }
            Self::Bucket { tokens, at } => {
                let burst = if let Window::TokenBucket { burst } = limit.window { burst.max(1) } else { 1 };
                let gained = now.saturating_sub(*at).as_secs_f64() * f64::from(rate);
                (*tokens, *at) = ((*tokens + gained).min(f64::from(burst)), now);
                if *tokens < 1.0 {
                    let wait = Duration::try_from_secs_f64((1.0 - *tokens) / f64::from(rate));
                    return Err(wait.unwrap_or(SECOND));
                }
                *tokens -= 1.0;
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

    use super::*;

    fn at(ms: u64) -> Duration {
        Duration::from_millis(1_000_000 + ms)
    }

    /// How many requests of those at `times` pass.
    fn passed(limit: Limit, times: impl IntoIterator<Item = u64>) -> usize {
        let mut meter = Meter::new(&limit, at(0));
        times.into_iter().filter(|ms| meter.take(&limit, at(*ms)).is_ok()).count()
    }

    #[test]
    fn a_fixed_second_lets_twice_as_many_pass_around_its_turn() {
        let times = (0..20).map(|n| 900 + n).chain((0..20).map(|n| 1_000 + n));
        assert_eq!(passed(Limit::per_second(10), times), 20);
    }

    #[test]
    fn a_sliding_second_does_not() {
        let sliding = Limit::per_second(10).window(Window::Sliding);
        let times = (0..20).map(|n| 900 + n).chain((0..20).map(|n| 1_000 + n));
        assert_eq!(passed(sliding, times), 10);
        assert_eq!(passed(sliding, (0..40).map(|n| n * 100)), 40, "what keeps to it passes");
    }

    #[test]
    fn a_bucket_lets_its_burst_pass_and_then_what_is_filled_in() {
        let bucket = Limit::per_second(10).window(Window::TokenBucket { burst: 5 });
        assert_eq!(passed(bucket, std::iter::repeat_n(0, 50)), 5);
        assert_eq!(passed(bucket, (0..=1_000).map(|n| n * 2)), 5 + 20);
    }

    #[test]
    fn the_wait_is_until_one_more_would_pass() {
        for window in [Window::FixedSecond, Window::Sliding, Window::TokenBucket { burst: 2 }] {
            let limit = Limit::per_second(2).window(window);
            let mut meter = Meter::new(&limit, at(0));
            meter.take(&limit, at(100)).unwrap();
            meter.take(&limit, at(100)).unwrap();
            let wait = meter.take(&limit, at(300)).unwrap_err();
            assert!(meter.take(&limit, at(299) + wait).is_err(), "{window:?}: {wait:?} is too long");
            assert!(meter.take(&limit, at(301) + wait).is_ok(), "{window:?}: {wait:?} is too short");
        }
    }

    #[test]
    fn both_forms_of_retry_after_are_whole_seconds_that_suffice() {
        let (now, wait) = (Duration::from_millis(1_794_000_000_700), Duration::from_millis(400));
        assert_eq!(header(RetryAfter::Seconds, now, wait).unwrap(), "1");
        assert_eq!(header(RetryAfter::HttpDate, now, wait).unwrap(), "Fri, 06 Nov 2026 21:20:02 GMT");
        assert_eq!(header(RetryAfter::None, now, wait), None);
    }

    #[test]
    fn a_scope_counts_what_belongs_together() {
        let (one, other) = (Some(Uuid::from_u128(1)), Some(Uuid::from_u128(2)));
        let passes = |scope| {
            let mut limiter = Limiter::new(Limit::per_second(1).window(Window::Sliding).scope(scope));
            [one, one, other, other].map(|requester| limiter.take(requester).is_ok())
        };
        assert_eq!(passes(Scope::Api), [true, false, false, false]);
        assert_eq!(passes(Scope::EachRequester), [true, false, true, false]);
        assert_eq!(passes(Scope::Requester(Uuid::from_u128(1))), [true, false, true, true]);
    }
}
