//! The pipeline behind both doors.

use std::future::Future;

use tokio::time::Instant;

use crate::domain::Timestamp;
use crate::domain::command::{Command, CommandId, IdempotencyKey, OrganizationId};
use crate::domain::error::Refusal;
use crate::domain::record::{CommandRecord, Door, ReplyAddress};
use crate::domain::trace::TraceContext;

/// A command and how its caller wants to hear of it.
#[derive(Debug, Clone)]
pub struct Submission {
    /// What is asked.
    pub command: Command,
    /// By which door it came.
    pub door: Door,
    /// The context of the door's span.
    pub trace: TraceContext,
    /// The caller's name for its conversation.
    pub correlation_id: Option<String>,
    /// Where an answer is wanted in writing.
    pub reply: Option<ReplyAddress>,
    /// Until when the caller must have its answer. Work goes on after it.
    pub answer_by: Instant,
}

/// What a caller hears.
#[derive(Debug, Clone)]
pub enum Answer {
    /// The command is final: `record.outcome` says how it ended.
    Final {
        /// The command.
        record: CommandRecord,
        /// Whether the outcome was known before this submission.
        replayed: bool,
    },
    /// The command is durable and runs later, without the caller's doing; `record.outcome` says what happened so far.
    Deferred(CommandRecord),
    /// The command is durable and waits for another one or a quiet time. Told to the queue's door only.
    Waiting(CommandRecord),
}

/// The pipeline. Cloning shares it.
#[derive(Clone)]
pub struct Archiver {}

impl Archiver {
    /// Takes a command in. Everything that decides its place among the commands of its connection is done before this
    /// returns, so that the order of calls is the order of arrival; the future then waits for the answer. Dropping the
    /// future cancels nothing.
    ///
    /// # Errors
    /// The future yields a refusal if the command was not accepted, or `OUTCOME_PENDING` / `COMMAND_IN_PROGRESS` when
    /// `answer_by` came first.
    pub fn submit(
        &self,
        submission: Submission,
    ) -> impl Future<Output = Result<Answer, Refusal>> + Send + 'static {
        let _ = submission;
        std::future::pending()
    }

    /// A command by its id.
    ///
    /// # Errors
    /// `STORE_UNAVAILABLE`.
    pub async fn command(&self, id: CommandId) -> Result<Option<CommandRecord>, Refusal> {
        let _ = id;
        std::future::pending().await
    }

    /// A command by its requester and key.
    ///
    /// # Errors
    /// `STORE_UNAVAILABLE`.
    pub async fn command_by_key(
        &self,
        requester: OrganizationId,
        key: IdempotencyKey,
    ) -> Result<Option<CommandRecord>, Refusal> {
        let _ = (requester, key);
        std::future::pending().await
    }

    /// The clock that validation goes by.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        chrono::Utc::now()
    }

    /// How long commands are remembered, for validation.
    #[must_use]
    pub fn retention(&self) -> chrono::TimeDelta {
        chrono::TimeDelta::days(7)
    }
}
