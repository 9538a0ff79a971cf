//! W3C trace context in and out of spans.

use std::collections::HashMap;

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

use serde::{Deserialize, Serialize};

use crate::domain::trace::TraceContext;

/// The longest `traceparent` that is read: version 00 has 55 characters, later ones may have some more.
const TRACEPARENT_LENGTH_MAX: usize = 128;

/// The longest `tracestate` that is handed on, as the standard advises.
const TRACESTATE_LENGTH_MAX: usize = 512;

/// Takes a context out of header values; what is malformed or oversized is left out, never an error.
#[must_use]
pub fn from_headers<'a>(header: impl Fn(&str) -> Option<&'a str>) -> TraceContext {
    let bounded = |name, length_max| header(name).filter(|text| text.len() <= length_max && text.is_ascii());
    let Some(traceparent) = bounded(TraceContext::TRACEPARENT, TRACEPARENT_LENGTH_MAX) else {
        return TraceContext::default();
    };
    let context = TraceContext {
        traceparent: Some(traceparent.to_owned()),
        tracestate: bounded(TraceContext::TRACESTATE, TRACESTATE_LENGTH_MAX).map(str::to_owned),
    };
    if remote(&context).span().span_context().is_valid() { context } else { TraceContext::default() }
}

/// Makes the remote span of `context` the parent of `span`, if there is one.
pub fn adopt(span: &Span, context: &TraceContext) {
    let remote = remote(context);
    if remote.span().span_context().is_valid() {
        // The only error is that no OpenTelemetry layer is installed, and then there is nothing to do.
        let _ = span.set_parent(remote);
    }
}

/// How a trace goes on behind a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Across {
    /// In a trace of its own, linked to the sender's.
    Link,
    /// In the sender's trace.
    Parent,
}

/// Has `span`, which came through a queue, go on from `context`.
pub fn go_on(span: &Span, context: &TraceContext, across: Across) {
    match across {
        Across::Link => link(span, context),
        Across::Parent => adopt(span, context),
    }
}

/// Links `span` to the remote span of `context`, if there is one.
pub fn link(span: &Span, context: &TraceContext) {
    let remote = remote(context);
    let remote = remote.span().span_context().clone();
    if remote.is_valid() {
        span.add_link(remote);
    }
}

/// Does `work` as what is done in the trace of `context`, though it has no span: what it logs carries the trace.
pub fn within<T>(context: &TraceContext, work: impl FnOnce() -> T) -> T {
    let _attached = remote(context).attach();
    work()
}

/// The context of `span`, to be handed on.
#[must_use]
pub fn of(span: &Span) -> TraceContext {
    let mut headers = HashMap::new();
    TraceContextPropagator::new().inject_context(&span.context(), &mut headers);
    TraceContext {
        traceparent: headers.remove(TraceContext::TRACEPARENT),
        tracestate: headers.remove(TraceContext::TRACESTATE).filter(|state| !state.is_empty()),
    }
}

pub(super) fn remote(context: &TraceContext) -> opentelemetry::Context {
    struct Carrier<'a>(&'a TraceContext);
    impl opentelemetry::propagation::Extractor for Carrier<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            match key {
                TraceContext::TRACEPARENT => self.0.traceparent.as_deref(),
                TraceContext::TRACESTATE => self.0.tracestate.as_deref(),
                _ => None,
            }
        }
        fn keys(&self) -> Vec<&str> {
            vec![TraceContext::TRACEPARENT, TraceContext::TRACESTATE]
        }
    }
    TraceContextPropagator::new().extract_with_context(&opentelemetry::Context::new(), &Carrier(context))
}
