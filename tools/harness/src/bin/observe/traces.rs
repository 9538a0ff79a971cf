//! Traces, fetched by Jaeger's own API, and what they must look like.

use harness::collector::{Span, bytes};
use harness::tree;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use serde_json::Value;

use crate::backends::{Places, ask, get};
use crate::traffic::{ARCHIVE, EVENTS_QUEUE, SERVICE};
use crate::{Outcome, PATIENCE, by};

/// Spans of one name that a trace must have.
pub struct Hop {
    name: &'static str,
    kind: SpanKind,
    /// A span that each lies below, be it children's children. None is the trace's root.
    below: Option<&'static str>,
    count: usize,
}

const fn hop(name: &'static str, kind: SpanKind, below: Option<&'static str>, count: usize) -> Hop {
    Hop { name, kind, below, count }
}

const COMMAND: &str = "command";
const PATCH: &str = "PATCH /v1-beta/guest-connections/{guest_org_id}";
const SEND: &str = "send guest-connections.events";
const PROCESS: &str = "process guest-connections.commands";
const ACK: &str = "ack guest-connections.commands";

/// A call, from its caller to the consumer of its event. Spans that are not listed may be there as well.
pub const CALL: &[Hop] = &[
    hop("archive a guest", SpanKind::Internal, None, 1),
    hop("accept", SpanKind::Internal, Some(ARCHIVE), 1),
    hop(COMMAND, SpanKind::Internal, Some(ARCHIVE), 1),
    hop(PATCH, SpanKind::Client, Some(COMMAND), 1),
    hop("finish", SpanKind::Internal, Some(COMMAND), 1),
    hop("relay", SpanKind::Internal, Some(ARCHIVE), 1),
    hop(SEND, SpanKind::Producer, Some(ARCHIVE), 1),
    hop("confirm", SpanKind::Internal, Some(SEND), 1),
    hop(EVENTS_QUEUE, SpanKind::Consumer, Some(SEND), 1),
];

/// A message whose first attempt failed.
pub const RETRIED: &[Hop] = &[
    hop(PROCESS, SpanKind::Consumer, None, 1),
    hop("accept", SpanKind::Internal, Some(PROCESS), 1),
    hop(COMMAND, SpanKind::Internal, Some(PROCESS), 1),
    hop(PATCH, SpanKind::Client, Some(COMMAND), 2),
    hop("retry_wait", SpanKind::Internal, Some(COMMAND), 1),
    hop("finish", SpanKind::Internal, Some(COMMAND), 1),
    hop("relay", SpanKind::Internal, Some(PROCESS), 1),
    hop(SEND, SpanKind::Producer, Some(PROCESS), 1),
    hop("confirm", SpanKind::Internal, Some(SEND), 1),
    hop(ACK, SpanKind::Client, Some(PROCESS), 1),
    hop(EVENTS_QUEUE, SpanKind::Consumer, Some(SEND), 1),
];

/// A message whose first attempt failed and whose second was told to come later: it was deferred, and taken up again.
pub const DEFERRED: &[Hop] = &[
    hop(PROCESS, SpanKind::Consumer, None, 1),
    hop("accept", SpanKind::Internal, Some(PROCESS), 1),
    hop(COMMAND, SpanKind::Internal, Some(PROCESS), 2),
    hop(PATCH, SpanKind::Client, Some(COMMAND), 3),
    hop("retry_wait", SpanKind::Internal, Some(COMMAND), 1),
    hop("recovery_wait", SpanKind::Internal, Some(PROCESS), 1),
    hop("finish", SpanKind::Internal, Some(COMMAND), 2),
    hop("relay", SpanKind::Internal, Some(PROCESS), 1),
    hop(SEND, SpanKind::Producer, Some(PROCESS), 1),
    hop("confirm", SpanKind::Internal, Some(SEND), 1),
    hop(ACK, SpanKind::Client, Some(PROCESS), 1),
    hop(EVENTS_QUEUE, SpanKind::Consumer, Some(SEND), 1),
];

/// Waits until a trace is as it must be, and prints it. One of its spans is linked to one of the trace `producer`, if there is one.
pub async fn is_whole(places: &Places, trace: &str, hops: &[Hop], producer: Option<&str>) -> Outcome {
    let (spans, all) = by(PATIENCE, async || {
        let spans = fetch(places, trace).await?;
        hops.iter().try_for_each(|hop| has(&spans, hop))?;
        let Some(producer) = producer else { return Ok((spans.clone(), spans)) };
        let asked = fetch(places, producer).await?;
        are_linked(&spans, &asked)?;
        let all = [spans.clone(), asked].concat();
        Ok((spans, all))
    })
    .await?;
    all.iter().try_for_each(|span| is_general(&span.name))?;
    println!("{}", tree::render(&all, &spans[0].trace_id));
    println!("  {}/api/traces/{trace}\n", places.jaeger);
    Ok(())
}

/// One of these leads to one of those.
fn are_linked(from: &[Span], to: &[Span]) -> Outcome {
    let mut links = from.iter().flat_map(|span| &span.links);
    let leads = links
        .any(|link| to.iter().any(|span| (&span.trace_id, &span.span_id) == (&link.trace_id, &link.span_id)));
    if leads { Ok(()) } else { Err("no span is linked to its producer's".into()) }
}

/// Waits until a search for an attribute of the adapter's spans finds a trace.
pub async fn is_found(places: &Places, trace: &str, attribute: &str, value: &str) -> Outcome {
    let tags = serde_json::json!({ attribute: value }).to_string();
    let query = [("service", SERVICE), ("tags", tags.as_str()), ("lookback", "1h"), ("limit", "20")];
    by(PATIENCE, async || {
        let answer = ask(&format!("{}/api/traces", places.jaeger), &query).await?;
        let found = answer["data"].as_array().into_iter().flatten().any(|found| found["traceID"] == trace);
        if found { Ok(()) } else { Err(format!("a search for {tags} does not find {trace}").into()) }
    })
    .await?;
    println!("  A search for {attribute} finds the trace of that command.");
    Ok(())
}

fn has(spans: &[Span], hop: &Hop) -> Outcome {
    let named: Vec<_> = spans.iter().filter(|span| span.name == hop.name).collect();
    if named.len() != hop.count {
        let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
        return Err(
            format!("{} spans `{}` in the place of {}: {names:?}", named.len(), hop.name, hop.count).into()
        );
    }
    for span in named {
        if span.kind() != hop.kind {
            return Err(format!("`{}` is of the kind {:?}", span.name, span.kind()).into());
        }
        let fits = hop.below.map_or(span.parent_span_id.is_empty(), |name| lies_below(spans, span, name));
        if !fits {
            return Err(format!("`{}` does not lie below {:?}", span.name, hop.below).into());
        }
    }
    Ok(())
}

fn lies_below(spans: &[Span], span: &Span, name: &str) -> bool {
    let parent = spans.iter().find(|other| other.span_id == span.parent_span_id);
    parent.is_some_and(|parent| parent.name == name || lies_below(spans, parent, name))
}

/// A name has no id in it: nothing that is as long and hexadecimal.
fn is_general(name: &str) -> Outcome {
    let words = name.split(|letter: char| !letter.is_ascii_alphanumeric());
    match words.into_iter().find(|word| word.len() >= 8 && word.bytes().all(|byte| byte.is_ascii_hexdigit()))
    {
        Some(word) => Err(format!("the span's name `{name}` has the id {word} in it").into()),
        None => Ok(()),
    }
}

/// The spans of a trace, as Jaeger has them.
async fn fetch(places: &Places, trace: &str) -> Outcome<Vec<Span>> {
    let text = get(&format!("{}/api/v3/traces/{trace}", places.jaeger)).await?;
    let answer: Value = serde_json::from_str(&text)?;
    let each = |value: &Value, name: &str| value[name].as_array().cloned().unwrap_or_default();
    let resources = each(&answer["result"], "resourceSpans");
    let scopes = resources.iter().flat_map(|resource| each(resource, "scopeSpans"));
    scopes.flat_map(|scope| each(&scope, "spans")).map(|span| read(&span)).collect()
}

/// A span in OTLP's JSON form.
fn read(span: &Value) -> Outcome<Span> {
    let id = |value: &Value| bytes(value.as_str().unwrap_or_default()).ok_or("an id that is none");
    let time = |name: &str| span[name].as_str().unwrap_or_default().parse::<u64>();
    let links = span["links"].as_array().into_iter().flatten();
    let links = links.map(|link| {
        Ok(Link { trace_id: id(&link["traceId"])?, span_id: id(&link["spanId"])?, ..<_>::default() })
    });
    let attributes = span["attributes"].as_array().into_iter().flatten().map(|attribute| {
        let value = attribute["value"].as_object().and_then(|value| value.values().next());
        let text = value.map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
        let value = AnyValue { value: text.map(any_value::Value::StringValue) };
        let key = attribute["key"].as_str().unwrap_or_default().to_owned();
        KeyValue { key, value: Some(value), ..<_>::default() }
    });
    Ok(Span {
        trace_id: id(&span["traceId"])?,
        span_id: id(&span["spanId"])?,
        parent_span_id: id(&span["parentSpanId"])?,
        name: span["name"].as_str().ok_or("a span without a name")?.to_owned(),
        kind: i32::try_from(span["kind"].as_i64().unwrap_or_default())?,
        start_time_unix_nano: time("startTimeUnixNano")?,
        end_time_unix_nano: time("endTimeUnixNano")?,
        links: links.collect::<Outcome<_>>()?,
        attributes: attributes.collect(),
        ..<_>::default()
    })
}
