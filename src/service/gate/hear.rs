//! What is learnt of a result.

use std::sync::Arc;
use std::time::Duration;

use super::requester::{Requester, Token};
use super::state::{State, Upstream};
use super::{Ticket, Told};
use crate::domain::command::OrganizationId;
use crate::domain::error::Reason;
use crate::domain::reply::Unauthorized;
use crate::domain::traffic::breaker::{Change, Failure};
use crate::domain::traffic::ramp::Ramp;
use crate::domain::traffic::{Heard, Moment};
use crate::service::records;

/// A pause that was asked for is stretched by up to this share, as a divisor, so that instances which were told the same do
/// not come back in the same instant.
const PAUSE_STRETCH: u32 = 20;

/// The longest pause of an organisation, whatever a single answer asks for; the command that heard it waits longer.
const PAUSE_MAX: Duration = Duration::from_secs(60);

/// Requests under way to begin with for one that is served again.
const RAMP_FIRST: usize = 1;

/// From so many on it counts as usual again.
const RAMP_LAST: usize = 64;

impl State {
    /// A request was not sent.
    pub(super) fn give_back(&mut self, ticket: Ticket, now: Moment) {
        if !self.is_current(ticket) {
            return;
        }
        self.release(ticket);
        if let Some((requester, _)) = self.pair(ticket.requester) {
            if ticket.tries_requester {
                requester.breaker.give_back(now);
            }
            if ticket.tries_upstream {
                let name = Arc::clone(&requester.upstream);
                self.give_back_try(&name, now);
            }
        }
        self.list(ticket.requester);
    }

    /// Someone else may try whether an upstream is back.
    pub(super) fn give_back_try(&mut self, name: &Arc<str>, now: Moment) {
        let Some(upstream) = self.upstreams.get_mut(name) else { return };
        upstream.breaker.give_back(now);
        for id in self.requesters_of(name) {
            self.list(id);
        }
        self.grants.is_changed = true;
    }

    /// Whether the requester is still the one that the ticket was given to. What becomes of another's says nothing of it.
    fn is_current(&self, ticket: Ticket) -> bool {
        self.requesters.get(&ticket.requester).is_some_and(|found| found.incarnation == ticket.incarnation)
    }

    /// A request ended.
    pub(super) fn hear(&mut self, told: Told, now: Moment, jitter: f64) {
        let Told { ticket, connection, latency, heard } = told;
        if !self.is_current(ticket) {
            return;
        }
        self.release(ticket);
        let id = ticket.requester;
        let Some((requester, upstream)) = self.pair(id) else { return };
        // It was sent, so there was a token.
        requester.token = Token::Usual;
        let is_general = matches!(heard, Heard::Failed { is_general: true, .. });
        if !is_general {
            upstream.concurrency.note(now, id, latency, heard.is_pressure());
        }
        let (own, all) = match heard {
            Heard::Served => {
                requester.serve(now);
                upstream.throughput.serve(now);
                let own = requester.breaker.succeed(now, ticket.tries_requester);
                (own, upstream.breaker.succeed(now, ticket.tries_upstream))
            }
            Heard::Limited { retry_after } => {
                let was_paused = requester.paused_until.is_some_and(|until| until > now);
                requester.limit(now, ticket.granted, retry_after, jitter);
                if let Some(until) = requester.paused_until.filter(|until| *until > now && !was_paused) {
                    let pause_ms = u64::try_from(until.saturating_sub(now).as_millis()).unwrap_or(u64::MAX);
                    records::RequesterPaused { organization: id, pause_ms }.log();
                }
                self.grants.is_changed |= retry_after.is_some();
                let Some((requester, upstream)) = self.pair(id) else { return };
                let own = requester.breaker.succeed(now, ticket.tries_requester);
                (own, upstream.breaker.succeed(now, ticket.tries_upstream))
            }
            // An old token says nothing of the credentials: the next attempt, with another one, does.
            Heard::Unauthorized { is_renewed: false } => {
                if ticket.tries_requester {
                    requester.breaker.give_back(now);
                }
                (None, upstream.breaker.succeed(now, ticket.tries_upstream))
            }
            Heard::Unauthorized { is_renewed: true } => {
                requester.cause = Reason::UpstreamUnauthenticated;
                let failure = Failure {
                    source: id,
                    connection: Some(connection),
                    is_general: false,
                    retry_after: None,
                };
                let own = requester.breaker.fail(now, failure, ticket.tries_requester, jitter);
                (own, upstream.breaker.succeed(now, ticket.tries_upstream))
            }
            Heard::Failed { retry_after, is_general } => {
                let failure = Failure { source: id, connection: Some(connection), is_general, retry_after };
                self.fail(ticket, failure, now, jitter)
            }
        };
        self.changed(id, own, all, now);
    }

    /// There is no token for a requester. Without one it can send nothing, so its breaker opens at once; that of the upstream
    /// does if there is nobody else who could tell whether the upstream is there.
    pub(super) fn unauthorized(&mut self, ticket: Ticket, why: &Unauthorized, now: Moment, jitter: f64) {
        let id = ticket.requester;
        let Some((requester, upstream)) = self.pair(id) else { return };
        let (is_general, wait) = match why {
            Unauthorized::NotConfigured | Unauthorized::Refused => {
                requester.cause = Reason::UpstreamUnauthenticated;
                let own = requester.breaker.trip(now, jitter);
                if ticket.tries_upstream {
                    // That may have been known without asking the upstream.
                    let name = Arc::clone(&requester.upstream);
                    self.give_back_try(&name, now);
                }
                return self.changed(id, own, None, now);
            }
            Unauthorized::Unavailable { retry_after } => (false, *retry_after),
            Unauthorized::Unreachable { retry_after, .. } => (true, *retry_after),
        };
        // Everyone who waited for one request tells the same.
        let rests_until = requester.token.rests_until(now);
        let is_known = rests_until.is_some();
        // Its own back-off says when a token is asked for again.
        let until = now + wait.unwrap_or_default();
        requester.token = Token::RestsUntil(rests_until.map_or(until, |known| known.max(until)));
        let cause = if is_general { Reason::UpstreamUnreachable } else { Reason::UpstreamUnavailable };
        let failure = Failure { source: id, connection: None, is_general, retry_after: None };
        let is_alone = upstream.requesters < 2 || (is_general && upstream.throughput.rate(now) <= 0.0);
        let all = match (ticket.tries_upstream, is_known) {
            (true, _) => upstream.fail_try(failure, now, jitter),
            (false, true) => None,
            (false, false) if is_alone && upstream.breaker.is_closed() => upstream.breaker.trip(now, jitter),
            (false, false) => upstream.breaker.fail(now, failure, false, jitter),
        };
        if all.is_some() {
            upstream.cause = cause;
        }
        let is_its_own = upstream.breaker.is_closed() || (ticket.tries_upstream && all.is_none());
        let own = if is_its_own { requester.breaker.trip(now, jitter) } else { None };
        if own.is_some() {
            requester.cause = cause;
        } else if ticket.tries_requester {
            requester.breaker.give_back(now);
        }
        if ticket.tries_upstream && all.is_none() {
            let name = Arc::clone(&requester.upstream);
            self.give_back_try(&name, now);
        }
        self.turn_away(id, now);
        self.changed(id, own, all, now);
    }

    /// A failure is the requester's, or, if it is the only one, the upstream's. What fails for a requester that is known to be
    /// broken says nothing more of the upstream.
    fn fail(
        &mut self,
        ticket: Ticket,
        failure: Failure,
        now: Moment,
        jitter: f64,
    ) -> (Option<Change>, Option<Change>) {
        let Some((requester, upstream)) = self.pair(failure.source) else { return (None, None) };
        let cause =
            if failure.is_general { Reason::UpstreamUnreachable } else { Reason::UpstreamUnavailable };
        let counts = requester.breaker.is_closed() || failure.is_general;
        let all = match (ticket.tries_upstream, counts) {
            (true, _) => upstream.fail_try(failure, now, jitter),
            (false, true) => upstream.breaker.fail(now, failure, false, jitter),
            (false, false) => None,
        };
        let own = if all.is_some() || upstream.requesters < 2 {
            None
        } else if ticket.tries_upstream {
            requester.breaker.trip(now, jitter)
        } else if upstream.breaker.is_closed() {
            requester.breaker.fail(now, failure, ticket.tries_requester, jitter)
        } else {
            None
        };
        if ticket.tries_requester {
            // Unless that has opened it again.
            requester.breaker.give_back(now);
        }
        if own.is_some() {
            requester.cause = cause;
        }
        if all.is_some() {
            upstream.cause = cause;
        } else if ticket.tries_upstream {
            let name = Arc::clone(&requester.upstream);
            self.give_back_try(&name, now);
        }
        (own, all)
    }

    /// Sees to it that a change of breakers has its consequences.
    fn changed(&mut self, id: OrganizationId, own: Option<Change>, all: Option<Change>, now: Moment) {
        match all {
            Some(Change::Opened) => self.went_down(id, now),
            Some(Change::Closed) => self.came_back(id, now),
            None => {}
        }
        let Some((requester, _)) = self.pair(id) else { return };
        match own {
            Some(Change::Opened) => {
                let is_new = requester.down_since.is_none();
                requester.down_since.get_or_insert(now);
                let cause = requester.cause.as_str();
                if is_new {
                    records::RequesterDown { organization: id, cause }.log();
                }
                self.grants.is_changed = true;
                self.turn_away(id, now);
            }
            Some(Change::Closed) => {
                requester.down_since = None;
                requester.ramp = Some(RAMP_FIRST);
                records::RequesterServed { organization: id }.log();
                self.reopen(id);
            }
            None => {}
        }
        self.list(id);
    }

    fn went_down(&mut self, id: OrganizationId, now: Moment) {
        let Some((requester, upstream)) = self.pair(id) else { return };
        let name = Arc::clone(&requester.upstream);
        if upstream.down_since.is_none() {
            upstream.rate_before = upstream.throughput.rate(now);
            records::UpstreamDown { cause: upstream.cause.as_str() }.log();
        }
        upstream.down_since.get_or_insert(now);
        for id in self.requesters_of(&name) {
            // It was the upstream, not they.
            if let Some(requester) = self.requesters.get_mut(&id) {
                requester.breaker.reset();
                requester.down_since = None;
            }
            self.turn_away(id, now);
        }
        self.grants.is_changed = true;
    }

    fn came_back(&mut self, id: OrganizationId, now: Moment) {
        let Some((requester, upstream)) = self.pair(id) else { return };
        let name = Arc::clone(&requester.upstream);
        let outage = upstream.down_since.take().map(|since| now.saturating_sub(since));
        upstream.turns.clear();
        upstream.concurrency.restart();
        upstream.ramp = Some(Ramp::new(upstream.rate_before, now));
        records::UpstreamBack { outage: outage.map(|outage| outage.as_secs_f64()) }.log();
        for id in self.requesters_of(&name) {
            if let Some(requester) = self.requesters.get_mut(&id)
                && requester.token.rests_until(now).is_some()
            {
                requester.token = Token::AskAnew;
            }
            self.reopen(id);
        }
    }

    pub(super) fn release(&mut self, ticket: Ticket) {
        if self.is_current(ticket)
            && let Some((requester, upstream)) = self.pair(ticket.requester)
        {
            requester.is_trying &= !ticket.tries_upstream;
            requester.in_flight = requester.in_flight.saturating_sub(1);
            upstream.in_flight = upstream.in_flight.saturating_sub(1);
        }
    }

    fn requesters_of(&self, upstream: &Arc<str>) -> Vec<OrganizationId> {
        let of = self.requesters.iter().filter(|(_, requester)| requester.upstream == *upstream);
        of.map(|(id, _)| *id).collect()
    }

    fn pair(&mut self, id: OrganizationId) -> Option<(&mut Requester, &mut Upstream)> {
        let requester = self.requesters.get_mut(&id)?;
        let upstream = self.upstreams.get_mut(&requester.upstream)?;
        Some((requester, upstream))
    }
}

impl Upstream {
    /// A try failed. Nothing if that tells of its requester alone: then others may try at once.
    fn fail_try(&mut self, failure: Failure, now: Moment, jitter: f64) -> Option<Change> {
        if failure.is_general {
            self.turns.interrupt();
        } else if self.turns.fail(failure.source) && self.requesters > 1 {
            self.breaker.give_back(now);
            return None;
        }
        self.breaker.fail(now, failure, true, jitter)
    }
}

impl Requester {
    fn serve(&mut self, now: Moment) {
        self.pace.serve(now);
        self.deposit();
        self.ramp = self.ramp.map(|ramp| ramp + 1).filter(|ramp| *ramp < RAMP_LAST);
    }

    fn limit(&mut self, now: Moment, begun: Moment, retry_after: Option<Duration>, jitter: f64) {
        let asked = retry_after.map(|wait| wait.min(PAUSE_MAX));
        let asked = asked.map(|wait| wait + (wait / PAUSE_STRETCH).mul_f64(jitter));
        let pause = self.pace.limit(now, begun, asked);
        if asked.is_some() {
            self.paused_until = self.paused_until.max(Some(now + pause));
        }
    }
}
