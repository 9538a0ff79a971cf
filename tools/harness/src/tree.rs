//! Spans as an indented tree with durations.

use std::fmt::Write as _;

use crate::collector::{Span, attribute, hex};

/// Attributes that say something to a reader, where a span has them.
const SHOWN: [&str; 6] = [
    "http.response.status_code",
    "http.request.resend_count",
    "rpc.response.status_code",
    "command.state",
    "messaging.rabbitmq.destination.routing_key",
    "error.type",
];

/// The spans of the trace `trace_id`, each below its parent, in order of their start.
#[must_use]
pub fn render(spans: &[Span], trace_id: &str) -> String {
    let mut members: Vec<&Span> = spans.iter().filter(|span| hex(&span.trace_id) == trace_id).collect();
    members.sort_by_key(|span| span.start_time_unix_nano);
    let is_root = |span: &Span| members.iter().all(|other| other.span_id != span.parent_span_id);
    let mut text = String::new();
    for root in members.iter().filter(|span| is_root(span)) {
        branch(&mut text, &members, root, 0);
    }
    text
}

fn branch(text: &mut String, members: &[&Span], span: &Span, depth: usize) {
    #[allow(clippy::cast_precision_loss, reason = "a duration in nanoseconds is far below 2^52")]
    let milliseconds = (span.end_time_unix_nano - span.start_time_unix_nano) as f64 / 1e6;
    let label = format!("{}{}", "  ".repeat(depth), span.name);
    let _ = write!(text, "  {label:<74} {milliseconds:>8.2} ms");
    for name in SHOWN {
        if let Some(value) = attribute(span, name) {
            let _ = write!(text, "  {}={value}", name.rsplit('.').next().unwrap_or(name));
        }
    }
    for link in &span.links {
        let _ = write!(text, "  (linked to {})", hex(&link.trace_id));
    }
    text.push('\n');
    for child in members.iter().filter(|child| child.parent_span_id == span.span_id) {
        branch(text, members, child, depth + 1);
    }
}
