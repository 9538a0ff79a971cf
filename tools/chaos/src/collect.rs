//! Fetches what can be known from outside: queues, `GetCommand`, the simulator.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream;
use harness::broker::Arrived;
use harness::{Broker, Names};
use lapin::options::BasicGetOptions;
use serde_json::Value;
use simulator::Endpoint;
use uuid::Uuid;

use crate::calls::{self, by_id, by_key};
use crate::history::{Answer, EventSeen, History, LetterSeen, ReplySeen, State, What};
use crate::messages::NUMBER_HEADER;
use crate::stage::{EVENTS_QUEUE, REPLIES_QUEUE, Stage};

/// Commands looked up at once.
const LOOK_UPS: usize = 16;

/// The header of dead letters that is the adapter's own.
const OWN_HEADER: &str = "x-guest-connection-adapter";

/// Fetches what has come into the queues since.
pub async fn drain(broker: &Broker, stage: &Stage, history: &mut History) {
    // What was fetched is gone from its queue, so it is written down before the next wait.
    while let Some(message) = get(broker, EVENTS_QUEUE).await {
        history.events.push(event(&message));
    }
    while let Some(message) = get(broker, &Names::usual().dead_letters).await {
        history.letters.push(letter(&message));
    }
    while let Some(message) = get(broker, REPLIES_QUEUE).await {
        history.replies.push(reply(&message));
    }
    history.left_in_queue = 0;
    for queue in stage.command_queues() {
        history.left_in_queue += broker.depth(&queue).await;
    }
}

async fn get(broker: &Broker, queue: &str) -> Option<Arrived> {
    let got = broker.channel().basic_get(queue.into(), BasicGetOptions { no_ack: true });
    let delivery = got.await.expect("the queue is there")?.delivery;
    Some(Arrived {
        routing_key: delivery.routing_key.to_string(),
        properties: delivery.properties,
        body: delivery.data,
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The trace of a `traceparent`.
fn trace(traceparent: &str) -> String {
    traceparent.split('-').nth(1).unwrap_or_default().to_owned()
}

fn event(message: &Arrived) -> EventSeen {
    let event = message.json();
    let command = &event["data"]["command"];
    let guest = text(&event["subject"]).split('/').nth(1).and_then(|guest| guest.parse().ok());
    EventSeen {
        id: text(&event["id"]),
        kind: text(&event["type"]).rsplit('.').nth(1).unwrap_or_default().to_owned(),
        guest: guest.unwrap_or_default(),
        sequence: text(&event["sequence"]).parse().unwrap_or_default(),
        command_id: text(&command["command_id"]),
        key: text(&command["idempotency_key"]),
        trace: trace(&text(&event["traceparent"])),
        body: String::from_utf8_lossy(&message.body).into_owned(),
    }
}

fn letter(message: &Arrived) -> LetterSeen {
    let own = message.table(OWN_HEADER);
    let state = own.get("state").and_then(|state| State::parse(state));
    LetterSeen {
        reason: own.get("reason").cloned().unwrap_or_default(),
        sending: message.header(NUMBER_HEADER).and_then(|number| number.parse().ok()),
        command: own.get("command_id").cloned().zip(state),
        trace: own.get("traceparent").map(|text| trace(text)).unwrap_or_default(),
        text: format!("{own:?}"),
    }
}

fn reply(message: &Arrived) -> ReplySeen {
    let reply = message.json();
    let number = message.properties.correlation_id().as_ref().map(ToString::to_string);
    ReplySeen {
        sending: number.and_then(|number| number.parse().ok()).unwrap_or(usize::MAX),
        status: text(&reply["status"]),
        reason: reply["reason"].as_str().map(str::to_owned),
        command_id: reply["command_id"].as_str().map(str::to_owned),
    }
}

/// Enters the keys that the adapter made up, as far as they were heard of.
pub async fn learn_keys(stage: &Stage, history: &mut History) {
    take_told_keys(history);
    for (wish, id) in told_by_letters(history) {
        let Some(client) = stage.client() else { return };
        // What cannot be had now is asked for in the next round.
        if let Ok(Some(command)) = calls::look_up(client, by_id(&id)).await {
            history.wishes[wish].key = command.key;
        }
    }
}

/// Enters those that answers and events tell.
fn take_told_keys(history: &mut History) {
    let History { wishes, sendings, events, .. } = history;
    for sending in sendings.iter() {
        let What::Wish(wish) = sending.what else { continue };
        let (Answer::Done { key, .. } | Answer::Refused { key: Some(key), .. }) = &sending.answer else {
            continue;
        };
        if wishes[wish].key.is_empty() {
            wishes[wish].key.clone_from(key);
        }
    }
    for wish in wishes.iter_mut().filter(|wish| wish.key.is_empty()) {
        if let Some(event) = events.iter().find(|event| event.trace == wish.trace) {
            wish.key.clone_from(&event.key);
        }
    }
}

/// Wishes without a known key of which a dead letter tells, as it does when the caller was gone before its command failed: their
/// numbers, and the ids of their commands.
fn told_by_letters(history: &History) -> Vec<(usize, String)> {
    let wishes = history.wishes.iter().enumerate().filter(|(_, wish)| wish.key.is_empty());
    let told = wishes.filter_map(|(number, wish)| {
        let letter = history.letters.iter().find(|letter| letter.trace == wish.trace)?;
        let (id, _) = letter.command.as_ref()?;
        Some((number, id.clone()))
    });
    told.collect()
}

/// Takes over the sums of the database.
pub async fn books(stage: &Stage, history: &mut History) {
    if let Some(ledger) = &stage.ledger {
        history.books = ledger.books().await;
    }
}

/// Looks commands up: those that are not final with everything confirmed, or all. Each instance is asked in its turn.
pub async fn look_up(stage: &Arc<Stage>, history: &mut History, all: bool) {
    let is_settled = |key: &String| {
        let command = history.commands.get(key);
        command.is_some_and(|command| {
            let confirmed = command.event.as_ref().is_none_or(|(_, _, confirmed)| *confirmed);
            // One that failed may be asked for again by a message that is still on its way.
            command.state.is_final() && command.state != State::Failed && confirmed
        })
    };
    let keys = history.wishes.iter().map(|wish| (wish.key.clone(), wish.requester));
    let mut keys: Vec<(String, Uuid)> =
        keys.filter(|(key, _)| !key.is_empty() && (all || !is_settled(key))).collect();
    keys.sort();
    keys.dedup();
    let look_ups = stream::iter(keys).zip(stream::iter(0..)).map(|((key, requester), number)| async move {
        let client = stage.client_of(number)?;
        // What cannot be had now is asked for in the next round.
        calls::look_up(client, by_key(requester, &key)).await.ok().map(|found| (key, found))
    });
    let found: Vec<_> = look_ups.buffer_unordered(LOOK_UPS).filter_map(std::future::ready).collect().await;
    for (key, command) in found {
        match command {
            Some(command) => drop(history.commands.insert(key, command)),
            None => drop(history.commands.remove(&key)),
        }
    }
}

/// Takes over what the upstream knows.
pub fn upstream(stage: &Stage, history: &mut History) {
    history.journal = stage.simulator.journal();
    let patches = history.journal.iter().filter(|entry| entry.endpoint == Endpoint::Patch);
    let mut values: BTreeMap<Uuid, bool> = BTreeMap::new();
    for (target, guest) in patches.filter_map(|entry| entry.target.zip(entry.guest)) {
        if let Some(connection) = stage.simulator.connection(target, guest) {
            values.insert(guest, connection.archived);
        }
    }
    history.upstream = values;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::story;

    #[test]
    fn the_key_of_a_call_that_heard_nothing_is_found_by_its_dead_letter() {
        let mut history = story::sound();
        take_told_keys(&mut history);
        assert_eq!(told_by_letters(&history), []);
        let mut wish = history.wishes[0].clone();
        (wish.key, wish.trace) = (String::new(), "f".repeat(32));
        let letter = LetterSeen {
            reason: "UPSTREAM_FORBIDDEN".to_owned(),
            sending: None,
            command: Some(("its id".to_owned(), State::Failed)),
            trace: wish.trace.clone(),
            text: String::new(),
        };
        history.letters.push(letter);
        assert_eq!(told_by_letters(&history), [], "it is nobody's");
        history.wishes.push(wish);
        take_told_keys(&mut history);
        assert_eq!(told_by_letters(&history), [(history.wishes.len() - 1, "its id".to_owned())]);
    }
}
