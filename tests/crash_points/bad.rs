//! The checks themselves: a good history passes, and for each promise there is one that breaks it.

use chrono::{DateTime, Utc};
use guest_connection_adapter::domain::command::CommandId;
use guest_connection_adapter::domain::connection::Version;
use guest_connection_adapter::domain::message::EventKind;
use guest_connection_adapter::domain::record::State;
use guest_connection_adapter::service::ports::Books;
use uuid::Uuid;

use crate::checker::{CHECKS, broken};
use crate::history::{Entry, History, Kept};

const GUEST: u128 = 7;

fn kept(command: u128, archived: bool, state: State) -> Kept {
    let effective_time = DateTime::<Utc>::from_timestamp_micros(i64::try_from(command).unwrap()).unwrap();
    let version = Version { effective_time, command_id: CommandId(Uuid::from_u128(command)) };
    let event = (state == State::Succeeded).then(|| Uuid::from_u128(100 + command));
    Kept { command, guest: GUEST, archived, version, state, by_message: true, message_seen: true, event }
}

fn event(command: u128, kind: EventKind, sequence: u64) -> Entry {
    Entry::Event { id: Uuid::from_u128(100 + command), command, guest: GUEST, kind, sequence }
}

fn sent(patch: usize, command: u128, archived: bool) -> Entry {
    Entry::Sent { patch, command, guest: GUEST, archived }
}

/// Archived by the first, unarchived by the second, and a third that was rejected.
fn good() -> History {
    let entries = vec![
        sent(0, 1, true),
        Entry::Applied { patch: 0 },
        Entry::Over { patch: 0 },
        Entry::Ended { command: 1, state: State::Succeeded },
        Entry::Acked { command: 1, kept: true },
        sent(1, 2, false),
        Entry::Applied { patch: 1 },
        Entry::Over { patch: 1 },
        Entry::Ended { command: 2, state: State::Succeeded },
        Entry::Answered { command: 2, state: State::Succeeded },
        event(1, EventKind::Archived, 1),
        event(1, EventKind::Archived, 1),
        event(2, EventKind::Unarchived, 2),
        sent(2, 3, true),
        Entry::Over { patch: 2 },
        Entry::Ended { command: 3, state: State::Rejected },
        Entry::Acked { command: 3, kept: true },
        Entry::Letter { id: Uuid::from_u128(203), command: 3 },
    ];
    let kept = vec![
        kept(1, true, State::Succeeded),
        kept(2, false, State::Succeeded),
        kept(3, true, State::Rejected),
    ];
    let books = Books {
        registered: 3,
        by_state: [0, 0, 0, 2, 1, 0, 0, 0],
        outbox_written: 3,
        outbox_confirmed: 3,
        ..Books::default()
    };
    History { entries, kept, values: vec![(GUEST, false)], books, unrest: None }
}

fn position(history: &History, entry: &Entry) -> usize {
    history.entries.iter().position(|other| other == entry).unwrap()
}

fn remove(history: &mut History, entry: &Entry) {
    history.entries.retain(|other| other != entry);
}

fn insert_after(history: &mut History, entry: &Entry, new: Entry) {
    let at = position(history, entry);
    history.entries.insert(at + 1, new);
}

type Spoil = fn(&mut History);

/// Ways to spoil a good history, each with a word of the promise that it breaks.
const SPOILT: &[(&str, Spoil)] = &[
    ("comes to rest", |h| h.unrest = Some("no rest".to_owned())),
    ("comes to rest", |h| h.kept[0].state = State::Deferred),
    ("comes to rest", |h| h.books.suspect = 1),
    ("promised is kept", |h| h.kept.truncate(1)),
    ("promised is kept", |h| h.entries.push(Entry::Acked { command: 1, kept: false })),
    ("promised is kept", |h| h.entries.push(Entry::Promised { command: 9 })),
    ("one event", |h| remove(h, &event(2, EventKind::Unarchived, 2))),
    ("one event", |h| {
        let id = Uuid::from_u128(999);
        h.entries.push(Entry::Event {
            id,
            command: 2,
            guest: GUEST,
            kind: EventKind::Unarchived,
            sequence: 3,
        });
    }),
    ("one event", |h| h.kept[0].event = Some(Uuid::from_u128(999))),
    ("one event", |h| {
        remove(h, &event(2, EventKind::Unarchived, 2));
        h.entries.push(event(2, EventKind::Indeterminate, 2));
    }),
    ("without an effect", |h| remove(h, &Entry::Applied { patch: 1 })),
    ("without an effect", |h| h.entries.insert(0, event(1, EventKind::Archived, 1))),
    ("at once", |h| {
        remove(h, &Entry::Over { patch: 0 });
        insert_after(h, &Entry::Applied { patch: 1 }, Entry::Over { patch: 0 });
    }),
    ("sent again", |h| h.entries.extend([sent(3, 1, true), Entry::Over { patch: 3 }])),
    ("older value", |h| {
        h.entries.extend([sent(3, 1, true), Entry::Applied { patch: 3 }, Entry::Over { patch: 3 }]);
    }),
    ("newest applied", |h| h.values = vec![(GUEST, true)]),
    ("newest applied", |h| h.values.clear()),
    ("no gap", |h| {
        remove(h, &event(2, EventKind::Unarchived, 2));
        h.entries.push(event(2, EventKind::Unarchived, 3));
    }),
    ("no gap", |h| {
        h.entries.retain(|entry| !matches!(entry, Entry::Event { .. }));
        h.entries.extend([event(2, EventKind::Unarchived, 1), event(1, EventKind::Archived, 2)]);
    }),
    ("failed for good", |h| h.entries.retain(|entry| !matches!(entry, Entry::Letter { .. }))),
    ("failed for good", |h| h.entries.push(Entry::Letter { id: Uuid::from_u128(999), command: 3 })),
    ("answers agree", |h| h.entries.push(Entry::Answered { command: 1, state: State::Rejected })),
    ("answers agree", |h| {
        let id = Uuid::from_u128(300);
        h.entries.push(Entry::Reply { id, command: 3, state: State::Succeeded });
    }),
    ("books balance", |h| h.books.registered += 1),
    ("books balance", |h| h.books.outbox_pending += 1),
];

#[test]
fn a_good_history_passes() {
    assert_eq!(broken(&good()), [""; 0]);
}

#[test]
fn a_bad_history_fails_for_what_is_bad() {
    for (number, (promise, spoil)) in SPOILT.iter().enumerate() {
        let mut history = good();
        spoil(&mut history);
        let found = broken(&history);
        assert!(found.iter().any(|fault| fault.contains(promise)), "{number}, {promise}: {found:?}");
    }
    for (name, _) in CHECKS {
        assert!(SPOILT.iter().any(|(promise, _)| name.contains(promise)), "nothing breaks: {name}");
    }
}
