//! How much may be sent, and when to send nothing: pure functions of what was heard and of the time.
//!
//! - [`breaker`]: whether to send at all
//! - [`concurrency`]: how many requests may be under way
//! - [`pace`]: how many may be begun in a second
//! - [`ramp`]: how many after an outage
//! - [`turns`]: who tries whether an upstream is back

pub mod breaker;
pub mod concurrency;
pub mod pace;
pub mod ramp;
pub mod turns;

use std::time::Duration;

use super::obstacle::Obstacle;
use super::reply::{Answer, Reply};

/// A time of this process: how long it had been running. It never goes back.
pub type Moment = Duration;

/// What a request came to, as far as it tells of the upstream and not of the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// The upstream did its work, be it that it refused the command.
    Served,
    /// It asks for fewer requests.
    Limited {
        /// And for none within this time.
        retry_after: Option<Duration>,
    },
    /// It does not accept the token.
    Unauthorized {
        /// Whether the command had had another one refused just before: then it is the credentials that are not accepted.
        is_renewed: bool,
    },
    /// It could not do its work, or said nothing.
    Failed {
        /// And asks for no more within this time.
        retry_after: Option<Duration>,
        /// The way to the upstream is barred: that has nothing to do with the organisation on whose behalf it was tried.
        is_general: bool,
    },
}

impl Heard {
    /// What `reply` tells of the upstream. Nothing if there was no request. `is_renewed` is that of
    /// [`Self::Unauthorized`].
    #[must_use]
    pub const fn of(reply: &Reply, is_renewed: bool) -> Option<Self> {
        match reply {
            Reply::Answered(Answer { status, retry_after, .. }) => Some(match status {
                401 => Self::Unauthorized { is_renewed },
                429 => Self::Limited { retry_after: *retry_after },
                407 => Self::Failed { retry_after: None, is_general: true },
                ..200 | 408 | 500.. => Self::Failed { retry_after: *retry_after, is_general: false },
                _ => Self::Served,
            }),
            // That one request was not processed says nothing of the way to the upstream.
            Reply::Unreachable(Obstacle::StreamRefused | Obstacle::Unsent) => {
                Some(Self::Failed { retry_after: None, is_general: false })
            }
            Reply::Unreachable(_) => Some(Self::Failed { retry_after: None, is_general: true }),
            Reply::Unanswered => Some(Self::Failed { retry_after: None, is_general: false }),
            Reply::Unauthorized(_) => None,
        }
    }

    /// Whether it is a sign of too much load: then fewer requests should be under way at once.
    #[must_use]
    pub const fn is_pressure(self) -> bool {
        matches!(self, Self::Limited { .. } | Self::Failed { .. })
    }
}
