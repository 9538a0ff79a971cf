//! Who is next. Times are [`Moment`]s; nothing waits here.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tokio::time::Instant;

use super::requester::{Requester, Turn, Waiter, terms};
use super::{Closed, Organization, Patience, Settings, Ticket};
use crate::domain::command::OrganizationId;
use crate::domain::error::Reason;
use crate::domain::record::Door;
use crate::domain::traffic::Moment;
use crate::domain::traffic::breaker::{Admission, Breaker, Terms};
use crate::domain::traffic::concurrency::Concurrency;
use crate::domain::traffic::ramp::{Ramp, Throughput};
use crate::domain::traffic::turns::Turns;

/// The share of what may be under way that one of several requesters may have, as a divisor.
const SHARE_DIVISOR: usize = 2;

/// The same for one whose requests fail.
const STRAINED_DIVISOR: usize = 4;

/// An upstream: a base URL and what is known of what stands behind it.
pub(super) struct Upstream {
    pub(super) breaker: Breaker,
    /// Who has tried since it failed.
    pub(super) turns: Turns,
    pub(super) cause: Reason,
    pub(super) concurrency: Concurrency,
    pub(super) in_flight: usize,
    pub(super) requesters: usize,
    /// Since when it fails, and what was served in a second before.
    pub(super) down_since: Option<Moment>,
    pub(super) rate_before: f64,
    pub(super) throughput: Throughput,
    /// The way back after it failed.
    pub(super) ramp: Option<Ramp>,
    /// Those with waiters that may be able to go on, in turn.
    pub(super) listed: VecDeque<OrganizationId>,
    /// Until then a try is recovery's.
    pub(super) asked_until: Option<Moment>,
}

/// See [`Gate`](super::Gate).
pub(super) struct State {
    pub(super) settings: Settings,
    pub(super) requesters: HashMap<OrganizationId, Requester>,
    pub(super) upstreams: HashMap<Arc<str>, Upstream>,
    pub(super) grants: Grants,
    pub(super) reopened: HashSet<OrganizationId>,
    pub(super) has_timer: bool,
    /// Whether it is known which requesters there are.
    pub(super) is_configured: bool,
    /// Among how many what may be sent in a second is divided.
    pub(super) instances: u32,
    epoch: Instant,
    /// When to look again, and at whom.
    looks: BinaryHeap<Reverse<(Moment, OrganizationId)>>,
    place_next: u64,
    incarnation_last: u64,
}

/// What is to be told once the lock is let go.
#[derive(Default)]
pub(super) struct Grants {
    pub(super) passes: Vec<(Turn, Ticket, Option<&'static str>)>,
    pub(super) turned_away: Vec<(Turn, Closed)>,
    pub(super) is_reopened: bool,
    pub(super) is_changed: bool,
}

/// Why someone cannot go on.
enum Obstacle {
    /// The upstream bears no more at once: nobody can.
    Full,
    /// The upstream is to be spared until then.
    FullUntil(Moment),
    /// A limit of its own; it is looked at again when one of its requests ends.
    Own,
    /// A time.
    Until(Moment, &'static str),
    /// Someone tries; everyone is looked at again after it.
    Trying,
}

impl Upstream {
    fn new(settings: &Settings) -> Self {
        Self {
            breaker: Breaker::new(terms(settings)),
            turns: Turns::default(),
            cause: Reason::UpstreamUnavailable,
            concurrency: Concurrency::new(settings.concurrency_max),
            in_flight: 0,
            requesters: 0,
            down_since: None,
            rate_before: 0.0,
            throughput: Throughput::default(),
            ramp: None,
            listed: VecDeque::new(),
            asked_until: None,
        }
    }

    /// What one of its requesters may send. A try is left to those whose turn it is.
    pub(super) fn admission(&self, id: OrganizationId, now: Moment) -> Admission {
        match (self.breaker.admission(now), self.breaker.tries_at()) {
            (Admission::Try, Some(since)) => {
                let until = since + self.turns.wait(id, self.requesters);
                if until > now { Admission::Nothing(Some(until)) } else { Admission::Try }
            }
            (admission, _) => admission,
        }
    }

    /// With several requesters the failures of one alone say nothing of the others.
    pub(super) fn count(&mut self, requesters: usize, settings: &Settings) {
        self.requesters = requesters;
        self.breaker.set_terms(Terms { is_shared: requesters > 1, ..terms(settings) });
    }
}

impl State {
    pub(super) fn new(settings: Settings, epoch: Instant) -> Self {
        Self {
            settings,
            requesters: HashMap::new(),
            upstreams: HashMap::new(),
            grants: Grants::default(),
            reopened: HashSet::new(),
            has_timer: false,
            is_configured: false,
            instances: 1,
            epoch,
            looks: BinaryHeap::new(),
            place_next: 0,
            incarnation_last: 0,
        }
    }

    /// Enters a requester, with the limits that are configured or with none.
    pub(super) fn enter(&mut self, id: OrganizationId, configured: Option<&Organization>) -> &mut Requester {
        let instances = self.instances;
        let (settings, upstreams, last) = (&self.settings, &mut self.upstreams, &mut self.incarnation_last);
        self.requesters.entry(id).or_insert_with(|| {
            let name: Arc<str> = configured.map_or("", |organization| organization.upstream.as_str()).into();
            let upstream = upstreams.entry(Arc::clone(&name)).or_insert_with(|| Upstream::new(settings));
            upstream.count(upstream.requesters + 1, settings);
            *last += 1;
            Requester::new(name, *last, configured.cloned(), instances, settings)
        })
    }

    /// Lines up, or is turned away. Yields the place, by which to leave it.
    pub(super) fn join(
        &mut self,
        id: OrganizationId,
        door: Door,
        patience: Patience,
        turn: Turn,
        now: Moment,
    ) -> u64 {
        let place = self.place_next;
        self.place_next += 1;
        if self.is_stranger(id) {
            self.grants.passes.push((turn, Ticket::untracked(id, now), None));
            return place;
        }
        self.enter(id, None);
        if let Some(closed) = self.closed(id, now).filter(|closed| !patience.bears(closed, self.instant(now)))
        {
            self.grants.turned_away.push((turn, closed));
            return place;
        }
        let waiter = Waiter { place, patience, turn, since: now, reason: None };
        if let Some(requester) = self.requesters.get_mut(&id) {
            requester.push(door, waiter);
        }
        self.list(id);
        place
    }

    /// Whether it is not configured, or not any more. There is nothing to wait for: its commands are to hear so.
    fn is_stranger(&self, id: OrganizationId) -> bool {
        self.is_configured && !self.requesters.contains_key(&id)
    }

    /// Does not wait any more.
    pub(super) fn leave(&mut self, id: OrganizationId, place: u64) {
        if let Some(requester) = self.requesters.get_mut(&id) {
            requester.take(|waiter| waiter.place == place);
        }
    }

    /// A ticket for one who does not wait, unless others do.
    pub(super) fn grant_now(&mut self, id: OrganizationId, now: Moment) -> Option<Ticket> {
        if self.is_stranger(id) {
            return Some(Ticket::untracked(id, now));
        }
        if self.enter(id, None).is_waited_for() {
            return None;
        }
        self.grant(id, now).ok()
    }

    /// Puts a requester into its upstream's list if someone waits.
    pub(super) fn list(&mut self, id: OrganizationId) {
        let Some(requester) = self.requesters.get_mut(&id).filter(|requester| requester.is_waited_for())
        else {
            return;
        };
        if !std::mem::replace(&mut requester.is_listed, true)
            && let Some(upstream) = self.upstreams.get_mut(&requester.upstream)
        {
            upstream.listed.push_back(id);
        }
    }

    /// Lets everyone pass who may now.
    pub(super) fn pump(&mut self, now: Moment) -> Grants {
        while let Some(Reverse((at, id))) = self.looks.peek().copied()
            && at <= now
        {
            self.looks.pop();
            self.list(id);
        }
        let upstreams: Vec<_> = self
            .upstreams
            .iter()
            .filter(|(_, upstream)| !upstream.listed.is_empty())
            .map(|(name, _)| Arc::clone(name))
            .collect();
        for name in upstreams {
            self.pump_upstream(&name, now);
        }
        std::mem::take(&mut self.grants)
    }

    fn pump_upstream(&mut self, name: &Arc<str>, now: Moment) {
        while let Some(id) = self.upstreams.get_mut(name).and_then(|upstream| upstream.listed.pop_front()) {
            let Some(requester) = self.requesters.get_mut(&id) else { continue };
            requester.is_listed = false;
            if !requester.is_waited_for() {
                continue;
            }
            match self.grant(id, now) {
                Ok(ticket) => {
                    let Some(waiter) = self.requesters.get_mut(&id).and_then(Requester::pop) else {
                        continue;
                    };
                    // One that never was the first waited for those before it.
                    let reason = waiter.reason.or((waiter.since < now).then_some("concurrency"));
                    self.grants.passes.push((waiter.turn, ticket, reason));
                    self.list(id);
                }
                Err(full @ (Obstacle::Full | Obstacle::FullUntil(_))) => {
                    let mut reason = "concurrency";
                    if let Obstacle::FullUntil(at) = full {
                        reason = "outage";
                        self.looks.push(Reverse((at, id)));
                    }
                    self.note_reason(id, reason);
                    if let Some(upstream) = self.upstreams.get_mut(name) {
                        upstream.listed.push_front(id);
                    }
                    if let Some(requester) = self.requesters.get_mut(&id) {
                        requester.is_listed = true;
                    }
                    return;
                }
                Err(Obstacle::Own) => self.note_reason(id, "concurrency"),
                Err(Obstacle::Trying) => self.note_reason(id, "outage"),
                Err(Obstacle::Until(at, reason)) => {
                    self.note_reason(id, reason);
                    self.looks.push(Reverse((at, id)));
                }
            }
        }
    }

    fn note_reason(&mut self, id: OrganizationId, reason: &'static str) {
        if let Some(requester) = self.requesters.get_mut(&id) {
            requester.note_reason(reason);
        }
    }

    /// A ticket, if nothing stands in the way.
    fn grant(&mut self, id: OrganizationId, now: Moment) -> Result<Ticket, Obstacle> {
        let Some(requester) = self.requesters.get_mut(&id) else { return Err(Obstacle::Own) };
        let Some(upstream) = self.upstreams.get_mut(&requester.upstream) else { return Err(Obstacle::Own) };
        let tries_upstream = tries(upstream.admission(id, now))?;
        if let Some(until) = requester.rests_until(now, tries_upstream) {
            return Err(Obstacle::Until(until, "pause"));
        }
        let tries_requester = tries(requester.breaker.admission(now))?;
        let limit = upstream.concurrency.limit();
        requester.is_constrained = false;
        if requester.in_flight >= requester.in_flight_max().min(requester.pace.in_flight_max()) {
            requester.is_constrained = true;
            return Err(Obstacle::Own);
        }
        if requester.in_flight >= share(requester, upstream.requesters, limit) {
            requester.is_constrained = true;
            upstream.concurrency.reach();
            return Err(Obstacle::Own);
        }
        if upstream.in_flight >= limit {
            upstream.concurrency.reach();
            return Err(Obstacle::Full);
        }
        upstream.ramp = upstream.ramp.filter(|ramp| !ramp.is_over(now));
        if let Some(next) = upstream.ramp.map(|ramp| ramp.next(now)).filter(|next| *next > now) {
            return Err(Obstacle::FullUntil(next));
        }
        let next = requester.pace.next(now);
        let rate = if next > now { Err(next) } else { requester.take_rate(now) };
        if let Err(next) = rate {
            requester.is_constrained = true;
            return Err(Obstacle::Until(next, "rate"));
        }
        if let Some(ramp) = &mut upstream.ramp {
            ramp.begin(now);
        }
        requester.pace.begin(now);
        requester.in_flight += 1;
        upstream.in_flight += 1;
        requester.is_trying = tries_upstream;
        if tries_upstream {
            upstream.breaker.begin_try();
        }
        if tries_requester {
            requester.breaker.begin_try();
        }
        let incarnation = requester.incarnation;
        Ok(Ticket { requester: id, incarnation, granted: now, tries_upstream, tries_requester })
    }

    pub(super) fn may_retry(&mut self, id: OrganizationId, now: Moment) -> bool {
        self.requesters.get_mut(&id).is_none_or(|requester| requester.withdraw(now))
    }

    /// When to look again.
    pub(super) fn next_look(&self) -> Option<Moment> {
        self.looks.peek().map(|Reverse((at, _))| *at)
    }

    /// A requester is served again: what was put off may go on.
    pub(super) fn reopen(&mut self, id: OrganizationId) {
        self.reopened.insert(id);
        self.grants.is_reopened = true;
        self.grants.is_changed = true;
        self.list(id);
    }

    /// Turns away those of a requester who do not want to wait for its being served again.
    pub(super) fn turn_away(&mut self, id: OrganizationId, now: Moment) {
        let Some(closed) = self.closed(id, now) else { return };
        let at = self.instant(now);
        let Some(requester) = self.requesters.get_mut(&id) else { return };
        let leaving = requester.take(|waiter| !waiter.patience.bears(&closed, at));
        self.grants.turned_away.extend(leaving.into_iter().map(|waiter| (waiter.turn, closed)));
        self.list(id);
    }

    pub(super) fn instant(&self, moment: Moment) -> Instant {
        self.epoch + moment
    }
}

/// Whether a request would be a try.
fn tries(admission: Admission) -> Result<bool, Obstacle> {
    match admission {
        Admission::Free => Ok(false),
        Admission::Try => Ok(true),
        Admission::Nothing(Some(until)) => Err(Obstacle::Until(until, "outage")),
        Admission::Nothing(None) => Err(Obstacle::Trying),
    }
}

/// How many of `limit` one of several requesters may have under way: never so many that nothing is left for the others,
/// should its requests begin to hang.
fn share(requester: &Requester, requesters: usize, limit: usize) -> usize {
    let divisor = match requesters {
        0 | 1 => 1,
        _ if requester.breaker.is_strained() => STRAINED_DIVISOR,
        _ => SHARE_DIVISOR,
    };
    limit.div_ceil(divisor)
}
