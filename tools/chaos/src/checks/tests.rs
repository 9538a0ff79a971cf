//! Every check is shown to pass a sound run and to find each way in which its promise can be broken.

use std::collections::BTreeSet;

use uuid::Uuid;

use super::all;
use super::story::{FIRST, OTHER, REQUESTER, SECOND, at, sound};
use crate::history::{Answer, Door, FaultSeen, History, LetterSeen, ReplySeen, Sending, State, What};

/// The checks that find something.
pub fn broken(history: &History) -> BTreeSet<&'static str> {
    let checked = all(history);
    checked.iter().filter(|checked| !checked.findings.is_empty()).map(|checked| checked.check).collect()
}

/// Breaks a sound run, and asserts that the check finds it. Others may as well.
#[track_caller]
pub fn found(check: &str, breaks: impl FnOnce(&mut History)) {
    let mut history = sound();
    breaks(&mut history);
    let broken = broken(&history);
    assert!(broken.contains(check), "{check} finds nothing, but only: {broken:?}");
}

pub fn command<'a>(history: &'a mut History, key: &str) -> &'a mut crate::history::CommandSeen {
    history.commands.get_mut(key).unwrap()
}

#[test]
fn a_sound_run_is_sound_and_is_looked_at() {
    let checked = all(&sound());
    for checked in &checked {
        assert!(checked.findings.is_empty(), "{:?}", checked.findings);
        assert!(checked.count > 0, "{} has looked at nothing", checked.check);
    }
}

#[test]
fn a_command_that_is_lost_or_not_final() {
    let check = "accepted commands are final";
    found(check, |history| command(history, "archive").state = State::Deferred);
    found(check, |history| drop(history.commands.remove("archive")));
    found(check, |history| {
        history.sendings[0].answer =
            Answer::Refused { reason: "IDEMPOTENCY_KEY_REUSED".into(), command_id: None, key: None };
        history.commands.remove("archive");
    });
}

#[test]
fn a_message_that_is_neither_a_command_nor_a_dead_letter() {
    let check = "messages are commands or dead letters";
    found(check, |history| drop(history.commands.remove("unarchive")));
    found(check, |history| history.letters.retain(|letter| letter.reason != "UNDECODABLE"));
    found(check, |history| history.letters.retain(|letter| letter.reason != "IDEMPOTENCY_KEY_REUSED"));
    found(check, |history| {
        let letter = history.letters.iter_mut().find(|letter| letter.reason == "UNDECODABLE");
        letter.unwrap().reason = "INVALID_FIELDS".into();
    });
    found(check, |history| {
        let copy = LetterSeen { sending: Some(1), ..history.letters[0].clone() };
        history.letters.push(copy);
    });
}

#[test]
fn an_answer_that_is_not_true() {
    let check = "answers are true";
    let refused = |reason: &str| Answer::Refused { reason: reason.into(), command_id: None, key: None };
    found(check, |history| command(history, "archive").id = "another".into());
    found(check, |history| command(history, "archive").state = State::Failed);
    found(check, |history| history.sendings[0].answer = refused("SUPERSEDED"));
    found(check, |history| history.sendings[0].answer = refused("IDEMPOTENCY_KEY_REUSED"));
    found(check, |history| history.sendings[0].answer = refused("UPSTREAM_NOT_FOUND"));
    found(check, |history| {
        let conflict = history.wishes.iter().rposition(|wish| wish.key == "archive").unwrap();
        let done = history.sendings[0].clone();
        history.sendings.push(Sending { what: What::Wish(conflict), ..done });
    });
    found(check, |history| {
        history.sendings.retain(|sending| sending.door == Door::Grpc);
        history.sendings[0].answer = refused("DEADLINE_TOO_SHORT");
    });
    // Refused at the gate, which keeps nothing of what it does not name.
    for reason in ["UPSTREAM_PAUSED", "REQUESTER_PAUSED"] {
        found(check, |history| {
            history.sendings.retain(|sending| sending.door == Door::Grpc);
            history.sendings[0].answer = refused(reason);
        });
    }
}

#[test]
fn a_command_in_another_place_than_asked_for() {
    let check = "places are as asked for";
    found(check, |history| command(history, "archive").effective_time = at(-10));
    found(check, |history| history.wishes[0].issued_ms = Some(-20));
    found(check, |history| history.wishes[0].issued_ms = Some(50));
    found(check, |history| history.wishes[1].archived = true);
    let mut history = sound();
    history.wishes[0].issued_ms = Some(3_600_000);
    history.wishes[1].issued_ms = Some(140);
    assert!(broken(&history).is_empty());
}

#[test]
fn a_command_without_its_messages_or_with_wrong_ones() {
    let check = "commands have their messages";
    found(check, |history| drop(history.events.remove(0)));
    found(check, |history| command(history, "archive").event = None);
    found(check, |history| command(history, "archive").event.as_mut().unwrap().2 = false);
    found(check, |history| history.events[0].kind = "unarchived".into());
    found(check, |history| history.events[0].sequence = 7);
    found(check, |history| history.events[0].guest = SECOND);
    found(check, |history| history.events[2].kind = "archived".into());
    found(check, |history| command(history, "older").event = Some(("event".into(), 3, true)));
    found(check, |history| command(history, "unknown").maybe_applied = false);
    found(check, |history| history.letters.retain(|letter| letter.command.is_none()));
    found(check, |history| {
        let of_older = Some(("id-older".to_owned(), State::Rejected));
        let letter = LetterSeen { command: of_older, ..history.letters[1].clone() };
        history.letters.push(letter);
    });
}

#[test]
fn a_message_of_nothing() {
    let check = "messages have their command";
    found(check, |history| history.events[0].command_id = "nobody".into());
    found(check, |history| history.letters[0].sending = None);
    found(check, |history| history.letters[1].command = Some(("nobody".into(), State::Rejected)));
}

#[test]
fn a_reply_that_is_missing_untrue_or_unasked_for() {
    let check = "replies have come";
    found(check, |history| drop(history.replies.remove(0)));
    found(check, |history| history.replies[0].status = "rejected".into());
    found(check, |history| history.replies.last_mut().unwrap().status = "succeeded".into());
    found(check, |history| {
        let reply = ReplySeen { sending: 0, ..history.replies[0].clone() };
        history.replies.push(reply);
    });
}

#[test]
fn a_message_that_is_left() {
    found("the command queue is empty", |history| history.left_in_queue = 1);
}

#[test]
fn an_effect_without_its_one_event() {
    let check = "applied PATCHes have their event";
    found(check, |history| drop(history.events.remove(0)));
    found(check, |history| history.journal[0].traceparent = None);
    found(check, |history| drop(history.commands.remove("archive")));
    found(check, |history| history.journal[0].archived = Some(false));
    found(check, |history| command(history, "archive").event = None);
    found(check, |history| command(history, "archive").state = State::Failed);
    found(check, |history| command(history, "unknown").maybe_applied = false);
    found(check, |history| {
        let mut second = history.events[0].clone();
        second.id = "a-second-id".into();
        second.sequence = 3;
        history.events.push(second);
    });
}

#[test]
fn an_event_without_an_effect() {
    let check = "events have their PATCH";
    found(check, |history| history.journal[0].applied = false);
    found(check, |history| history.journal[0].archived = Some(false));
    found(check, |history| history.journal[0].guest = Some(SECOND));
    // The other command's PATCH of the same value on the same connection is not its own.
    found(check, |history| history.events[2].kind = "unarchived".into());
    found(check, |history| {
        let other = history.journal[1].traceparent.clone();
        history.journal[0].traceparent = other;
    });
}

#[test]
fn an_event_that_changes() {
    found("deliveries of an event are equal", |history| {
        let mut second = history.events[0].clone();
        second.body = r#"{"changed":true}"#.into();
        history.events.push(second);
    });
}

#[test]
fn an_overlap() {
    let check = "no overlap on a connection";
    found(check, |history| history.journal[1].received_at = at(110));
    found(check, |history| history.journal[0].applied_at = Some(at(160)));
    // What was never answered is outstanding until its connection is closed.
    found(check, |history| {
        history.journal[0].status = None;
        history.journal[0].ended_at = None;
    });
    found(check, |history| {
        history.journal[0].status = None;
        history.journal[0].ended_at = Some(at(155));
    });
    // The body of a success may take its time.
    let mut history = sound();
    history.journal[0].ended_at = Some(at(1_000));
    assert!(broken(&history).is_empty());
    // Repeats of one command may overlap.
    let mut history = sound();
    history.journal[4].received_at = at(310);
    assert!(broken(&history).is_empty());
}

#[test]
fn something_older_after_something_newer() {
    let check = "nothing older follows";
    found(check, |history| command(history, "unarchive").effective_time = at(5));
    found(check, |history| {
        // Ties go by the id, and "id-archive" is the lesser one.
        let time = command(history, "archive").effective_time;
        command(history, "unarchive").effective_time = time;
        history.journal[0].applied_seq = Some(9);
    });
}

#[test]
fn a_value_that_is_not_the_newest() {
    let check = "the newest stays";
    found(check, |history| history.upstream.extend([(FIRST, true)]));
    found(check, |history| history.upstream.retain(|guest, _| *guest != FIRST));
}

#[test]
fn sequences_with_a_gap_a_double_or_in_another_order() {
    let check = "sequences are gapless and in order";
    found(check, |history| history.events[1].sequence = 3);
    found(check, |history| history.events[1].sequence = 1);
    found(check, |history| history.events[0].sequence = 0);
    found(check, |history| {
        history.events[0].sequence = 2;
        history.events[1].sequence = 1;
    });
}

#[test]
fn a_request_outside_the_contract() {
    let check = "requests keep the upstream's contract";
    found(check, |history| history.journal[0].violations.push("query: the call has no query".into()));
    let mut history = sound();
    history.journal[0].violations.push("body: is too long or was cut".into());
    history.journal[1].violations.push("header.authorization: is expired".into());
    assert!(broken(&history).is_empty(), "the network may cut a body, or hold a request for too long");
    found(check, |history| history.journal[0].violations.push("header.authorization: is unknown".into()));
}

#[test]
fn a_request_with_the_token_of_another() {
    let check = "requests carry their own organisation's token";
    found(check, |history| history.journal[0].client_organization = Some(OTHER));
    found(check, |history| history.journal[0].requester = None);
    found(check, |history| {
        history.journal[0].requester = Some(OTHER);
        history.journal[0].client_organization = Some(OTHER);
    });
}

#[test]
fn a_dead_letter_that_the_upstream_did_not_ask_for() {
    let check = "only what was refused for good is a dead letter";
    for status in [Some(503), Some(429), Some(401), Some(500), None] {
        found(check, |history| history.journal[2].status = status);
    }
    found(check, |history| {
        // That of another command does not count.
        history.journal[2].traceparent = history.journal[0].traceparent.clone();
    });
    found(check, |history| {
        history.letters.iter_mut().for_each(|letter| {
            if let Some((_, state)) = &mut letter.command {
                *state = State::Abandoned;
            }
        });
    });
    let mut history = sound();
    history.journal[2].status = Some(503);
    let letters = history.letters.iter_mut().filter(|letter| letter.command.is_some());
    letters.for_each(|letter| letter.reason = "COMMAND_EXPIRED".into());
    assert!(broken(&history).is_empty(), "what has expired was not refused");
}

/// A single instance took its time.
fn late(history: &mut History) {
    history.instances = 1;
    command(history, "archive").finish_time = Some(at(4_000));
}

#[test]
fn a_command_that_waits_for_the_trouble_of_another_organization() {
    let check = "one organisation's trouble holds up no other";
    found(check, late);
    // What is wrong with its own organisation, with all or with its own connection may hold it up.
    let excused = |excuse: &dyn Fn(&mut History)| {
        let mut history = sound();
        late(&mut history);
        excuse(&mut history);
        assert!(!broken(&history).contains(check));
    };
    excused(&|history| history.faults[0].organization = Some(REQUESTER));
    excused(&|history| {
        let general = FaultSeen { organization: None, until: at(-1_000), ..history.faults[0].clone() };
        history.faults.push(FaultSeen { from: at(-2_000), ..general });
    });
    excused(&|history| history.journal[0].fault = Some("status".into()));
    excused(&|history| history.faults.clear());
    // So may a request of another that met a fault which was not meant for that one.
    let other_hangs = |history: &mut History| {
        let entry = &mut history.journal[3];
        (entry.fault, entry.requester, entry.client_organization) =
            (Some("hang".into()), Some(OTHER), Some(OTHER));
    };
    found(check, |history| {
        late(history);
        other_hangs(history);
    });
    excused(&|history| {
        other_hangs(history);
        history.faults[0].until = at(1);
    });
    // So may the pace of its own organisation, which was told to slow down, as long as that is sent for.
    let sent = |history: &mut History, received_at: i64, status: u16| {
        let mut entry = history.journal.iter().find(|entry| entry.guest == Some(SECOND)).unwrap().clone();
        (entry.received_at, entry.status) = (at(received_at), Some(status));
        let place = history.journal.partition_point(|other| other.received_at <= entry.received_at);
        history.journal.insert(place, entry);
    };
    excused(&|history| {
        sent(history, -50_000, 429);
        sent(history, 2_000, 404);
    });
    // So may the rest of a queue that is worked off, unless the other one takes most of what is sent.
    let busy = |history: &mut History, requester: Uuid| {
        for number in 0..80 {
            sent(history, number * 50, 404);
        }
        for entry in history.journal.iter_mut().filter(|entry| entry.guest == Some(SECOND)) {
            entry.requester = Some(requester);
        }
    };
    excused(&|history| busy(history, REQUESTER));
    found(check, |history| {
        late(history);
        busy(history, OTHER);
    });
    for entries in [vec![(-50_000, 429)], vec![(2_000, 404)], vec![(-60_000, 429), (2_000, 404)]] {
        found(check, |history| {
            late(history);
            entries.iter().for_each(|(time, status)| sent(history, *time, *status));
        });
    }
}
