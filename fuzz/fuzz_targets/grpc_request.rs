//! The bytes of a gRPC request: it is read or refused, never a panic. A command that is read is the same when it is written
//! down and read again; a refusal fits into the trailers of an answer, whatever was sent.

#![no_main]

use chrono::{DateTime, TimeDelta, Utc};
use guest_connection_adapter::amqp::decode::{Rules, decode};
use guest_connection_adapter::domain::command::{Command, OrganizationId};
use guest_connection_adapter::domain::error::Refusal;
use guest_connection_adapter::grpc::convert::{Lookup, Wish};
use guest_connection_adapter::grpc::status::{self, Subject};
use guest_connection_adapter::proto;
use guest_connection_adapter::wire::command::CommandBody;
use lapin::BasicProperties;
use libfuzzer_sys::fuzz_target;
use prost::Message;
use uuid::Uuid;

const RULES: Rules = Rules { body_length_max: 64 * 1024, accept_without_key: false };

/// What tonic sends of trailers, at most.
const TRAILERS_LENGTH_MAX: usize = 8 * 1024;

fn now() -> DateTime<Utc> {
    DateTime::from_timestamp_micros(1_765_535_400_123_456).expect("in range")
}

fn read_again(command: &Command) {
    let body = serde_json::to_vec(&CommandBody::from(command)).expect("JSON");
    let mut again = decode(&BasicProperties::default(), &body, &RULES, Uuid::nil()).expect("it is read again");
    assert_eq!(again.command(now(), TimeDelta::days(7)).as_ref(), Ok(command));
}

fn answered(refusal: &Refusal) {
    let status = status::of(refusal, &Subject::default());
    let length = status.message().len() + status.details().len();
    assert!(length < TRAILERS_LENGTH_MAX, "a refusal of {length} bytes");
    assert!(!status.message().contains(['\r', '\n']), "one line");
}

fuzz_target!(|input: &[u8]| {
    let Some((kind, bytes)) = input.split_first() else { return };
    let default = (kind & 4 != 0).then(|| OrganizationId(Uuid::from_u128(1)));
    let wish = match kind & 3 {
        0 => proto::ArchiveGuestConnectionRequest::decode(bytes).map(Wish::from),
        1 => proto::UnarchiveGuestConnectionRequest::decode(bytes).map(Wish::from),
        _ => {
            let Ok(request) = proto::GetCommandRequest::decode(bytes) else { return };
            return match Lookup::read(request, default) {
                Ok(lookup) => assert!(lookup.resource_name().len() < 512, "a name is short"),
                Err(refusal) => answered(&refusal),
            };
        }
    };
    // What is no request is refused by tonic.
    let Ok(wish) = wish else { return };
    match wish.command(now(), TimeDelta::days(7), Uuid::max(), default) {
        Ok(command) => read_again(&command),
        Err(refusal) => answered(&refusal),
    }
});
