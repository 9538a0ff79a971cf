use serde_json::{Value, json};

use super::*;
use crate::amqp::properties::{header, text};
use crate::amqp::settings::Address;
use crate::domain::error::{FieldViolation, Reason};
use crate::domain::record::Outcome;
use crate::wire::cloudevents::Origin;
use crate::wire::samples;

fn settings(event_mode: EventMode) -> Settings {
    let (address, _) = Address::parse("amqp://localhost/%2f").expect("an address");
    let origin = Origin { source: "/adapter".into(), type_prefix: "com.example".into() };
    Settings { event_mode, ..Settings::new(address, "guest".into(), "guest".into(), origin) }
}

fn body(publishing: &Publishing) -> Value {
    serde_json::from_slice(&publishing.body).expect("JSON")
}

#[test]
fn an_event_goes_by_its_guest_under_its_own_id() {
    let event = samples::event();
    let message = Message::Event(Box::new(event.clone()));
    let structured = render(&message, &settings(EventMode::Structured)).expect("an event");
    assert_eq!(structured.exchange, "guest-connections.events");
    assert_eq!(structured.routing_key, "guest-connection.archived.00000000-0000-0000-0000-000000000003");
    assert_eq!(structured.message_id, event.id.to_string());
    assert_eq!(structured.properties.delivery_mode(), &Some(2));
    assert_eq!(body(&structured)["id"], json!(event.id.to_string()));

    let binary = render(&message, &settings(EventMode::Binary)).expect("an event");
    assert_eq!(header(&binary.properties, "cloudEvents:id"), Some(event.id.to_string().as_str()));
    assert_eq!(header(&binary.properties, "cloudEvents:sequence"), Some("00000000000000000007"));
    assert_eq!(body(&binary)["command"]["command_id"], json!(event.command.id.to_string()));

    let sent = binary.properties_in(&samples::trace());
    assert_eq!(header(&sent, "traceparent"), samples::trace().traceparent.as_deref());
    assert_eq!(header(&sent, "cloudEvents:id"), Some(event.id.to_string().as_str()));
}

#[test]
fn a_conversation_that_amqp_cannot_carry_stays_in_the_event() {
    let event = Event { correlation_id: "c".repeat(300), ..samples::event() };
    let rendered = render(&Message::Event(Box::new(event)), &settings(EventMode::Structured));
    let rendered = rendered.expect("an event");
    assert_eq!(rendered.properties.correlation_id(), &None);
    assert_eq!(body(&rendered)["correlationid"], json!("c".repeat(300)));
}

#[test]
fn a_dead_letter_says_why_in_one_header() {
    let mut letter = samples::dead_letter();
    letter.refusal.violations.push(FieldViolation::new("archived", "is odd"));
    let rendered = render(&Message::DeadLetter(Box::new(letter)), &settings(EventMode::Structured));
    let rendered = rendered.expect("a dead letter");
    let headers = rendered.properties.headers().as_ref().expect("headers");
    let Some(AMQPValue::FieldTable(own)) = headers.inner().get(OWN_HEADER) else { panic!("no own header") };
    let field = |name: &str| own.inner().get(name).and_then(text).map(str::to_owned);
    assert_eq!(field("reason").as_deref(), Some("UPSTREAM_NOT_FOUND"));
    assert_eq!(field("state").as_deref(), Some("rejected"));
    assert_eq!(field("traceparent"), samples::trace().traceparent);
    assert!(own.contains_key("violations"));
    assert_eq!(body(&rendered)["idempotency_key"], "key-1");
}

#[test]
fn a_reply_goes_to_its_address() {
    let rendered = render(&Message::Reply(Box::new(samples::reply())), &settings(EventMode::Structured));
    let rendered = rendered.expect("a reply");
    assert_eq!((rendered.exchange.as_str(), rendered.routing_key.as_str()), ("", "answers"));
    assert_eq!(rendered.properties.correlation_id().as_ref().map(ShortString::as_str), Some("c-1"));
    assert_eq!(body(&rendered)["status"], "succeeded");
    assert_eq!(body(&rendered)["replayed"], true);

    let outcome = Outcome::refused(None, Reason::Undecodable, "the body is empty");
    let refused = Reply { command: None, outcome, ..samples::reply() };
    let rendered = render(&Message::Reply(Box::new(refused)), &settings(EventMode::Structured));
    let written = body(&rendered.expect("a reply"));
    assert_eq!(written["status"], "refused");
    assert_eq!(written["reason"], "UNDECODABLE");
    assert_eq!(written["command_id"], Value::Null);
}
