//! An event as a CloudEvent 1.0 (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md>), with the
//! extensions `sequence`, `correlationid`, `traceparent` and `tracestate`.

use serde::ser::{Serialize, SerializeMap as _, Serializer};
use serde_json::value::RawValue;

use super::command::CommandHistory;
use super::time_text;
use crate::domain::message::{Event, EventKind};
use crate::domain::record::JsonText;

/// The content type of the structured mode.
pub const STRUCTURED_CONTENT_TYPE: &str = "application/cloudevents+json";

/// The content type of the data.
pub const DATA_CONTENT_TYPE: &str = "application/json";

/// What names the origin of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The attribute `source`: a URI reference.
    pub source: String,
    /// What stands before `.guest-connection.archived.v1` in the attribute `type`.
    pub type_prefix: String,
}

/// A CloudEvent: its attributes but for `datacontenttype`, and its data.
#[derive(Debug, Clone)]
pub struct CloudEvent {
    /// Names and values, in the order in which they are written.
    pub attributes: Vec<(&'static str, String)>,
    /// A JSON object.
    pub data: Box<RawValue>,
}

#[derive(serde::Serialize)]
struct Data<'a> {
    guest_connection: Option<&'a JsonText>,
    command: CommandHistory,
    incomplete: bool,
}

impl CloudEvent {
    /// Writes `event` down. The trace in it is the command's, the same in every publication.
    ///
    /// # Errors
    /// None that the types allow: texts, numbers and well-formed JSON are serialized.
    pub fn of(event: &Event, origin: &Origin) -> Result<Self, serde_json::Error> {
        let data = serde_json::value::to_raw_value(&Data {
            guest_connection: event.guest_connection.as_ref(),
            command: (&event.command).into(),
            incomplete: event.incomplete,
        })?;
        let mut attributes = vec![
            ("specversion", "1.0".to_owned()),
            ("id", event.id.to_string()),
            ("source", origin.source.clone()),
            ("type", event_type(event.kind, &origin.type_prefix)),
            ("subject", event.command.command.connection.to_string()),
            ("time", time_text(event.time)),
            ("sequence", format!("{:020}", event.sequence)),
            ("correlationid", event.correlation_id.clone()),
        ];
        let trace = [("traceparent", &event.trace.traceparent), ("tracestate", &event.trace.tracestate)];
        attributes
            .extend(trace.into_iter().filter_map(|(name, value)| value.clone().map(|value| (name, value))));
        Ok(Self { attributes, data })
    }

    /// The structured mode: one JSON object.
    ///
    /// # Errors
    /// As [`Self::of`].
    pub fn structured(&self) -> Result<Box<RawValue>, serde_json::Error> {
        serde_json::value::to_raw_value(&Structured(self))
    }
}

struct Structured<'a>(&'a CloudEvent);

impl Serialize for Structured<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let CloudEvent { attributes, data } = self.0;
        let mut object = serializer.serialize_map(None)?;
        for (name, value) in attributes {
            object.serialize_entry(name, value)?;
        }
        object.serialize_entry("datacontenttype", DATA_CONTENT_TYPE)?;
        // As it is: a detour over `Value` could change numbers of the upstream.
        object.serialize_entry("data", data)?;
        object.end()
    }
}

/// The attribute `type` of an event.
#[must_use]
pub fn event_type(kind: EventKind, prefix: &str) -> String {
    format!("{prefix}.guest-connection.{}.v1", kind.as_str())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use uuid::Uuid;

    use super::*;
    use crate::wire::samples;

    #[test]
    fn an_event_is_written_as_the_design_says() {
        let event = samples::event();
        let origin = Origin { source: "/adapter".into(), type_prefix: "com.example".into() };
        let written = CloudEvent::of(&event, &origin).expect("an event").structured().expect("JSON");
        assert!(written.get().contains(r#""total_score":1.10"#), "numbers stay as they were sent");
        let written: Value = serde_json::from_str(written.get()).expect("JSON");
        assert_eq!(written["id"], json!(event.id.to_string()));
        assert_eq!(written["type"], "com.example.guest-connection.archived.v1");
        assert_eq!(written["sequence"], "00000000000000000007");
        assert_eq!(written["subject"], json!(event.command.command.connection.to_string()));
        assert_eq!(written["data"]["guest_connection"]["novel"], json!([1]));
        assert_eq!(written["data"]["command"]["archived"], json!(true));
        assert_eq!(written["data"]["incomplete"], json!(false));
        assert!(written.get("tracestate").is_none());
        assert_ne!(event.id, Uuid::nil());
    }
}
