//! Messages of the contract into commands, records into messages of the contract.

use chrono::TimeDelta;
use uuid::Uuid;

use crate::domain::Timestamp;
use crate::domain::access::AskedBy;
use crate::domain::command::{Command, CommandId, Draft, IdempotencyKey, OrganizationId, field};
use crate::domain::error::{FieldViolation, Refusal};
use crate::domain::guest_connection::{self, GuestConnection};
use crate::domain::record::{CommandRecord, Door, EventRef, JsonText, Outcome, State};

use super::proto;

/// The seconds of 0001-01-01T00:00:00Z and 9999-12-31T23:59:59Z, between which the contract's timestamps lie.
const SECONDS_MIN: i64 = -62_135_596_800;
const SECONDS_MAX: i64 = 253_402_300_799;

/// A request to set the flag, whichever way.
#[derive(Debug, Clone)]
pub struct Wish {
    archived: bool,
    guest: String,
    requester: String,
    target: String,
    key: String,
    issue_time: Option<prost_types::Timestamp>,
    expire_time: Option<prost_types::Timestamp>,
}

impl From<proto::ArchiveGuestConnectionRequest> for Wish {
    fn from(request: proto::ArchiveGuestConnectionRequest) -> Self {
        Self {
            archived: true,
            guest: request.guest_organization_id,
            requester: request.requester_organization_id,
            target: request.target_organization_id,
            key: request.idempotency_key,
            issue_time: request.issue_time,
            expire_time: request.expire_time,
        }
    }
}

impl From<proto::UnarchiveGuestConnectionRequest> for Wish {
    fn from(request: proto::UnarchiveGuestConnectionRequest) -> Self {
        Self {
            archived: false,
            guest: request.guest_organization_id,
            requester: request.requester_organization_id,
            target: request.target_organization_id,
            key: request.idempotency_key,
            issue_time: request.issue_time,
            expire_time: request.expire_time,
        }
    }
}

impl Wish {
    /// The command wished for. A call without a key gets one made of `key_id`, one without a requester the `default`.
    ///
    /// # Errors
    /// `INVALID_FIELDS` with every field that breaks a rule.
    pub fn command(
        self,
        now: Timestamp,
        retention: TimeDelta,
        key_id: Uuid,
        default: Option<OrganizationId>,
    ) -> Result<Command, Refusal> {
        let mut violations = Vec::new();
        let issue_time = read_time(field::ISSUE_TIME, self.issue_time, &mut violations);
        let expire_time = read_time(field::EXPIRE_TIME, self.expire_time, &mut violations);
        let key = if self.key.is_empty() {
            IdempotencyKey::generated(key_id).as_str().to_owned()
        } else {
            self.key
        };
        let mut draft = Draft {
            requester: self.requester,
            target: self.target,
            guest: self.guest,
            archived: Some(self.archived),
            key,
            issue_time,
            expire_time,
            violations,
        };
        draft.default_requester(default);
        Command::new(draft, now, retention).map_err(Refusal::invalid)
    }
}

fn read_time(
    name: &str,
    time: Option<prost_types::Timestamp>,
    violations: &mut Vec<FieldViolation>,
) -> Option<Timestamp> {
    let time = time?;
    let nanos = u32::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
    let seconds = Some(time.seconds).filter(|seconds| (SECONDS_MIN..=SECONDS_MAX).contains(seconds));
    let read = seconds.zip(nanos).and_then(|(seconds, nanos)| Timestamp::from_timestamp(seconds, nanos));
    if read.is_none() {
        let rule = "must lie in the years 1 to 9999, with nanos from 0 to 999999999";
        violations.push(FieldViolation::new(name, rule));
    }
    read
}

/// Which command is looked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Lookup {
    /// By our name for it.
    Id(CommandId),
    /// By the caller's.
    Key(OrganizationId, IdempotencyKey),
}

impl Lookup {
    /// Reads a request. A key without a requester is one of the `default`.
    ///
    /// # Errors
    /// `INVALID_FIELDS` with every field that breaks a rule.
    pub fn read(request: proto::GetCommandRequest, default: Option<OrganizationId>) -> Result<Self, Refusal> {
        use proto::get_command_request::Lookup as Wanted;
        let mut violations = Vec::new();
        let mut check = |name: &str, rule: &str| violations.push(FieldViolation::new(name, rule));
        let lookup = match request.lookup {
            None => {
                check("lookup", "is required: command_id or key");
                None
            }
            Some(Wanted::CommandId(text)) => {
                let id = Some(text).filter(|text| text.len() == 36).and_then(|t| Uuid::try_parse(&t).ok());
                if id.is_none() {
                    check("command_id", "must be a UUID in its hyphenated form");
                }
                id.map(|id| Self::Id(CommandId(id)))
            }
            Some(Wanted::Key(key)) => {
                let requester = match default.filter(|_| key.requester_organization_id.is_empty()) {
                    Some(default) => Ok(default),
                    None => OrganizationId::parse(&key.requester_organization_id)
                        .map_err(|rule| check("key.requester_organization_id", rule)),
                };
                let key = IdempotencyKey::parse(&key.idempotency_key)
                    .map_err(|rule| check("key.idempotency_key", rule));
                requester.ok().zip(key.ok()).map(|(requester, key)| Self::Key(requester, key))
            }
        };
        lookup.ok_or_else(|| Refusal::invalid(violations))
    }

    /// The name of the command as a resource.
    #[must_use]
    pub fn resource_name(&self) -> String {
        match self {
            Self::Id(id) => id.to_string(),
            Self::Key(requester, key) => format!("{requester}/{}", key.as_str()),
        }
    }
}

/// A command that succeeded, for either answer of the contract.
#[derive(Debug, Clone)]
pub struct Success {
    guest_connection: Option<proto::GuestConnection>,
    command_id: String,
    replayed: bool,
    idempotency_key: String,
    incomplete: bool,
}

impl Success {
    /// What is told of `record` with its `outcome`.
    #[must_use]
    pub fn of(record: &CommandRecord, outcome: &Outcome, replayed: bool) -> Self {
        Self {
            guest_connection: outcome.guest_connection.as_ref().map(connection_text),
            command_id: record.id.to_string(),
            replayed,
            idempotency_key: record.command.key.as_str().to_owned(),
            incomplete: outcome.incomplete,
        }
    }
}

impl From<Success> for proto::ArchiveGuestConnectionResponse {
    fn from(success: Success) -> Self {
        let Success { guest_connection, command_id, replayed, idempotency_key, incomplete } = success;
        Self { guest_connection, command_id, replayed, idempotency_key, incomplete }
    }
}

impl From<Success> for proto::UnarchiveGuestConnectionResponse {
    fn from(success: Success) -> Self {
        let Success { guest_connection, command_id, replayed, idempotency_key, incomplete } = success;
        Self { guest_connection, command_id, replayed, idempotency_key, incomplete }
    }
}

/// A command and what became of it.
#[must_use]
pub fn command(record: &CommandRecord) -> proto::Command {
    proto::Command {
        command_id: record.id.to_string(),
        requester_organization_id: record.command.requester.to_string(),
        target_organization_id: record.command.connection.target.to_string(),
        guest_organization_id: record.command.connection.guest.to_string(),
        archived: record.command.archived,
        idempotency_key: record.command.key.as_str().to_owned(),
        door: door(record.door).into(),
        state: state(record.state).into(),
        attempts: record.attempts,
        maybe_applied: record.maybe_applied,
        effective_time: Some(time(record.effective_time)),
        accept_time: Some(time(record.accepted_time)),
        due_time: record.due_time.map(time),
        finish_time: record.finished_time.map(time),
        expire_time: record.command.expire_time.map(time),
        outcome: record.outcome.as_ref().map(outcome),
        event: record.event.as_ref().map(event),
        asked_by: asked_by(&record.asked_by),
    }
}

/// Absent if nothing is known of the caller.
fn asked_by(asked_by: &AskedBy) -> Option<proto::CommandAskedBy> {
    let AskedBy { principal, address } = asked_by.clone();
    (principal.is_some() || address.is_some()).then(|| proto::CommandAskedBy {
        principal: principal.unwrap_or_default(),
        address: address.unwrap_or_default(),
    })
}

const fn door(door: Door) -> proto::CommandDoor {
    match door {
        Door::Grpc => proto::CommandDoor::Grpc,
        Door::Amqp => proto::CommandDoor::Amqp,
    }
}

const fn state(state: State) -> proto::CommandState {
    match state {
        State::Accepted => proto::CommandState::Accepted,
        State::InFlight => proto::CommandState::InFlight,
        State::Deferred => proto::CommandState::Deferred,
        State::Succeeded => proto::CommandState::Succeeded,
        State::Rejected => proto::CommandState::Rejected,
        State::Superseded => proto::CommandState::Superseded,
        State::Failed => proto::CommandState::Failed,
        State::Abandoned => proto::CommandState::Abandoned,
    }
}

fn outcome(outcome: &Outcome) -> proto::CommandOutcome {
    let refusal = outcome.refusal.as_ref();
    proto::CommandOutcome {
        reason: refusal.map(|refusal| refusal.reason.as_str().to_owned()).unwrap_or_default(),
        message: refusal.map(|refusal| refusal.message.clone()).unwrap_or_default(),
        upstream_status: outcome.upstream_status.unwrap_or_default().into(),
        guest_connection: outcome.guest_connection.as_ref().map(connection_text),
        incomplete: outcome.incomplete,
    }
}

fn event(event: &EventRef) -> proto::CommandEvent {
    proto::CommandEvent {
        event_id: event.id.to_string(),
        sequence: event.sequence,
        confirmed: event.confirmed_time.is_some(),
        confirm_time: event.confirmed_time.map(time),
    }
}

/// What differs from the contract was counted when the answer came, and is left out here.
fn connection_text(text: &JsonText) -> proto::GuestConnection {
    let (read, _drifts) = guest_connection::read(text);
    connection(read)
}

fn connection(read: GuestConnection) -> proto::GuestConnection {
    let status = match read.status.as_deref() {
        Some("connected") => proto::GuestConnectionStatus::Connected,
        Some("disconnected") => proto::GuestConnectionStatus::Disconnected,
        _ => proto::GuestConnectionStatus::Unspecified,
    };
    let id = |id: Option<Uuid>| id.map(|id| id.to_string());
    proto::GuestConnection {
        host_organization_id: id(read.host_organization_id).unwrap_or_default(),
        guest_organization_id: id(read.guest_organization_id).unwrap_or_default(),
        status: status.into(),
        status_text: read.status.unwrap_or_default(),
        guest_name: read.guest_name.unwrap_or_default(),
        guest_email: read.guest_email.unwrap_or_default(),
        owner_email: read.owner_email.unwrap_or_default(),
        archived: read.archived,
        created_at: read.created_at.map(time),
        updated_at: read.updated_at.map(time),
        total_score: read.total_score,
        score_updated_at: read.score_updated_at.map(time),
        archived_at: read.archived_at.map(time),
        active_action_type: read.active_action_type,
        active_action_updated_at: read.active_action_updated_at.map(time),
        parent_organization_id: id(read.parent_organization_id),
        parent_organization_name: read.parent_organization_name,
    }
}

/// A leap second has more nanoseconds than the contract's form can hold; its last one stands for it.
fn time(time: Timestamp) -> prost_types::Timestamp {
    let nanos = i32::try_from(time.timestamp_subsec_nanos().min(999_999_999)).unwrap_or_default();
    prost_types::Timestamp { seconds: time.timestamp(), nanos }
}

#[cfg(test)]
#[path = "convert_tests.rs"]
mod tests;
