//! A CloudEvent around a command, in both of its modes: it is read or refused, never a panic; and structured and binary
//! mode come to the same, whatever the attributes hold.

#![no_main]

use guest_connection_adapter::amqp::cloudevents;
use guest_connection_adapter::amqp::decode::{Rules, decode};
use guest_connection_adapter::amqp::properties;
use guest_connection_adapter::domain::command::IdempotencyKey;
use lapin::BasicProperties;
use lapin::types::FieldTable;
use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};
use uuid::Uuid;

const RULES: Rules = Rules { body_length_max: 64 * 1024, accept_without_key: false };

#[derive(Debug, Arbitrary)]
struct Input<'a> {
    version: bool,
    attributes: [Option<String>; 6],
    /// The data, or a whole event.
    body: &'a [u8],
}

const NAMES: [&str; 6] = ["id", "source", "type", "correlationid", "traceparent", "tracestate"];

impl Input<'_> {
    fn attributes(&self) -> Vec<(&'static str, String)> {
        let version = self.version.then(|| ("specversion", "1.0".to_owned()));
        let given = NAMES.into_iter().zip(&self.attributes);
        version.into_iter().chain(given.filter_map(|(name, value)| Some((name, value.clone()?)))).collect()
    }

    /// The event in structured mode, if its data are JSON.
    fn structured(&self) -> Option<Vec<u8>> {
        let data: Value = serde_json::from_slice(self.body).ok()?;
        let mut event: Map<String, Value> =
            self.attributes().into_iter().map(|(name, value)| (name.to_owned(), value.into())).collect();
        event.insert("data".to_owned(), data);
        serde_json::to_vec(&event).ok()
    }

    fn binary(&self) -> BasicProperties {
        let mut headers = FieldTable::default();
        for (name, value) in self.attributes() {
            properties::insert(&mut headers, &format!("cloudEvents:{name}"), properties::long(&value));
        }
        BasicProperties::default().with_headers(headers)
    }
}

fuzz_target!(|input: Input<'_>| {
    let cloud_event = BasicProperties::default().with_content_type("application/cloudevents+json".into());
    // A whole event of any form.
    let _ = cloudevents::structured(input.body);
    let _ = decode(&cloud_event, input.body, &RULES, Uuid::nil());
    let binary = cloudevents::binary(&input.binary());
    let Some(event) = input.structured() else { return };
    match (cloudevents::structured(&event), binary) {
        (Ok(structured), Ok(Some(binary))) => {
            assert_eq!(structured.attributes, binary, "both modes say the same");
            assert!(IdempotencyKey::parse(&binary.key()).is_ok(), "its key can be one");
        }
        // Without a version a message is no event in binary mode.
        (Ok(_), Ok(None)) => unreachable!("an event without a version"),
        (Ok(_), Err(refusal)) => panic!("read in structured mode only: {refusal}"),
        (Err(_), _) => {}
    }
});
