//! Nothing out of order: on one connection no overlap, nothing older after something newer, sequences without gaps.
//!
//! "Older" is what the store says. Where several instances take commands from one queue, or calls come to several at once, they
//! are accepted in another order than they were sent in; without an issue time the order of acceptance is the one that counts.

use std::collections::{BTreeMap, BTreeSet};

use simulator::Entry;

use super::index::{Owner, end};
use super::late::{self, command};
use super::{About, Checked, Index, key};
use crate::history::{CommandSeen, EventSeen, History};

/// No two PATCHes of different commands of a connection were outstanding at once, but for those of an instance that was frozen
/// for longer than others have to wait for it.
#[must_use]
pub fn nothing_overlaps(history: &History, index: &Index<'_>) -> Checked {
    let mut checked = Checked::new("no overlap on a connection");
    for (guest, entries) in &index.patches {
        let mut open: Vec<&Entry> = Vec::new();
        for entry in entries {
            open.retain(|earlier| end(earlier).is_none_or(|end| end > entry.received_at));
            let other = open.iter().find(|earlier| {
                let is_excused = late::is_given_up(history, earlier, entry.received_at)
                    || late::is_late(history, index, earlier)
                    || late::is_late(history, index, entry);
                index.owner(earlier) != index.owner(entry) && !is_excused
            });
            checked.expect(
                other.is_none(),
                || About::Connection(*guest),
                || {
                    let other = other.map(|other| (other.seq, index.owner(other)));
                    format!(
                        "PATCH {} of {:?} came while {other:?} was outstanding",
                        entry.seq,
                        index.owner(entry)
                    )
                },
            );
            open.push(entry);
        }
    }
    checked
}

/// An older command never overwrites a newer one, but for what was written before its instance was frozen.
#[must_use]
pub fn nothing_older_follows(history: &History, index: &Index<'_>) -> Checked {
    let mut checked = Checked::new("nothing older follows");
    for guest in index.patches.keys() {
        let mut newest: Option<&CommandSeen> = None;
        for entry in index.applied(*guest) {
            let Some(command) = command(history, index, entry) else { continue };
            let is_newer = newest.is_none_or(|newest| newest.version() <= command.version());
            let sound = is_newer || late::is_late(history, index, entry);
            checked.expect(sound, key(&command.key), || {
                let newest = newest.map(|newest| (&newest.key, newest.version()));
                format!("PATCH {} of {:?} came after {newest:?}", entry.seq, command.version())
            });
            if is_newer {
                newest = Some(command);
            }
        }
    }
    checked
}

/// A connection shows in the end what its newest applied command asked for, whatever came late in between: once it is healed, for
/// which the check of the books waits.
#[must_use]
pub fn the_newest_stays(history: &History, index: &Index<'_>) -> Checked {
    let mut checked = Checked::new("the newest stays");
    for guest in index.patches.keys() {
        let applied = index.applied(*guest);
        let commands = applied.iter().filter_map(|entry| command(history, index, entry));
        let Some(newest) = commands.max_by_key(|command| command.version()) else { continue };
        let shown = history.upstream.get(guest);
        checked.expect(
            shown == Some(&newest.archived) || late::is_left_alone(history, index, newest),
            || About::Connection(*guest),
            || {
                format!(
                    "the newest is {} ({}), and the upstream shows {shown:?}",
                    newest.key, newest.archived
                )
            },
        );
    }
    checked
}

/// The sequences of a connection's events have no gap and no double, and follow the order of effects.
#[must_use]
pub fn sequences_are_gapless(history: &History, index: &Index<'_>) -> Checked {
    let mut checked = Checked::new("sequences are gapless and in order");
    for (guest, events) in &index.events_by_guest {
        let mut by_sequence: BTreeMap<u64, &EventSeen> = BTreeMap::new();
        for event in events {
            let other = by_sequence.entry(event.sequence).or_insert(event);
            checked.expect(
                other.id == event.id,
                || About::Connection(*guest),
                || format!("events {} and {} have the sequence {}", other.id, event.id, event.sequence),
            );
        }
        let sequences: Vec<u64> = by_sequence.keys().copied().collect();
        let gapless = sequences.iter().zip(1..).all(|(sequence, expected)| *sequence == expected);
        checked.expect(gapless, || About::Connection(*guest), || format!("the sequences are {sequences:?}"));
        let mut before: Option<(u64, u64)> = None;
        for (sequence, event) in by_sequence {
            let applied = index.applied(*guest);
            let own = applied.iter().filter(|entry| {
                index.owner(entry) == Owner::Key(&event.key) && !late::is_late(history, index, entry)
            });
            // The first one: the newest value may be sent again later, to heal a connection.
            let Some(place) = own.filter_map(|entry| entry.applied_seq).min() else { continue };
            checked.expect(before.is_none_or(|(_, last)| last < place), key(&event.key), || {
                format!("its event has sequence {sequence} and its effect place {place}; before: {before:?}")
            });
            before = Some((sequence, place));
        }
    }
    checked
}

/// The events of a connection come in the order of their sequences. Repeats may come at any time: an instance may have been frozen
/// between a look at the clock and the publishing, while another one published in its place.
#[must_use]
pub fn first_deliveries_are_in_order(index: &Index<'_>) -> Checked {
    let mut checked = Checked::new("first deliveries are in order");
    for (guest, events) in &index.events_by_guest {
        let (mut seen, mut last) = (BTreeSet::new(), 0);
        for event in events.iter().filter(|event| seen.insert(&event.id)) {
            checked.expect(
                event.sequence > last,
                || About::Connection(*guest),
                || format!("event {} with the sequence {} came after {last}", event.id, event.sequence),
            );
            last = last.max(event.sequence);
        }
    }
    checked
}
