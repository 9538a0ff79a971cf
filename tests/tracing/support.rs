//! What the tests of traces share.

use harness::collector::{Span, attribute, hex};
use harness::{Collector, Setup};
use lapin::BasicProperties;
use lapin::types::{AMQPValue, FieldTable};

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");
pub const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
pub const CALLER: &str = "b7ad6b7169203331";
pub const PATCH: &str = "PATCH /v1-beta/guest-connections/{guest_org_id}";
pub const ARCHIVE: &str = "guestconnections.v1.GuestConnectionService/ArchiveGuestConnection";

pub fn traceparent() -> String {
    format!("00-{TRACE}-{CALLER}-01")
}

/// The spans of a test, by name.
pub struct Spans(pub Vec<Span>);

impl Spans {
    pub fn named(&self, name: &str) -> &Span {
        let found: Vec<_> = self.0.iter().filter(|span| span.name == name).collect();
        assert_eq!(found.len(), 1, "{name} in {:?}", self.0.iter().map(|s| &s.name).collect::<Vec<_>>());
        found[0]
    }

    pub fn all(&self, name: &str) -> Vec<&Span> {
        let mut found: Vec<_> = self.0.iter().filter(|span| span.name == name).collect();
        found.sort_by_key(|span| span.start_time_unix_nano);
        found
    }
}

pub fn is_child(child: &Span, parent: &Span) {
    assert_eq!(
        hex(&child.trace_id),
        hex(&parent.trace_id),
        "{} is in the trace of {}",
        child.name,
        parent.name
    );
    assert_eq!(
        hex(&child.parent_span_id),
        hex(&parent.span_id),
        "{} is a child of {}",
        child.name,
        parent.name
    );
}

pub fn has(span: &Span, attributes: &[(&str, &str)]) {
    for (name, value) in attributes {
        assert_eq!(attribute(span, name).as_deref(), Some(*value), "{name} of {}", span.name);
    }
}

pub fn traced(setup: Setup, collector: &Collector) -> Setup {
    setup.config(&format!("telemetry.otlp_endpoint = \"{}\"", collector.endpoint()))
}

/// Properties of a JSON message with these headers.
pub fn with_headers(headers: impl IntoIterator<Item = (&'static str, AMQPValue)>) -> BasicProperties {
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert(name.into(), value);
    }
    BasicProperties::default().with_headers(table).with_content_type("application/json".into())
}

/// Properties of a JSON message whose sender's span this is.
pub fn sent_by(traceparent: &str) -> BasicProperties {
    with_headers([("traceparent", AMQPValue::LongString(traceparent.into()))])
}

/// The links of a span: trace and span.
pub fn links(span: &Span) -> Vec<(String, String)> {
    span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect()
}
