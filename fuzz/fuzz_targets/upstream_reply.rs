//! An answer of the upstream, whatever its status, `Retry-After` and body: it has one meaning, never a panic, and what
//! comes of it can be stored, read back and published.

#![no_main]

use std::time::{Duration, SystemTime};

use chrono::{DateTime, TimeDelta, Utc};
use guest_connection_adapter::amqp::{Address, Settings, render};
use guest_connection_adapter::domain::command::{Command, CommandId, IdempotencyKey, OrganizationId};
use guest_connection_adapter::domain::connection::{Connection, ConnectionRecord};
use guest_connection_adapter::domain::guest_connection;
use guest_connection_adapter::domain::lifecycle::{self, Acceptance, Finish, Situation, Terms};
use guest_connection_adapter::domain::message::Message;
use guest_connection_adapter::domain::record::{Door, JsonText, ReplyAddress};
use guest_connection_adapter::domain::reply::{Answer, Reply, Verdict, classify};
use guest_connection_adapter::domain::retry::Backoff;
use guest_connection_adapter::domain::trace::TraceContext;
use guest_connection_adapter::mycreditapp::wire;
use guest_connection_adapter::wire::cloudevents::{CloudEvent, Origin};
use http::HeaderValue;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    status: u16,
    retry_after: Option<&'a [u8]>,
    archived: bool,
    maybe_applied: bool,
    by_call: bool,
    attempts: u32,
    jitter: u8,
    cut: bool,
    /// The rest of the bytes, as they are.
    body: &'a [u8],
}

const TERMS: Terms = Terms {
    lease: TimeDelta::seconds(60),
    settle: TimeDelta::seconds(30),
    hold: TimeDelta::seconds(45),
    give_up_after: TimeDelta::hours(24),
};

const BACKOFF: Backoff =
    Backoff { delay_base: Duration::from_millis(200), delay_max: Duration::from_secs(3600) };

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_765_535_400_123_456).expect("in range")
}

fn acceptance(input: &Input<'_>) -> Acceptance {
    let organization = |number| OrganizationId(Uuid::from_u128(number));
    Acceptance {
        command: Command {
            requester: organization(1),
            connection: Connection { target: organization(2), guest: organization(3) },
            archived: input.archived,
            key: IdempotencyKey::parse("key").expect("a key"),
            issue_time: None,
            expire_time: None,
        },
        id: CommandId(Uuid::from_u128(4)),
        door: if input.by_call { Door::Grpc } else { Door::Amqp },
        trace: TraceContext::default(),
        correlation_id: None,
        reply: Some(ReplyAddress { reply_to: "replies".to_owned(), correlation_id: None }),
        is_owned: true,
        put_off: None,
    }
}

fn settings() -> Settings {
    let (address, _) = Address::parse("amqp://localhost/%2f").expect("an address");
    let origin = Origin { source: "/adapter".into(), type_prefix: "com.example".into() };
    Settings::new(address, "guest".into(), "guest".into(), origin)
}

/// The messages that come of `verdict`, as a store writes them.
fn messages(input: &Input<'_>, verdict: Verdict, defer_delay: Duration) -> Vec<Message> {
    let request = acceptance(input);
    let connection = ConnectionRecord::new(request.command.connection);
    let lifecycle::Accepted::Fresh(record, connection) =
        lifecycle::accept(None, &connection, request, false, now(), &TERMS)
    else {
        unreachable!("the key is new")
    };
    let begun =
        lifecycle::begin(record, connection, Situation::default(), now(), Uuid::from_u128(5), &TERMS);
    let lifecycle::Begun::Claimed(record, connection) = begun else { unreachable!("nothing is in the way") };
    let finish = Finish {
        id: record.id,
        epoch: record.epoch,
        verdict,
        attempts: input.attempts,
        maybe_applied: input.maybe_applied,
        unanswered_ago: None,
        caller_waits: input.by_call,
        defer_delay,
        is_paused: false,
        event_id: Uuid::from_u128(6),
    };
    match lifecycle::finish(record, connection, finish, now(), &TERMS) {
        lifecycle::Finished::Settled(settlement) => settlement.messages,
        lifecycle::Finished::Stale(_) => unreachable!("the claim holds"),
    }
}

fuzz_target!(|input: Input<'_>| {
    let header = input.retry_after.and_then(|bytes| HeaderValue::from_bytes(bytes).ok());
    let retry_after = wire::retry_after(header.as_ref(), SystemTime::UNIX_EPOCH);
    let delay = BACKOFF.deferral(input.attempts, retry_after, f64::from(input.jitter) / 255.0);
    assert!(retry_after.is_none_or(|hint| hint <= delay), "never earlier than asked");
    let _ = wire::issued_token(input.body);

    let body = (!input.cut).then(|| input.body.to_vec());
    let status = input.status % 1000;
    let verdict = classify(&Reply::Answered(Answer { status, retry_after, body }), input.archived);
    assert_eq!(matches!(verdict, Verdict::Applied { .. }), (200..300).contains(&status));
    if let Some(text) = std::str::from_utf8(input.body).ok().and_then(JsonText::object) {
        let _ = guest_connection::read(&text);
    }
    for message in messages(&input, verdict, delay) {
        let stored = serde_json::to_string(&message).expect("a row");
        assert_eq!(serde_json::from_str::<Message>(&stored).expect("it is read back"), message);
        let published = render::render(&message, &settings()).expect("it fits into AMQP");
        serde_json::from_slice::<&serde_json::value::RawValue>(&published.body).expect("JSON");
        if let Message::Event(event) = &message {
            let event = CloudEvent::of(event, &settings().origin).expect("an event");
            event.structured().expect("JSON");
        }
    }
});
