//! What is known of one requester organisation: its limits, its breaker, its pace, and who waits.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::oneshot;
use tower::retry::budget::{Budget as _, TpsBudget};

use super::{Closed, Organization, Patience, Settings, Ticket};
use crate::domain::error::Reason;
use crate::domain::record::Door;
use crate::domain::traffic::Moment;
use crate::domain::traffic::breaker::{Breaker, Terms};
use crate::domain::traffic::pace::Pace;

/// How long a success counts for retries.
const BUDGET_MEMORY: Duration = Duration::from_secs(10);

/// What one who waits is told.
pub(super) type Turn = oneshot::Sender<Result<(Ticket, Option<&'static str>), Closed>>;

/// Someone who waits.
pub(super) struct Waiter {
    pub(super) place: u64,
    pub(super) patience: Patience,
    pub(super) turn: Turn,
    pub(super) since: Moment,
    /// What it waits for, as last seen.
    pub(super) reason: Option<&'static str>,
}

/// What is known of a requester's token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// Nothing stands in the way of having one.
    Usual,
    /// None was to be had. It is not asked for before, unless to try whether the upstream is back.
    RestsUntil(Moment),
    /// None was to be had, but the upstream has come back since: it is asked for anew.
    AskAnew,
}

impl Token {
    pub(super) fn rests_until(self, now: Moment) -> Option<Moment> {
        match self {
            Self::RestsUntil(until) => Some(until).filter(|until| *until > now),
            Self::Usual | Self::AskAnew => None,
        }
    }
}

/// A requester organisation.
pub(super) struct Requester {
    pub(super) upstream: Arc<str>,
    pub(super) incarnation: u64,
    /// Whether one of its requests tries whether the upstream is back.
    pub(super) is_trying: bool,
    pub(super) configured: Option<Organization>,
    pub(super) in_flight: usize,
    pub(super) breaker: Breaker,
    /// The last failure.
    pub(super) cause: Reason,
    pub(super) paused_until: Option<Moment>,
    pub(super) token: Token,
    pub(super) pace: Pace,
    /// Requests that may be under way after a time without any, until it is as many as usual.
    pub(super) ramp: Option<usize>,
    /// Since when it is broken.
    pub(super) down_since: Option<Moment>,
    /// Until then a try is recovery's.
    pub(super) asked_until: Option<Moment>,
    /// Whether it stands in its upstream's list of those that may go on.
    pub(super) is_listed: bool,
    /// Whether someone waits for a limit of its own.
    pub(super) is_constrained: bool,
    /// When the budget for retries was last found empty.
    pub(super) exhausted_at: Option<Moment>,
    limiter: Option<DefaultDirectRateLimiter>,
    /// Its requests in a second, at most, by this instance.
    rate: Option<f64>,
    budget: TpsBudget,
    waiters: [VecDeque<Waiter>; 2],
    /// The door that is next.
    next_door: usize,
}

impl Requester {
    pub(super) fn new(
        upstream: Arc<str>,
        incarnation: u64,
        configured: Option<Organization>,
        instances: u32,
        settings: &Settings,
    ) -> Self {
        #[allow(clippy::cast_possible_truncation, reason = "a share from 0 to 1")]
        let share = settings.retry_share as f32;
        let mut requester = Self {
            upstream,
            incarnation,
            is_trying: false,
            configured: None,
            in_flight: 0,
            breaker: Breaker::new(terms(settings)),
            cause: Reason::UpstreamUnavailable,
            paused_until: None,
            token: Token::Usual,
            pace: Pace::default(),
            ramp: None,
            down_since: None,
            asked_until: None,
            is_listed: false,
            is_constrained: false,
            exhausted_at: None,
            limiter: None,
            rate: None,
            budget: TpsBudget::new(BUDGET_MEMORY, settings.retry_floor, share),
            waiters: <_>::default(),
            next_door: 0,
        };
        requester.configure(configured, instances);
        requester
    }

    /// Takes over limits. What is sent in a second is divided among `instances`.
    pub(super) fn configure(&mut self, configured: Option<Organization>, instances: u32) {
        let rate = configured.as_ref().and_then(|organization| organization.requests_per_second);
        let rate = rate.map(|rate| rate / f64::from(instances.max(1)));
        if rate != self.rate {
            self.limiter = rate.and_then(limiter);
            self.rate = rate;
        }
        self.configured = configured;
    }

    /// Forgets that it failed.
    pub(super) fn renew(&mut self) {
        self.breaker.reset();
        self.down_since = None;
        self.paused_until = None;
        self.token = Token::Usual;
    }

    /// Until when nothing is to be sent: it was asked to wait, or there is no token. One that tries whether the upstream is
    /// back asks for a token as well.
    pub(super) fn rests_until(&self, now: Moment, tries_upstream: bool) -> Option<Moment> {
        let token_until = self.token.rests_until(now).filter(|_| !tries_upstream);
        self.paused_until.max(token_until).filter(|until| *until > now)
    }

    pub(super) fn in_flight_max(&self) -> usize {
        let configured = self.configured.as_ref().and_then(|organization| organization.in_flight_max);
        configured.unwrap_or(usize::MAX).min(self.ramp.unwrap_or(usize::MAX))
    }

    /// Work that was begun goes before what is to be begun.
    pub(super) fn push(&mut self, door: Door, waiter: Waiter) {
        let waiters = &mut self.waiters[index(door)];
        let is_begun = |waiter: &Waiter| matches!(waiter.patience, Patience::Claim(_));
        let place = if is_begun(&waiter) {
            waiters.iter().take_while(|other| is_begun(other)).count()
        } else {
            waiters.len()
        };
        waiters.insert(place, waiter);
    }

    /// How many wait.
    pub(super) fn waiting(&self) -> usize {
        self.waiters.iter().map(VecDeque::len).sum()
    }

    pub(super) fn is_waited_for(&self) -> bool {
        self.waiters.iter().any(|waiters| !waiters.is_empty())
    }

    /// Notes what those at the head wait for.
    pub(super) fn note_reason(&mut self, reason: &'static str) {
        for waiters in &mut self.waiters {
            if let Some(waiter) = waiters.front_mut() {
                waiter.reason = Some(reason);
            }
        }
    }

    /// The next one, from both doors in turn.
    pub(super) fn pop(&mut self) -> Option<Waiter> {
        let first = self.next_door;
        self.next_door = 1 - first;
        self.waiters[first].pop_front().or_else(|| self.waiters[1 - first].pop_front())
    }

    /// Those who do not want to wait for `keeps` to become true.
    pub(super) fn take(&mut self, mut leaves: impl FnMut(&Waiter) -> bool) -> Vec<Waiter> {
        let mut taken = Vec::new();
        for waiters in &mut self.waiters {
            let (left, kept) = std::mem::take(waiters).into_iter().partition(&mut leaves);
            *waiters = kept;
            taken.extend::<VecDeque<_>>(left);
        }
        taken
    }

    /// When the next request may begin by the fixed rate; if that is now, it counts as begun.
    pub(super) fn take_rate(&self, now: Moment) -> Result<(), Moment> {
        let Some(limiter) = &self.limiter else { return Ok(()) };
        limiter.check().map_err(|wait| now + wait.wait_time_from(DefaultClock::default().now()))
    }

    pub(super) fn deposit(&self) {
        self.budget.deposit();
    }

    /// Takes a retry out of the budget, if it holds one.
    pub(super) fn withdraw(&mut self, now: Moment) -> bool {
        let withdrawn = self.budget.withdraw();
        if !withdrawn {
            self.exhausted_at = Some(now);
        }
        withdrawn
    }
}

pub(super) const fn terms(settings: &Settings) -> Terms {
    Terms {
        failures_max: settings.failures_max,
        failure_share: settings.failure_share,
        is_shared: false,
        delay: settings.delay,
    }
}

const fn index(door: Door) -> usize {
    match door {
        Door::Grpc => 0,
        Door::Amqp => 1,
    }
}

/// A tenth of a second's requests may come at once.
fn limiter(requests_per_second: f64) -> Option<DefaultDirectRateLimiter> {
    let period = Duration::try_from_secs_f64(1.0 / requests_per_second).ok()?;
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "the configuration's rules keep it from 0.01 to 100,000"
    )]
    let burst = NonZeroU32::new((requests_per_second / 10.0) as u32).unwrap_or(NonZeroU32::MIN);
    Some(RateLimiter::direct(Quota::with_period(period)?.allow_burst(burst)))
}
