//! One lane for each connection with work in this process: its commands go one after another, in order of arrival.
//!
//! A lane exists while it holds a ticket and costs nothing otherwise. Lanes keep order within the process; that no two
//! claims of a connection overlap is held by the store, for all processes.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use crate::domain::connection::Connection;

/// The lanes. Cloning shares them.
#[derive(Clone)]
pub struct Lanes {
    inner: Arc<Mutex<Inner>>,
    depth_max: usize,
}

#[derive(Default)]
struct Inner {
    lanes: HashMap<Connection, VecDeque<Waiter>>,
    ticket_next: u64,
}

struct Waiter {
    ticket: u64,
    /// Taken once its turn has come.
    turn: Option<oneshot::Sender<()>>,
}

/// The lane holds as many commands as it may.
#[derive(Debug, PartialEq, Eq)]
pub struct Full;

impl Lanes {
    /// Lanes of at most `depth_max` tickets each.
    #[must_use]
    pub fn new(depth_max: usize) -> Self {
        Self { inner: Arc::default(), depth_max }
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
        let number = inner.ticket_next;
        let lane = inner.lanes.entry(connection).or_default();
        if lane.len() >= self.depth_max {
            return Err(Full);
        }
        let (sender, turn) = oneshot::channel();
        let is_head = lane.is_empty();
        let mut waiter = Waiter { ticket: number, turn: Some(sender) };
        if is_head {
            waiter.call();
        }
        lane.push_back(waiter);
        inner.ticket_next += 1;
        let arrived = arrive(is_head);
        drop(inner);
        Ok((Ticket { lanes: self.clone(), connection, number, turn: Some(turn) }, arrived))
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

    fn leave(&self, connection: Connection, number: u64) {
        let mut inner = self.lock();
        let Some(lane) = inner.lanes.get_mut(&connection) else { return };
        lane.retain(|waiter| waiter.ticket != number);
        match lane.front_mut() {
            Some(head) => head.call(),
            None => drop(inner.lanes.remove(&connection)),
        }
    }

    /// Each change is complete before the lock is let go, so a poisoned lock guards sound data.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
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
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.lanes.leave(self.connection, self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;
    use uuid::Uuid;

    use super::*;
    use crate::domain::command::OrganizationId;

    fn connection(n: u128) -> Connection {
        Connection { target: OrganizationId(Uuid::from_u128(1)), guest: OrganizationId(Uuid::from_u128(n)) }
    }

    fn enter(lanes: &Lanes, n: u128) -> (Ticket, bool) {
        lanes.enter(connection(n), |is_head| is_head).expect("room")
    }

    #[test]
    fn a_lane_is_served_in_order_and_costs_nothing_when_empty() {
        let lanes = Lanes::new(8);
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
        let lanes = Lanes::new(8);
        let (first, _) = enter(&lanes, 1);
        let (second, _) = enter(&lanes, 1);
        let (mut third, _) = enter(&lanes, 1);
        drop(second);
        assert!(third.turn().now_or_never().is_none());
        drop(first);
        assert!(third.turn().now_or_never().is_some());
    }

    #[test]
    fn a_lane_has_a_greatest_depth() {
        let lanes = Lanes::new(2);
        let _tickets = (enter(&lanes, 1), enter(&lanes, 1));
        assert_eq!(lanes.enter(connection(1), |_| ()).err(), Some(Full));
        assert!(lanes.enter(connection(2), |_| ()).is_ok());
    }
}
