//! Messages for tests.

use uuid::Uuid;

use crate::domain::Timestamp;
use crate::domain::command::{Command, CommandId, IdempotencyKey, OrganizationId};
use crate::domain::connection::Connection;
use crate::domain::error::{Reason, Refusal};
use crate::domain::message::{CommandSummary, DeadLetter, Event, EventKind, Reply};
use crate::domain::record::{JsonText, Outcome, ReplyAddress, State};
use crate::domain::trace::TraceContext;

/// A point in time.
pub fn time() -> Timestamp {
    Timestamp::from_timestamp_micros(1_765_535_400_123_456).expect("in range")
}

/// A command with every field.
pub fn command() -> Command {
    Command {
        requester: OrganizationId(Uuid::from_u128(1)),
        connection: Connection {
            target: OrganizationId(Uuid::from_u128(2)),
            guest: OrganizationId(Uuid::from_u128(3)),
        },
        archived: true,
        key: IdempotencyKey::parse("key-1").expect("a key"),
        issue_time: Some(time()),
        expire_time: None,
    }
}

/// Its history.
pub fn summary() -> CommandSummary {
    CommandSummary {
        id: CommandId(Uuid::from_u128(4)),
        command: command(),
        state: State::Succeeded,
        effective_time: time(),
        attempts: 2,
        generation: 1,
    }
}

/// A trace.
pub fn trace() -> TraceContext {
    TraceContext {
        traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
        tracestate: None,
    }
}

/// An event of it.
pub fn event() -> Event {
    Event {
        id: Uuid::now_v7(),
        kind: EventKind::Archived,
        sequence: 7,
        time: time(),
        trace: trace(),
        correlation_id: "conversation".to_owned(),
        command: summary(),
        guest_connection: JsonText::object(r#"{"archived":true,"total_score":1.10,"novel":[1]}"#),
        incomplete: false,
    }
}

/// A dead letter of it.
pub fn dead_letter() -> DeadLetter {
    DeadLetter {
        id: Uuid::now_v7(),
        time: time(),
        trace: trace(),
        command: CommandSummary { state: State::Rejected, ..summary() },
        refusal: Refusal::new(Reason::UpstreamNotFound, "no such connection"),
    }
}

/// A reply about it.
pub fn reply() -> Reply {
    Reply {
        id: Uuid::now_v7(),
        address: ReplyAddress { reply_to: "answers".to_owned(), correlation_id: Some("c-1".to_owned()) },
        trace: trace(),
        command: Some(summary()),
        replayed: true,
        time: None,
        outcome: Outcome::default(),
    }
}
