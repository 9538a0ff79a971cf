//! The pure part of a command's way, in stages: from the bytes of a message to those of its event.

pub mod fixture;

use std::hint::black_box;

use fixture::{EVENT_ID, Incoming, RETENTION, TERMS, now};
use guest_connection_adapter::amqp::decode::{Decoded, Rules, decode};
use guest_connection_adapter::amqp::render::{Publishing, render};
use guest_connection_adapter::amqp::settings::{EventMode, Settings};
use guest_connection_adapter::domain::command::{Command, Draft};
use guest_connection_adapter::domain::connection::ConnectionRecord;
use guest_connection_adapter::domain::error::FieldViolation;
use guest_connection_adapter::domain::lifecycle::{
    self, Accepted, Begun, Finished, Settlement, Situation, accept, begin, finish,
};
use guest_connection_adapter::domain::message::Message;
use guest_connection_adapter::domain::record::CommandRecord;
use guest_connection_adapter::domain::reply::{Reply, Verdict, classify, examine};
use uuid::Uuid;

const RULES: Rules = Rules { body_length_max: 64 * 1024, accept_without_key: false };

/// Who does something with every stage.
pub trait Visitor {
    /// Visits a stage: `prepare` makes what `work` takes, and its own cost is not to be counted.
    fn stage<I, O>(&mut self, name: &'static str, prepare: impl Fn() -> I, work: impl Fn(I) -> O);
}

/// Visits every stage.
///
/// # Panics
/// If a stage does not do what it is there for.
pub fn visit(visitor: &mut impl Visitor) {
    decoding(visitor);
    classifying(visitor);
    deciding(visitor);
    rendering(visitor);
    let (message, answer, settings) =
        (fixture::json(), fixture::ok(), fixture::settings(EventMode::Structured));
    visitor.stage("whole path", || (), |()| whole(&message, &answer, &settings));
}

fn decoding(visitor: &mut impl Visitor) {
    let messages = [
        ("decode JSON", fixture::json()),
        ("decode protobuf", fixture::protobuf()),
        ("decode CloudEvent", fixture::cloud_event()),
    ];
    for (name, message) in &messages {
        visitor.stage(name, || (), |()| command(message));
    }
    let draft = || decoded(&fixture::json()).draft;
    let bad = || Draft {
        requester: "someone".to_owned(),
        guest: String::new(),
        key: "a key".to_owned(),
        ..draft()
    };
    let rules = |draft: Draft| Command::new(draft, now(), RETENTION);
    assert!(rules(draft()).is_ok() && rules(bad()).is_err_and(|violations| violations.len() == 3));
    visitor.stage("validate a good command", draft, rules);
    visitor.stage::<_, Result<Command, Vec<FieldViolation>>>("validate a bad command", bad, rules);
}

fn classifying(visitor: &mut impl Visitor) {
    let replies = [
        ("classify 200", fixture::ok()),
        ("classify 422", fixture::unprocessable()),
        ("classify 503", fixture::unavailable()),
    ];
    for (name, reply) in &replies {
        visitor.stage(name, || (), |()| classify(black_box(reply), true));
    }
    assert!(examine(&replies[0].1, true).1.is_empty(), "it is to the letter of the contract");
}

fn deciding(visitor: &mut impl Visitor) {
    let command = command(&fixture::json());
    let request = || fixture::acceptance(command.clone());
    let fresh = || accepted(fixture::acceptance(command.clone()));
    let claim = || begun(fresh());
    let verdict = || classify(&fixture::ok(), true);
    visitor.stage("accept", request, accepted);
    visitor.stage("begin", fresh, begun);
    visitor.stage("finish", || (claim(), verdict()), |(claim, verdict)| finished(claim, verdict));
}

fn rendering(visitor: &mut impl Visitor) {
    let command = command(&fixture::json());
    let claim = begun(accepted(fixture::acceptance(command)));
    let settled = finished(claim, classify(&fixture::ok(), true));
    let [event @ Message::Event(_), reply @ Message::Reply(_)] = settled.messages.as_slice() else {
        unreachable!("an event and a reply are told: {:?}", settled.messages)
    };
    let structured = fixture::settings(EventMode::Structured);
    let binary = fixture::settings(EventMode::Binary);
    visitor.stage("render event, structured", || (), |()| rendered(black_box(event), &structured));
    visitor.stage("render event, binary", || (), |()| rendered(black_box(event), &binary));
    visitor.stage("render reply", || (), |()| rendered(black_box(reply), &structured));
}

/// From the bytes of a message to those of its event and its reply.
fn whole(message: &Incoming, answer: &Reply, settings: &Settings) -> Vec<Publishing> {
    let claim = begun(accepted(fixture::acceptance(command(message))));
    let settled = finished(claim, classify(black_box(answer), true));
    settled.messages.iter().map(|message| rendered(message, settings)).collect()
}

fn decoded(message: &Incoming) -> Decoded {
    let Incoming { properties, body } = black_box(message);
    decode(properties, body, &RULES, Uuid::nil()).expect("a message that is read")
}

fn command(message: &Incoming) -> Command {
    decoded(message).command(now(), RETENTION).expect("a command")
}

fn accepted(request: lifecycle::Acceptance) -> (CommandRecord, ConnectionRecord) {
    let connection = fixture::connection(&request.command);
    match accept(None, &connection, request, false, now(), &TERMS) {
        Accepted::Fresh(record, connection) => (record, connection),
        other => unreachable!("it is new: {other:?}"),
    }
}

fn begun((record, connection): (CommandRecord, ConnectionRecord)) -> (CommandRecord, ConnectionRecord) {
    match begin(record, connection, Situation::default(), now(), EVENT_ID, &TERMS) {
        Begun::Claimed(record, connection) => (record, connection),
        other => unreachable!("nothing is in its way: {other:?}"),
    }
}

fn finished((record, connection): (CommandRecord, ConnectionRecord), verdict: Verdict) -> Settlement {
    match finish(record, connection, fixture::finish(verdict), now(), &TERMS) {
        Finished::Settled(settlement) => settlement,
        Finished::Stale(_) => unreachable!("the claim holds"),
    }
}

fn rendered(message: &Message, settings: &Settings) -> Publishing {
    render(message, settings).expect("a message that AMQP can carry")
}
