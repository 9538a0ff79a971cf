//! Accept, begin, put off, finish: every transition of a command's record.
//!
//! A store loads the rows concerned, asks here what becomes of them, and writes the answer, all in one transaction.
//! The rules are those of `docs/state-machine.md`; their numbers are given beside the code that keeps them.

mod accept;
mod begin;
mod end;
mod finish;
mod put_off;

use chrono::TimeDelta;

pub use accept::{Acceptance, Accepted, REPLIES_MAX, accept};
pub use begin::{Begun, LINE_WAIT, Situation, begin};
pub use end::{Settlement, free_time};
pub use finish::{Finish, Finished, finish};
pub use put_off::{PutOff, PutOffAnswer, put_off};

pub(super) use begin::WAIT_MIN;
pub(super) use finish::end_claim;
pub use finish::span;

/// Spans of time that the rules need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// How long a claim lasts.
    pub lease: TimeDelta,
    /// How long an unanswered request may still take effect.
    pub settle: TimeDelta,
    /// How long an accepted command is left to the one who accepted it.
    pub hold: TimeDelta,
    /// How long a command is tried. Time for which it was put off does not count.
    pub give_up_after: TimeDelta,
}

#[cfg(test)]
#[path = "rule_tests.rs"]
mod tests;
