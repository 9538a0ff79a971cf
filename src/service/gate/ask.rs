//! What the doors and recovery ask.

use super::state::State;
use super::{Appetite, Closed, Condition, TRY_DIVISOR, TRY_ELSEWHERE, TRY_TIME, Why};
use crate::domain::command::OrganizationId;
use crate::domain::error::Reason;
use crate::domain::traffic::Moment;
use crate::domain::traffic::breaker::Admission;

/// Requesters named to operators, at most.
const NAMED_MAX: usize = 8;

impl State {
    /// Why and until when a requester may not send. One that may try is open.
    pub(super) fn shut(&self, id: OrganizationId, now: Moment) -> Option<(Why, Reason, Moment)> {
        let requester = self.requesters.get(&id)?;
        let upstream = self.upstreams.get(&requester.upstream)?;
        let closed = |admission, why, cause| until(admission, now).map(|until| (why, cause, until));
        let down = closed(upstream.breaker.admission(now), Why::Down, upstream.cause);
        // While it is for others to try, nothing has changed for this one.
        let yields = closed(upstream.admission(id, now), Why::Down, upstream.cause);
        let paused = requester
            .paused_until
            .filter(|until| *until > now)
            .map(|until| (Why::Paused, Reason::UpstreamRateLimited, until));
        let broken = closed(requester.breaker.admission(now), Why::Broken, requester.cause);
        let is_trying = upstream.admission(id, now) == Admission::Try;
        let without_token = requester
            .token
            .rests_until(now)
            .filter(|_| !is_trying)
            .map(|until| (Why::Broken, requester.cause, until));
        down.or(broken).or(yields).or(without_token).or(paused)
    }

    pub(super) fn is_trying(&self, id: OrganizationId, now: Moment) -> bool {
        let requester = self.requesters.get(&id);
        let upstream = requester.and_then(|requester| self.upstreams.get(&requester.upstream));
        upstream.is_some_and(|upstream| upstream.admission(id, now) == Admission::Try)
    }

    pub(super) fn closed(&self, id: OrganizationId, now: Moment) -> Option<Closed> {
        let (why, cause, until) = self.shut(id, now)?;
        let is_everyone =
            why == Why::Down && (self.upstreams.len() == 1 || self.everyone_closed(now).is_some());
        Some(Closed { why, cause, until: self.instant(until), is_everyone })
    }

    /// Whether every upstream fails, and until when the first of them does.
    pub(super) fn everyone_closed(&self, now: Moment) -> Option<Closed> {
        let mut first: Option<Closed> = None;
        for upstream in self.upstreams.values() {
            let until = self.instant(until(upstream.breaker.admission(now), now)?);
            if first.is_none_or(|first| until < first.until) {
                first = Some(Closed { why: Why::Down, cause: upstream.cause, until, is_everyone: true });
            }
        }
        first
    }

    pub(super) fn is_strained(&self, id: OrganizationId) -> bool {
        self.requesters.get(&id).is_some_and(|requester| requester.breaker.is_strained())
    }

    pub(super) fn is_constrained(&self, id: OrganizationId, now: Moment) -> bool {
        self.requesters.get(&id).is_some_and(|requester| {
            let is_alone =
                self.upstreams.get(&requester.upstream).is_none_or(|upstream| upstream.requesters < 2);
            let is_own = requester.is_constrained && requester.is_waited_for();
            self.shut(id, now).is_some() || requester.breaker.is_strained() || (is_own && !is_alone)
        })
    }

    pub(super) fn appetite(&mut self, id: OrganizationId, now: Moment) -> Appetite {
        if let Some(closed) = self.closed(id, now) {
            return Appetite::Closed(closed);
        }
        let is_constrained = self.is_constrained(id, now);
        let Some(requester) = self.requesters.get_mut(&id) else { return Appetite::Plenty };
        let Some(upstream) = self.upstreams.get_mut(&requester.upstream) else { return Appetite::Plenty };
        let asked = if upstream.admission(id, now) == Admission::Try {
            &mut upstream.asked_until
        } else if requester.breaker.admission(now) == Admission::Try {
            &mut requester.asked_until
        } else if is_constrained {
            return Appetite::Share;
        } else {
            return Appetite::Plenty;
        };
        if asked.is_some_and(|until| until > now) {
            return Appetite::Later;
        }
        *asked = Some(now + TRY_TIME);
        Appetite::One
    }

    /// How long to wait until something can be taken in, for want of an upstream that does not fail.
    pub(super) fn unavailable(&self, now: Moment) -> Option<Moment> {
        let mut wait: Option<Moment> = None;
        for upstream in self.upstreams.values() {
            let until = match upstream.breaker.admission(now) {
                Admission::Free => return None,
                Admission::Nothing(until) => until.unwrap_or(now + TRY_TIME),
                Admission::Try => {
                    let outage = now.saturating_sub(upstream.down_since.unwrap_or(now));
                    let since = upstream.breaker.tries_at().unwrap_or(now);
                    Some(since + TRY_ELSEWHERE.max(outage / TRY_DIVISOR)).filter(|until| *until > now)?
                }
            };
            wait = Some(wait.map_or(until, |wait| wait.min(until)));
        }
        wait.map(|until| until.saturating_sub(now))
    }

    pub(super) fn condition(&self, now: Moment) -> Condition {
        let down = self.upstreams.iter().filter(|(_, upstream)| !upstream.breaker.is_closed());
        let closed = self.requesters.iter().filter(|(_, requester)| {
            !requester.breaker.is_closed() || requester.rests_until(now, false).is_some()
        });
        Condition {
            down: down.map(|(name, _)| name.to_string()).take(NAMED_MAX).collect(),
            closed: closed.map(|(id, _)| *id).take(NAMED_MAX).collect(),
        }
    }
}

/// Until when nothing may be sent at all.
fn until(admission: Admission, now: Moment) -> Option<Moment> {
    match admission {
        Admission::Free | Admission::Try => None,
        Admission::Nothing(until) => Some(until.unwrap_or(now + TRY_TIME)),
    }
}
