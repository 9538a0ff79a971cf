use proptest::prelude::*;

use super::*;
use crate::amqp::decode::tests::arbitrary_properties;
use crate::amqp::properties::text;
use crate::domain::error::Reason;
use crate::wire::samples;

fn copied(properties: BasicProperties) -> Publishing {
    let data = b"\xff\xfe".to_vec();
    let mut delivery = Delivery::mock(1, "commands".into(), "guest".into(), true, data);
    delivery.properties = properties;
    let refusal = Refusal::new(Reason::Undecodable, "the body is empty");
    copy(&delivery, &refusal, &samples::trace(), "dead-letters", Uuid::nil())
}

fn table<'a>(headers: &'a FieldTable, name: &str) -> &'a FieldTable {
    match headers.inner().get(name) {
        Some(AMQPValue::FieldTable(table)) => table,
        other => panic!("{name} is {other:?}"),
    }
}

#[test]
fn what_the_broker_would_act_on_is_set_aside() {
    let mut headers = FieldTable::default();
    for name in ["CC", "BCC", "x-death", "x-delivery-count", "tenant", "traceparent", OWN_HEADER] {
        insert(&mut headers, name, long("kept"));
    }
    let properties = BasicProperties::default()
        .with_user_id("guest".into())
        .with_expiration("5".into())
        .with_content_type("text/odd".into())
        .with_headers(headers);
    let copy = copied(properties);
    assert_eq!(copy.body, b"\xff\xfe");
    assert_eq!(copy.routing_key, "guest");
    assert_eq!(copy.message_id, Uuid::nil().to_string());
    let properties = &copy.properties;
    assert_eq!((properties.user_id(), properties.expiration()), (&None, &None));
    assert_eq!(properties.delivery_mode(), &Some(2));
    assert_eq!(properties.content_type().as_ref().map(ShortString::as_str), Some("text/odd"));
    let headers = properties.headers().as_ref().expect("headers");
    let names: Vec<_> = headers.inner().keys().map(ShortString::as_str).collect();
    assert_eq!(names, ["tenant", "traceparent", OWN_HEADER]);
    let own = table(headers, OWN_HEADER);
    assert_eq!(own.inner().get("reason").and_then(text), Some("UNDECODABLE"));
    let original = table(own, "original");
    for name in ["CC", "BCC", "x-death", "x-delivery-count", "user_id", "expiration"] {
        assert!(original.inner().get(name).and_then(text).is_some(), "{name}");
    }
}

#[test]
fn headers_stay_small_enough_for_a_frame() {
    let mut headers = FieldTable::default();
    for number in 0..40 {
        insert(&mut headers, &format!("x-{number}"), long(&"a".repeat(1500)));
        insert(&mut headers, &format!("h-{number}"), long(&"b".repeat(1500)));
    }
    let copy = copied(BasicProperties::default().with_headers(headers));
    assert!(length(copy.properties.headers().as_ref().expect("headers")) < 100_000);
}

proptest! {
    #[test]
    fn nothing_makes_it_panic(properties in arbitrary_properties()) {
        let copy = copied(properties);
        let headers = copy.properties.headers().as_ref().expect("headers");
        prop_assert!(headers.contains_key(OWN_HEADER));
        prop_assert!(!headers.contains_key("x-death") && !headers.contains_key("CC"));
    }
}
