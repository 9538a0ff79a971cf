//! A history by what is asked of it.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use simulator::{Endpoint, Entry};
use uuid::Uuid;

use crate::history::{CommandSeen, EventSeen, History, LetterSeen, ReplySeen, Time};

/// Whose PATCH it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Owner<'a> {
    /// The command under this key.
    Key(&'a str),
    /// A command of which nothing but its trace is known: it came by the queue, where it gets a trace of its own, and
    /// nothing tells of that but its event or dead letter. It has neither, so it should have had no effect.
    Trace(&'a str),
}

/// A history by what is asked of it.
pub struct Index<'a> {
    keys_by_trace: HashMap<&'a str, &'a str>,
    /// PATCHes by guest, in order of arrival.
    pub patches: BTreeMap<Uuid, Vec<&'a Entry>>,
    /// PATCHes by the organisation on whose behalf they were made, in order of arrival.
    pub patches_by_requester: HashMap<Uuid, Vec<&'a Entry>>,
    /// All PATCHes, in order of arrival.
    pub sent: Vec<&'a Entry>,
    /// Events by guest.
    pub events_by_guest: BTreeMap<Uuid, Vec<&'a EventSeen>>,
    /// Events by key.
    pub events_by_key: HashMap<&'a str, Vec<&'a EventSeen>>,
    /// Dead letters by the sending that they copy.
    pub letters_by_sending: HashMap<usize, Vec<&'a LetterSeen>>,
    /// Dead letters by the command that they tell of.
    pub letters_by_command: HashMap<&'a str, Vec<&'a LetterSeen>>,
    /// Replies by the sending that asked for them.
    pub replies: HashMap<usize, Vec<&'a ReplySeen>>,
    /// Commands by the adapter's name.
    pub commands_by_id: HashMap<&'a str, &'a CommandSeen>,
}

impl<'a> Index<'a> {
    /// The index of `history`.
    #[must_use]
    pub fn new(history: &'a History) -> Self {
        let commands_by_id: HashMap<_, _> =
            history.commands.values().map(|command| (command.id.as_str(), command)).collect();
        let mut index = Self {
            keys_by_trace: HashMap::new(),
            patches: BTreeMap::new(),
            patches_by_requester: HashMap::new(),
            sent: Vec::new(),
            events_by_guest: BTreeMap::new(),
            events_by_key: HashMap::new(),
            letters_by_sending: HashMap::new(),
            letters_by_command: HashMap::new(),
            replies: HashMap::new(),
            commands_by_id,
        };
        for wish in history.wishes.iter().filter(|wish| !wish.key.is_empty()) {
            index.keys_by_trace.insert(&wish.trace, &wish.key);
        }
        for event in &history.events {
            index.keys_by_trace.insert(&event.trace, &event.key);
            index.events_by_guest.entry(event.guest).or_default().push(event);
            index.events_by_key.entry(&event.key).or_default().push(event);
        }
        for letter in &history.letters {
            if let Some(sending) = letter.sending {
                index.letters_by_sending.entry(sending).or_default().push(letter);
            }
            let Some((id, _)) = &letter.command else { continue };
            index.letters_by_command.entry(id).or_default().push(letter);
            if let Some(command) = index.commands_by_id.get(id.as_str()) {
                index.keys_by_trace.insert(&letter.trace, &command.key);
            }
        }
        for reply in &history.replies {
            index.replies.entry(reply.sending).or_default().push(reply);
        }
        for entry in history.journal.iter().filter(|entry| entry.endpoint == Endpoint::Patch) {
            index.sent.push(entry);
            if let Some(guest) = entry.guest {
                index.patches.entry(guest).or_default().push(entry);
            }
            if let Some(requester) = entry.requester {
                index.patches_by_requester.entry(requester).or_default().push(entry);
            }
        }
        index
    }

    /// Whose PATCH it is.
    #[must_use]
    pub fn owner(&self, entry: &'a Entry) -> Owner<'a> {
        let trace = trace(entry);
        self.keys_by_trace.get(trace).map_or(Owner::Trace(trace), |key| Owner::Key(key))
    }

    /// The ids of the events of a key.
    #[must_use]
    pub fn event_ids(&self, key: &str) -> BTreeSet<&'a str> {
        self.events_by_key.get(key).into_iter().flatten().map(|event| event.id.as_str()).collect()
    }

    /// PATCHes that took effect on a connection, in the order in which they did.
    #[must_use]
    pub fn applied(&self, guest: Uuid) -> Vec<&'a Entry> {
        let entries = self.patches.get(&guest).into_iter().flatten().copied();
        let mut applied: Vec<_> = entries.filter(|entry| entry.applied).collect();
        applied.sort_by_key(|entry| entry.applied_seq);
        applied
    }
}

/// The trace in which a PATCH was sent.
fn trace(entry: &Entry) -> &str {
    entry.traceparent.as_deref().and_then(|text| text.split('-').nth(1)).unwrap_or("none")
}

/// When a PATCH could have no more effect: never while it is outstanding.
#[must_use]
pub fn end(entry: &Entry) -> Option<Time> {
    // From the status line of a success on its effect is certain, whatever its body does.
    let succeeded = entry.status.is_some_and(|status| (200..300).contains(&status));
    let ended = if succeeded { entry.status_at } else { entry.ended_at };
    ended.map(|ended| entry.applied_at.map_or(ended, |applied| applied.max(ended)))
}
