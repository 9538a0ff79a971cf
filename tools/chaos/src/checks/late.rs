//! What becomes late because its instance was frozen.
//!
//! The upstream has no fence, and an instance that is frozen between its last look at the clock and the write does not know what
//! was taken over from it meanwhile. What it had written goes out when it thaws, and may then overwrite something newer. What is
//! promised is not that this cannot happen, but that the newest value is sent again after it.
//!
//! Where a single instance is frozen for less than the quiet time after its lease nothing of this happens, so runs of one are
//! looked at without any of these excuses.

use std::time::Duration;

use chrono::TimeDelta;
use simulator::Entry;

use super::Index;
use super::index::{Owner, end};
use crate::history::{CommandSeen, FaultSeen, History, State, Time};
use crate::instance;
use crate::terms;

/// How long after the end of a freeze what was written before it may arrive: a proxy may hold it, and the machine is busy.
const PASSAGE: TimeDelta = TimeDelta::milliseconds(1_500);

fn span(duration: Duration) -> TimeDelta {
    TimeDelta::from_std(duration).unwrap_or_default()
}

fn freezes<'a>(history: &'a History, entry: &Entry) -> impl Iterator<Item = &'a FaultSeen> {
    let sender = instance::at_source(entry.peer);
    history.faults.iter().filter(move |fault| fault.is_freeze && sender.is_some() && fault.instance == sender)
}

/// The command of a PATCH. That there is one is another check's.
#[must_use]
pub fn command<'a>(history: &'a History, index: &Index<'_>, entry: &Entry) -> Option<&'a CommandSeen> {
    let entries = index.patches.get(&entry.guest?)?;
    let own = entries.iter().find(|own| own.seq == entry.seq)?;
    match index.owner(own) {
        Owner::Key(key) => history.commands.get(key),
        Owner::Trace(_) => None,
    }
}

/// Whether a PATCH was written before its instance was frozen and came when nobody waited for it any more.
#[must_use]
pub fn is_late(history: &History, index: &Index<'_>, entry: &Entry) -> bool {
    let mut freezes = freezes(history, entry).peekable();
    if freezes.peek().is_none() {
        return false;
    }
    let Some(command) = command(history, index, entry) else { return false };
    freezes.any(|freeze| {
        // Up to then nobody else begins anything on its connection.
        let (from, until) = (freeze.from + span(terms::SETTLE), freeze.until + PASSAGE);
        // Before it stops what it sends may be held.
        let stops = freeze.from + span(terms::HOLD);
        command.accept_time < stops && (from..=until).contains(&entry.received_at)
    })
}

/// Whether a PATCH that is outstanding at `time` belongs to an instance that was frozen while it was, for longer than anybody
/// waits for it: its connection is still there, and nobody reads the answer.
#[must_use]
pub fn is_given_up(history: &History, entry: &Entry, time: Time) -> bool {
    let is_applied_later = entry.applied_at.is_some_and(|applied| applied > time);
    let mut freezes = freezes(history, entry);
    let is_frozen = freezes.any(|freeze| {
        let was_open = entry.received_at <= freeze.until && end(entry).is_none_or(|end| end >= freeze.from);
        was_open && time > freeze.from + span(terms::SETTLE)
    });
    is_frozen && !is_applied_later
}

/// Whether the newest value of a connection is not sent again, as the rules of healing say: it may have been applied and was never
/// known to be, or the upstream has refused it for good since something late came.
#[must_use]
pub fn is_left_alone(history: &History, index: &Index<'_>, newest: &CommandSeen) -> bool {
    let applied = index.applied(newest.guest);
    let mut late = applied.iter().filter(|entry| is_late(history, index, entry));
    late.any(|late| {
        let patches = index.patches.get(&newest.guest).map_or(&[][..], Vec::as_slice);
        let refused = patches.iter().any(|entry| {
            let is_own = index.owner(entry) == Owner::Key(&newest.key);
            is_own
                && entry.received_at > late.received_at
                && entry.status.is_some_and(super::neighbours::refuses_for_good)
        });
        newest.state != State::Succeeded || refused
    })
}
