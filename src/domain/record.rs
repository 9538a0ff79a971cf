//! A command as it is kept: its state, its history and its outcome.

use chrono::TimeDelta;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use uuid::Uuid;

use super::Timestamp;
use super::access::AskedBy;
use super::command::{Command, CommandId};
use super::connection::Version;
use super::error::Refusal;
use super::trace::TraceContext;

/// Where a command stands. `docs/state-machine.md` draws every transition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// Durable, not begun.
    Accepted,
    /// Claimed: a PATCH may be on its way.
    InFlight,
    /// Runs again at its due time.
    Deferred,
    /// Applied. Final.
    Succeeded,
    /// Refused by the upstream for good. Final.
    Rejected,
    /// A newer command of the connection came first. Final, without a PATCH.
    Superseded,
    /// Certainly not applied; the same key may try again.
    Failed,
    /// Given up after `give_up_after`. Final but for a redrive.
    Abandoned,
}

impl State {
    /// Every state.
    pub const ALL: [Self; 8] = [
        Self::Accepted,
        Self::InFlight,
        Self::Deferred,
        Self::Succeeded,
        Self::Rejected,
        Self::Superseded,
        Self::Failed,
        Self::Abandoned,
    ];

    /// Whether the adapter has nothing left to do for it.
    #[must_use]
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Accepted | Self::InFlight | Self::Deferred)
    }

    /// Whether its outcome is replayed to a repeat of its key.
    #[must_use]
    pub const fn is_replayed(self) -> bool {
        self.is_final() && !matches!(self, Self::Failed)
    }

    /// The stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::InFlight => "in_flight",
            Self::Deferred => "deferred",
            Self::Succeeded => "succeeded",
            Self::Rejected => "rejected",
            Self::Superseded => "superseded",
            Self::Failed => "failed",
            Self::Abandoned => "abandoned",
        }
    }

    /// The state with this stable name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == name)
    }
}

/// By which door a command came in: the queue's as soon as a message asked for it, be it first or later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Door {
    /// A gRPC call.
    Grpc,
    /// A message on the command queue.
    Amqp,
}

impl Door {
    /// The stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::Amqp => "amqp",
        }
    }
}

/// Where an answer is wanted: `reply_to` and `correlation_id` of an AMQP message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyAddress {
    /// The routing key, on the default exchange.
    pub reply_to: String,
    /// Handed back as it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
}

/// The text of a JSON object, as the upstream sent it.
#[derive(Clone)]
pub struct JsonText(Box<RawValue>);

impl JsonText {
    /// Takes `text` if it is one JSON object.
    #[must_use]
    pub fn object(text: &str) -> Option<Self> {
        let object: &RawValue = serde_json::from_str(text).ok()?;
        object.get().starts_with('{').then(|| Self(object.to_owned()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for JsonText {
    fn eq(&self, other: &Self) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for JsonText {}

/// Shows the size alone, since the text holds personal data.
impl std::fmt::Debug for JsonText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "JsonText({} bytes)", self.as_str().len())
    }
}

impl Serialize for JsonText {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for JsonText {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        if raw.get().starts_with('{') {
            Ok(Self(raw))
        } else {
            Err(serde::de::Error::custom("expected a JSON object"))
        }
    }
}

/// What is known of the effect: the last thing heard.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Why it did not succeed; absent on success.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refusal>,
    /// The upstream's status code, if it gave one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream_status: Option<u16>,
    /// The guest connection as the upstream sent it, on success and if it could be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub guest_connection: Option<JsonText>,
    /// Success, but the answer could not be read or shows another value than asked for.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
}

/// The event that told of a command's effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventRef {
    /// Its id, which is also its `message_id`.
    pub id: Uuid,
    /// Its number within the connection.
    pub sequence: u64,
    /// When the broker confirmed it; absent while it is pending.
    pub confirmed_time: Option<Timestamp>,
}

/// A command as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommandRecord {
    /// Our name for it.
    pub id: CommandId,
    /// Its number in the order of acceptance; given by the store.
    pub arrival: i64,
    /// What was asked.
    pub command: Command,
    /// By which door it came.
    pub door: Door,
    /// Who asked for it first.
    pub asked_by: AskedBy,
    /// The trace that it belongs to.
    pub trace: TraceContext,
    /// What the caller named it in its own conversation, if it did; goes into the event.
    pub correlation_id: Option<String>,
    /// Who wants to hear of the outcome, besides callers that wait.
    pub replies: Vec<ReplyAddress>,
    /// Where it stands.
    pub state: State,
    /// Counts redrives, from 1.
    pub generation: u32,
    /// Counts claims; fences a claim that lost its right.
    pub epoch: i64,
    /// Counts PATCHes known to have been sent.
    pub attempts: u32,
    /// An attempt's fate is unknown; sticks until a 2xx.
    pub maybe_applied: bool,
    /// Its place in the order of effects.
    pub effective_time: Timestamp,
    /// When it was accepted, or accepted again after it had failed.
    pub accepted_time: Timestamp,
    /// When recovery may take it up: end of the holder's grace (accepted), of the lease (in flight), of the
    /// deferral (deferred); absent when final.
    pub due_time: Option<Timestamp>,
    /// It waits for another command of its connection, for a quiet time, or in its place for the API to come back; not for
    /// its own turn with the upstream.
    pub waiting: bool,
    /// Since when it is put off without having been begun: its requester is paused, or the API is down.
    pub paused_since: Option<Timestamp>,
    /// How long it was put off before that, in all. Does not count towards `give_up_after`.
    pub paused: TimeDelta,
    /// When it became final.
    pub finished_time: Option<Timestamp>,
    /// The last thing heard; absent before the first attempt.
    pub outcome: Option<Outcome>,
    /// The event, once the effect is known or given up.
    pub event: Option<EventRef>,
}

impl CommandRecord {
    /// Its place in the order of effects.
    #[must_use]
    pub const fn version(&self) -> Version {
        Version { effective_time: self.effective_time, command_id: self.id }
    }

    /// Whether no other command of its connection may be begun.
    #[must_use]
    pub const fn blocks(&self) -> bool {
        matches!(self.state, State::InFlight) || (self.maybe_applied && !self.state.is_final())
    }

    /// Whether it stands in the line of its connection: commands with a later arrival are begun after it. One that was
    /// deferred by the upstream has left the line.
    #[must_use]
    pub const fn in_line(&self) -> bool {
        matches!(self.state, State::Accepted) || (self.waiting && !self.state.is_final())
    }
}
