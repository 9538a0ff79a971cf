//! The books: what was promised in writing has come, and nothing else.

use super::{About, Checked, Index, key};
use crate::history::{Answer, CommandSeen, Door, History, State, What};

/// Every command has its event and its dead letter, as its state asks for.
#[must_use]
pub fn commands_have_their_messages(history: &History, index: &Index<'_>) -> Checked {
    let mut checked = Checked::new("commands have their messages");
    for command in history.commands.values() {
        let fault = missing(index, command);
        checked.expect(fault.is_none(), key(&command.key), || fault.unwrap_or_default());
    }
    checked
}

fn missing(index: &Index<'_>, command: &CommandSeen) -> Option<String> {
    let state = command.state;
    let wanted = match (state, command.archived) {
        (State::Succeeded, true) => Some("archived"),
        (State::Succeeded, false) => Some("unarchived"),
        (State::Rejected | State::Abandoned, _) if command.maybe_applied => Some("indeterminate"),
        _ => None,
    };
    let events = index.events_by_key.get(command.key.as_str()).map(Vec::as_slice).unwrap_or_default();
    match (wanted, &command.event) {
        (None, None) if events.is_empty() => {}
        (None, event) => return Some(format!("it is {state} and has events: {event:?}, {events:?}")),
        (Some(kind), None) => return Some(format!("it is {state} and has no event ({kind})")),
        (Some(kind), Some((id, sequence, confirmed))) => {
            let sound = |event: &&&crate::history::EventSeen| {
                event.id == *id
                    && event.sequence == *sequence
                    && event.kind == kind
                    && event.guest == command.guest
                    && event.command_id == command.id
            };
            if !confirmed {
                return Some(format!("its event {id} is not confirmed"));
            }
            if events.is_empty() || events.iter().filter(sound).count() != events.len() {
                return Some(format!("its event is {id} ({kind}, {sequence}), received were {events:?}"));
            }
        }
    }
    let letters = index.letters_by_command.get(command.id.as_str()).map(Vec::as_slice).unwrap_or_default();
    let told = letters.iter().filter_map(|letter| letter.command.as_ref()).map(|(_, state)| *state);
    let told: Vec<State> = told.collect();
    let owed = match state {
        State::Rejected | State::Failed => command.door == Door::Amqp,
        State::Abandoned => true,
        _ => false,
    };
    if owed && !told.contains(&state) {
        return Some(format!("it came by the queue, is {state} and has no dead letter that says so"));
    }
    // One that failed may have been asked for again.
    let untrue = told.iter().find(|told| **told != State::Failed && **told != state);
    untrue.map(|told| format!("it is {state} and has a dead letter for {told}"))
}

/// Every event and dead letter tells of a command that is known, or copies a message that was sent.
#[must_use]
pub fn messages_have_their_command(history: &History, index: &Index<'_>) -> Checked {
    let mut checked = Checked::new("messages have their command");
    for event in &history.events {
        let known = history.commands.get(&event.key).is_some_and(|command| command.id == event.command_id);
        checked.expect(known, key(&event.key), || {
            format!("event {} tells of {}, which is not known", event.id, event.command_id)
        });
    }
    for letter in &history.letters {
        let known = match (&letter.command, letter.sending) {
            (Some((id, _)), _) => index.commands_by_id.contains_key(id.as_str()),
            (None, Some(sending)) => sending < history.sendings.len(),
            (None, None) => false,
        };
        checked.expect(known, || About::Run, || format!("a dead letter of nothing: {letter:?}"));
    }
    checked
}

/// Every message that asked for a reply has one, and it is true.
#[must_use]
pub fn replies_have_come(history: &History, index: &Index<'_>) -> Checked {
    let mut checked = Checked::new("replies have come");
    for (number, sending) in history.sendings.iter().enumerate().filter(|(_, sending)| sending.wants_reply) {
        let replies = index.replies.get(&number).map(Vec::as_slice).unwrap_or_default();
        let statuses: Vec<&str> = replies.iter().map(|reply| reply.status.as_str()).collect();
        let about = || About::Sending(number);
        if sending.answer == Answer::Confirmed {
            checked.expect(!statuses.is_empty(), about, || "no reply has come".to_owned());
        }
        let command = match sending.what {
            What::Garbage(_) => None,
            What::Wish(wish) => {
                let wish = &history.wishes[wish];
                history.commands.get(&wish.key).filter(|command| command.answers(wish))
            }
        };
        let sound = statuses.iter().all(|status| match command {
            None => *status == "refused",
            // One that failed may have been asked for again.
            Some(command) => *status == command.state.to_string() || *status == "failed",
        });
        checked.expect(sound, about, || {
            format!(
                "the replies are {statuses:?}, and the command is {:?}",
                command.map(|command| command.state)
            )
        });
    }
    for reply in &history.replies {
        let asked = history.sendings.get(reply.sending).is_some_and(|sending| sending.wants_reply);
        checked.expect(
            asked,
            || About::Sending(reply.sending),
            || "a reply that nobody asked for".to_owned(),
        );
    }
    checked
}

/// The command queue is empty.
#[must_use]
pub fn nothing_is_left(history: &History) -> Checked {
    let mut checked = Checked::new("the command queue is empty");
    let left = history.left_in_queue;
    checked.expect(left == 0, || About::Run, || format!("{left} messages are left in the command queue"));
    checked
}

/// The sums of the database that several instances share are right, all work is done, every message is out, and no connection is
/// suspect any more.
#[must_use]
pub fn the_database_balances(history: &History) -> Checked {
    let mut checked = Checked::new("the database balances");
    if history.instances < 2 {
        return checked;
    }
    let Some(books) = history.books else {
        checked.expect(false, || About::Run, || "its sums could not be read".to_owned());
        return checked;
    };
    let known = i64::try_from(history.commands.len()).unwrap_or(i64::MAX);
    for (sound, what) in [
        (books.registered == books.commands, "commands registered and commands there differ"),
        // Of a call without a key that was never answered the key is not known.
        (known <= books.commands, "fewer commands are there than are known"),
        (books.outbox_written == books.outbox_confirmed + books.outbox_pending, "the outbox does not add up"),
        (books.unfinished == 0, "commands are not final"),
        (books.outbox_pending == 0, "messages are not out"),
        (books.suspect == 0, "connections are suspect"),
    ] {
        checked.expect(sound, || About::Run, || format!("{what}: {books:?}"));
    }
    checked
}

/// An instance that has ended in order is none any more, and one that was killed has been noticed.
#[must_use]
pub fn everybody_has_left(history: &History) -> Checked {
    let mut checked = Checked::new("everybody has left");
    if let Some(books) = history.books.filter(|_| history.ended_well) {
        let text = || format!("{} instances are still entered", books.instances);
        checked.expect(books.instances == 0, || About::Run, text);
    }
    checked
}
