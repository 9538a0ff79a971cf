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
    /// [`field::REQUESTER`]; required, unless there is one by default.
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

impl Draft {
    /// Puts the requester in that is meant where none is named. One that was given but cannot be read stays at fault.
    pub fn default_requester(&mut self, requester: Option<OrganizationId>) {
        let is_faulty = self.violations.iter().any(|violation| violation.field == field::REQUESTER);
        if let Some(requester) = requester.filter(|_| self.requester.is_empty() && !is_faulty) {
            self.requester = requester.to_string();
        }
    }
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Texts around what is allowed.
    fn text() -> impl Strategy<Value = String> {
        prop_oneof![
            ".{0,300}",
            "[!-~]{0,300}",
            "[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}",
            "[0-9a-f-]{30,40}",
            Just(Uuid::nil().to_string()),
        ]
    }

    #[test]
    fn a_default_stands_in_for_a_requester_that_is_missing_and_for_no_other() {
        let default = OrganizationId(Uuid::from_u128(1));
        let requester = |requester: &str, violations: Vec<FieldViolation>| {
            let mut draft = Draft { requester: requester.to_owned(), violations, ..Draft::default() };
            draft.default_requester(Some(default));
            draft.requester
        };
        assert_eq!(requester("", Vec::new()), default.to_string());
        assert_eq!(requester("someone", Vec::new()), "someone");
        assert_eq!(requester("", vec![FieldViolation::new(field::REQUESTER, "must be a string")]), "");
        assert_eq!(
            requester("", vec![FieldViolation::new(field::GUEST, "is required")]),
            default.to_string()
        );
    }

    proptest! {
        #[test]
        fn a_key_is_visible_ascii_as_it_came(text in text()) {
            let allowed = (1..=255).contains(&text.chars().count()) && text.chars().all(|c| ('!'..='~').contains(&c));
            let key = IdempotencyKey::parse(&text);
            prop_assert_eq!(key.is_ok(), allowed);
            if let Ok(key) = key {
                prop_assert_eq!(key.as_str(), text);
            }
        }

        #[test]
        fn an_organization_is_a_hyphenated_uuid(text in text()) {
            if let Ok(organization) = OrganizationId::parse(&text) {
                prop_assert_eq!(organization.to_string(), text.to_ascii_lowercase());
                prop_assert!(!organization.0.is_nil());
            }
        }

        #[test]
        fn every_organization_but_none_is_read(id in 1u128..) {
            let organization = OrganizationId(Uuid::from_u128(id));
            prop_assert_eq!(OrganizationId::parse(&organization.to_string()), Ok(organization));
            prop_assert_eq!(OrganizationId::parse(&organization.to_string().to_uppercase()), Ok(organization));
        }

        #[test]
        fn a_draft_is_a_command_or_says_what_is_wrong(
            requester in text(), target in text(), guest in text(), archived in any::<Option<bool>>(), key in text(),
        ) {
            let draft = Draft { requester, target, guest, archived, key, ..Draft::default() };
            match Command::new(draft.clone(), Timestamp::UNIX_EPOCH, TimeDelta::days(7)) {
                Ok(command) => {
                    prop_assert_eq!(command.requester.to_string(), draft.requester.to_ascii_lowercase());
                    prop_assert_eq!(Some(command.archived), draft.archived);
                    prop_assert_eq!(command.key.as_str(), draft.key);
                    let target = if draft.target.is_empty() { draft.requester } else { draft.target };
                    prop_assert_eq!(command.connection.target.to_string(), target.to_ascii_lowercase());
                }
                Err(violations) => prop_assert!(!violations.is_empty()),
            }
        }
    }
}
