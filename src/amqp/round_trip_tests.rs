//! A valid command, in every format that the queue takes, is read as the same command.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::amqp::properties::{insert, long};
use crate::domain::command::{Command, IdempotencyKey, OrganizationId};
use crate::domain::connection::Connection;
use crate::proto::{ArchiveGuestConnectionRequest, UnarchiveGuestConnectionRequest};
use crate::wire::command::CommandBody;
use crate::wire::samples;
use lapin::types::FieldTable;

const RULES: Rules = Rules { body_length_max: 64 * 1024, accept_without_key: false };
const RETENTION: TimeDelta = TimeDelta::days(7);
const PACKAGE: &str = "guestconnections.v1.";

fn organization() -> impl Strategy<Value = OrganizationId> {
    (1u128..).prop_map(|id| OrganizationId(Uuid::from_u128(id)))
}

/// Not older than what is remembered, and not so late that it would have five digits in its year.
fn time() -> impl Strategy<Value = Timestamp> {
    (-600_000_000_000i64..200_000_000_000_000_000)
        .prop_map(|micros| samples::time() + TimeDelta::microseconds(micros))
}

prop_compose! {
    fn command()(
        (requester, target, guest) in (organization(), organization(), organization()),
        archived in any::<bool>(), key in "[!-~]{1,255}",
        issued in proptest::option::of(time()), expires in proptest::option::of(time()),
    ) -> Command {
        let expire_time = expires.filter(|expires| issued.is_none_or(|issued| *expires > issued));
        Command {
            requester, connection: Connection { target, guest }, archived,
            key: IdempotencyKey::parse(&key).expect("a key"), issue_time: issued, expire_time,
        }
    }
}

fn json(command: &Command) -> String {
    serde_json::to_string(&CommandBody::from(command)).expect("JSON")
}

fn protobuf(command: &Command) -> (String, Vec<u8>) {
    let stamp = |time: Timestamp| prost_types::Timestamp {
        seconds: time.timestamp(),
        nanos: i32::try_from(time.timestamp_subsec_nanos()).expect("below a second"),
    };
    let request = UnarchiveGuestConnectionRequest {
        guest_organization_id: command.connection.guest.to_string(),
        requester_organization_id: command.requester.to_string(),
        target_organization_id: command.connection.target.to_string(),
        idempotency_key: command.key.as_str().to_owned(),
        issue_time: command.issue_time.map(stamp),
        expire_time: command.expire_time.map(stamp),
    };
    if !command.archived {
        return (format!("{PACKAGE}UnarchiveGuestConnectionRequest"), request.encode_to_vec());
    }
    // Both requests have the same fields under the same numbers, which this relies on.
    let archive =
        ArchiveGuestConnectionRequest::decode(request.encode_to_vec().as_slice()).expect("a request");
    (format!("{PACKAGE}ArchiveGuestConnectionRequest"), archive.encode_to_vec())
}

fn read(properties: &BasicProperties, body: &[u8]) -> Result<Command, Refusal> {
    decode(properties, body, &RULES, Uuid::nil())?.command(samples::time(), RETENTION)
}

fn of_type(content_type: &str) -> BasicProperties {
    BasicProperties::default().with_content_type(content_type.into())
}

fn binary(prefix: &str, kind: &str) -> FieldTable {
    let mut headers = FieldTable::default();
    for (name, value) in [("specversion", "1.0"), ("source", "/shop"), ("id", "e1"), ("type", kind)] {
        insert(&mut headers, &format!("{prefix}{name}"), long(value));
    }
    headers
}

fn structured(kind: &str, content_type: &str, data: &str) -> String {
    format!(
        r#"{{"specversion":"1.0","source":"/shop","id":"e1","type":"{kind}","datacontenttype":"{content_type}",{data}}}"#
    )
}

proptest! {
    #[test]
    fn json_is_read_as_it_was_meant(command in command()) {
        let body = json(&command);
        prop_assert_eq!(read(&of_type("application/json"), body.as_bytes()), Ok(command.clone()));
        prop_assert_eq!(read(&BasicProperties::default(), body.as_bytes()), Ok(command));
    }

    #[test]
    fn protobuf_is_read_as_it_was_meant(command in command()) {
        let (kind, body) = protobuf(&command);
        let properties = of_type("application/x-protobuf").with_type(kind.into());
        prop_assert_eq!(read(&properties, &body), Ok(command));
    }

    #[test]
    fn events_in_binary_mode_are_read_as_they_were_meant(command in command(), colon in any::<bool>()) {
        let prefix = if colon { "cloudEvents:" } else { "cloudEvents_" };
        let properties = of_type("application/json").with_headers(binary(prefix, "any"));
        prop_assert_eq!(read(&properties, json(&command).as_bytes()), Ok(command.clone()));
        let (kind, body) = protobuf(&command);
        let properties = of_type("application/x-protobuf").with_headers(binary(prefix, &kind));
        prop_assert_eq!(read(&properties, &body), Ok(command));
    }

    #[test]
    fn events_in_structured_mode_are_read_as_they_were_meant(command in command()) {
        let properties = of_type(STRUCTURED_CONTENT_TYPE);
        let encode = |data: &[u8]| format!(r#""data_base64":"{}""#, BASE64_STANDARD.encode(data));
        let (kind, body) = protobuf(&command);
        let events = [
            structured("any", "application/json", &format!(r#""data":{}"#, json(&command))),
            structured("any", "application/json", &encode(json(&command).as_bytes())),
            structured(&kind, "application/x-protobuf", &encode(&body)),
        ];
        for event in events {
            prop_assert_eq!(read(&properties, event.as_bytes()), Ok(command.clone()));
        }
    }

    /// One fault makes it another command or none, and never a panic.
    #[test]
    fn what_was_damaged_on_its_way_does_no_harm(
        command in command(), at in any::<proptest::sample::Index>(), byte in any::<u8>(), cut in any::<bool>(),
    ) {
        let (kind, body) = protobuf(&command);
        for (properties, mut body) in [
            (of_type("application/json"), json(&command).into_bytes()),
            (of_type("application/x-protobuf").with_type(kind.clone().into()), body),
        ] {
            let at = at.index(body.len());
            if cut { body.truncate(at) } else { body[at] = byte }
            let _ = read(&properties, &body);
        }
    }
}
