use super::*;
use crate::domain::error::Reason;
use crate::grpc::fixture::record;

const REQUESTER: &str = "0190c1d4-7c1e-7d3a-9a53-5c1f6e1b2a77";
const GUEST: &str = "0190c1d4-7c1e-7d3a-9a53-5c1f6e1b2a78";

fn request() -> proto::ArchiveGuestConnectionRequest {
    proto::ArchiveGuestConnectionRequest {
        guest_organization_id: GUEST.to_owned(),
        requester_organization_id: REQUESTER.to_owned(),
        idempotency_key: "order-1".to_owned(),
        ..Default::default()
    }
}

fn now() -> Timestamp {
    Timestamp::from_timestamp(1_700_000_000, 0).expect("in range")
}

fn read(wish: impl Into<Wish>) -> Result<Command, Refusal> {
    wish.into().command(now(), TimeDelta::days(7), Uuid::from_u128(9), None)
}

fn fields(refusal: &Refusal) -> Vec<&str> {
    refusal.violations.iter().map(|violation| violation.field.as_str()).collect()
}

#[test]
fn a_request_becomes_a_command() {
    let time = prost_types::Timestamp { seconds: 1_699_999_999, nanos: 123_456_789 };
    let command = read(proto::ArchiveGuestConnectionRequest { issue_time: Some(time), ..request() });
    let command = command.expect("valid");
    assert!(command.archived);
    assert_eq!(command.requester.to_string(), REQUESTER);
    assert_eq!(command.connection.to_string(), format!("{REQUESTER}/{GUEST}"));
    assert_eq!(command.key.as_str(), "order-1");
    assert_eq!(command.issue_time.map(|time| time.timestamp_micros()), Some(1_699_999_999_123_456));

    let command = read(proto::UnarchiveGuestConnectionRequest {
        guest_organization_id: GUEST.to_owned(),
        requester_organization_id: REQUESTER.to_owned(),
        target_organization_id: GUEST.to_owned(),
        ..Default::default()
    });
    let command = command.expect("valid");
    assert!(!command.archived);
    assert_eq!(command.connection.target.to_string(), GUEST);
    assert_eq!(command.key.as_str(), Uuid::from_u128(9).to_string());
}

#[test]
fn every_bad_field_is_told_at_once() {
    let refusal = read(proto::ArchiveGuestConnectionRequest {
        guest_organization_id: "guest".to_owned(),
        requester_organization_id: String::new(),
        target_organization_id: "{0190c1d4-7c1e-7d3a-9a53-5c1f6e1b2a77}".to_owned(),
        idempotency_key: "with a space".to_owned(),
        issue_time: Some(prost_types::Timestamp { seconds: SECONDS_MAX + 1, nanos: 0 }),
        expire_time: Some(prost_types::Timestamp { seconds: 0, nanos: -1 }),
    })
    .expect_err("invalid");
    assert_eq!(refusal.reason, Reason::InvalidFields);
    let mut found = fields(&refusal);
    found.sort_unstable();
    let mut expected =
        [field::GUEST, field::REQUESTER, field::TARGET, field::KEY, field::ISSUE_TIME, field::EXPIRE_TIME];
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[test]
fn times_out_of_range_are_violations() {
    for (seconds, nanos) in [
        (i64::MAX, 0),
        (i64::MIN, 0),
        (SECONDS_MIN - 1, 0),
        (1_700_000_000, 1_000_000_000),
        (1_700_000_000, i32::MIN),
    ] {
        let time = prost_types::Timestamp { seconds, nanos };
        let refusal = read(proto::ArchiveGuestConnectionRequest { expire_time: Some(time), ..request() });
        assert_eq!(fields(&refusal.expect_err("invalid")), [field::EXPIRE_TIME], "{seconds} {nanos}");
    }
    let latest = prost_types::Timestamp { seconds: SECONDS_MAX, nanos: 999_999_999 };
    assert!(read(proto::ArchiveGuestConnectionRequest { expire_time: Some(latest), ..request() }).is_ok());
}

#[test]
fn a_look_up_needs_one_valid_name() {
    use proto::get_command_request::Lookup as Wanted;
    let read = |lookup| Lookup::read(proto::GetCommandRequest { lookup }, None);
    assert_eq!(fields(&read(None).expect_err("nothing")), ["lookup"]);
    let bad = read(Some(Wanted::CommandId("7".to_owned())));
    assert_eq!(fields(&bad.expect_err("no UUID")), ["command_id"]);
    let bad = read(Some(Wanted::Key(proto::CommandKey::default())));
    let refusal = bad.expect_err("both empty");
    assert_eq!(fields(&refusal), ["key.requester_organization_id", "key.idempotency_key"]);

    let found = read(Some(Wanted::CommandId(GUEST.to_owned()))).expect("an id");
    assert_eq!(found.resource_name(), GUEST);
    let key = proto::CommandKey {
        requester_organization_id: REQUESTER.to_owned(),
        idempotency_key: "order-1".to_owned(),
    };
    let found = read(Some(Wanted::Key(key))).expect("a key");
    assert_eq!(found.resource_name(), format!("{REQUESTER}/order-1"));
}

#[test]
fn a_record_is_shown_whole() {
    let outcome = Outcome {
        upstream_status: Some(200),
        guest_connection: JsonText::object(
            r#"{"host_organization_id": "0190c1d4-7c1e-7d3a-9a53-5c1f6e1b2a77", "status": "paused",
                "archived": false, "total_score": 1.5, "created_at": "2025-12-12T10:30:60.5Z",
                "archived_at": null, "active_action_type": "novel"}"#,
        ),
        incomplete: true,
        ..Outcome::default()
    };
    let record = CommandRecord {
        command: read(request()).expect("valid"),
        finished_time: Some(now()),
        outcome: Some(outcome.clone()),
        event: Some(EventRef { id: Uuid::from_u128(8), sequence: 4, confirmed_time: None }),
        ..record(State::Succeeded)
    };
    let shown = command(&record);
    assert_eq!((shown.state(), shown.door()), (proto::CommandState::Succeeded, proto::CommandDoor::Amqp));
    assert_eq!((shown.attempts, shown.due_time), (3, None));
    assert_eq!(shown.finish_time, Some(time(now())));
    let asked_by = shown.asked_by.expect("who asked");
    assert_eq!((asked_by.principal.as_str(), asked_by.address.as_str()), ("billing", ""));
    let event = shown.event.expect("an event");
    assert_eq!((event.sequence, event.confirmed, event.confirm_time), (4, false, None));

    let success = Success::of(&record, &outcome, true);
    let answer = proto::ArchiveGuestConnectionResponse::from(success);
    assert!(answer.replayed && answer.incomplete);
    assert_eq!(answer.idempotency_key, "order-1");
    let connection = answer.guest_connection.expect("as far as it was read");
    assert_eq!(connection.status(), proto::GuestConnectionStatus::Unspecified);
    assert_eq!(connection.status_text, "paused");
    assert_eq!(connection.archived, Some(false));
    assert_eq!(connection.host_organization_id, REQUESTER);
    assert_eq!(connection.active_action_type.as_deref(), Some("novel"));
    assert_eq!(connection.archived_at, None);
    assert_eq!(connection.created_at.expect("a leap second").nanos, 999_999_999);
    assert_eq!(connection.total_score, Some(1.5));
}
