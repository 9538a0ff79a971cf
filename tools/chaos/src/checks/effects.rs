//! PATCHes and events belong together.

use std::collections::HashMap;

use simulator::Entry;

use super::index::Owner;
use super::{About, Checked, Index, key};
use crate::history::{History, State};

/// Every PATCH that took effect belongs to a command, and that has exactly one event: a certain one if it succeeded, an
/// indeterminate one if its fate was never learnt.
#[must_use]
pub fn patches_have_their_event(history: &History, index: &Index<'_>) -> Checked {
    let mut checked = Checked::new("applied PATCHes have their event");
    for entry in index.patches.values().flatten().filter(|entry| entry.applied) {
        let fault = fault(history, index, entry);
        let about = || match index.owner(entry) {
            Owner::Key(key) => About::Key(key.to_owned()),
            Owner::Trace(_) => entry.guest.map_or(About::Run, About::Connection),
        };
        let text = || format!("PATCH {}: {}", entry.seq, fault.as_deref().unwrap_or_default());
        checked.expect(fault.is_none(), about, text);
    }
    checked
}

fn fault(history: &History, index: &Index<'_>, entry: &Entry) -> Option<String> {
    let owner = index.owner(entry);
    let Owner::Key(key) = owner else {
        return Some(format!("it belongs to no call, no event and no dead letter ({owner:?})"));
    };
    let Some(command) = history.commands.get(key) else {
        return Some(format!("the command of {key} is not known"));
    };
    if entry.guest != Some(command.guest) || entry.archived != Some(command.archived) {
        return Some(format!(
            "it sets {:?} on {:?}, not what {} asks",
            entry.archived, entry.guest, command.id
        ));
    }
    let ids = index.event_ids(key);
    match (&command.event, command.state) {
        (None, state) => Some(format!("its command is {state} and has no event")),
        (Some((id, ..)), _) if !ids.iter().eq([&id.as_str()]) => {
            Some(format!("the event {id} is expected, received were {ids:?}"))
        }
        (Some(_), State::Succeeded) => None,
        (Some(_), State::Rejected | State::Abandoned) if command.maybe_applied => None,
        (Some(_), state) => Some(format!("its command has an event and is {state}")),
    }
}

/// Every certain event has a PATCH of its command that set this value on this connection.
#[must_use]
pub fn events_have_their_patch(history: &History, index: &Index<'_>) -> Checked {
    let mut checked = Checked::new("events have their PATCH");
    for event in &history.events {
        let value = match event.kind.as_str() {
            "archived" => true,
            "unarchived" => false,
            _ => continue,
        };
        let mut patches = index.patches.get(&event.guest).into_iter().flatten();
        let sound = patches.any(|entry| {
            let own = index.owner(entry) == Owner::Key(&event.key);
            own && entry.applied && entry.archived == Some(value)
        });
        checked.expect(sound, key(&event.key), || {
            format!("event {} ({}) has no PATCH that took effect", event.id, event.kind)
        });
    }
    checked
}

/// All deliveries of one event are equal.
#[must_use]
pub fn deliveries_are_equal(history: &History) -> Checked {
    let mut checked = Checked::new("deliveries of an event are equal");
    let mut bodies = HashMap::new();
    for event in &history.events {
        let first = *bodies.entry(&event.id).or_insert(&event.body);
        checked.expect(first == &event.body, key(&event.key), || {
            format!("event {} was delivered as {first} and as {}", event.id, event.body)
        });
    }
    checked
}

/// The upstream saw nothing outside its contract, but for requests that the network cut or held until their token had
/// expired.
#[must_use]
pub fn the_contract_is_kept(history: &History) -> Checked {
    let mut checked = Checked::new("requests keep the upstream's contract");
    for entry in &history.journal {
        let excused =
            |text: &&String| text.contains("was cut") || text.ends_with("authorization: is expired");
        let bad: Vec<_> = entry.violations.iter().filter(|text| !excused(text)).collect();
        checked.expect(
            bad.is_empty(),
            || entry.guest.map_or(About::Run, About::Connection),
            || format!("request {}: {bad:?}", entry.seq),
        );
    }
    checked
}
