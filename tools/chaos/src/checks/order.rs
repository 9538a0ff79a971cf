//! Nothing out of order: on one connection no overlap, nothing older after something newer, sequences without gaps.

use std::collections::BTreeMap;

use simulator::Entry;

use super::index::{Owner, end};
use super::{About, Checked, Index, key};
use crate::history::{CommandSeen, EventSeen, History};

/// No two PATCHes of different commands of a connection were outstanding at once.
#[must_use]
pub fn nothing_overlaps(index: &Index<'_>) -> Checked {
    let mut checked = Checked::new("no overlap on a connection");
    for (guest, entries) in &index.patches {
        let mut open: Vec<&Entry> = Vec::new();
        for entry in entries {
            open.retain(|earlier| end(earlier).is_none_or(|end| end > entry.received_at));
            let other = open.iter().find(|earlier| index.owner(earlier) != index.owner(entry));
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

/// The command of a PATCH that took effect. That there is one is another check's.
fn command<'a>(history: &'a History, index: &Index<'_>, entry: &Entry) -> Option<&'a CommandSeen> {
    let entries = index.patches.get(&entry.guest?)?;
    let own = entries.iter().find(|own| own.seq == entry.seq)?;
    match index.owner(own) {
        Owner::Key(key) => history.commands.get(key),
        Owner::Trace(_) => None,
    }
}

/// An older command never overwrites a newer one.
#[must_use]
pub fn nothing_older_follows(history: &History, index: &Index<'_>) -> Checked {
    let mut checked = Checked::new("nothing older follows");
    for guest in index.patches.keys() {
        let mut newest: Option<&CommandSeen> = None;
        for entry in index.applied(*guest) {
            let Some(command) = command(history, index, entry) else { continue };
            let sound = newest.is_none_or(|newest| newest.version() <= command.version());
            checked.expect(sound, key(&command.key), || {
                let newest = newest.map(|newest| (&newest.key, newest.version()));
                format!("PATCH {} of {:?} came after {newest:?}", entry.seq, command.version())
            });
            if sound {
                newest = Some(command);
            }
        }
    }
    checked
}

/// A connection shows in the end what its newest applied command asked for.
#[must_use]
pub fn the_newest_stays(history: &History, index: &Index<'_>) -> Checked {
    let mut checked = Checked::new("the newest stays");
    for guest in index.patches.keys() {
        let applied = index.applied(*guest);
        let commands = applied.iter().filter_map(|entry| command(history, index, entry));
        let Some(newest) = commands.max_by_key(|command| command.version()) else { continue };
        let shown = history.upstream.get(guest);
        checked.expect(
            shown == Some(&newest.archived),
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
pub fn sequences_are_gapless(index: &Index<'_>) -> Checked {
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
            let own = applied.iter().filter(|entry| index.owner(entry) == Owner::Key(&event.key));
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
