//! Why a requester may not send, and who waits for the end of that.

use std::time::Duration;

use tokio::time::Instant;

use crate::domain::error::{Reason, Refusal};

/// A message waits in memory for a pause that is shorter than this; for a longer one it is put off.
const PAUSE_SHORT: Duration = Duration::from_secs(5);

/// Why a requester may not send now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// The upstream as a whole fails.
    Down,
    /// Requests of this organisation fail.
    Broken,
    /// The upstream asked this organisation to wait.
    Paused,
}

/// A requester may not send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Closed {
    /// Why.
    pub why: Why,
    /// The last thing heard.
    pub cause: Reason,
    /// Until when, as far as is known.
    pub until: Instant,
    /// Whether every upstream fails, so that nothing more is to be taken in.
    pub is_everyone: bool,
}

impl Closed {
    /// What a caller is told.
    #[must_use]
    pub fn refusal(&self) -> Refusal {
        let (reason, text) = match self.why {
            Why::Down => (Reason::UpstreamPaused, "the upstream fails; nothing is sent until it is back"),
            Why::Broken => (
                Reason::RequesterPaused,
                "the upstream fails for this requester organisation; its commands wait until it is served again",
            ),
            Why::Paused => {
                (Reason::UpstreamRateLimited, "the upstream asked this requester organisation to wait")
            }
        };
        let message = match self.why {
            Why::Down | Why::Broken => format!("{text} (last failure: {})", self.cause),
            Why::Paused => text.to_owned(),
        };
        Refusal::new(reason, message).retry_after(self.remaining())
    }

    /// For one whose time is over before it was its turn.
    pub(super) fn late() -> Self {
        let until = Instant::now() + super::TRY_TIME;
        Self { why: Why::Paused, cause: Reason::UpstreamRateLimited, until, is_everyone: false }
    }

    /// How long it lasts, as far as is known.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.until.saturating_duration_since(Instant::now())
    }
}

/// How long someone is willing to wait while its requester may not send.
#[derive(Debug, Clone, Copy)]
pub enum Patience {
    /// A call, which must be answered by then: a pause that is over before is waited for, a failure is not.
    Call(Instant),
    /// A message, or what recovery took up: a short pause is waited for.
    Message,
    /// Work that was begun already and has to end by then: a pause that is over before is waited for. To wait for the end of a
    /// failure is the store's.
    Claim(Instant),
}

impl Patience {
    /// Whether it is worth waiting for the end of `closed`.
    #[must_use]
    pub fn bears(self, closed: &Closed, now: Instant) -> bool {
        match (self, closed.why) {
            (Self::Call(answer_by), Why::Paused) => closed.until < answer_by,
            (Self::Message, Why::Paused) => closed.until < now + PAUSE_SHORT,
            (Self::Claim(deadline), Why::Paused) => closed.until < deadline,
            (_, Why::Down | Why::Broken) => false,
        }
    }
}
