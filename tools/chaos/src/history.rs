//! What is known of a run: all that the checks look at, as it can be written to a file and read again.

use std::collections::BTreeMap;
use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use simulator::Entry;
use uuid::Uuid;

use crate::plan::{Garbage, Wish};

/// A point in time.
pub type Time = DateTime<Utc>;

/// By which door something was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Door {
    /// A gRPC call.
    Grpc,
    /// A message on the command queue.
    Amqp,
}

/// What was sent: an index into the wishes or the garbage of the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum What {
    /// A well-formed command.
    Wish(usize),
    /// A message that cannot become one.
    Garbage(usize),
}

/// What its sender heard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// gRPC: success.
    Done {
        /// The adapter's name for the command.
        command_id: String,
        /// Its key.
        key: String,
        /// Whether the outcome was known before.
        replayed: bool,
    },
    /// gRPC: an error with a reason.
    Refused {
        /// The reason.
        reason: String,
        /// The command that it speaks of.
        command_id: Option<String>,
        /// Its key.
        key: Option<String>,
    },
    /// AMQP: confirmed by the broker.
    Confirmed,
    /// Nothing certain: it may have been taken or not.
    Unknown(String),
    /// It was never sent.
    NotSent(String),
}

/// What an answer says of acceptance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The command under the key is durable.
    Accepted,
    /// The key is durable with other parameters.
    Conflict,
    /// This sending had no effect.
    Refused,
    /// Either.
    Unknown,
}

impl Answer {
    /// What it says of acceptance.
    #[must_use]
    pub fn standing(&self) -> Standing {
        match self {
            Self::Done { .. } => Standing::Accepted,
            // Refused at the gate: a command that is kept is named.
            Self::Refused { reason, command_id: None, .. }
                if reason.starts_with("UPSTREAM_") || reason == "REQUESTER_PAUSED" =>
            {
                Standing::Refused
            }
            Self::Refused { reason, .. } => match reason.as_str() {
                "IDEMPOTENCY_KEY_REUSED" => Standing::Conflict,
                "OUTCOME_PENDING"
                | "COMMAND_IN_PROGRESS"
                | "SUPERSEDED"
                | "COMMAND_EXPIRED"
                | "COMMAND_ABANDONED"
                | "REQUESTER_PAUSED" => Standing::Accepted,
                "INVALID_FIELDS" | "DEADLINE_TOO_SHORT" | "OVERLOADED" | "REQUESTER_NOT_CONFIGURED" => {
                    Standing::Refused
                }
                upstream if upstream.starts_with("UPSTREAM_") => Standing::Accepted,
                _ => Standing::Unknown,
            },
            // What the broker holds is a promise of the adapter's only as the checks of messages say.
            Self::Confirmed | Self::Unknown(_) => Standing::Unknown,
            Self::NotSent(_) => Standing::Refused,
        }
    }
}

/// One sending. Its number is its place in the history, and stands in the message as `chaos-id`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sending {
    /// What.
    pub what: What,
    /// Where.
    pub door: Door,
    /// When.
    pub at: Time,
    /// When its answer came.
    pub answered_at: Option<Time>,
    /// Whether a reply in writing is wanted.
    pub wants_reply: bool,
    /// What its sender heard.
    pub answer: Answer,
}

/// A fault and when it was there.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FaultSeen {
    /// Its kind, in a word.
    pub kind: String,
    /// What it was exactly.
    pub text: String,
    /// From when.
    pub from: Time,
    /// Until when.
    pub until: Time,
    /// The organisation that it is about alone, if there is one.
    #[serde(default)]
    pub organization: Option<Uuid>,
    /// The instance that it befell alone, if there is one.
    #[serde(default)]
    pub instance: Option<usize>,
    /// Whether that instance was frozen.
    #[serde(default)]
    pub is_freeze: bool,
}

/// An instance that was killed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KillSeen {
    /// Which.
    pub instance: usize,
    /// When.
    pub at: Time,
    /// The slots of the outbox that were its own then, as far as that could be learnt.
    pub slots: Vec<i16>,
}

/// The sums in the database that several instances share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct BooksSeen {
    /// Commands ever registered.
    pub registered: i64,
    /// Commands that are there.
    pub commands: i64,
    /// Those that are not final.
    pub unfinished: i64,
    /// Messages ever written.
    pub outbox_written: i64,
    /// Messages confirmed.
    pub outbox_confirmed: i64,
    /// Messages that are there.
    pub outbox_pending: i64,
    /// Suspect connections.
    pub suspect: i64,
    /// Instances.
    pub instances: i64,
}

/// A delivery of an event.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventSeen {
    /// The CloudEvents `id`.
    pub id: String,
    /// The last part of its type: `archived`, `unarchived` or `indeterminate`.
    pub kind: String,
    /// The guest of its subject.
    pub guest: Uuid,
    /// Its place among the events of its connection.
    pub sequence: u64,
    /// The command that it tells of.
    pub command_id: String,
    /// The command's key.
    pub key: String,
    /// The trace of the command.
    pub trace: String,
    /// All of it.
    pub body: String,
}

/// A delivery of a dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LetterSeen {
    /// Why.
    pub reason: String,
    /// The sending of which it is a copy.
    pub sending: Option<usize>,
    /// The command that it tells of, and its state.
    pub command: Option<(String, State)>,
    /// The trace that it belongs to.
    pub trace: String,
    /// Everything else, for people.
    pub text: String,
}

/// A delivery of a reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplySeen {
    /// The sending that asked for it.
    pub sending: usize,
    /// `refused`, or the state of the command.
    pub status: String,
    /// Why not.
    pub reason: Option<String>,
    /// The command.
    pub command_id: Option<String>,
}

/// Where a command stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "they are the contract's")]
pub enum State {
    Accepted,
    InFlight,
    Deferred,
    Succeeded,
    Rejected,
    Superseded,
    Failed,
    Abandoned,
}

impl State {
    /// Whether nothing more happens by itself.
    #[must_use]
    pub fn is_final(self) -> bool {
        !matches!(self, Self::Accepted | Self::InFlight | Self::Deferred)
    }

    /// The name that dead letters and replies use.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        serde_json::from_value(name.into()).ok()
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = serde_json::to_value(self).ok();
        f.write_str(name.as_ref().and_then(|name| name.as_str()).unwrap_or("?"))
    }
}

/// A command as `GetCommand` tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandSeen {
    /// The adapter's name for it.
    pub id: String,
    /// Its key.
    pub key: String,
    /// The guest of its connection.
    pub guest: Uuid,
    /// The value asked for.
    pub archived: bool,
    /// Its door.
    pub door: Door,
    /// Where it stands.
    pub state: State,
    /// PATCHes known to have been sent.
    pub attempts: u32,
    /// Whether one may have been applied unheard.
    pub maybe_applied: bool,
    /// Its place in the order of effects; ties go by the id.
    pub effective_time: Time,
    /// When it was accepted.
    pub accept_time: Time,
    /// When it is due again.
    pub due_time: Option<Time>,
    /// When it ended.
    pub finish_time: Option<Time>,
    /// Why it did not succeed.
    pub reason: String,
    /// The id, the sequence and whether the broker confirmed it.
    pub event: Option<(String, u64, bool)>,
}

impl CommandSeen {
    /// Its place among the commands of its connection.
    #[must_use]
    pub fn version(&self) -> (Time, &str) {
        (self.effective_time, &self.id)
    }

    /// Whether `wish` asks for the same thing.
    #[must_use]
    pub fn answers(&self, wish: &Wish) -> bool {
        self.guest == wish.guest && self.archived == wish.archived
    }
}

/// A run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct History {
    /// The seed of its plan.
    pub seed: u64,
    /// When it began.
    pub started_at: Time,
    /// What was wished for.
    pub wishes: Vec<Wish>,
    /// What no command can be made of.
    pub garbage: Vec<Garbage>,
    /// What was sent, in order.
    pub sendings: Vec<Sending>,
    /// What disturbed it.
    pub faults: Vec<FaultSeen>,
    /// What the upstream saw.
    pub journal: Vec<Entry>,
    /// Every delivery of an event, in order.
    pub events: Vec<EventSeen>,
    /// Every delivery of a dead letter.
    pub letters: Vec<LetterSeen>,
    /// Every delivery of a reply.
    pub replies: Vec<ReplySeen>,
    /// Every command that `GetCommand` knows, by its key.
    pub commands: BTreeMap<String, CommandSeen>,
    /// The values that the upstream's connections have in the end.
    pub upstream: BTreeMap<Uuid, bool>,
    /// Messages left in the command queue in the end, or in its partitions.
    pub left_in_queue: u32,
    /// How many instances there were.
    #[serde(default)]
    pub instances: usize,
    /// The sums of the database, if there are several instances.
    #[serde(default)]
    pub books: Option<BooksSeen>,
    /// Whether the instances have ended, each in order.
    #[serde(default)]
    pub ended_well: bool,
    /// The instances that were killed.
    #[serde(default)]
    pub kills: Vec<KillSeen>,
    /// When events were confirmed, and in which slot of the outbox, if there are several instances.
    #[serde(default)]
    pub published: Vec<(Time, i16)>,
}

impl History {
    /// The sendings of a key, with their numbers.
    pub fn sendings_of<'a>(&'a self, key: &'a str) -> impl Iterator<Item = (usize, &'a Sending, &'a Wish)> {
        self.sendings.iter().enumerate().filter_map(move |(number, sending)| match sending.what {
            What::Wish(wish) if self.wishes[wish].key == key => Some((number, sending, &self.wishes[wish])),
            _ => None,
        })
    }
}
