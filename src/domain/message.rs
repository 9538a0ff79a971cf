//! What is told to others: events, dead letters and replies, as they stand in the outbox.
//!
//! They say what happened; how they look on the wire (CloudEvents, properties, routing) is the publisher's business.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Timestamp;
use super::command::{Command, CommandId};
use super::connection::Connection;
use super::error::Refusal;
use super::record::{CommandRecord, JsonText, Outcome, ReplyAddress, State};
use super::trace::TraceContext;

/// What an event says of its connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EventKind {
    /// It is archived now, known for certain.
    Archived,
    /// It is not archived now, known for certain.
    Unarchived,
    /// A PATCH may have taken effect and could not be settled.
    Indeterminate,
}

impl EventKind {
    /// The word used in types and routing keys.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Archived => "archived",
            Self::Unarchived => "unarchived",
            Self::Indeterminate => "indeterminate",
        }
    }
}

/// An effect, told to downstream systems.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Event {
    /// UUIDv7, fixed with the outcome: the same in every publication.
    pub id: Uuid,
    /// What it says.
    pub kind: EventKind,
    /// Its number within the connection, without gaps.
    pub sequence: u64,
    /// When the outcome was stored.
    pub time: Timestamp,
    /// The trace of the command.
    pub trace: TraceContext,
    /// The conversation: the caller's correlation id, else the command id.
    pub correlation_id: String,
    /// The command.
    pub command: CommandSummary,
    /// The connection as the upstream sent it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_connection: Option<JsonText>,
    /// The answer could not be read or shows another value than asked for.
    pub incomplete: bool,
}

/// A command in a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandSummary {
    /// Our name for it.
    pub id: CommandId,
    /// What was asked.
    #[serde(flatten)]
    pub command: Command,
    /// Its state after the outcome.
    pub state: State,
    /// Its place in the order of effects.
    pub effective_time: Timestamp,
    /// PATCHes known to have been sent.
    pub attempts: u32,
    /// Counts redrives, from 1.
    pub generation: u32,
}

impl From<&CommandRecord> for CommandSummary {
    fn from(record: &CommandRecord) -> Self {
        Self {
            id: record.id,
            command: record.command.clone(),
            state: record.state,
            effective_time: record.effective_time,
            attempts: record.attempts,
            generation: record.generation,
        }
    }
}

/// A command given up, with its reason and history.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Derived from the command id and its generation, so that it is the same in every publication.
    pub id: Uuid,
    /// When it was given up.
    pub time: Timestamp,
    /// The trace of the command.
    pub trace: TraceContext,
    /// The command.
    pub command: CommandSummary,
    /// Why.
    pub refusal: Refusal,
}

/// The answer to an AMQP message with `reply_to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// Derived from the command, its generation and the address.
    pub id: Uuid,
    /// To whom.
    pub address: ReplyAddress,
    /// The trace of the command.
    pub trace: TraceContext,
    /// The command; absent when the message could not be read as one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub command: Option<CommandSummary>,
    /// Whether the outcome was known before this message came.
    pub replayed: bool,
    /// When it was written; absent from those of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// The outcome.
    pub outcome: Outcome,
}

impl Reply {
    /// The answer for `record`, which is final, at `now`.
    #[must_use]
    pub fn of(record: &CommandRecord, address: &ReplyAddress, replayed: bool, now: Timestamp) -> Self {
        let name = format!(
            "reply/{}/{}/{}/{}",
            record.generation,
            replayed,
            address.reply_to,
            address.correlation_id.as_deref().unwrap_or_default()
        );
        Self {
            id: Uuid::new_v5(&record.id.0, name.as_bytes()),
            address: address.clone(),
            trace: record.trace.clone(),
            command: Some(record.into()),
            replayed,
            time: Some(now),
            outcome: record.outcome.clone().unwrap_or_default(),
        }
    }
}

/// One row of the outbox.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// For downstream systems.
    Event(Box<Event>),
    /// For operators.
    DeadLetter(Box<DeadLetter>),
    /// For the one who asked.
    Reply(Box<Reply>),
}

impl Message {
    /// The id under which it is published, each time.
    #[must_use]
    pub const fn id(&self) -> Uuid {
        match self {
            Self::Event(event) => event.id,
            Self::DeadLetter(letter) => letter.id,
            Self::Reply(reply) => reply.id,
        }
    }

    /// When it was written, if it says so.
    #[must_use]
    pub const fn written(&self) -> Option<Timestamp> {
        match self {
            Self::Event(event) => Some(event.time),
            Self::DeadLetter(letter) => Some(letter.time),
            Self::Reply(reply) => reply.time,
        }
    }

    /// The trace of its command.
    #[must_use]
    pub const fn trace(&self) -> &TraceContext {
        match self {
            Self::Event(event) => &event.trace,
            Self::DeadLetter(letter) => &letter.trace,
            Self::Reply(reply) => &reply.trace,
        }
    }

    /// The command that it is about, if it is about one.
    #[must_use]
    pub fn command(&self) -> Option<CommandId> {
        match self {
            Self::Event(event) => Some(event.command.id),
            Self::DeadLetter(letter) => Some(letter.command.id),
            Self::Reply(reply) => reply.command.as_ref().map(|command| command.id),
        }
    }

    /// The stable name of its kind.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Event(_) => "event",
            Self::DeadLetter(_) => "dead_letter",
            Self::Reply(_) => "reply",
        }
    }

    /// The connection within which it must keep its place. Replies keep none.
    #[must_use]
    pub fn connection(&self) -> Option<Connection> {
        match self {
            Self::Event(event) => Some(event.command.command.connection),
            Self::DeadLetter(_) | Self::Reply(_) => None,
        }
    }
}
