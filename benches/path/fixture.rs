//! One command and what belongs to it, the same in every run: fixed ids and times.

use chrono::TimeDelta;
use guest_connection_adapter::amqp::settings::{Address, EventMode, Settings};
use guest_connection_adapter::domain::Timestamp;
use guest_connection_adapter::domain::access::AskedBy;
use guest_connection_adapter::domain::command::{Command, CommandId};
use guest_connection_adapter::domain::connection::ConnectionRecord;
use guest_connection_adapter::domain::lifecycle::{Acceptance, Finish, Terms};
use guest_connection_adapter::domain::record::{Door, ReplyAddress};
use guest_connection_adapter::domain::reply::{Answer, Reply, Verdict};
use guest_connection_adapter::domain::trace::TraceContext;
use guest_connection_adapter::proto::ArchiveGuestConnectionRequest;
use guest_connection_adapter::wire::cloudevents::Origin;
use lapin::BasicProperties;
use prost::Message as _;
use std::time::Duration;
use uuid::Uuid;

pub const TERMS: Terms = Terms {
    lease: TimeDelta::seconds(60),
    settle: TimeDelta::seconds(30),
    hold: TimeDelta::seconds(45),
    give_up_after: TimeDelta::hours(24),
};
pub const RETENTION: TimeDelta = TimeDelta::days(7);
pub const EVENT_ID: Uuid = Uuid::from_u128(0x019b_1b0a_1111_7000_8000_0000_0000_0001);

const COMMAND_ID: Uuid = Uuid::from_u128(0x019b_1b0a_0000_7000_8000_0000_0000_0001);
const REQUESTER: &str = "6f1d2c34-8a5b-4e0f-9c7d-1b2a3c4d5e6f";
const GUEST: &str = "0b9e4f5a-1c2d-4e3f-8a7b-9c0d1e2f3a4b";
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The time at which all of it happens.
pub fn now() -> Timestamp {
    Timestamp::from_timestamp_micros(1_765_535_400_123_456).expect("in range")
}

/// A message of the command queue.
pub struct Incoming {
    pub properties: BasicProperties,
    pub body: Vec<u8>,
}

fn incoming(content_type: &str, body: Vec<u8>) -> Incoming {
    let properties = BasicProperties::default()
        .with_content_type(content_type.into())
        .with_message_id("order-4711".into())
        .with_correlation_id("conversation-17".into())
        .with_reply_to("answers".into());
    Incoming { properties, body }
}

fn data() -> String {
    format!(
        r#"{{"requester_organization_id": "{REQUESTER}", "guest_organization_id": "{GUEST}", "archived": true,
            "idempotency_key": "order-4711", "issue_time": "2025-12-12T10:29:59.5Z"}}"#
    )
}

/// A command in JSON.
pub fn json() -> Incoming {
    incoming("application/json", data().into_bytes())
}

/// The same in protobuf.
pub fn protobuf() -> Incoming {
    let request = ArchiveGuestConnectionRequest {
        guest_organization_id: GUEST.to_owned(),
        requester_organization_id: REQUESTER.to_owned(),
        idempotency_key: "order-4711".to_owned(),
        issue_time: Some(prost_types::Timestamp { seconds: 1_765_535_399, nanos: 500_000_000 }),
        ..ArchiveGuestConnectionRequest::default()
    };
    let mut message = incoming("application/x-protobuf", request.encode_to_vec());
    message.properties =
        message.properties.with_type("guestconnections.v1.ArchiveGuestConnectionRequest".into());
    message
}

/// The same as a CloudEvent in structured mode.
pub fn cloud_event() -> Incoming {
    let event = format!(
        r#"{{"specversion": "1.0", "id": "4711", "source": "/orders", "type": "com.example.order.closed.v1",
            "datacontenttype": "application/json", "correlationid": "conversation-17", "traceparent": "{TRACE}",
            "data": {}}}"#,
        data()
    );
    incoming("application/cloudevents+json", event.into_bytes())
}

/// A command that comes in by RabbitMQ and wants an answer.
pub fn acceptance(command: Command) -> Acceptance {
    let correlation_id = Some("conversation-17".to_owned());
    Acceptance {
        command,
        id: CommandId(COMMAND_ID),
        door: Door::Amqp,
        asked_by: AskedBy { principal: Some("billing".to_owned()), address: Some("billing".to_owned()) },
        trace: TraceContext { traceparent: Some(TRACE.to_owned()), tracestate: None },
        correlation_id: correlation_id.clone(),
        reply: Some(ReplyAddress { reply_to: "answers".to_owned(), correlation_id }),
        is_owned: true,
        put_off: None,
    }
}

/// What is known of the connection before: nothing.
pub fn connection(command: &Command) -> ConnectionRecord {
    ConnectionRecord::new(command.connection)
}

/// The end of the first claim, after one PATCH.
pub fn finish(verdict: Verdict) -> Finish {
    Finish {
        id: CommandId(COMMAND_ID),
        epoch: 1,
        verdict,
        attempts: 1,
        maybe_applied: false,
        unanswered_ago: None,
        caller_waits: false,
        defer_delay: Duration::from_secs(1),
        is_paused: false,
        event_id: EVENT_ID,
    }
}

fn answered(status: u16, retry_after: Option<Duration>, body: impl Into<Vec<u8>>) -> Reply {
    Reply::Answered(Answer { status, retry_after, body: Some(body.into()) })
}

/// An answer to the letter of the contract.
pub fn ok() -> Reply {
    let body = format!(
        r#"{{"host_organization_id": "{REQUESTER}", "guest_organization_id": "{GUEST}", "status": "connected",
            "guest_name": "A Guest of Ours", "guest_email": "guest@example.com", "owner_email": "owner@example.com",
            "total_score": 712.5, "score_updated_at": "2025-12-11T08:00:00.000001", "archived": true,
            "archived_at": "2025-12-12T10:30:00.123456", "active_action_type": null,
            "active_action_updated_at": null, "parent_organization_id": null, "parent_organization_name": null,
            "created_at": "2023-11-07T05:31:56.000000", "updated_at": "2025-12-12T10:30:00.123456"}}"#
    );
    answered(200, None, body)
}

/// A refusal of two fields.
pub fn unprocessable() -> Reply {
    let body = r#"{"detail": [
        {"loc": ["body", "archived"], "msg": "Input should be a valid boolean", "type": "bool_type", "code": "bool_type"},
        {"loc": ["path", "guest_org_id"], "msg": "Input should be a valid UUID", "type": "uuid_parsing",
         "code": "uuid_parsing"}]}"#;
    answered(422, None, body)
}

/// A refusal for now.
pub fn unavailable() -> Reply {
    let body = r#"{"detail": [{"loc": [], "msg": "The service is under maintenance", "type": "service_unavailable",
        "code": "service_under_maintenance"}]}"#;
    answered(503, Some(Duration::from_secs(30)), body)
}

/// The publisher's settings.
pub fn settings(event_mode: EventMode) -> Settings {
    let (address, _) = Address::parse("amqp://localhost/%2f").expect("an address");
    let origin = Origin { source: "/adapter".into(), type_prefix: "com.example".into() };
    Settings { event_mode, ..Settings::new(address, "guest".into(), "guest".into(), origin) }
}
