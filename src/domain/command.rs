//! What a caller asks for, and the rules that its fields obey.

use std::fmt;

use chrono::{SubsecRound, TimeDelta};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Timestamp;
use super::connection::Connection;
use super::error::FieldViolation;

/// Names of the fields as both doors spell them, for [`FieldViolation::field`].
pub mod field {
    /// The organisation on whose behalf the call is made.
    pub const REQUESTER: &str = "requester_organization_id";
    /// The organisation that owns the connection.
    pub const TARGET: &str = "target_organization_id";
    /// The guest of the connection.
    pub const GUEST: &str = "guest_organization_id";
    /// The value wanted.
    pub const ARCHIVED: &str = "archived";
    /// The caller's name for the command.
    pub const KEY: &str = "idempotency_key";
    /// When the caller decided.
    pub const ISSUE_TIME: &str = "issue_time";
    /// When the command loses its sense.
    pub const EXPIRE_TIME: &str = "expire_time";
}

/// Our name for a command: a UUIDv7, given at acceptance and kept through retries and redrives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CommandId(pub Uuid);

impl fmt::Display for CommandId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An organisation of the upstream API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OrganizationId(pub Uuid);

impl OrganizationId {
    /// Reads the hyphenated form of a UUID, which alone the upstream's contract shows.
    ///
    /// # Errors
    /// The rule that `text` breaks, as a sentence without a subject.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const RULE: &str =
            "must be a UUID in its hyphenated form, such as 0190c1d4-7c1e-7d3a-9a53-5c1f6e1b2a77";
        if text.len() != 36 {
            return Err(RULE);
        }
        match Uuid::try_parse(text) {
            Ok(id) if id.is_nil() => Err("must not be the nil UUID"),
            Ok(id) => Ok(Self(id)),
            Err(_) => Err(RULE),
        }
    }
}

impl fmt::Display for OrganizationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The caller's name for a command, unique within its requester organisation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IdempotencyKey(String);

impl IdempotencyKey {
    /// The greatest length, in characters.
    pub const LENGTH_MAX: usize = 255;

    /// Takes 1 to 255 visible ASCII characters (0x21 to 0x7E).
    ///
    /// # Errors
    /// The rule that `text` breaks, as a sentence without a subject.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        if text.is_empty() || text.len() > Self::LENGTH_MAX || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err("must be 1 to 255 visible ASCII characters, without spaces");
        }
        Ok(Self(text.to_owned()))
    }

    /// The key made for a caller that sent none.
    #[must_use]
    pub fn generated(id: Uuid) -> Self {
        Self(id.to_string())
    }

    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// A command as a door read it, before any rule was applied.
#[derive(Debug, Clone, Default)]
pub struct Draft {
    /// [`field::REQUESTER`]; required.
    pub requester: String,
    /// [`field::TARGET`]; empty means the requester.
    pub target: String,
    /// [`field::GUEST`]; required.
    pub guest: String,
    /// [`field::ARCHIVED`]; required.
    pub archived: Option<bool>,
    /// [`field::KEY`]; required here, a door that makes keys up has done so before.
    pub key: String,
    /// [`field::ISSUE_TIME`]; optional.
    pub issue_time: Option<Timestamp>,
    /// [`field::EXPIRE_TIME`]; optional.
    pub expire_time: Option<Timestamp>,
    /// What the door itself found wrong, so that all faults are told at once.
    pub violations: Vec<FieldViolation>,
}

/// *Archive or unarchive this guest connection*: a valid wish.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Command {
    /// On whose behalf, and so with whose credentials.
    pub requester: OrganizationId,
    /// Which connection.
    pub connection: Connection,
    /// The value that it shall have.
    pub archived: bool,
    /// The caller's name for the command.
    pub key: IdempotencyKey,
    /// When the caller decided, if it says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issue_time: Option<Timestamp>,
    /// After which it must not be sent any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expire_time: Option<Timestamp>,
}

impl Command {
    /// Applies every rule to `draft`.
    ///
    /// `retention` is how long commands are remembered: an `issue_time` older than that could repeat one that
    /// is forgotten.
    ///
    /// # Errors
    /// Every field that breaks a rule, in the order of the fields; never an empty list.
    pub fn new(draft: Draft, now: Timestamp, retention: TimeDelta) -> Result<Self, Vec<FieldViolation>> {
        let mut violations = draft.violations;
        let known = |violations: &[FieldViolation], name: &str| violations.iter().any(|v| v.field == name);
        let mut organization = |name: &'static str, text: &str| {
            if known(&violations, name) {
                return None;
            }
            let parsed = if text.is_empty() { Err("is required") } else { OrganizationId::parse(text) };
            parsed.map_err(|rule| violations.push(FieldViolation::new(name, rule))).ok()
        };
        let requester = organization(field::REQUESTER, &draft.requester);
        let target =
            if draft.target.is_empty() { requester } else { organization(field::TARGET, &draft.target) };
        let guest = organization(field::GUEST, &draft.guest);
        if draft.archived.is_none() && !known(&violations, field::ARCHIVED) {
            violations.push(FieldViolation::new(field::ARCHIVED, "is required"));
        }
        let key = match IdempotencyKey::parse(&draft.key) {
            Ok(key) => Some(key),
            Err(_) if known(&violations, field::KEY) => None,
            Err(rule) => {
                violations.push(FieldViolation::new(field::KEY, rule));
                None
            }
        };
        let issue_time = draft.issue_time.map(|t| t.trunc_subsecs(6));
        let expire_time = draft.expire_time.map(|t| t.trunc_subsecs(6));
        if issue_time.is_some_and(|issued| issued < now - retention) {
            let rule =
                format!("must not be older than the {} days that commands are kept", retention.num_days());
            violations.push(FieldViolation::new(field::ISSUE_TIME, rule));
        }
        if let (Some(issued), Some(expires)) = (issue_time, expire_time)
            && expires <= issued
        {
            violations.push(FieldViolation::new(field::EXPIRE_TIME, "must be later than issue_time"));
        }
        match (requester, target, guest, draft.archived, key) {
            (Some(requester), Some(target), Some(guest), Some(archived), Some(key))
                if violations.is_empty() =>
            {
                let connection = Connection { target, guest };
                Ok(Self { requester, connection, archived, key, issue_time, expire_time })
            }
            _ => Err(violations),
        }
    }

    /// Whether `other`, under the same key, asks for the same thing.
    #[must_use]
    pub fn same_parameters(&self, other: &Self) -> bool {
        self.connection == other.connection && self.archived == other.archived
    }
}
