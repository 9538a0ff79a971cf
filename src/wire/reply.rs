//! A reply in JSON.

use serde::Serialize;

use crate::domain::error::FieldViolation;
use crate::domain::message::Reply;
use crate::domain::record::JsonText;

/// The status of a reply to a message that was not accepted as a command.
const REFUSED: &str = "refused";

/// The body of a reply.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ReplyBody<'a> {
    /// The state of the command, or `refused` if the message did not become one.
    status: &'static str,
    reason: Option<&'static str>,
    message: Option<&'a str>,
    violations: &'a [FieldViolation],
    command_id: Option<String>,
    idempotency_key: Option<&'a str>,
    replayed: bool,
    guest_connection: Option<&'a JsonText>,
    incomplete: bool,
}

impl<'a> From<&'a Reply> for ReplyBody<'a> {
    fn from(reply: &'a Reply) -> Self {
        let command = reply.command.as_ref();
        let refusal = reply.outcome.refusal.as_ref();
        Self {
            status: command.map_or(REFUSED, |command| command.state.as_str()),
            reason: refusal.map(|refusal| refusal.reason.as_str()),
            message: refusal.map(|refusal| refusal.message.as_str()),
            violations: refusal.map_or(&[], |refusal| &refusal.violations),
            command_id: command.map(|command| command.id.to_string()),
            idempotency_key: command.map(|command| command.command.key.as_str()),
            replayed: reply.replayed,
            guest_connection: reply.outcome.guest_connection.as_ref(),
            incomplete: reply.outcome.incomplete,
        }
    }
}
