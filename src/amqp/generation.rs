//! The queues that commands come by: one, or some number of partitions. Each number has names of its own, so that two of
//! them can stand side by side while one is left for the other.

use super::settings::Names;
use crate::domain::seat::Seat;

/// How many partitions there are; 0 is the one queue that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Generation(pub u16);

/// A queue that commands come by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Its name.
    pub queue: String,
    /// Which of the partitions it is, from 0; none if it is the one queue.
    pub number: Option<u32>,
}

impl Source {
    /// Whether it falls to an instance with this seat. The one queue is for all.
    #[must_use]
    pub fn falls_to(&self, seat: Seat) -> bool {
        self.number.is_none_or(|number| seat.takes(number))
    }
}

impl Generation {
    /// The consistent-hash exchange before the partitions.
    #[must_use]
    pub fn exchange(self, names: &Names) -> Option<String> {
        (self.0 > 0).then(|| format!("{}.{}", names.commands_exchange, self.0))
    }

    /// The queues.
    #[must_use]
    pub fn sources(self, names: &Names) -> Vec<Source> {
        let queue = &names.commands_queue;
        if self.0 == 0 {
            return vec![Source { queue: queue.clone(), number: None }];
        }
        let name = |number: u16| format!("{queue}.{}.{number}", self.0);
        (0..self.0).map(|number| Source { queue: name(number), number: Some(number.into()) }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generations_share_no_name() {
        let names = Names::default();
        let mut queues: Vec<_> = (0..=64).flat_map(|count| Generation(count).sources(&names)).collect();
        assert_eq!(queues.len(), 1 + (1..=64).sum::<usize>());
        queues.sort_by(|one, other| one.queue.cmp(&other.queue));
        queues.dedup_by(|one, other| one.queue == other.queue);
        assert_eq!(queues.len(), 1 + (1..=64).sum::<usize>());
        assert_eq!(Generation(0).exchange(&names), None);
        assert_eq!(Generation(3).exchange(&names).as_deref(), Some("guest-connections.commands.3"));
        assert_eq!(Generation(3).sources(&names)[2].queue, "guest-connections.commands.3.2");
    }
}
