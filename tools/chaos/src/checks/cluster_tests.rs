//! What the checks excuse of frozen instances, and what they do not.

use simulator::Entry;

use super::story::{FIRST, at, sound};
use super::tests::{broken, command, found};
use crate::history::{Door, FaultSeen, History, State, What};
use crate::instance;

/// The first instance was frozen from 105 ms to 6 s.
fn freeze(history: &mut History) {
    history.faults.push(FaultSeen {
        kind: "adapter frozen".into(),
        text: String::new(),
        from: at(105),
        until: at(6_000),
        organization: None,
        instance: Some(0),
        is_freeze: true,
    });
}

/// A PATCH like that of the older command, sent at `ms` by `instance`, and applied after all others.
fn late(history: &mut History, ms: i64, instance: usize) {
    let older = history.journal[0].clone();
    history.journal.push(Entry {
        seq: 100,
        received_at: at(ms),
        status_at: Some(at(ms + 10)),
        answered_at: Some(at(ms + 10)),
        ended_at: Some(at(ms + 10)),
        applied_at: Some(at(ms)),
        applied_seq: Some(100),
        peer: Some(instance::source(instance).into()),
        ..older
    });
    history.upstream.insert(FIRST, true);
}

/// The newest value is sent again, and answered with `status`.
fn heal(history: &mut History, ms: i64, status: u16) {
    let newest = history.journal[1].clone();
    let is_applied = status == 200;
    history.journal.push(Entry {
        seq: 101,
        received_at: at(ms),
        status_at: Some(at(ms + 10)),
        answered_at: Some(at(ms + 10)),
        ended_at: Some(at(ms + 10)),
        status: Some(status),
        applied: is_applied,
        applied_at: is_applied.then_some(at(ms)),
        applied_seq: is_applied.then_some(101),
        peer: Some(instance::source(1).into()),
        ..newest
    });
    if is_applied {
        history.upstream.insert(FIRST, false);
    }
}

#[track_caller]
fn passes(breaks: impl FnOnce(&mut History)) {
    let mut history = sound();
    breaks(&mut history);
    let broken = broken(&history);
    assert!(broken.is_empty(), "{broken:?}");
}

#[test]
fn what_comes_late_of_a_frozen_instance_is_excused_once_it_is_healed() {
    passes(|history| {
        freeze(history);
        late(history, 6_100, 0);
        heal(history, 8_200, 200);
    });
    let check = "the newest stays";
    found(check, |history| {
        freeze(history);
        late(history, 6_100, 0);
    });
    // Told a passing trouble, one heals again.
    found(check, |history| {
        freeze(history);
        late(history, 6_100, 0);
        heal(history, 8_200, 503);
    });
}

#[test]
fn what_is_not_healed_by_the_rules_is_left_alone() {
    passes(|history| {
        freeze(history);
        late(history, 6_100, 0);
        heal(history, 8_200, 404);
    });
    passes(|history| {
        freeze(history);
        late(history, 6_100, 0);
        // Nobody knows whether the newest was applied.
        command(history, "unarchive").state = State::Rejected;
        command(history, "unarchive").maybe_applied = true;
        history.events[1].kind = "indeterminate".into();
        let letter = crate::history::LetterSeen {
            command: Some(("id-unarchive".into(), State::Rejected)),
            ..history.letters[1].clone()
        };
        history.letters.push(letter);
        history.journal[1].status = Some(404);
        history.replies[0].status = "rejected".into();
    });
    // A refusal before the late one says nothing of a heal.
    found("the newest stays", |history| {
        freeze(history);
        let refused = history.journal[1].clone();
        history.journal.insert(1, Entry { status: Some(404), applied: false, applied_seq: None, ..refused });
        late(history, 6_100, 0);
    });
}

#[test]
fn nothing_older_is_excused_of_others_or_at_other_times() {
    let check = "nothing older follows";
    let unfrozen = |history: &mut History| {
        late(history, 6_100, 0);
        heal(history, 8_200, 200);
    };
    found(check, unfrozen);
    for (ms, instance) in [(6_100, 1), (2_000, 0), (7_600, 0)] {
        found(check, |history| {
            freeze(history);
            late(history, ms, instance);
            heal(history, 9_800, 200);
        });
    }
    // What was accepted while it was frozen is another claim.
    found(check, |history| {
        freeze(history);
        command(history, "archive").accept_time = at(510);
        late(history, 6_100, 0);
        heal(history, 8_200, 200);
    });
}

#[test]
fn an_answer_that_a_frozen_instance_does_not_read_holds_nothing_up() {
    let hangs = |history: &mut History, until: i64, next: i64| {
        history.journal[0].status = None;
        history.journal[0].ended_at = Some(at(until));
        let entry = &mut history.journal[1];
        entry.peer = Some(instance::source(1).into());
        (entry.received_at, entry.status_at, entry.ended_at, entry.applied_at) =
            (at(next), Some(at(next + 10)), Some(at(next + 10)), Some(at(next)));
    };
    passes(|history| {
        freeze(history);
        hangs(history, 6_020, 3_000);
    });
    let check = "no overlap on a connection";
    found(check, |history| hangs(history, 6_020, 3_000));
    found(check, |history| {
        freeze(history);
        hangs(history, 6_020, 2_000);
    });
    found(check, |history| {
        freeze(history);
        hangs(history, 6_020, 3_000);
        history.journal[0].applied_at = Some(at(3_100));
    });
}

#[test]
fn an_event_that_comes_before_its_predecessor() {
    let check = "first deliveries are in order";
    found(check, |history| history.events.swap(0, 1));
    // A repeat may.
    passes(|history| {
        let again = history.events[0].clone();
        history.events.push(again);
    });
}

#[test]
fn books_that_do_not_balance() {
    let check = "the database balances";
    let change = |change: &dyn Fn(&mut crate::history::BooksSeen)| {
        found(check, |history| change(history.books.as_mut().unwrap()));
    };
    change(&|books| books.registered += 1);
    change(&|books| (books.registered, books.commands) = (1, 1));
    change(&|books| books.unfinished = 1);
    change(&|books| books.outbox_written += 1);
    change(&|books| (books.outbox_written, books.outbox_pending) = (10, 1));
    change(&|books| books.suspect = 1);
    found(check, |history| history.books = None);
    found("everybody has left", |history| history.books.as_mut().unwrap().instances = 1);
    passes(|history| {
        history.ended_well = false;
        history.books.as_mut().unwrap().instances = 1;
    });
    let alone = History { instances: 1, books: None, ..sound() };
    assert!(broken(&alone).is_empty());
}

#[test]
fn a_call_that_outlasts_the_lease_may_have_a_dead_letter_beside_its_refusal() {
    let check = "only what was refused for good is a dead letter";
    let change = |history: &mut History, waited: i64| {
        history.journal[2].status = Some(503);
        for (_, state) in history.letters.iter_mut().filter_map(|letter| letter.command.as_mut()) {
            *state = State::Failed;
        }
        let wish = history.wishes.iter().position(|wish| wish.key == "refused").unwrap();
        let mut sendings = history.sendings.iter_mut();
        let sending = sendings.find(|sending| sending.what == What::Wish(wish)).unwrap();
        (sending.door, sending.at, sending.answered_at) = (Door::Grpc, at(1_000), Some(at(1_000 + waited)));
    };
    found(check, |history| change(history, 2_400));
    found(check, |history| {
        history.instances = 1;
        change(history, 2_600);
    });
    let mut history = sound();
    change(&mut history, 2_600);
    assert!(!broken(&history).contains(&check));
}
