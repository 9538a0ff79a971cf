//! The promises, checked on what was seen. Each check yields what it finds broken.

use std::collections::{BTreeMap, BTreeSet};

use guest_connection_adapter::domain::message::EventKind;
use guest_connection_adapter::domain::record::State;
use uuid::Uuid;

use crate::history::{Entry, History, Kept};

type Check = fn(&History) -> Vec<String>;

/// Every promise by its name.
pub const CHECKS: &[(&str, Check)] = &[
    ("everything comes to rest and is final", finality),
    ("what was promised is kept", durability),
    ("one event for each applied command", one_event),
    ("no archived or unarchived event without an effect", events_have_effects),
    ("no two PATCHes of a connection at once", no_overlap),
    ("what has ended is not sent again", no_repeat),
    ("no older value after a newer one", order),
    ("the newest applied value stays", final_value),
    ("sequences have no gap and follow the effects", sequences),
    ("what failed for good is told", letters),
    ("answers agree with what is kept", answers),
    ("the books balance", books),
];

/// All that is broken, each with the name of its promise.
pub fn broken(history: &History) -> Vec<String> {
    let all = CHECKS
        .iter()
        .flat_map(|(name, check)| check(history).into_iter().map(move |fault| format!("{name}: {fault}")));
    all.collect()
}

fn finality(history: &History) -> Vec<String> {
    let open = history.kept.iter().filter(|kept| !kept.state.is_final());
    let open = open.map(|kept| format!("command {} is {}", kept.command, kept.state.as_str()));
    let suspect = Some(history.books.suspect).filter(|count| *count > 0);
    let suspect = suspect.map(|count| format!("{count} connections are suspect"));
    let pending = Some(history.books.outbox_pending).filter(|count| *count > 0);
    let pending = pending.map(|count| format!("{count} messages were not confirmed"));
    open.chain(suspect).chain(pending).chain(history.unrest.clone()).collect()
}

fn durability(history: &History) -> Vec<String> {
    let mut faults = Vec::new();
    for entry in &history.entries {
        match entry {
            Entry::Acked { command, kept: false } => {
                faults.push(format!("the message of {command} was acknowledged before it was kept"));
            }
            Entry::Answered { command, .. } | Entry::Promised { command } | Entry::Sent { command, .. }
                if history.kept(*command).is_none() =>
            {
                faults.push(format!("command {command} is not known"));
            }
            _ => {}
        }
    }
    faults
}

fn one_event(history: &History) -> Vec<String> {
    let mut faults = Vec::new();
    for kept in &history.kept {
        let events: BTreeSet<_> = history.events().filter(|event| event.command == kept.command).collect();
        let applied = history.took_effect(kept.command);
        if applied && events.len() != 1 || events.len() > 1 {
            faults.push(format!("command {}, applied: {applied}, has {} events", kept.command, events.len()));
        }
        let expected = match (kept.state, kept.archived) {
            (State::Succeeded, true) => EventKind::Archived,
            (State::Succeeded, false) => EventKind::Unarchived,
            _ => EventKind::Indeterminate,
        };
        for event in events.iter().filter(|event| event.kind != expected.as_str()) {
            faults.push(format!(
                "command {} is {:?} and has an event {}",
                kept.command, kept.state, event.kind
            ));
        }
        if let (Some(id), Some(event)) = (kept.event, events.first())
            && id != event.id
        {
            faults.push(format!("the event of command {} is known by another id", kept.command));
        }
    }
    faults
}

fn events_have_effects(history: &History) -> Vec<String> {
    let mut faults = Vec::new();
    let mut patches = BTreeMap::new();
    let mut applied = BTreeSet::new();
    for entry in &history.entries {
        match entry {
            Entry::Sent { patch, command, .. } => drop(patches.insert(*patch, *command)),
            Entry::Applied { patch } => drop(applied.insert(patches[patch])),
            Entry::Event { command, kind: EventKind::Archived | EventKind::Unarchived, .. }
                if !applied.contains(command) =>
            {
                faults.push(format!("an event of command {command}, of which no PATCH was applied"));
            }
            _ => {}
        }
    }
    faults
}

fn no_overlap(history: &History) -> Vec<String> {
    let mut faults = Vec::new();
    let mut open: BTreeMap<usize, (u128, u128)> = BTreeMap::new();
    for entry in &history.entries {
        match entry {
            Entry::Sent { patch, command, guest, .. } => {
                let others = open.values().filter(|(other, at)| at == guest && other != command);
                faults.extend(others.map(|(other, _)| format!("{command} while {other} was under way")));
                open.insert(*patch, (*command, *guest));
            }
            Entry::Over { patch } => drop(open.remove(patch)),
            _ => {}
        }
    }
    faults
}

/// A key that failed may be sent again; it has not ended. Of what has ended, the newest is sent again to heal: once a
/// late result was refused.
fn no_repeat(history: &History) -> Vec<String> {
    let mut faults = Vec::new();
    let mut ended = BTreeSet::new();
    let mut doubtful = false;
    for entry in &history.entries {
        match entry {
            Entry::Stale => doubtful = true,
            Entry::Ended { command, state } if state.is_replayed() => drop(ended.insert(*command)),
            Entry::Sent { patch, command, .. }
                if ended.contains(command) && !doubtful && !history.is_overdue(*patch) =>
            {
                faults.push(format!("command {command} was sent after its end"));
            }
            _ => {}
        }
    }
    faults
}

fn order(history: &History) -> Vec<String> {
    let mut faults = Vec::new();
    let mut newest: BTreeMap<u128, &Kept> = BTreeMap::new();
    for (patch, kept) in history.effects() {
        if history.is_overdue(patch) {
            continue;
        }
        let before = newest.entry(kept.guest).or_insert(kept);
        if before.version > kept.version {
            faults.push(format!("{} took effect after {}, which is newer", kept.command, before.command));
        } else {
            *before = kept;
        }
    }
    faults
}

fn final_value(history: &History) -> Vec<String> {
    let mut newest: BTreeMap<u128, &Kept> = BTreeMap::new();
    for (_, kept) in history.effects() {
        let best = newest.entry(kept.guest).or_insert(kept);
        if best.version < kept.version {
            *best = kept;
        }
    }
    let shown: BTreeMap<_, _> = history.values.iter().copied().collect();
    let wrong = newest.values().filter(|kept| shown.get(&kept.guest) != Some(&kept.archived));
    wrong.map(|kept| format!("not that of command {}: {shown:?}", kept.command)).collect()
}

fn sequences(history: &History) -> Vec<String> {
    let mut faults = Vec::new();
    let mut numbers: BTreeMap<u128, Vec<(u64, u128)>> = BTreeMap::new();
    for event in history.events() {
        let seen = numbers.entry(event.guest).or_default();
        if seen.contains(&(event.sequence, event.command)) {
            continue;
        }
        if event.sequence != seen.len() as u64 + 1 {
            faults.push(format!("{} comes as number {} of its connection", event.sequence, seen.len() + 1));
        }
        seen.push((event.sequence, event.command));
    }
    for seen in numbers.values() {
        let effects = seen.iter().filter_map(|(_, command)| history.first_timely_effect(*command));
        let effects: Vec<_> = effects.collect();
        if !effects.is_sorted() {
            faults.push(format!("the events {seen:?} are not in the order of their effects"));
        }
    }
    faults
}

/// A command that a message asked for and that failed for good has one dead letter; one that succeeded has none.
fn letters(history: &History) -> Vec<String> {
    let mut faults = Vec::new();
    for kept in &history.kept {
        let letters = history.entries.iter().filter_map(|entry| match entry {
            Entry::Letter { id, command } if *command == kept.command => Some(*id),
            _ => None,
        });
        let ids: BTreeSet<Uuid> = letters.collect();
        let (least, most) = match kept.state {
            State::Rejected | State::Abandoned if kept.by_message => (1, 1),
            State::Rejected | State::Abandoned => (0, 1),
            // A key that failed by a message's doing was told, and may have been tried again since.
            State::Failed | State::Succeeded if kept.message_seen => (0, 1),
            _ => (0, 0),
        };
        if ids.len() < least || ids.len() > most {
            faults.push(format!(
                "command {} is {:?} and has {} dead letters",
                kept.command,
                kept.state,
                ids.len()
            ));
        }
    }
    faults
}

fn answers(history: &History) -> Vec<String> {
    let mut faults = Vec::new();
    for entry in &history.entries {
        let (Entry::Answered { command, state } | Entry::Reply { command, state, .. }) = entry else {
            continue;
        };
        // What failed may be tried again under the same key.
        if *state != State::Failed && history.kept(*command).is_some_and(|kept| kept.state != *state) {
            faults.push(format!("command {command} was told to be {state:?}"));
        }
    }
    faults
}

fn books(history: &History) -> Vec<String> {
    let books = &history.books;
    let balanced = books.registered == books.by_state.iter().sum::<u64>()
        && books.registered == history.kept.len() as u64
        && books.outbox_written == books.outbox_confirmed + books.outbox_pending;
    if balanced { Vec::new() } else { vec![format!("{books:?}, {} commands", history.kept.len())] }
}

/// An event as it was received, once or again.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Received {
    id: Uuid,
    command: u128,
    guest: u128,
    kind: &'static str,
    sequence: u64,
}

impl History {
    fn kept(&self, command: u128) -> Option<&Kept> {
        self.kept.iter().find(|kept| kept.command == command)
    }

    fn events(&self) -> impl Iterator<Item = Received> {
        self.entries.iter().filter_map(|entry| match *entry {
            Entry::Event { id, command, guest, kind, sequence } => {
                Some(Received { id, command, guest, kind: kind.as_str(), sequence })
            }
            _ => None,
        })
    }

    /// Whose PATCHes took effect, in order.
    fn effects(&self) -> impl Iterator<Item = (usize, &Kept)> {
        let command_of = |patch: usize| {
            self.entries.iter().find_map(|entry| match entry {
                Entry::Sent { patch: sent, command, .. } if *sent == patch => Some(*command),
                _ => None,
            })
        };
        self.entries.iter().filter_map(move |entry| match entry {
            Entry::Applied { patch } => Some((*patch, self.kept(command_of(*patch)?)?)),
            _ => None,
        })
    }

    fn is_overdue(&self, patch: usize) -> bool {
        self.entries.contains(&Entry::Overdue { patch })
    }

    fn took_effect(&self, command: u128) -> bool {
        self.effects().any(|(_, kept)| kept.command == command)
    }

    /// When the command took effect first, in the order of effects, but for what could not be stopped.
    fn first_timely_effect(&self, command: u128) -> Option<usize> {
        self.effects().position(|(patch, kept)| kept.command == command && !self.is_overdue(patch))
    }
}
