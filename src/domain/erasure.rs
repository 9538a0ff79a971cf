//! Forgetting someone: what is taken out of what is kept, and what stays.
//!
//! Bodies go (the connection as the upstream showed it), and the texts in which the upstream explained itself. Facts stay:
//! keys, parameters, states, reasons, versions and sequences, by which nothing is done twice or out of order.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

use super::command::OrganizationId;
use super::error::Refusal;
use super::message::Message;
use super::record::Outcome;

/// Whose bodies are erased.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// Those of every connection with this guest.
    Guest(OrganizationId),
    /// Those of what was asked in this organisation's name, and of the connections that it owns.
    Organization(OrganizationId),
}

/// What forgetting did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// Commands that were looked at: all that are kept of the one concerned.
    pub commands: u64,
    /// Outcomes that were emptied.
    pub outcomes: u64,
    /// Events not published yet that were emptied; they are still told.
    pub events: u64,
    /// Dead letters not published yet that were emptied.
    pub dead_letters: u64,
    /// Replies not published yet that were emptied.
    pub replies: u64,
    /// Commands that are not final: their outcomes, with bodies, are still to come.
    pub not_final: u64,
}

impl AddAssign for Forgotten {
    fn add_assign(&mut self, other: Self) {
        self.commands += other.commands;
        self.outcomes += other.outcomes;
        self.events += other.events;
        self.dead_letters += other.dead_letters;
        self.replies += other.replies;
        self.not_final += other.not_final;
    }
}

impl Forgotten {
    /// Counts a message that was emptied.
    pub const fn count(&mut self, message: &Message) {
        match message {
            Message::Event(_) => self.events += 1,
            Message::DeadLetter(_) => self.dead_letters += 1,
            Message::Reply(_) => self.replies += 1,
        }
    }
}

/// Stands in the place of what the upstream said.
const FORGOTTEN_TEXT: &str = "what the API said was forgotten on request";

impl Outcome {
    /// Takes the body and the upstream's texts out. Yields whether anything was there.
    pub fn forget(&mut self) -> bool {
        let had_body = self.guest_connection.take().is_some();
        self.incomplete |= had_body;
        self.refusal.as_mut().is_some_and(forget_text) || had_body
    }
}

impl Message {
    /// Takes the body and the upstream's texts out, so that it can still be told. Yields whether anything was there.
    pub fn forget(&mut self) -> bool {
        match self {
            Self::Event(event) => {
                let had_body = event.guest_connection.take().is_some();
                event.incomplete |= had_body;
                had_body
            }
            Self::DeadLetter(letter) => forget_text(&mut letter.refusal),
            Self::Reply(reply) => reply.outcome.forget(),
        }
    }
}

/// The texts of our own refusals name nobody; they stay.
fn forget_text(refusal: &mut Refusal) -> bool {
    let is_foreign = refusal.reason.as_str().starts_with("UPSTREAM_");
    if !is_foreign || refusal.message == FORGOTTEN_TEXT {
        return false;
    }
    FORGOTTEN_TEXT.clone_into(&mut refusal.message);
    refusal.violations.clear();
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::error::{FieldViolation, Reason};
    use crate::domain::record::JsonText;

    #[test]
    fn bodies_and_foreign_texts_go_and_facts_stay() {
        let mut outcome = Outcome {
            upstream_status: Some(200),
            guest_connection: JsonText::object(r#"{"guest_name":"N"}"#),
            ..Outcome::default()
        };
        assert!(outcome.forget());
        assert!(outcome.incomplete && outcome.guest_connection.is_none());
        assert_eq!(outcome.upstream_status, Some(200));
        assert!(!outcome.forget(), "once");

        let mut refused = Outcome::refused(Some(422), Reason::UpstreamInvalid, "N is not known");
        let violations = vec![FieldViolation::new("guest", "N is not known")];
        refused.refusal = refused.refusal.map(|refusal| Refusal { violations, ..refusal });
        assert!(refused.forget());
        let refusal = refused.refusal.clone().unwrap();
        assert_eq!((refusal.reason, refusal.message.as_str()), (Reason::UpstreamInvalid, FORGOTTEN_TEXT));
        assert!(refusal.violations.is_empty() && !refused.incomplete && !refused.forget());

        let mut own = Outcome::refused(None, Reason::Superseded, "a newer command came first");
        assert!(!own.forget());
    }
}
