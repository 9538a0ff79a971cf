//! W3C trace context in and out of spans.

use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use serde::{Deserialize, Serialize};

use super::span::Origin;
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

/// How a trace goes on behind a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Across {
    /// In a trace of its own, linked to the sender's.
    Link,
    /// In the sender's trace.
    Parent,
}

impl Across {
    /// What a span goes on from that came through a queue with `context`.
    #[must_use]
    pub const fn origin(self, context: &TraceContext) -> Origin<'_> {
        match self {
            Self::Link => Origin::Linked(context),
            Self::Parent => Origin::Below(context),
        }
    }
}

/// Does `work` as what is done in the trace of `context`, though it has no span: what it logs carries the trace.
pub fn within<T>(context: &TraceContext, work: impl FnOnce() -> T) -> T {
    let _attached = remote(context).attach();
    work()
}

/// The ids of `context`, to be handed on.
pub(super) fn of(context: &opentelemetry::Context) -> TraceContext {
    #[derive(Default)]
    struct Carrier(TraceContext);
    impl opentelemetry::propagation::Injector for Carrier {
        fn set(&mut self, key: &str, value: String) {
            match key {
                TraceContext::TRACEPARENT => self.0.traceparent = Some(value),
                TraceContext::TRACESTATE => self.0.tracestate = Some(value).filter(|state| !state.is_empty()),
                _ => {}
            }
        }
    }
    let mut carrier = Carrier::default();
    TraceContextPropagator::new().inject_context(context, &mut carrier);
    carrier.0
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
