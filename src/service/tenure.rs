//! What falls to this instance of what several do together, and for how long.
//!
//! The outbox is cut into slots by connection. An instance publishes of those that it holds, in rounds; it gives a slot back only
//! between two of them, and begins none when what it was told may have run out. The seat, by contrast, is mere advice.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::domain::seat::Seat;

/// A set of slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Slots(u64);

impl Slots {
    /// How many there are. A connection's slot is its number modulo this.
    pub const COUNT: u32 = u64::BITS;

    /// All of them.
    pub const ALL: Self = Self(u64::MAX);

    /// None of them.
    pub const NONE: Self = Self(0);

    /// Those that fall to a seat.
    #[must_use]
    pub fn of(seat: Seat) -> Self {
        (0..Self::COUNT).filter(|&slot| seat.takes(slot)).collect()
    }

    /// Whether a slot is among them.
    #[must_use]
    pub const fn contains(self, slot: u32) -> bool {
        slot < Self::COUNT && self.0 >> slot & 1 == 1
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// Those that are in both.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Those that are not in `other`.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Each of them.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        (0..Self::COUNT).filter(move |&slot| self.contains(slot))
    }
}

impl FromIterator<u32> for Slots {
    fn from_iter<I: IntoIterator<Item = u32>>(slots: I) -> Self {
        Self(slots.into_iter().filter(|slot| *slot < Self::COUNT).fold(0, |bits, slot| bits | 1 << slot))
    }
}

/// What an instance holds.
#[derive(Debug)]
pub struct Tenure {
    inner: Mutex<Inner>,
    seat: watch::Sender<Seat>,
}

#[derive(Debug)]
struct Inner {
    held: Slots,
    /// From when on nothing is held; absent if that never comes.
    until: Option<Instant>,
    /// How many rounds are under way in each slot.
    rounds: [u8; Slots::COUNT as usize],
}

impl Tenure {
    /// That of an instance which is alone: all is its own, for ever.
    #[must_use]
    pub fn sole() -> Self {
        Self::new(Slots::ALL, None)
    }

    /// That of an instance which holds nothing yet.
    #[must_use]
    pub fn none() -> Self {
        Self::new(Slots::NONE, Some(Instant::now()))
    }

    fn new(held: Slots, until: Option<Instant>) -> Self {
        let inner = Inner { held, until, rounds: [0; Slots::COUNT as usize] };
        Self { inner: Mutex::new(inner), seat: watch::Sender::new(Seat::ALONE) }
    }

    /// The seat, and its changes.
    #[must_use]
    pub fn seat(&self) -> watch::Receiver<Seat> {
        self.seat.subscribe()
    }

    /// Whether there may be other instances.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.lock().until.is_some()
    }

    /// Begins a round of publishing.
    #[must_use]
    pub fn round(self: &Arc<Self>) -> Round {
        let mut inner = self.lock();
        let slots = if inner.is_over() { Slots::NONE } else { inner.held };
        for slot in slots.iter() {
            inner.rounds[slot as usize] += 1;
        }
        Round { tenure: Arc::clone(self), slots, until: inner.until }
    }

    /// Takes over what the instance holds until `until`, and its seat.
    pub fn grant(&self, seat: Seat, held: Slots, until: Instant) {
        let mut inner = self.lock();
        inner.held = held;
        inner.until = Some(until);
        drop(inner);
        self.seat.send_if_modified(|present| std::mem::replace(present, seat) != seat);
    }

    /// Takes away what is held beyond `wanted`. Yields those slots in which no round is under way: they may be given to others.
    pub fn withdraw(&self, wanted: Slots) -> Slots {
        let mut inner = self.lock();
        inner.held = inner.held.and(wanted);
        (0..Slots::COUNT).filter(|&slot| !wanted.contains(slot) && inner.rounds[slot as usize] == 0).collect()
    }

    /// Each change is complete before the lock is let go, so a poisoned lock guards sound data.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// A round of publishing. Its slots are given to nobody else before it is dropped, unless `until` has passed.
#[derive(Debug)]
pub struct Round {
    tenure: Arc<Tenure>,
    /// Of which slots it may publish.
    pub slots: Slots,
    /// From when on nothing may be published.
    pub until: Option<Instant>,
}

impl Drop for Round {
    fn drop(&mut self) {
        let mut inner = self.tenure.lock();
        for slot in self.slots.iter() {
            inner.rounds[slot as usize] -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LEFT: Seat = Seat { index: 0, count: 2 };

    fn some(slots: &[u32]) -> Slots {
        slots.iter().copied().collect()
    }

    #[test]
    fn sets_of_slots() {
        assert_eq!(Slots::of(Seat::ALONE), Slots::ALL);
        let (left, right) = (Slots::of(LEFT), Slots::of(Seat { index: 1, count: 2 }));
        assert!(left.and(right).is_empty() && left.contains(2) && !left.contains(1) && !left.contains(64));
        assert_eq!(Slots::ALL.without(left), right);
        assert_eq!(some(&[3, 63]).iter().collect::<Vec<_>>(), [3, 63]);
    }

    #[tokio::test]
    async fn what_a_round_is_at_work_on_is_not_given_away() {
        let tenure = Arc::new(Tenure::none());
        assert!(tenure.round().slots.is_empty());
        let later = Instant::now() + Duration::from_secs(60);
        tenure.grant(Seat::ALONE, some(&[1, 2]), later);
        let round = tenure.round();
        assert_eq!((round.slots, round.until), (some(&[1, 2]), Some(later)));
        assert!(!tenure.withdraw(some(&[1])).contains(2));
        assert_eq!(tenure.round().slots, some(&[1]), "the next round has no part in it");
        drop(round);
        assert!(tenure.withdraw(some(&[1])).contains(2));
    }

    #[tokio::test]
    async fn what_may_have_run_out_is_not_begun() {
        let tenure = Arc::new(Tenure::none());
        let mut seat = tenure.seat();
        tenure.grant(LEFT, Slots::ALL, Instant::now());
        assert!(tenure.round().slots.is_empty());
        assert_eq!(*seat.borrow_and_update(), LEFT);
        let sole = Arc::new(Tenure::sole());
        assert_eq!((sole.round().slots, sole.round().until), (Slots::ALL, None));
    }
}
