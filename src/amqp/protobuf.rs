//! A command in protobuf: the requests of the gRPC contract, named by the `type` property.

use chrono::DateTime;
use prost::Message;

use crate::domain::Timestamp;
use crate::domain::command::{Draft, field};
use crate::domain::error::{FieldViolation, Reason, Refusal};
use crate::proto::{ArchiveGuestConnectionRequest, UnarchiveGuestConnectionRequest};

/// The package of the contract, with the point.
const PACKAGE: &str = "guestconnections.v1.";

/// Reads the message called `name`, with or without a type URL before it.
///
/// # Errors
/// `CONTENT_TYPE_UNSUPPORTED` for another message, `UNDECODABLE` if `body` is none.
pub fn command(name: Option<&str>, body: &[u8]) -> Result<Draft, Refusal> {
    let message = name.map(|name| name.rsplit('/').next().unwrap_or(name));
    match message.and_then(|name| name.strip_prefix(PACKAGE)) {
        Some("ArchiveGuestConnectionRequest") => {
            let request: ArchiveGuestConnectionRequest = read(body)?;
            Ok(draft(
                UnarchiveGuestConnectionRequest {
                    guest_organization_id: request.guest_organization_id,
                    requester_organization_id: request.requester_organization_id,
                    target_organization_id: request.target_organization_id,
                    idempotency_key: request.idempotency_key,
                    issue_time: request.issue_time,
                    expire_time: request.expire_time,
                },
                true,
            ))
        }
        Some("UnarchiveGuestConnectionRequest") => Ok(draft(read(body)?, false)),
        _ => Err(Refusal::new(
            Reason::ContentTypeUnsupported,
            "a protobuf body must be named by the type property: \
             guestconnections.v1.ArchiveGuestConnectionRequest or guestconnections.v1.UnarchiveGuestConnectionRequest",
        )),
    }
}

fn read<M: Message + Default>(body: &[u8]) -> Result<M, Refusal> {
    M::decode(body).map_err(|_| {
        Refusal::new(Reason::Undecodable, "the body is not the protobuf message that it is said to be")
    })
}

/// Both requests have the same fields.
fn draft(request: UnarchiveGuestConnectionRequest, archived: bool) -> Draft {
    let mut violations = Vec::new();
    let mut time = |name: &str, time: Option<prost_types::Timestamp>| -> Option<Timestamp> {
        let time = time?;
        let nanos = u32::try_from(time.nanos).ok().filter(|nanos| *nanos < 1_000_000_000);
        let read = nanos.and_then(|nanos| DateTime::from_timestamp(time.seconds, nanos));
        if read.is_none() {
            violations.push(FieldViolation::new(name, "must be a valid timestamp"));
        }
        read
    };
    let issue_time = time(field::ISSUE_TIME, request.issue_time);
    let expire_time = time(field::EXPIRE_TIME, request.expire_time);
    Draft {
        requester: request.requester_organization_id,
        target: request.target_organization_id,
        guest: request.guest_organization_id,
        archived: Some(archived),
        key: request.idempotency_key,
        issue_time,
        expire_time,
        violations,
    }
}
