//! Spans as an indented tree, for people.

use std::fmt::Write as _;

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use crate::collector::{Span, attribute, hex};

/// Attributes that are worth a place in the tree, by the word that is shown for each.
const SHOWN: [(&str, &str); 4] = [
    ("command.state", "state"),
    ("http.response.status_code", "status"),
    ("rpc.response.status_code", "status"),
    ("error.type", "error"),
];

/// The spans of one trace, each below its parent, with the time from the first one's start and the duration, both in
/// milliseconds. Spans of other traces that a link leads to are told by name, as far as `all` has them.
#[must_use]
pub fn render(all: &[Span], trace_id: &[u8]) -> String {
    let mut spans: Vec<&Span> = all.iter().filter(|span| span.trace_id == trace_id).collect();
    spans.sort_by_key(|span| span.start_time_unix_nano);
    let start = spans.first().map_or(0, |span| span.start_time_unix_nano);
    let mut text = String::from("       at      took   (ms)\n");
    let known = |id: &[u8]| spans.iter().any(|span| span.span_id == id);
    for root in spans.iter().filter(|span| !known(&span.parent_span_id)) {
        branch(&mut text, all, &spans, root, start, 0);
    }
    text
}

/// The traces that have a span linked to one of `trace_id`, in order of their first span.
#[must_use]
pub fn linked(all: &[Span], trace_id: &[u8]) -> Vec<Vec<u8>> {
    let leads_here = |span: &&Span| span.links.iter().any(|link| link.trace_id == trace_id);
    let mut spans: Vec<&Span> = all.iter().filter(leads_here).collect();
    spans.sort_by_key(|span| span.start_time_unix_nano);
    let mut traces: Vec<Vec<u8>> = spans.into_iter().map(|span| span.trace_id.clone()).collect();
    traces.retain(|id| id != trace_id);
    traces.dedup();
    traces
}

fn branch(text: &mut String, all: &[Span], spans: &[&Span], span: &Span, start: u64, depth: usize) {
    let indent = "  ".repeat(depth);
    let at = milliseconds(span.start_time_unix_nano.saturating_sub(start));
    let took = milliseconds(span.end_time_unix_nano.saturating_sub(span.start_time_unix_nano));
    let details = SHOWN.iter().filter_map(|(name, word)| Some(format!("{word} {}", attribute(span, name)?)));
    let details: Vec<String> = std::iter::once(kind(span).to_owned()).chain(details).collect();
    // Writing to a string does not fail.
    let _ = writeln!(text, "{at:>9.1} {took:>9.1}   {indent}{} ({})", span.name, details.join(", "));
    for link in &span.links {
        let target = all.iter().find(|other| other.span_id == link.span_id);
        let name = target.map_or("a span that is not here", |target| target.name.as_str());
        let _ = writeln!(text, "{:22} {indent}  linked to: {name}, of trace {}", "", hex(&link.trace_id));
    }
    for child in spans.iter().filter(|child| child.parent_span_id == span.span_id) {
        branch(text, all, spans, child, start, depth + 1);
    }
}

#[allow(clippy::cast_precision_loss, reason = "a duration that is shown with one decimal")]
fn milliseconds(nanoseconds: u64) -> f64 {
    nanoseconds as f64 / 1e6
}

fn kind(span: &Span) -> &'static str {
    match span.kind() {
        SpanKind::Client => "client",
        SpanKind::Server => "server",
        SpanKind::Producer => "producer",
        SpanKind::Consumer => "consumer",
        SpanKind::Internal | SpanKind::Unspecified => "internal",
    }
}
