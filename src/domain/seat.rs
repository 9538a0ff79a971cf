//! How instances that share a store divide work among themselves: each has a seat, and takes what falls to it by a number.
//!
//! Seats are advice. Instances that disagree for a while do something twice, or a little later; what must not happen twice is
//! fenced where it is done.

/// The place of this instance among those that are alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seat {
    /// Which of them this one is, from 0.
    pub index: u32,
    /// How many they are, at least 1.
    pub count: u32,
}

impl Seat {
    /// That of an instance which is alone.
    pub const ALONE: Self = Self { index: 0, count: 1 };

    /// Whether the work with this number falls to it.
    #[must_use]
    pub const fn takes(self, number: u32) -> bool {
        self.count <= 1 || number % self.count == self.index
    }
}

impl Default for Seat {
    fn default() -> Self {
        Self::ALONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_work_falls_to_exactly_one() {
        for count in 1..=7 {
            for number in 0..100 {
                let takers = (0..count).filter(|&index| Seat { index, count }.takes(number)).count();
                assert_eq!(takers, 1, "{number} of {count}");
            }
        }
        assert!((0..10).all(|number| Seat::ALONE.takes(number)));
    }
}
