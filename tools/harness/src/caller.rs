//! The caller's side of a trace: a span of one's own, and its context to be sent along.

use std::time::{SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use uuid::Uuid;

use crate::collector::{Span, bytes, hex};

/// A span that is under way, of a sampled trace.
pub struct CallerSpan {
    span: Span,
}

impl CallerSpan {
    /// Begins a trace.
    #[must_use]
    pub fn root(name: &str, kind: SpanKind) -> Self {
        Self::begin(name, kind, Uuid::new_v4().as_bytes().to_vec(), Vec::new())
    }

    /// Begins a span below `parent`, in its trace.
    #[must_use]
    pub fn below(parent: &Self, name: &str, kind: SpanKind) -> Self {
        Self::begin(name, kind, parent.span.trace_id.clone(), parent.span.span_id.clone())
    }

    /// Begins a consumer's span below the one that `traceparent` names, or none if it is malformed.
    #[must_use]
    pub fn within(traceparent: &str, name: &str) -> Option<Self> {
        let [_, trace, parent, _] = traceparent.split('-').collect::<Vec<_>>()[..] else { return None };
        Some(Self::begin(name, SpanKind::Consumer, bytes(trace)?, bytes(parent)?))
    }

    fn begin(name: &str, kind: SpanKind, trace_id: Vec<u8>, parent_span_id: Vec<u8>) -> Self {
        let span = Span {
            trace_id,
            span_id: Uuid::new_v4().as_bytes()[..8].to_vec(),
            parent_span_id,
            name: name.to_owned(),
            kind: kind.into(),
            start_time_unix_nano: now(),
            ..<_>::default()
        };
        Self { span }
    }

    /// The context in W3C's form, for the header `traceparent`.
    #[must_use]
    pub fn traceparent(&self) -> String {
        format!("00-{}-{}-01", self.trace(), hex(&self.span.span_id))
    }

    /// The trace's id as hexadecimal digits.
    #[must_use]
    pub fn trace(&self) -> String {
        hex(&self.span.trace_id)
    }

    /// Ends the span.
    #[must_use]
    pub fn end(mut self) -> Span {
        self.span.end_time_unix_nano = now();
        self.span
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
