//! A command in JSON. Fields are taken by hand, so that everything that is wrong is told at once.

use std::fmt;

use chrono::DateTime;
use serde::de::{DeserializeOwned, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::domain::Timestamp;
use crate::domain::command::{Draft, field};
use crate::domain::error::{FieldViolation, Reason, Refusal, public_text};

/// Violations told of one message, at most.
pub const VIOLATIONS_MAX: usize = 32;

/// The greatest length of a foreign field name that is repeated, in characters.
const NAME_LENGTH_MAX: usize = 64;

/// The members of a JSON object in the order in which they came, repeated ones included.
#[derive(Debug)]
pub struct Members {
    members: Vec<(String, Box<RawValue>)>,
    /// What was found wrong with them.
    pub violations: Vec<FieldViolation>,
}

/// Reads a command.
///
/// # Errors
/// `UNDECODABLE` if `body` is not a JSON object. Faults of fields are in the draft.
pub fn command(body: &[u8]) -> Result<Draft, Refusal> {
    let mut members = Members::read(body)?;
    let mut draft = Draft {
        requester: members.text(field::REQUESTER).unwrap_or_default(),
        target: members.text(field::TARGET).unwrap_or_default(),
        guest: members.text(field::GUEST).unwrap_or_default(),
        archived: members.take(field::ARCHIVED, "must be true or false"),
        key: members.text(field::KEY).unwrap_or_default(),
        issue_time: members.time(field::ISSUE_TIME),
        expire_time: members.time(field::EXPIRE_TIME),
        violations: Vec::new(),
    };
    members.refuse_others("is not a field of a command");
    draft.violations = members.violations;
    Ok(draft)
}

impl Members {
    /// Reads an object.
    ///
    /// # Errors
    /// `UNDECODABLE`. The text of the object is not repeated.
    pub fn read(body: &[u8]) -> Result<Self, Refusal> {
        let undecodable = |text: String| Refusal::new(Reason::Undecodable, text);
        if body.is_empty() {
            return Err(undecodable("the body is empty".to_owned()));
        }
        let mut deserializer = serde_json::Deserializer::from_slice(body);
        let members = deserializer.deserialize_map(MembersVisitor).and_then(|members| {
            deserializer.end()?;
            Ok(members)
        });
        let members = members.map_err(|error| {
            let (line, column) = (error.line(), error.column());
            undecodable(format!("the body is not one JSON object (line {line}, column {column})"))
        })?;
        Ok(Self { members, violations: Vec::new() })
    }

    /// Takes a member out as it stands; `null` is as good as absent.
    pub fn raw(&mut self, name: &str) -> Option<Box<RawValue>> {
        let mut found = None;
        let mut repeated = false;
        while let Some(index) = self.members.iter().position(|(other, _)| other == name) {
            repeated |= found.is_some();
            found = Some(self.members.remove(index).1);
        }
        if repeated {
            self.violation(name, "is given more than once");
            return None;
        }
        found.filter(|value| value.get() != "null")
    }

    /// Takes a member out; one that is not a `T` breaks `rule`.
    pub fn take<T: DeserializeOwned>(&mut self, name: &str, rule: &str) -> Option<T> {
        let value = self.raw(name)?;
        let read = serde_json::from_str(value.get()).ok();
        if read.is_none() {
            self.violation(name, rule);
        }
        read
    }

    /// Takes a string out.
    pub fn text(&mut self, name: &str) -> Option<String> {
        self.take(name, "must be a string")
    }

    fn time(&mut self, name: &str) -> Option<Timestamp> {
        const RULE: &str = "must be a time as RFC 3339 has it, such as \"2026-01-31T12:00:00Z\"";
        let text: String = self.take(name, RULE)?;
        let time = DateTime::parse_from_rfc3339(&text).ok().map(|time| time.to_utc());
        if time.is_none() {
            self.violation(name, RULE);
        }
        time
    }

    fn refuse_others(&mut self, rule: &str) {
        for (name, _) in std::mem::take(&mut self.members) {
            let name: String = public_text(&name).chars().take(NAME_LENGTH_MAX).collect();
            if !self.violations.iter().any(|violation| violation.field == name) {
                self.violation(&name, rule);
            }
        }
    }

    /// Notes a fault.
    pub fn violation(&mut self, name: &str, rule: &str) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(FieldViolation::new(name, rule));
        }
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Vec<(String, Box<RawValue>)>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}
