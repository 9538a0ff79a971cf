//! A circuit breaker: after too many failures nothing is sent for a while, then one request tries.

use std::time::Duration;

use super::Moment;
use crate::domain::command::OrganizationId;
use crate::domain::connection::Connection;
use crate::domain::retry::Backoff;

/// When a breaker opens, and for how long.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Terms {
    /// Failures in a row that open it.
    pub failures_max: u32,
    /// The share of failures that opens it, once there are enough requests to tell.
    pub failure_share: f64,
    /// Whether the failures must be of more than one organisation, unless no connection came about.
    pub is_shared: bool,
    /// How long it stays open; longer from time to time.
    pub delay: Backoff,
}

/// Requests that make a share meaningful.
const SAMPLES_MIN: u32 = 20;

/// A share is of the requests of the last one to two of these.
const WINDOW: Duration = Duration::from_secs(5);

/// The longest time without a try that an upstream may ask for: it may be back before.
const HINT_MAX: Duration = Duration::from_secs(30);

/// Failures must be of so many connections, unless no connection to the upstream came about: a single command that an
/// upstream fails at, time and again, says nothing of others.
const CONNECTIONS_MIN: usize = 3;

/// Failures in a row, or of a window, and whose.
#[derive(Debug, Clone, Copy, Default)]
struct Failures {
    count: u32,
    /// Whether one of them has nothing to do with its organisation.
    is_general: bool,
    source: Option<OrganizationId>,
    /// Whether they are of several organisations.
    is_shared: bool,
    connections: [Option<Connection>; CONNECTIONS_MIN],
    /// Whether one of them has nothing to do with its connection.
    is_of_none: bool,
}

impl Failures {
    fn add(&mut self, failure: &Failure) {
        self.count = self.count.saturating_add(1);
        self.is_general |= failure.is_general;
        self.is_shared |= self.source.is_some_and(|first| first != failure.source);
        self.source.get_or_insert(failure.source);
        match failure.connection {
            Some(connection) => self.add_connection(connection),
            None => self.is_of_none = true,
        }
    }

    fn add_connection(&mut self, connection: Connection) {
        for place in &mut self.connections {
            if *place == Some(connection) {
                return;
            }
            if place.is_none() {
                *place = Some(connection);
                return;
            }
        }
    }

    fn and(mut self, other: Self) -> Self {
        self.count += other.count;
        self.is_general |= other.is_general;
        self.is_of_none |= other.is_of_none;
        let differ = self.source.zip(other.source).is_some_and(|(a, b)| a != b);
        self.is_shared |= other.is_shared || differ;
        other.connections.into_iter().flatten().for_each(|connection| self.add_connection(connection));
        self
    }

    /// Whether they say something of others.
    fn are_telling(&self, terms: &Terms, connections_min: usize) -> bool {
        let connections = self.connections.iter().flatten().count();
        self.is_general
            || ((self.is_of_none || connections >= connections_min) && (self.is_shared || !terms.is_shared))
    }
}

/// The requests of a window.
#[derive(Debug, Clone, Copy, Default)]
struct Window {
    served: u32,
    failures: Failures,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Closed,
    Open {
        until: Moment,
    },
    /// The one request that tries is under way.
    Trying,
}

/// What may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Everything.
    Free,
    /// One request, to see.
    Try,
    /// Nothing until then. Nothing is known of the time while a try is under way.
    Nothing(Option<Moment>),
}

/// How a breaker changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// It opened, or stays open after a try.
    Opened,
    /// It closed.
    Closed,
}

/// A failure, as a breaker sees it.
#[derive(Debug, Clone, Copy)]
pub struct Failure {
    /// On whose behalf.
    pub source: OrganizationId,
    /// Which connection was to be changed; nothing if that plays no part.
    pub connection: Option<Connection>,
    /// See [`Heard::Failed`](super::Heard::Failed).
    pub is_general: bool,
    /// The wait that the upstream asks for.
    pub retry_after: Option<Duration>,
}

/// A breaker.
#[derive(Debug, Clone)]
pub struct Breaker {
    terms: Terms,
    state: State,
    /// Openings without a success in between.
    openings: u32,
    row: Failures,
    window: Window,
    window_last: Window,
    window_end: Moment,
}

impl Breaker {
    /// A closed one.
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        Self {
            terms,
            state: State::Closed,
            openings: 0,
            row: Failures::default(),
            window: Window::default(),
            window_last: Window::default(),
            window_end: Moment::ZERO,
        }
    }

    /// What may be sent at `now`.
    #[must_use]
    pub fn admission(&self, now: Moment) -> Admission {
        match self.state {
            State::Closed => Admission::Free,
            State::Open { until } if until <= now => Admission::Try,
            State::Open { until } => Admission::Nothing(Some(until)),
            State::Trying => Admission::Nothing(None),
        }
    }

    /// Whether everything may be sent.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.state == State::Closed
    }

    /// When a try may be made, or might have been; nothing while everything may be sent or a try is under way.
    #[must_use]
    pub fn tries_at(&self) -> Option<Moment> {
        match self.state {
            State::Open { until } => Some(until),
            State::Closed | State::Trying => None,
        }
    }

    /// Changes the terms for what is heard from now on.
    pub fn set_terms(&mut self, terms: Terms) {
        self.terms = terms;
    }

    /// The request that tries is under way. Its result is told with `is_try`, or [`Self::give_back`] called.
    pub fn begin_try(&mut self) {
        self.state = State::Trying;
    }

    /// The request that was to try was not sent.
    pub fn give_back(&mut self, now: Moment) {
        if self.state == State::Trying {
            self.state = State::Open { until: now };
        }
    }

    /// A request was served.
    pub fn succeed(&mut self, now: Moment, is_try: bool) -> Option<Change> {
        if is_try && self.state == State::Trying {
            self.reset();
            return Some(Change::Closed);
        }
        if self.state == State::Closed {
            self.turn(now);
            self.row = Failures::default();
            self.window.served += 1;
        }
        None
    }

    /// A request failed. What was sent before it opened says nothing new. `jitter` is uniform in 0..1.
    pub fn fail(&mut self, now: Moment, failure: Failure, is_try: bool, jitter: f64) -> Option<Change> {
        match self.state {
            State::Closed => {}
            State::Trying if is_try => return Some(self.open(now, failure.retry_after, jitter)),
            State::Open { .. } | State::Trying => return None,
        }
        self.turn(now);
        self.row.add(&failure);
        self.window.failures.add(&failure);
        (self.has_enough_in_a_row() || self.has_enough_of_all())
            .then(|| self.open(now, failure.retry_after, jitter))
    }

    /// Opens at once, or again if a try may be made: nothing that is sent can succeed.
    pub fn trip(&mut self, now: Moment, jitter: f64) -> Option<Change> {
        let is_shut = matches!(self.state, State::Open { until } if until > now);
        (!is_shut).then(|| self.open(now, None, jitter))
    }

    /// Closes and forgets what was heard.
    pub fn reset(&mut self) {
        *self = Self::new(self.terms);
    }

    /// Whether it is not closed, or failures in a row are half as many as open it.
    #[must_use]
    pub fn is_strained(&self) -> bool {
        let half = self.terms.failures_max.div_ceil(2);
        self.state != State::Closed || (self.row.count >= half && self.row.are_telling(&self.terms, 2))
    }

    fn has_enough_in_a_row(&self) -> bool {
        let Terms { failures_max, .. } = self.terms;
        let connections_min = CONNECTIONS_MIN.min(usize::try_from(failures_max).unwrap_or(CONNECTIONS_MIN));
        self.row.count >= failures_max && self.row.are_telling(&self.terms, connections_min)
    }

    fn has_enough_of_all(&self) -> bool {
        let failures = self.window.failures.and(self.window_last.failures);
        let all = failures.count + self.window.served + self.window_last.served;
        all >= SAMPLES_MIN
            && f64::from(failures.count) >= self.terms.failure_share * f64::from(all)
            && failures.are_telling(&self.terms, CONNECTIONS_MIN)
    }

    fn open(&mut self, now: Moment, retry_after: Option<Duration>, jitter: f64) -> Change {
        self.openings = self.openings.saturating_add(1);
        let openings = self.openings;
        let delay = self.terms.delay.deferral(openings, None, jitter);
        let until = now + delay.max(retry_after.unwrap_or_default().min(HINT_MAX));
        self.reset();
        self.openings = openings;
        self.state = State::Open { until };
        Change::Opened
    }

    fn turn(&mut self, now: Moment) {
        if now < self.window_end {
            return;
        }
        let is_recent = now < self.window_end + WINDOW;
        self.window_last = if is_recent { self.window } else { Window::default() };
        self.window = Window::default();
        self.window_end = now + WINDOW;
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
