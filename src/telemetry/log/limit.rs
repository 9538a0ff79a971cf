//! How often a record is repeated: warnings and errors of one place in the source, so many in a window of time. What is
//! left out is counted, and said with the next record of the place or, after the window, before whichever record comes next.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tracing::Level;
use tracing::Metadata;
use tracing::callsite::Identifier;

/// The window of a place.
const WINDOW: Duration = Duration::from_secs(10);

/// The window of the export as a whole, which has one record: an absent collector is no news every second.
const EXPORT_WINDOW: Duration = Duration::from_secs(60);

/// Places that are told apart, at most. There are fewer in the program; more would be a fault of a library.
const PLACES_MAX: usize = 4096;

/// A place that records come from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Key {
    /// Not limited.
    Free,
    /// The export of spans, metrics and records, by whatever it says.
    Export,
    /// A place in the source.
    Callsite(Identifier),
    /// The same for a record that came by way of the `log` crate, where all records of a level have one callsite.
    Line(String, u64),
    /// Any other place, once so many are known.
    Other,
}

impl Key {
    /// The place of a record with this target; `line` is 0 unless it came by way of the `log` crate.
    pub fn of(metadata: &Metadata<'static>, target: &str, line: u64) -> Self {
        match line {
            _ if target.starts_with("opentelemetry") => Self::Export,
            _ if !super::is_limited(*metadata.level()) => Self::Free,
            0 => Self::Callsite(metadata.callsite()),
            line => Self::Line(target.to_owned(), line),
        }
    }
}

/// Records that were left out and not spoken of yet.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct LeftOut {
    pub level: Level,
    pub target: String,
    pub message: String,
    pub count: u64,
}

struct Window {
    since: Instant,
    written: u64,
    left_out: LeftOut,
}

/// Decides which records are written.
pub(super) struct Limiter {
    repeats_max: u64,
    windows: HashMap<Key, Window>,
    /// Windows that have left something out.
    owing: usize,
}

impl Limiter {
    /// With 0 there is no limit but that of the export.
    pub fn new(repeats_max: u64) -> Self {
        Self { repeats_max, windows: HashMap::new(), owing: 0 }
    }

    /// Whether a record of `key` is to be written now, and how many like it were left out before.
    pub fn admit(
        &mut self,
        key: Key,
        now: Instant,
        level: Level,
        target: &str,
        message: &str,
    ) -> Option<u64> {
        let (max, length) = match key {
            Key::Free => return Some(0),
            Key::Export => (1, EXPORT_WINDOW),
            _ if self.repeats_max == 0 => return Some(0),
            _ => (self.repeats_max, WINDOW),
        };
        let is_known = self.windows.contains_key(&key);
        let key = if is_known || self.windows.len() < PLACES_MAX { key } else { Key::Other };
        let window = self.windows.entry(key).or_insert_with(|| Window {
            since: now,
            written: 0,
            left_out: LeftOut { level, target: target.to_owned(), message: message.to_owned(), count: 0 },
        });
        if now.saturating_duration_since(window.since) >= length {
            window.since = now;
            window.written = 0;
        }
        if window.written >= max {
            self.owing += usize::from(window.left_out.count == 0);
            window.left_out.count += 1;
            return None;
        }
        window.written += 1;
        let left_out = std::mem::take(&mut window.left_out.count);
        self.owing -= usize::from(left_out > 0);
        Some(left_out)
    }

    /// What was left out in windows that are over.
    pub fn overdue(&mut self, now: Instant) -> Vec<LeftOut> {
        self.take(|key, window| {
            let length = if *key == Key::Export { EXPORT_WINDOW } else { WINDOW };
            now.saturating_duration_since(window.since) >= length
        })
    }

    /// Everything that was left out and not spoken of.
    pub fn all(&mut self) -> Vec<LeftOut> {
        self.take(|_, _| true)
    }

    fn take(&mut self, is_wanted: impl Fn(&Key, &Window) -> bool) -> Vec<LeftOut> {
        if self.owing == 0 {
            return Vec::new();
        }
        let owing = self.windows.iter_mut().filter(|(_, window)| window.left_out.count > 0);
        let wanted = owing.filter(|(key, window)| is_wanted(key, window));
        let taken: Vec<_> = wanted
            .map(|(_, Window { left_out, .. })| LeftOut {
                level: left_out.level,
                target: left_out.target.clone(),
                message: left_out.message.clone(),
                count: std::mem::take(&mut left_out.count),
            })
            .collect();
        self.owing -= taken.len();
        taken
    }
}

#[cfg(test)]
#[path = "limit_tests.rs"]
mod tests;
