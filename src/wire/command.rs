//! A command in JSON.

use serde::Serialize;

use super::time_text;
use crate::domain::command::Command;
use crate::domain::message::CommandSummary;

/// A command as the command queue takes it: what is written here can be sent again as it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommandBody {
    requester_organization_id: String,
    target_organization_id: String,
    guest_organization_id: String,
    archived: bool,
    idempotency_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    issue_time: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    expire_time: Option<String>,
}

impl From<&Command> for CommandBody {
    fn from(command: &Command) -> Self {
        Self {
            requester_organization_id: command.requester.to_string(),
            target_organization_id: command.connection.target.to_string(),
            guest_organization_id: command.connection.guest.to_string(),
            archived: command.archived,
            idempotency_key: command.key.as_str().to_owned(),
            issue_time: command.issue_time.map(time_text),
            expire_time: command.expire_time.map(time_text),
        }
    }
}

/// A command with its history, for readers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct CommandHistory {
    command_id: String,
    #[serde(flatten)]
    command: CommandBody,
    state: &'static str,
    effective_time: String,
    attempts: u32,
    generation: u32,
}

impl From<&CommandSummary> for CommandHistory {
    fn from(summary: &CommandSummary) -> Self {
        Self {
            command_id: summary.id.to_string(),
            command: (&summary.command).into(),
            state: summary.state.as_str(),
            effective_time: time_text(summary.effective_time),
            attempts: summary.attempts,
            generation: summary.generation,
        }
    }
}
