//! Nothing that was accepted is lost, and what senders heard is true.

use chrono::{SubsecRound as _, TimeDelta};

use super::{About, Checked, Index, key};
use crate::history::{Answer, CommandSeen, Door, History, Standing, State, What};
use crate::plan::Wish;

/// Times are kept in whole microseconds.
const CLOCK_GRAIN: TimeDelta = TimeDelta::milliseconds(1);

/// Every command that was accepted, as far as anybody can know, is final.
#[must_use]
pub fn commands_are_final(history: &History) -> Checked {
    let mut checked = Checked::new("accepted commands are final");
    for command in history.commands.values() {
        checked.expect(command.state.is_final(), key(&command.key), || format!("it is {}", command.state));
    }
    for (number, sending) in history.sendings.iter().enumerate() {
        let What::Wish(wish) = sending.what else { continue };
        let wish = &history.wishes[wish];
        if matches!(sending.answer.standing(), Standing::Accepted | Standing::Conflict) {
            checked.expect(history.commands.contains_key(&wish.key), key(&wish.key), || {
                format!("sending {number} was told {:?}, and the command is not known", sending.answer)
            });
        }
    }
    checked
}

/// Every message that the broker has confirmed is a command, or has its dead letter with the right reason.
#[must_use]
pub fn messages_are_answered_for(history: &History, index: &Index<'_>) -> Checked {
    let mut checked = Checked::new("messages are commands or dead letters");
    for (number, sending) in history.sendings.iter().enumerate() {
        if sending.door != Door::Amqp {
            continue;
        }
        let confirmed = sending.answer == Answer::Confirmed;
        let reasons: Vec<&str> = index
            .letters_by_sending
            .get(&number)
            .into_iter()
            .flatten()
            .map(|letter| letter.reason.as_str())
            .collect();
        let about = || About::Sending(number);
        match sending.what {
            What::Garbage(garbage) => {
                let garbage = &history.garbage[garbage];
                checked.expect(reasons.iter().all(|reason| *reason == garbage.reason), about, || {
                    format!("garbage ({}) has dead letters {reasons:?}, not {}", garbage.kind, garbage.reason)
                });
                if confirmed {
                    checked.expect(!reasons.is_empty(), about, || {
                        format!("garbage ({}) has no dead letter", garbage.kind)
                    });
                }
            }
            What::Wish(wish) => {
                let wish = &history.wishes[wish];
                match history.commands.get(&wish.key) {
                    None => checked
                        .expect(!confirmed, about, || format!("the command of {} is not known", wish.key)),
                    Some(command) if command.answers(wish) => {
                        checked.expect(reasons.is_empty(), about, || {
                            format!("it is the command {} and has dead letters {reasons:?}", command.id)
                        });
                    }
                    Some(command) => {
                        let sound = reasons.iter().all(|reason| *reason == "IDEMPOTENCY_KEY_REUSED");
                        checked.expect(sound && !(confirmed && reasons.is_empty()), about, || {
                            format!("it conflicts with {}, and its dead letters are {reasons:?}", command.id)
                        });
                    }
                }
            }
        }
    }
    checked
}

/// What a caller heard is what `GetCommand` says.
#[must_use]
pub fn answers_are_true(history: &History) -> Checked {
    let mut checked = Checked::new("answers are true");
    for (number, sending) in history.sendings.iter().enumerate() {
        let What::Wish(wish) = sending.what else { continue };
        let wish = &history.wishes[wish];
        // That an accepted one is known is another check's.
        let Some(command) = history.commands.get(&wish.key) else { continue };
        if let Some(fault) = untrue(&sending.answer, wish, command) {
            checked.expect(false, key(&wish.key), || format!("sending {number}: {fault}"));
        } else {
            checked.count += 1;
        }
    }
    for wish in &history.wishes {
        let standings: Vec<_> = history
            .sendings_of(&wish.key)
            .filter(|_| !wish.key.is_empty())
            .map(|(_, sending, _)| sending.answer.standing())
            .collect();
        let refused =
            !standings.is_empty() && standings.iter().all(|standing| *standing == Standing::Refused);
        if refused {
            checked.expect(!history.commands.contains_key(&wish.key), key(&wish.key), || {
                "every sending of it was refused before acceptance, and it is known".to_owned()
            });
        }
    }
    checked
}

/// A command is one that was sent, and its place in the order of effects is the one asked for: its issue time or, without
/// one, its acceptance, which cannot lie before it was sent.
#[must_use]
pub fn places_are_as_asked(history: &History) -> Checked {
    let mut checked = Checked::new("places are as asked for");
    for command in history.commands.values() {
        let own = |wish: &&Wish| wish.key == command.key && command.answers(wish);
        let Some(wish) = history.wishes.iter().find(own) else {
            checked.expect(false, key(&command.key), || "nobody has asked for it".to_owned());
            continue;
        };
        let sent = history.sendings_of(&wish.key).map(|(_, sending, _)| sending.at).min();
        let sent = sent.unwrap_or(history.started_at) - CLOCK_GRAIN;
        let issued = wish.issued_ms.map(|ms| history.started_at + TimeDelta::milliseconds(ms));
        let issued = issued.map(|issued| issued.trunc_subsecs(6));
        let sound = match issued {
            Some(issued) if issued <= sent => command.effective_time == issued,
            Some(issued) => command.effective_time >= sent && command.effective_time <= issued,
            None => command.effective_time >= sent,
        };
        checked.expect(sound, key(&command.key), || {
            format!("its place is {}, issued {issued:?}, sent {sent}", command.effective_time)
        });
    }
    checked
}

fn untrue(answer: &Answer, wish: &Wish, command: &CommandSeen) -> Option<String> {
    let told_id = match answer {
        Answer::Done { command_id, .. } => Some(command_id),
        Answer::Refused { command_id, .. } => command_id.as_ref(),
        _ => None,
    };
    if let Some(id) = told_id.filter(|id| **id != command.id) {
        return Some(format!("told of command {id}, which is {}", command.id));
    }
    let expected = match answer {
        Answer::Done { .. } => Some(State::Succeeded),
        Answer::Refused { reason, .. } => match reason.as_str() {
            "SUPERSEDED" => Some(State::Superseded),
            "COMMAND_ABANDONED" => Some(State::Abandoned),
            "UPSTREAM_INVALID" | "UPSTREAM_NOT_FOUND" | "UPSTREAM_CONFLICT" | "UPSTREAM_REJECTED" => {
                Some(State::Rejected)
            }
            _ => None,
        },
        _ => None,
    };
    if let Some(state) = expected.filter(|state| *state != command.state) {
        return Some(format!("told {answer:?}, so {state}, and it is {}", command.state));
    }
    let (conflict, known) = (answer.standing() == Standing::Conflict, command.answers(wish));
    match answer.standing() {
        Standing::Conflict | Standing::Accepted if conflict == known => Some(format!(
            "told {answer:?}, and the parameters are {}",
            if known { "equal" } else { "others" }
        )),
        _ => None,
    }
}
