//! A pause of the consumer while the process has no room for more commands.

use std::time::Duration;

use tokio::time::Instant;

use super::records;
use crate::service::readiness::{Condition, Part};

/// A pause shorter than this is the usual way of being busy, and not worth a word.
const TELL_AFTER: Duration = Duration::from_secs(1);

/// Whether and since when nothing is taken.
#[derive(Debug, Default)]
pub struct Pause {
    since: Option<Instant>,
    is_told: bool,
}

impl Pause {
    /// Takes note of what stands in the way now, if anything, and tells `part` once it lasts.
    pub fn note(&mut self, obstacle: Option<String>, part: &Part) {
        let Some(why) = obstacle else {
            if self.is_told {
                records::PauseOver.log();
                part.set(Condition::Ready);
            }
            *self = Self::default();
            return;
        };
        let since = *self.since.get_or_insert_with(Instant::now);
        if !self.is_told && since.elapsed() >= TELL_AFTER {
            self.is_told = true;
            records::Paused { why: &why }.log();
            part.set(Condition::Degraded(format!("consuming pauses: {why}")));
        }
    }

    /// Whether nothing is taken.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.since.is_some()
    }

    /// When to look at it again: when it is worth a word, and then when it has lasted for `longest`.
    #[must_use]
    pub fn look_at(&self, longest: Duration) -> Instant {
        let since = self.since.unwrap_or_else(Instant::now);
        since + if self.is_told { longest } else { TELL_AFTER.min(longest) }
    }

    /// Whether it has lasted for `longest`.
    #[must_use]
    pub fn is_over(&self, longest: Duration) -> bool {
        self.since.is_some_and(|since| since.elapsed() >= longest)
    }
}
