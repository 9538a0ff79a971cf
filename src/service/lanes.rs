//! One lane for each connection with work in this process: its commands go one after another, in order of arrival.
//!
//! A lane exists while it holds a ticket and costs nothing otherwise. Its depth is capped: what comes to a full lane
//! stays in the store, and the lane is filled up from there. Lanes spare the store questions; order, and that no two
//! claims of a connection overlap, is held by the store, for all processes.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, oneshot};

use crate::domain::connection::Connection;

/// The lanes. Cloning shares them.
#[derive(Clone)]
pub struct Lanes {
    inner: Arc<Mutex<Inner>>,
    depth_max: usize,
    /// Told when a lane runs short of what the store holds for it.
    short: Arc<Notify>,
}

#[derive(Default)]
struct Inner {
    lanes: HashMap<Connection, Lane>,
    ticket_next: u64,
    /// Connections for which the store holds commands that have no place in their lane.
    more: HashSet<Connection>,
    /// Those of them whose lane has room.
    short: BTreeSet<Connection>,
}

#[derive(Default)]
struct Lane {
    waiters: VecDeque<Waiter>,
}

struct Waiter {
    ticket: u64,
    /// Taken once its turn has come.
    turn: Option<oneshot::Sender<()>>,
}

/// Commands of one connection that are taken from the store at once, at most.
const FILLED_DEPTH: usize = 64;

/// The lane holds as many commands as it may.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Lanes {
    /// Lanes of at most `depth_max` tickets each. `short` is told when [`Self::short`] has something to say.
    #[must_use]
    pub fn new(depth_max: usize, short: Arc<Notify>) -> Self {
        Self { inner: Arc::default(), depth_max, short }
    }

    /// Joins the lane of `connection` at its end, and calls `arrive` with whether that is its head. Nobody else joins
    /// any lane meanwhile, so that what `arrive` starts is started in the order of the lane; it must not block.
    ///
    /// # Errors
    /// [`Full`]; `arrive` was not called.
    pub fn enter<T>(
        &self,
        connection: Connection,
        arrive: impl FnOnce(bool) -> T,
    ) -> Result<(Ticket, T), Full> {
        let mut inner = self.lock();
        let depth = inner.lanes.get(&connection).map_or(0, |lane| lane.waiters.len());
        if depth >= self.depth_max {
            return Err(Full);
        }
        let ticket = self.join(&mut inner, connection);
        let arrived = arrive(depth == 0);
        Ok((ticket, arrived))
    }

    /// Joins the lane of `connection` with a command that the store holds, unless the lane is filled.
    #[must_use]
    pub fn rejoin(&self, connection: Connection) -> Option<Ticket> {
        let mut inner = self.lock();
        let depth = inner.lanes.get(&connection).map_or(0, |lane| lane.waiters.len());
        (depth < self.filled_depth()).then(|| self.join(&mut inner, connection))
    }

    /// To this depth a lane is filled from the store: little enough that a connection that hangs leaves room for others.
    #[must_use]
    pub fn filled_depth(&self) -> usize {
        self.depth_max.min(FILLED_DEPTH)
    }

    fn join(&self, inner: &mut Inner, connection: Connection) -> Ticket {
        let number = inner.ticket_next;
        inner.ticket_next += 1;
        let lane = inner.lanes.entry(connection).or_default();
        let (sender, turn) = oneshot::channel();
        let mut waiter = Waiter { ticket: number, turn: Some(sender) };
        if lane.waiters.is_empty() {
            waiter.call();
        }
        lane.waiters.push_back(waiter);
        Ticket { lanes: self.clone(), connection, number, turn: Some(turn) }
    }

    /// Notes that the store holds commands of `connection` that have no place in its lane. [`Self::short`] names it as
    /// soon as there is room for them, which may be now.
    pub fn note_more(&self, connection: Connection) {
        let mut inner = self.lock();
        inner.more.insert(connection);
        let depth = inner.lanes.get(&connection).map_or(0, |lane| lane.waiters.len());
        if depth <= self.refill_mark() {
            self.note_short(&mut inner, connection);
        }
    }

    /// Notes the same of a connection whose line waits for a time. It is named when it has moved on.
    pub fn note_stalled(&self, connection: Connection) {
        self.lock().more.insert(connection);
    }

    /// Whether the store holds commands of `connection` that have no place in its lane.
    #[must_use]
    pub fn has_more(&self, connection: Connection) -> bool {
        self.lock().more.contains(&connection)
    }

    /// The connections whose lane has room for what the store holds. Each is named once, and counts as filled from then
    /// on, unless [`Self::note_more`] says otherwise.
    #[must_use]
    pub fn short(&self) -> BTreeSet<Connection> {
        let mut inner = self.lock();
        let short = std::mem::take(&mut inner.short);
        inner.more.retain(|connection| !short.contains(connection));
        short
    }

    /// Takes back what [`Self::short`] named and could not be filled. Nobody is told.
    pub fn put_back(&self, connections: BTreeSet<Connection>) {
        let mut inner = self.lock();
        inner.more.extend(&connections);
        inner.short.extend(connections);
    }

    /// At this depth a lane is filled again.
    fn refill_mark(&self) -> usize {
        self.filled_depth() / 2
    }

    fn note_short(&self, inner: &mut Inner, connection: Connection) {
        inner.short.insert(connection);
        self.short.notify_one();
    }

    /// How many lanes hold work.
    #[must_use]
    pub fn len(&self) -> usize {
        self.lock().lanes.len()
    }

    /// Whether no lane holds work.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many commands the deepest lane holds.
    #[must_use]
    pub fn depth(&self) -> usize {
        self.lock().lanes.values().map(|lane| lane.waiters.len()).max().unwrap_or_default()
    }

    fn leave(&self, connection: Connection, number: u64) {
        let mut inner = self.lock();
        let Some(lane) = inner.lanes.get_mut(&connection) else { return };
        lane.leave(number);
        let depth = lane.waiters.len();
        if depth <= self.refill_mark() && inner.more.contains(&connection) {
            self.note_short(&mut inner, connection);
        }
        if depth == 0 {
            inner.lanes.remove(&connection);
        }
    }

    /// Each change is complete before the lock is let go, so a poisoned lock guards sound data.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lane {
    /// Takes a ticket out. It is the head as a rule, and numbers rise along the lane.
    fn leave(&mut self, number: u64) {
        if let Ok(index) = self.waiters.binary_search_by_key(&number, |waiter| waiter.ticket) {
            self.waiters.remove(index);
        }
        if let Some(head) = self.waiters.front_mut() {
            head.call();
        }
    }
}

impl Waiter {
    fn call(&mut self) {
        if let Some(turn) = self.turn.take() {
            // A ticket that is being dropped does not listen; it leaves by itself.
            let _ = turn.send(());
        }
    }
}

/// A place in a lane. Dropping it leaves the lane and calls the next one.
pub struct Ticket {
    lanes: Lanes,
    connection: Connection,
    number: u64,
    turn: Option<oneshot::Receiver<()>>,
}

impl Ticket {
    /// Waits until this ticket is at the head of its lane.
    pub async fn turn(&mut self) {
        if let Some(turn) = &mut self.turn {
            // The sender lives in the lane for as long as this ticket does.
            let _ = turn.await;
            self.turn = None;
        }
    }

    /// Whether others stand behind it.
    pub fn is_followed(&self) -> bool {
        let inner = self.lanes.lock();
        let last = inner.lanes.get(&self.connection).and_then(|lane| lane.waiters.back());
        last.is_some_and(|last| last.ticket > self.number)
    }

    /// Leaves the lane and calls the next one.
    pub fn leave(&self) {
        self.lanes.leave(self.connection, self.number);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.leave();
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use uuid::Uuid;

    use super::*;
    use crate::domain::command::OrganizationId;

    fn lanes(depth_max: usize) -> Lanes {
        Lanes::new(depth_max, Arc::default())
    }

    fn connection(n: u128) -> Connection {
        Connection { target: OrganizationId(Uuid::from_u128(1)), guest: OrganizationId(Uuid::from_u128(n)) }
    }

    fn enter(lanes: &Lanes, n: u128) -> (Ticket, bool) {
        lanes.enter(connection(n), |is_head| is_head).expect("room")
    }

    #[test]
    fn a_lane_is_served_in_order_and_costs_nothing_when_empty() {
        let lanes = lanes(8);
        let (mut first, head) = enter(&lanes, 1);
        assert!(head && first.turn().now_or_never().is_some());
        let (mut second, head) = enter(&lanes, 1);
        assert!(!head && second.turn().now_or_never().is_none());
        let (mut third, _) = enter(&lanes, 1);
        let (mut other, head) = enter(&lanes, 2);
        assert!(head && other.turn().now_or_never().is_some(), "another connection never waits");
        drop(first);
        assert!(second.turn().now_or_never().is_some());
        assert!(third.turn().now_or_never().is_none());
        drop(second);
        assert!(third.turn().now_or_never().is_some());
        drop((third, other));
        assert!(lanes.is_empty());
    }

    #[test]
    fn one_who_leaves_the_middle_is_passed_over() {
        let lanes = lanes(8);
        let (first, _) = enter(&lanes, 1);
        let (second, _) = enter(&lanes, 1);
        let (mut third, _) = enter(&lanes, 1);
        drop(second);
        assert!(third.turn().now_or_never().is_none());
        drop(first);
        assert!(third.turn().now_or_never().is_some());
    }

    #[test]
    fn one_may_leave_before_it_is_dropped() {
        let lanes = lanes(8);
        let (first, _) = enter(&lanes, 1);
        assert!(!first.is_followed());
        let (mut second, _) = enter(&lanes, 1);
        assert!(first.is_followed() && !second.is_followed());
        first.leave();
        assert!(second.turn().now_or_never().is_some());
        let (mut third, head) = enter(&lanes, 1);
        assert!(!head);
        drop(first);
        assert!(third.turn().now_or_never().is_none(), "it leaves once");
        drop(second);
        assert!(third.turn().now_or_never().is_some());
        drop(third);
        assert!(lanes.is_empty());
    }

    #[test]
    fn a_lane_has_a_greatest_depth() {
        let lanes = lanes(2);
        let _tickets = (enter(&lanes, 1), enter(&lanes, 1));
        assert_eq!(lanes.enter(connection(1), |_| ()).err(), Some(Full));
        assert!(lanes.enter(connection(2), |_| ()).is_ok());
    }

    #[test]
    fn a_lane_that_the_store_holds_more_for_is_named_once_it_has_room() {
        let lanes = lanes(8);
        let mut tickets: Vec<_> = (0..8).map(|_| enter(&lanes, 1).0).collect();
        assert!(lanes.rejoin(connection(1)).is_none());
        lanes.note_more(connection(1));
        assert!(lanes.has_more(connection(1)) && lanes.short().is_empty());
        tickets.drain(..4);
        assert!(lanes.has_more(connection(1)));
        assert_eq!(lanes.short(), BTreeSet::from([connection(1)]));
        assert!(lanes.short().is_empty() && !lanes.has_more(connection(1)));
        tickets.extend(std::iter::from_fn(|| lanes.rejoin(connection(1))));
        assert_eq!(tickets.len(), 8);
        // A line that waits is named once something has left the lane.
        lanes.note_stalled(connection(1));
        tickets.drain(..3);
        assert!(lanes.has_more(connection(1)) && lanes.short().is_empty());
        tickets.drain(..1);
        assert_eq!(lanes.short(), BTreeSet::from([connection(1)]));
        // Without a lane there is room at once.
        lanes.note_more(connection(2));
        assert_eq!(lanes.short(), BTreeSet::from([connection(2)]));
    }
}
