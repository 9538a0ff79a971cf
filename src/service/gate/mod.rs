//! The gate before the upstream: who may send, how much, and when nobody may.
//!
//! Every attempt has a [`Pass`], and tells what came of it. From that the gate learns, for each upstream (a base URL), how many
//! requests it bears at once and whether it works at all, and for each requester organisation its pace and whether it is
//! served. Decisions are those of [`domain::traffic`](crate::domain::traffic); here they meet time, waiters and locks.
//!
//! - `mod`: the gate and its passes
//! - [`closed`](self): why a requester may not send, and who waits for the end of that
//! - [`requester`](self): what is known of one organisation
//! - [`state`](self): who is next
//! - [`configure`](self): which requesters there are
//! - [`ask`](self): what the doors and recovery ask
//! - [`census`](self): the gate in numbers
//! - [`hear`](self): what is learnt of a result

mod ask;
mod census;
mod closed;
mod configure;
mod hear;
mod requester;
mod state;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::{Notify, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};

use crate::domain::command::OrganizationId;
use crate::domain::connection::Connection;
use crate::domain::record::Door;
use crate::domain::reply::Unauthorized;
use crate::domain::retry::Backoff;
use crate::domain::traffic::{Heard, Moment};
use crate::service::ports::Waited;
pub use census::Census;
pub use closed::{Closed, Patience, Why};
use requester::Token;
use state::{Grants, State};

/// How long the result of a try may take, for want of knowledge.
const TRY_TIME: Duration = Duration::from_secs(1);

/// A try is left to recovery for so long; then the queue's door may bring a command for it.
const TRY_ELSEWHERE: Duration = Duration::from_secs(2);

/// The share of the time of an outage, as a divisor, after which the queue's door may try again: each try brings messages
/// that go back to the queue, and the broker counts that.
const TRY_DIVISOR: u32 = 10;

/// How often what stands still is looked at.
const LOOK_INTERVAL: Duration = Duration::from_millis(250);

/// Numbers that the gate goes by.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Failures in a row that open a breaker.
    pub failures_max: u32,
    /// The share of failures that opens a breaker, from 0 to 1.
    pub failure_share: f64,
    /// How long a breaker stays open.
    pub delay: Backoff,
    /// Requests under way to one upstream, at most.
    pub concurrency_max: usize,
    /// Retries for each success, on average, from 0 to 1.
    pub retry_share: f64,
    /// Retries in a second besides.
    pub retry_floor: u32,
}

/// What is configured of a requester organisation.
#[derive(Debug, Clone, PartialEq)]
pub struct Organization {
    /// Its upstream: what has the same name fares alike.
    pub upstream: String,
    /// Its requests under way, at most.
    pub in_flight_max: Option<usize>,
    /// Its requests in a second, at most.
    pub requests_per_second: Option<f64>,
}

/// What recovery may bring of a requester's commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appetite {
    /// All of them.
    Plenty,
    /// A share: its requests wait for a limit of its own already.
    Share,
    /// One, to try.
    One,
    /// None for the moment: the one that tries is asked for already.
    Later,
    /// None for as long as this lasts.
    Closed(Closed),
}

/// The condition of the gate, for operators.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Condition {
    /// Upstreams that fail.
    pub down: Vec<String>,
    /// Requesters that are broken or paused.
    pub closed: Vec<OrganizationId>,
}

/// The gate. Cloning shares it.
#[derive(Clone)]
pub struct Gate {
    inner: Arc<Inner>,
}

struct Inner {
    epoch: Instant,
    state: Mutex<State>,
    /// Woken when a time came nearer at which something may go on.
    timer: Notify,
    /// Told when commands that were put off may go on.
    recovery: Arc<Notify>,
    changes: watch::Sender<()>,
}

/// The right to send one request. Dropping it gives it back.
pub struct Pass {
    inner: Arc<Inner>,
    ticket: Ticket,
    is_told: bool,
    /// How long it was waited for, and for what: `concurrency`, `rate`, `pause` or `outage`.
    pub waited: Option<Waited>,
}

/// What a pass is a pass for.
#[derive(Debug, Clone, Copy)]
struct Ticket {
    requester: OrganizationId,
    /// Which of all requesters that ever had this id: one that was removed, or moved to another upstream, is another.
    incarnation: u64,
    granted: Moment,
    /// It tries whether the upstream, or the requester, is served again.
    tries_upstream: bool,
    tries_requester: bool,
}

/// The result of a request.
#[derive(Debug, Clone, Copy)]
struct Told {
    ticket: Ticket,
    connection: Connection,
    latency: Duration,
    heard: Heard,
}

impl Ticket {
    /// One that nothing is learnt from.
    const fn untracked(requester: OrganizationId, granted: Moment) -> Self {
        Self { requester, incarnation: 0, granted, tries_upstream: false, tries_requester: false }
    }
}

impl Gate {
    /// A gate that is open for everyone. `recovery` is told when commands that were put off may go on.
    #[must_use]
    pub fn new(settings: Settings, recovery: Arc<Notify>) -> Self {
        let epoch = Instant::now();
        let inner = Inner {
            epoch,
            state: Mutex::new(State::new(settings, epoch)),
            timer: Notify::new(),
            recovery,
            changes: watch::Sender::new(()),
        };
        Self { inner: Arc::new(inner) }
    }

    /// A pass without any wait, if there is one.
    #[must_use]
    pub fn try_enter(&self, requester: OrganizationId) -> Option<Pass> {
        let granted = self.change(|state, now| state.grant_now(requester, now));
        granted.map(|ticket| self.inner.pass(ticket, None))
    }

    /// A pass, as soon as it is this one's turn.
    ///
    /// # Errors
    /// Why there will be none for longer than `patience` lasts.
    pub async fn enter(
        &self,
        requester: OrganizationId,
        door: Door,
        patience: Patience,
    ) -> Result<Pass, Closed> {
        let asked = Instant::now();
        loop {
            let (turn, granted) = oneshot::channel();
            let place = self.change(|state, now| state.join(requester, door, patience, turn, now));
            let leaving = Leaving { inner: &self.inner, requester, place };
            let granted = match patience {
                Patience::Claim(deadline) => timeout_at(deadline, granted).await.ok(),
                Patience::Call(_) | Patience::Message => Some(granted.await),
            };
            drop(leaving);
            match granted {
                Some(Ok(granted)) => {
                    return granted.map(|(ticket, reason)| {
                        let duration = asked.elapsed();
                        let waited = reason.map(|reason| Waited { duration, reason });
                        self.inner.pass(ticket, waited)
                    });
                }
                // The organisation is configured otherwise, or not any more.
                Some(Err(_)) => {}
                None => return Err(self.closed(requester).unwrap_or_else(Closed::late)),
            }
        }
    }

    /// Whether and why a requester may not send now.
    #[must_use]
    pub fn closed(&self, requester: OrganizationId) -> Option<Closed> {
        let now = self.inner.now();
        self.inner.lock().closed(requester, now)
    }

    /// Whether every upstream fails, and until when as far as is known.
    #[must_use]
    pub fn everyone_closed(&self) -> Option<Closed> {
        let now = self.inner.now();
        self.inner.lock().everyone_closed(now)
    }

    /// Whether requests of a requester fail, though not so many that nothing is sent any more.
    #[must_use]
    pub fn is_strained(&self, requester: OrganizationId) -> bool {
        self.inner.lock().is_strained(requester)
    }

    /// Whether a requester's commands that are under way wait for a limit that is its own, or fail: then more of them would only
    /// stand in the way of others'.
    #[must_use]
    pub fn is_constrained(&self, requester: OrganizationId) -> bool {
        let now = self.inner.now();
        self.inner.lock().is_constrained(requester, now)
    }

    /// What recovery may bring of a requester's commands. `One` is said once; it is then for recovery to bring it.
    #[must_use]
    pub fn appetite(&self, requester: OrganizationId) -> Appetite {
        let now = self.inner.now();
        self.inner.lock().appetite(requester, now)
    }

    /// Requesters that are served again since this was asked last; their commands that were put off may go on.
    #[must_use]
    pub fn reopened(&self) -> HashSet<OrganizationId> {
        std::mem::take(&mut self.inner.lock().reopened)
    }

    /// Whether the next request would try whether the upstream is back.
    #[must_use]
    pub fn is_trying(&self, requester: OrganizationId) -> bool {
        let now = self.inner.now();
        self.inner.lock().is_trying(requester, now)
    }

    /// Whether a token is to be asked for however often that failed before: the upstream has come back since.
    #[must_use]
    pub fn asks_anew(&self, requester: OrganizationId) -> bool {
        let state = self.inner.lock();
        state.requesters.get(&requester).is_some_and(|requester| requester.token == Token::AskAnew)
    }

    /// Whether a retry may be made now: no more than a share of what succeeds, and a few besides.
    #[must_use]
    pub fn may_retry(&self, requester: OrganizationId) -> bool {
        let now = self.inner.now();
        self.inner.lock().may_retry(requester, now)
    }

    /// There is no token for a requester.
    pub fn refuse(&self, requester: OrganizationId, why: &Unauthorized) {
        let jitter = rand::random();
        self.change(|state, now| state.unauthorized(Ticket::untracked(requester, now), why, now, jitter));
    }

    /// Resolves when commands can be taken in: there is a requester that may send. While everyone may only try, it is left to
    /// commands that were taken in before.
    pub async fn available(&self) {
        let mut changes = self.inner.changes.subscribe();
        loop {
            let now = self.inner.now();
            let Some(wait) = self.inner.lock().unavailable(now) else { return };
            // The wait is a guess while a try is under way.
            let _ = timeout(wait.min(LOOK_INTERVAL), changes.changed()).await;
        }
    }

    /// Changes with [`Self::condition`].
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<()> {
        self.inner.changes.subscribe()
    }

    /// How it stands.
    #[must_use]
    pub fn condition(&self) -> Condition {
        let now = self.inner.now();
        self.inner.lock().condition(now)
    }

    fn change<T>(&self, change: impl FnOnce(&mut State, Moment) -> T) -> T {
        self.inner.change(change)
    }
}

impl Inner {
    fn now(&self) -> Moment {
        self.epoch.elapsed()
    }

    fn instant(&self, moment: Moment) -> Instant {
        self.epoch + moment
    }

    fn pass(self: &Arc<Self>, ticket: Ticket, waited: Option<Waited>) -> Pass {
        Pass { inner: Arc::clone(self), ticket, is_told: false, waited }
    }

    /// Each change is complete before the lock is let go, so a poisoned lock guards sound data.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the state, lets everyone pass who may now, and sees to the rest in time.
    fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut State, Moment) -> T) -> T {
        let now = self.now();
        let mut state = self.lock();
        let changed = change(&mut state, now);
        let grants = state.pump(now);
        let needs_timer = state.next_look().is_some();
        let starts_timer = needs_timer && !std::mem::replace(&mut state.has_timer, needs_timer);
        drop(state);
        self.deliver(grants);
        if starts_timer && let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(watch_time(Arc::downgrade(self)));
        } else if needs_timer {
            self.timer.notify_one();
        }
        changed
    }

    /// Outside of the lock: a pass that nobody takes comes back at once.
    fn deliver(self: &Arc<Self>, grants: Grants) {
        for (turn, ticket, reason) in grants.passes {
            if turn.send(Ok((ticket, reason))).is_err() {
                drop(self.pass(ticket, None));
            }
        }
        for (turn, closed) in grants.turned_away {
            // Who has left does not need to hear of it.
            let _ = turn.send(Err(closed));
        }
        if grants.is_reopened {
            self.recovery.notify_one();
        }
        if grants.is_changed {
            self.changes.send_replace(());
        }
    }
}

/// Looks at the gate whenever something may go on by time alone, for as long as there is such a time.
async fn watch_time(inner: Weak<Inner>) {
    loop {
        let Some(gate) = inner.upgrade() else { return };
        let next = {
            let mut state = gate.lock();
            let next = state.next_look();
            state.has_timer = next.is_some();
            next
        };
        let Some(next) = next else { return };
        tokio::select! {
            () = sleep_until(gate.instant(next)) => {}
            () = gate.timer.notified() => {}
        }
        let now = gate.now();
        let grants = gate.lock().pump(now);
        gate.deliver(grants);
    }
}

/// Takes someone who does not wait any more out of the queue.
struct Leaving<'a> {
    inner: &'a Arc<Inner>,
    requester: OrganizationId,
    place: u64,
}

impl Drop for Leaving<'_> {
    fn drop(&mut self) {
        self.inner.lock().leave(self.requester, self.place);
    }
}

impl Pass {
    /// Whether the request tries whether the upstream is back.
    #[must_use]
    pub const fn is_try(&self) -> bool {
        self.ticket.tries_upstream
    }

    /// The request was not sent: there is no token for it.
    pub fn refuse(mut self, why: &Unauthorized) {
        self.is_told = true;
        let (ticket, jitter) = (self.ticket, rand::random());
        self.inner.change(|state, now| {
            state.release(ticket);
            state.unauthorized(ticket, why, now, jitter);
        });
    }

    /// The request, which was about `connection`, ended after `latency` and told this.
    pub fn tell(mut self, connection: Connection, latency: Duration, heard: Heard) {
        self.is_told = true;
        let told = Told { ticket: self.ticket, connection, latency, heard };
        let jitter = rand::random();
        self.inner.change(|state, now| state.hear(told, now, jitter));
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        if !self.is_told {
            let ticket = self.ticket;
            self.inner.change(|state, now| state.give_back(ticket, now));
        }
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
