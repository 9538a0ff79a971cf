//! The gRPC door from a caller's side.

use std::time::Duration;

use guest_connection_adapter::proto;
use guest_connection_adapter::proto::get_command_request::Lookup;
use tokio::time::timeout;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::history::{Answer, CommandSeen, Door, State, Time};
use crate::plan::Wish;
use crate::stage::Client;

/// How long a caller without a deadline waits: longer than the adapter takes, unless that is frozen or gone.
const PATIENCE: Duration = Duration::from_secs(8);

/// A time as the contract writes it.
#[must_use]
pub fn timestamp(time: Time) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: time.timestamp(),
        nanos: i32::try_from(time.timestamp_subsec_nanos()).unwrap_or_default(),
    }
}

fn time(timestamp: &prost_types::Timestamp) -> Time {
    let nanos = u32::try_from(timestamp.nanos).unwrap_or_default();
    Time::from_timestamp(timestamp.seconds, nanos).unwrap_or_default()
}

fn request<T>(message: T, wish: &Wish, deadline: Option<Duration>) -> Request<T> {
    let mut request = Request::new(message);
    let span = &Uuid::new_v4().simple().to_string()[..16];
    let traceparent = format!("00-{}-{span}-01", wish.trace);
    if let Ok(value) = MetadataValue::try_from(traceparent) {
        request.metadata_mut().insert("traceparent", value);
    }
    if let Some(deadline) = deadline {
        request.set_timeout(deadline);
    }
    request
}

/// Makes one call for `wish`. `times` are its issue and expire times.
pub async fn call(
    mut client: Client,
    wish: &Wish,
    times: (Option<Time>, Option<Time>),
    deadline: Option<Duration>,
) -> Answer {
    let (issue_time, expire_time) = (times.0.map(timestamp), times.1.map(timestamp));
    let (guest_organization_id, requester_organization_id) =
        (wish.guest.to_string(), wish.requester.to_string());
    let (target_organization_id, idempotency_key) = (String::new(), wish.key.clone());
    let answer = async {
        if wish.archived {
            let message = proto::ArchiveGuestConnectionRequest {
                guest_organization_id,
                requester_organization_id,
                target_organization_id,
                idempotency_key,
                issue_time,
                expire_time,
            };
            let answer =
                client.archive_guest_connection(request(message, wish, deadline)).await?.into_inner();
            Ok((answer.command_id, answer.idempotency_key, answer.replayed))
        } else {
            let message = proto::UnarchiveGuestConnectionRequest {
                guest_organization_id,
                requester_organization_id,
                target_organization_id,
                idempotency_key,
                issue_time,
                expire_time,
            };
            let answer =
                client.unarchive_guest_connection(request(message, wish, deadline)).await?.into_inner();
            Ok((answer.command_id, answer.idempotency_key, answer.replayed))
        }
    };
    match timeout(PATIENCE, answer).await {
        Ok(Ok((command_id, key, replayed))) => Answer::Done { command_id, key, replayed },
        Ok(Err(status)) => refused(&status),
        Err(_) => Answer::Unknown("no answer in time".to_owned()),
    }
}

fn refused(status: &Status) -> Answer {
    match status.get_details_error_info() {
        Some(mut info) => Answer::Refused {
            reason: info.reason,
            command_id: info.metadata.remove("command_id"),
            key: info.metadata.remove("idempotency_key"),
        },
        None => Answer::Unknown(format!("{:?}: {}", status.code(), status.message())),
    }
}

/// What a command is looked up by: the caller's name for it.
#[must_use]
pub fn by_key(requester: Uuid, key: &str) -> Lookup {
    Lookup::Key(proto::CommandKey {
        requester_organization_id: requester.to_string(),
        idempotency_key: key.to_owned(),
    })
}

/// The adapter's name for it.
#[must_use]
pub fn by_id(id: &str) -> Lookup {
    Lookup::CommandId(id.to_owned())
}

/// The command looked for, or nothing if there is none.
///
/// # Errors
/// It could not be looked up.
pub async fn look_up(mut client: Client, lookup: Lookup) -> Result<Option<CommandSeen>, Box<Status>> {
    let mut request = Request::new(proto::GetCommandRequest { lookup: Some(lookup) });
    request.set_timeout(PATIENCE);
    match client.get_command(request).await {
        Ok(answer) => Ok(answer.into_inner().command.map(seen)),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(Box::new(status)),
    }
}

fn seen(command: proto::Command) -> CommandSeen {
    let (state, door) = (command.state(), command.door());
    CommandSeen {
        state: match state {
            proto::CommandState::Unspecified | proto::CommandState::Accepted => State::Accepted,
            proto::CommandState::InFlight => State::InFlight,
            proto::CommandState::Deferred => State::Deferred,
            proto::CommandState::Succeeded => State::Succeeded,
            proto::CommandState::Rejected => State::Rejected,
            proto::CommandState::Superseded => State::Superseded,
            proto::CommandState::Failed => State::Failed,
            proto::CommandState::Abandoned => State::Abandoned,
        },
        door: if door == proto::CommandDoor::Amqp { Door::Amqp } else { Door::Grpc },
        id: command.command_id,
        key: command.idempotency_key,
        guest: command.guest_organization_id.parse().unwrap_or_default(),
        archived: command.archived,
        attempts: command.attempts,
        maybe_applied: command.maybe_applied,
        effective_time: command.effective_time.as_ref().map(time).unwrap_or_default(),
        accept_time: command.accept_time.as_ref().map(time).unwrap_or_default(),
        due_time: command.due_time.as_ref().map(time),
        finish_time: command.finish_time.as_ref().map(time),
        reason: command.outcome.map(|outcome| outcome.reason).unwrap_or_default(),
        event: command.event.map(|event| (event.event_id, event.sequence, event.confirmed)),
    }
}
