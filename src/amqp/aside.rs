//! When an instance leaves a partition to the one to whom it falls: pure.
//!
//! The broker gives a partition to whoever stands first in its row of consumers. An instance to whom it does not fall goes
//! to the end of the row when it notices that it has it. If it comes back every time, the one to whom it falls does not
//! take it, and the instance keeps it for a while: a partition must not stand still, and handing it round costs.

use std::time::Duration;

use tokio::time::Instant;

/// The shortest time between leaving a partition and leaving it again.
const INTERVAL: Duration = Duration::from_secs(1);

/// After this many times in a row it is kept.
const TIMES_MAX: u32 = 3;

/// For how long it is kept. A partition that stays away as long has been taken by somebody.
const KEPT_FOR: Duration = Duration::from_secs(30);

/// How an instance stands to a partition.
#[derive(Debug)]
pub struct Stand {
    /// Whether it falls to this instance.
    is_own: bool,
    /// Since when it has it, if it knows that it does.
    held_since: Option<Instant>,
    /// How often in a row it has left it, and when it did so last.
    times: u32,
    left_at: Option<Instant>,
}

impl Stand {
    /// It has been left never so far.
    #[must_use]
    pub const fn new(is_own: bool) -> Self {
        Self { is_own, held_since: None, times: 0, left_at: None }
    }

    /// Whether it falls to this instance.
    #[must_use]
    pub const fn is_own(&self) -> bool {
        self.is_own
    }

    /// Notes to whom it falls.
    pub fn turn(&mut self, is_own: bool) {
        if self.is_own != is_own {
            *self = Self { held_since: self.held_since, ..Self::new(is_own) };
        }
    }

    /// Notes that something was delivered: only who has the partition gets anything.
    pub fn delivered(&mut self, now: Instant) {
        if self.held_since.is_some() {
            return;
        }
        self.held_since = Some(now);
        if self.left_at.is_some_and(|left_at| now.duration_since(left_at) > KEPT_FOR) {
            self.times = 0;
        }
    }

    /// When to leave it, if at all.
    #[must_use]
    pub fn leave_at(&self) -> Option<Instant> {
        let since = self.held_since.filter(|_| !self.is_own)?;
        if self.times >= TIMES_MAX {
            return Some(since + KEPT_FOR);
        }
        Some(self.left_at.map_or(since, |left_at| since.max(left_at + INTERVAL)))
    }

    /// Notes that this instance does not have it any more.
    pub fn left(&mut self, now: Instant) {
        self.held_since = None;
        self.times = self.times.saturating_add(1);
        self.left_at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_left_at_once_then_seldom_and_then_kept() {
        let start = Instant::now();
        let mut stand = Stand::new(false);
        assert_eq!(stand.leave_at(), None, "nothing says that it is had");
        stand.delivered(start);
        assert_eq!(stand.leave_at(), Some(start));
        for _ in 0..TIMES_MAX {
            stand.left(start);
            stand.delivered(start);
        }
        assert_eq!(stand.leave_at(), Some(start + KEPT_FOR));
        stand.left(start);
        stand.delivered(start + INTERVAL);
        assert_eq!(stand.leave_at(), Some(start + INTERVAL + KEPT_FOR), "it is still not taken");
        stand.left(start);
        stand.delivered(start + KEPT_FOR + INTERVAL);
        assert_eq!(stand.leave_at(), Some(start + KEPT_FOR + INTERVAL), "somebody had it meanwhile");
    }

    #[test]
    fn it_is_not_handed_round_quickly() {
        let start = Instant::now();
        let mut stand = Stand::new(false);
        stand.delivered(start);
        stand.left(start);
        stand.delivered(start);
        assert_eq!(stand.leave_at(), Some(start + INTERVAL));
    }

    #[test]
    fn what_falls_to_it_is_not_left() {
        let start = Instant::now();
        let mut stand = Stand::new(true);
        stand.delivered(start);
        assert_eq!(stand.leave_at(), None);
        stand.turn(false);
        assert_eq!(stand.leave_at(), Some(start), "it is had, and falls to another now");
        stand.turn(true);
        assert_eq!(stand.leave_at(), None);
    }
}
