//! A record for tests.

use chrono::TimeDelta;
use uuid::Uuid;

use crate::domain::Timestamp;
use crate::domain::access::AskedBy;
use crate::domain::command::{Command, CommandId, IdempotencyKey, OrganizationId};
use crate::domain::connection::Connection;
use crate::domain::record::{CommandRecord, Door, State};
use crate::domain::trace::TraceContext;

/// A command in `state`, with the longest key there is and an attempt whose fate is unknown.
pub fn record(state: State) -> CommandRecord {
    let organization = |n: u128| OrganizationId(Uuid::from_u128(n));
    CommandRecord {
        id: CommandId(Uuid::from_u128(7)),
        arrival: 1,
        command: Command {
            requester: organization(1),
            connection: Connection { target: organization(2), guest: organization(3) },
            archived: true,
            key: IdempotencyKey::parse(&"k".repeat(IdempotencyKey::LENGTH_MAX)).expect("a key"),
            issue_time: None,
            expire_time: None,
        },
        door: Door::Amqp,
        asked_by: AskedBy { principal: Some("billing".to_owned()), address: None },
        trace: TraceContext::default(),
        correlation_id: None,
        replies: Vec::new(),
        state,
        generation: 1,
        epoch: 1,
        attempts: 3,
        maybe_applied: true,
        effective_time: Timestamp::UNIX_EPOCH,
        accepted_time: Timestamp::UNIX_EPOCH,
        due_time: None,
        waiting: false,
        paused_since: None,
        paused: TimeDelta::zero(),
        finished_time: None,
        outcome: None,
        event: None,
    }
}
