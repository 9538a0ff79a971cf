//! Whose turn it is to try whether an upstream is back: of the organisations that have something to send, the one whose failed
//! try is longest ago. Else one that the upstream serves no more, and that comes first each time, would keep it down for all.

use std::collections::VecDeque;
use std::time::Duration;

use crate::domain::command::OrganizationId;

/// Failed tries that are remembered, one for each organisation.
const REMEMBERED_MAX: usize = 16;

/// How long an organisation leaves a try to each of those that are before it: so long that whatever is due of theirs is found.
const STEP: Duration = Duration::from_millis(300);

/// How long it leaves a try to others at all: they may have nothing to send.
const WAIT_MAX: Duration = Duration::from_millis(1_200);

/// So many failed tries of one organisation alone, though others could have tried, say nothing of the others.
const ROW_MAX: u32 = 3;

/// Who has tried, since the upstream failed.
#[derive(Debug, Clone, Default)]
pub struct Turns {
    /// Those whose try failed, the last one at the end.
    failed: VecDeque<OrganizationId>,
    /// Failed tries of the last one in a row.
    row: u32,
}

impl Turns {
    /// A try failed on behalf of `id`. Whether that, with those before it, tells of that organisation alone.
    pub fn fail(&mut self, id: OrganizationId) -> bool {
        self.row = if self.failed.back() == Some(&id) { self.row.saturating_add(1) } else { 1 };
        self.forget(id);
        if self.failed.len() >= REMEMBERED_MAX {
            self.failed.pop_front();
        }
        self.failed.push_back(id);
        self.row >= ROW_MAX
    }

    /// A try failed for a reason that has nothing to do with its organisation.
    pub fn interrupt(&mut self) {
        self.row = 0;
    }

    /// How long `id`, one of so many `requesters`, leaves the next try to others.
    #[must_use]
    pub fn wait(&self, id: OrganizationId, requesters: usize) -> Duration {
        let Some(place) = self.failed.iter().position(|failed| *failed == id) else { return Duration::ZERO };
        let others = u32::from(requesters > self.failed.len());
        (STEP * (u32::try_from(place).unwrap_or(u32::MAX).saturating_add(others))).min(WAIT_MAX)
    }

    /// Forgets an organisation.
    pub fn forget(&mut self, id: OrganizationId) {
        self.failed.retain(|failed| *failed != id);
    }

    /// Forgets all.
    pub fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn organization(number: u128) -> OrganizationId {
        OrganizationId(Uuid::from_u128(number))
    }

    /// Of `having`, the one that would try next.
    fn next(turns: &Turns, having: &[u128], requesters: usize) -> u128 {
        *having.iter().min_by_key(|number| turns.wait(organization(**number), requesters)).unwrap()
    }

    #[test]
    fn the_one_whose_failure_is_longest_ago_is_next() {
        let mut turns = Turns::default();
        let mut order = Vec::new();
        for _ in 0..9 {
            let number = next(&turns, &[1, 2, 3], 3);
            order.push(number);
            assert!(!turns.fail(organization(number)), "all fail alike");
        }
        assert_eq!(order, [1, 2, 3, 1, 2, 3, 1, 2, 3]);
        // One that was not heard of before goes before them all.
        assert_eq!(next(&turns, &[1, 2, 3, 4], 4), 4);
        turns.clear();
        assert_eq!(turns.wait(organization(3), 3), Duration::ZERO);
    }

    #[test]
    fn nobody_is_left_out_for_long() {
        let mut turns = Turns::default();
        for number in 0..100 {
            turns.fail(organization(number));
        }
        assert!((0..100).all(|number| turns.wait(organization(number), 100) <= WAIT_MAX));
        assert_eq!(turns.wait(organization(99), 100), WAIT_MAX);
        turns.clear();
        turns.fail(organization(1));
        assert_eq!(turns.wait(organization(1), 1), Duration::ZERO, "there is nobody else");
        assert_eq!(turns.wait(organization(1), 2), STEP);
    }

    #[test]
    fn one_that_fails_alone_tells_of_itself() {
        let mut turns = Turns::default();
        let told = |turns: &mut Turns, numbers: &[u128]| {
            numbers.iter().map(|number| turns.fail(organization(*number))).collect::<Vec<_>>()
        };
        assert_eq!(told(&mut turns, &[1, 1, 2, 1, 1, 1, 1]), [false, false, false, false, false, true, true]);
        turns.interrupt();
        assert_eq!(told(&mut turns, &[1, 1, 1]), [false, false, true]);
    }
}
