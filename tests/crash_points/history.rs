//! What was seen from outside, in the order in which it was.

use guest_connection_adapter::domain::connection::Version;
use guest_connection_adapter::domain::heal::Healed;
use guest_connection_adapter::domain::message::EventKind;
use guest_connection_adapter::domain::record::State;
use guest_connection_adapter::service::ports::Books;
use uuid::Uuid;

/// One thing seen. A command goes by the number of its requester, a connection by that of its guest.
#[derive(Debug, Clone, PartialEq)]
pub enum Entry {
    /// A PATCH left the process.
    Sent { patch: usize, command: u128, guest: u128, archived: bool },
    /// It had been held up between the check of the lease and the wire, past the lease: no rule of ours can stop it.
    Overdue { patch: usize },
    /// It took effect.
    Applied { patch: usize },
    /// It was answered, or it was lost, or it had taken effect unheard: nothing more comes of it.
    Over { patch: usize },
    /// The command's end is durable.
    Ended { command: u128, state: State },
    /// The late result of a claim was refused.
    Stale,
    /// What an attempt to heal the suspect connection led to.
    Healed(Healed),
    /// A process that had paused goes on.
    Woken,
    /// An event reached the broker.
    Event { id: Uuid, command: u128, guest: u128, kind: EventKind, sequence: u64 },
    /// A dead letter of the outbox reached the broker.
    Letter { id: Uuid, command: u128 },
    /// A reply reached the broker.
    Reply { id: Uuid, command: u128, state: State },
    /// A message was acknowledged, while the store knew its command or a dead letter of it was placed, or not.
    Acked { command: u128, kept: bool },
    /// A caller was told that its command is final.
    Answered { command: u128, state: State },
    /// A caller was told that its command goes on.
    Promised { command: u128 },
}

/// A command as it is kept in the end.
#[derive(Debug, Clone, PartialEq)]
pub struct Kept {
    pub command: u128,
    pub guest: u128,
    pub archived: bool,
    pub version: Version,
    pub state: State,
    /// A message was the last to ask for it anew.
    pub by_message: bool,
    /// A message asked for it, at any time.
    pub message_seen: bool,
    /// The event that is kept of it.
    pub event: Option<Uuid>,
}

/// All that was seen, and what is there in the end.
#[derive(Debug, Clone, Default)]
pub struct History {
    pub entries: Vec<Entry>,
    pub kept: Vec<Kept>,
    /// The value of each connection in the end, as the upstream has it.
    pub values: Vec<(u128, bool)>,
    pub books: Books,
    /// What did not come to rest.
    pub unrest: Option<String>,
}
