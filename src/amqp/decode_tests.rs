use lapin::types::{AMQPValue, ByteArray, DecimalValue, FieldArray, FieldTable, LongString, ShortString};
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::amqp::properties::{insert, long};
use crate::amqp::render;
use crate::amqp::settings::{Address, Settings};
use crate::domain::message::Message;
use crate::proto::ArchiveGuestConnectionRequest;
use crate::wire::cloudevents::Origin;
use crate::wire::samples;

const RULES: Rules = Rules { body_length_max: 64 * 1024, accept_without_key: false };
const GUEST: &str = "00000000-0000-0000-0000-000000000003";
const BODY: &str = r#"{"requester_organization_id":"00000000-0000-0000-0000-000000000001",
    "guest_organization_id":"00000000-0000-0000-0000-000000000003","archived":true}"#;

fn read(properties: &BasicProperties, body: impl AsRef<[u8]>) -> Result<Decoded, Refusal> {
    decode(properties, body.as_ref(), &RULES, Uuid::nil())
}

fn keyed() -> BasicProperties {
    BasicProperties::default().with_message_id("m1".into())
}

fn headers(entries: &[(&str, AMQPValue)]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        insert(&mut table, name, value.clone());
    }
    table
}

fn refusal(properties: &BasicProperties, body: impl AsRef<[u8]>) -> Refusal {
    read(properties, body).expect_err("a refusal")
}

#[test]
fn json_is_read_with_and_without_a_content_type() {
    for content_type in [None, Some("application/json"), Some("Application/JSON; charset=\"UTF-8\"")] {
        let mut properties = keyed().with_reply_to("answers".into()).with_correlation_id("c".into());
        if let Some(content_type) = content_type {
            properties = properties.with_content_type(content_type.into());
        }
        let decoded = read(&properties, BODY).expect("a command");
        assert_eq!(decoded.draft.guest, GUEST);
        assert_eq!(decoded.draft.archived, Some(true));
        assert_eq!(decoded.draft.key, "m1");
        assert_eq!(decoded.reply.expect("an address").reply_to, "answers");
        assert_eq!(decoded.correlation_id.as_deref(), Some("c"));
    }
}

#[test]
fn every_bad_field_is_named_at_once() {
    let body = r#"{"requester_organization_id":7,"guest_organization_id":"a","guest_organization_id":"b",
        "archived":"yes","issue_time":"yesterday","novel":1,"idempotency_key":null}"#;
    let draft = read(&keyed(), body).expect("a draft").draft;
    let fields: Vec<_> = draft.violations.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(
        fields,
        ["requester_organization_id", "guest_organization_id", "archived", "issue_time", "novel"]
    );
    let violations =
        Command::new(draft, samples::time(), chrono::TimeDelta::days(7)).expect_err("no command");
    assert_eq!(violations.len(), 5, "{violations:?}");
}

#[test]
fn what_is_no_object_is_undecodable_and_not_repeated() {
    for body in ["", "{\"guest_org_id\":", "[]", "null", "\"me@example.com\"", "{} {}", "{\"a\":1,}"] {
        let refusal = refusal(&keyed(), body);
        assert_eq!(refusal.reason, Reason::Undecodable, "{body}");
        assert!(!refusal.message.contains("example"), "{}", refusal.message);
    }
    assert_eq!(refusal(&keyed(), [0xff, 0xfe]).reason, Reason::Undecodable);
    let deep = format!("{{\"x\":{}1{}}}", "[".repeat(30_000), "]".repeat(30_000));
    assert!(read(&keyed(), deep).map_or(true, |decoded| !decoded.draft.violations.is_empty()));
}

#[test]
fn other_formats_encodings_and_sizes_are_refused() {
    let reason = |properties: BasicProperties, body: &str| refusal(&properties, body).reason;
    let unsupported = Reason::ContentTypeUnsupported;
    assert_eq!(reason(keyed().with_content_type("text/xml".into()), BODY), unsupported);
    assert_eq!(
        reason(keyed().with_content_type("application/json; charset=latin1".into()), BODY),
        unsupported
    );
    assert_eq!(reason(keyed().with_content_encoding("gzip".into()), BODY), unsupported);
    assert_eq!(reason(keyed().with_content_type("application/x-protobuf".into()), BODY), unsupported);
    assert_eq!(reason(keyed(), &" ".repeat(64 * 1024 + 1)), Reason::BodyTooLarge);
    assert!(read(&keyed().with_content_encoding("identity".into()), BODY).is_ok());
    assert!(read(&keyed().with_content_encoding("utf-8".into()), BODY).is_ok());
}

#[test]
fn the_key_is_the_bodys_else_the_events_else_the_message_id() {
    let none = BasicProperties::default();
    // Every other fault is told with it.
    let broken = BODY.replace("\"archived\"", "\"archive\"");
    for (body, fields) in
        [(BODY, &["idempotency_key"][..]), (&broken, &["archive", "idempotency_key", "archived"])]
    {
        let mut keyless = read(&none, body).expect("a draft");
        let missing = keyless.command(Timestamp::UNIX_EPOCH, TimeDelta::days(7)).expect_err("no key");
        assert_eq!(missing.reason, Reason::IdempotencyKeyMissing);
        let named: Vec<_> = missing.violations.iter().map(|violation| violation.field.as_str()).collect();
        assert_eq!(named, fields);
    }
    let lenient = Rules { accept_without_key: true, ..RULES };
    let made_up = decode(&none, BODY.as_bytes(), &lenient, Uuid::max()).expect("accepted");
    assert_eq!(made_up.draft.key, Uuid::max().to_string());

    let with_key = BODY.replace("true}", "true,\"idempotency_key\":\"own\"}");
    assert_eq!(read(&keyed(), with_key).expect("a command").draft.key, "own");

    let mut keys = Vec::new();
    for prefix in ["cloudEvents:", "cloudEvents_"] {
        let table = headers(&[
            (&format!("{prefix}specversion"), long("1.0")),
            (&format!("{prefix}source"), long("/shop")),
            (&format!("{prefix}id"), long("e1")),
            (&format!("{prefix}type"), AMQPValue::Void),
        ]);
        keys.push(read(&keyed().with_headers(table), BODY).expect("a command").draft.key);
    }
    let event = format!(
        r#"{{"specversion":"1.0","source":"/shop","id":"e1","type":"any","novel":1,"data":{BODY},
            "traceparent":"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}"#
    );
    let structured = keyed().with_content_type("application/cloudevents+json; charset=utf-8".into());
    let decoded = read(&structured, event).expect("a command");
    assert!(decoded.trace.traceparent.expect("a trace").contains("0af7651916cd43dd8448eb211c80319c"));
    keys.push(decoded.draft.key);
    assert!(keys.iter().all(|key| *key == keys[0] && key != "m1"), "{keys:?}");
}

#[test]
fn an_event_lacks_nothing_that_it_needs() {
    let structured = keyed().with_content_type(STRUCTURED_CONTENT_TYPE.into());
    let refused = refusal(&structured, r#"{"specversion":"0.3","id":7}"#);
    assert_eq!(refused.reason, Reason::InvalidFields);
    let fields: Vec<_> = refused.violations.iter().map(|violation| violation.field.as_str()).collect();
    for field in ["specversion", "source", "id", "data"] {
        assert!(fields.contains(&field), "{fields:?}");
    }
    let table = headers(&[("cloudEvents:specversion", AMQPValue::LongInt(1))]);
    assert_eq!(refusal(&keyed().with_headers(table), BODY).reason, Reason::InvalidFields);
}

#[test]
fn protobuf_is_named_by_its_type() {
    let request = ArchiveGuestConnectionRequest {
        guest_organization_id: GUEST.to_owned(),
        idempotency_key: "own".to_owned(),
        issue_time: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: -1 }),
        ..Default::default()
    };
    let properties = keyed().with_content_type("application/x-protobuf".into());
    let archive = properties.clone().with_type("guestconnections.v1.ArchiveGuestConnectionRequest".into());
    let draft = read(&archive, request.encode_to_vec()).expect("a draft").draft;
    assert_eq!((draft.archived, draft.key.as_str(), draft.guest.as_str()), (Some(true), "own", GUEST));
    assert_eq!(draft.violations[0].field, "issue_time");
    let unarchive = properties.with_type("guestconnections.v1.UnarchiveGuestConnectionRequest".into());
    assert_eq!(read(&unarchive, []).expect("a draft").draft.archived, Some(false));
    assert_eq!(refusal(&unarchive, [0xff, 0xff]).reason, Reason::Undecodable);
}

#[test]
fn a_dead_letter_can_be_sent_again_as_it_is() {
    let (address, _) = Address::parse("amqp://localhost/%2f").expect("an address");
    let origin = Origin { source: "/adapter".into(), type_prefix: "com.example".into() };
    let settings = Settings::new(address, "guest".into(), "guest".into(), origin);
    let letter = samples::dead_letter();
    let rendered =
        render::render(&Message::DeadLetter(Box::new(letter.clone())), &settings).expect("a letter");
    let draft = read(&rendered.properties, &rendered.body).expect("a command").draft;
    let command = Command::new(draft, samples::time(), chrono::TimeDelta::days(7)).expect("valid");
    assert_eq!(command, letter.command.command);
}

fn value() -> impl Strategy<Value = AMQPValue> {
    let leaf = prop_oneof![
        any::<bool>().prop_map(AMQPValue::Boolean),
        any::<i64>().prop_map(AMQPValue::LongLongInt),
        any::<f64>().prop_map(AMQPValue::Double),
        any::<u32>().prop_map(|value| AMQPValue::DecimalValue(DecimalValue { scale: 2, value })),
        any::<u64>().prop_map(AMQPValue::Timestamp),
        Just(AMQPValue::Void),
        proptest::collection::vec(any::<u8>(), 0..40)
            .prop_map(|bytes| AMQPValue::ByteArray(ByteArray::from(bytes))),
        proptest::collection::vec(any::<u8>(), 0..40)
            .prop_map(|bytes| AMQPValue::LongString(LongString::from(bytes))),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..4)
                .prop_map(|values| AMQPValue::FieldArray(FieldArray::from(values))),
            ("[a-z]{1,5}", inner).prop_map(|(name, value)| AMQPValue::FieldTable(headers(&[(&name, value)]))),
        ]
    })
}

/// Names that mean something here, and others.
fn name() -> impl Strategy<Value = String> {
    prop_oneof![
        Just("traceparent".to_owned()),
        Just("tracestate".to_owned()),
        Just("cloudEvents:specversion".to_owned()),
        Just("cloudEvents:id".to_owned()),
        Just("cloudEvents_source".to_owned()),
        Just("x-death".to_owned()),
        Just("CC".to_owned()),
        "[ -~]{0,20}",
    ]
}

prop_compose! {
    pub fn arbitrary_properties()(
        entries in proptest::collection::vec((name(), value()), 0..6),
        content_type in proptest::option::of(prop_oneof![
            Just("application/json".to_owned()),
            Just("application/x-protobuf".to_owned()),
            Just(STRUCTURED_CONTENT_TYPE.to_owned()),
            ".{0,60}",
        ]),
        message_id in proptest::option::of(".{0,60}"),
        reply_to in proptest::option::of(".{0,60}"),
    ) -> BasicProperties {
        let entries: Vec<_> = entries.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        let mut properties = BasicProperties::default().with_headers(headers(&entries));
        let short = |text: Option<String>| text.and_then(|text| ShortString::try_new(text).ok());
        if let Some(text) = short(content_type) { properties = properties.with_content_type(text); }
        if let Some(text) = short(message_id) { properties = properties.with_message_id(text); }
        if let Some(text) = short(reply_to) { properties = properties.with_reply_to(text); }
        properties
    }
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(properties in arbitrary_properties(), body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&properties, body);
    }

    #[test]
    fn no_json_makes_it_panic(properties in arbitrary_properties(), key in ".{0,20}", text in ".{0,40}") {
        let body = serde_json::json!({
            "specversion": "1.0", "source": text, "id": key, "idempotency_key": key, "issue_time": text,
            "data": {"archived": text, key.clone(): [1, {"a": null}]}, "data_base64": text,
        });
        let _ = read(&properties, body.to_string());
    }
}
