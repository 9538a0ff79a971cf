//! Whom a command concerns, and what is known of the order of effects there.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::command::{CommandId, OrganizationId};

/// A guest connection: the unit of order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Connection {
    /// The organisation that owns the connection.
    pub target: OrganizationId,
    /// Its guest.
    pub guest: OrganizationId,
}

impl fmt::Display for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.target, self.guest)
    }
}

/// A command's place in the order of effects: later wins, ties go by command id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Version {
    /// When the caller decided, as far as it can be believed.
    pub effective_time: Timestamp,
    /// The tie-break.
    pub command_id: CommandId,
}

/// The newest command that was applied, or may have been.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// Its place in the order.
    pub version: Version,
    /// The value that it set.
    pub archived: bool,
    /// With whose credentials.
    pub requester: OrganizationId,
    /// Whether the upstream confirmed it. Otherwise its fate was never learnt.
    pub certain: bool,
}

/// A time in which no other command of the connection may be begun, since an attempt of `command_id` may still
/// take effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quiet {
    /// Its end.
    pub until: Timestamp,
    /// The command that is not bound by it.
    pub command_id: CommandId,
}

/// A doubt about what the upstream shows, and when it is to be healed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Suspicion {
    /// When it arose.
    pub since: Timestamp,
    /// When the newest applied value is to be sent again; during an attempt, when that is given up.
    pub due: Timestamp,
}

/// What is kept of a connection, for ever: a few dozen bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionRecord {
    /// Which connection.
    pub connection: Connection,
    /// The latest effective time given to a command of the connection.
    pub effective_time_last: Option<Timestamp>,
    /// The newest command applied or possibly applied.
    pub applied: Option<Applied>,
    /// The number of the last event.
    pub sequence: u64,
    /// The quiet time in force.
    pub quiet: Option<Quiet>,
    /// The part of the quiet time that the present claim did not cause and its end must not clear: an earlier
    /// unanswered attempt may take effect until then.
    pub settle_until: Option<Timestamp>,
    /// Set when a claim that may have sent something finished after it had lost its right: the upstream may
    /// show an older value than the newest applied one.
    pub suspicion: Option<Suspicion>,
}

impl ConnectionRecord {
    /// A connection of which nothing is known yet.
    #[must_use]
    pub fn new(connection: Connection) -> Self {
        Self {
            connection,
            effective_time_last: None,
            applied: None,
            sequence: 0,
            quiet: None,
            settle_until: None,
            suspicion: None,
        }
    }
}
