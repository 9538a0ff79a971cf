//! Spans as tests see them: those below a span that is sampled are recorded.

use std::sync::{Arc, LazyLock, Mutex};

use opentelemetry::trace::{TraceId, TracerProvider as _};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    IdGenerator as _, RandomIdGenerator, SdkTracerProvider, SpanData, SpanExporter,
};

use super::sampling::Sampling;
use super::span::install;
use crate::domain::trace::TraceContext;

#[derive(Debug, Clone, Default)]
struct Ended(Arc<Mutex<Vec<SpanData>>>);

impl SpanExporter for Ended {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

/// Ended spans of all tests, and what makes them.
static ENDED: LazyLock<(Ended, SdkTracerProvider)> = LazyLock::new(|| {
    let ended = Ended::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(ended.clone());
    let provider = provider.with_sampler(Sampling::new(0.0, false)).build();
    install(provider.tracer("test"));
    (ended, provider)
});

/// Has spans made.
pub(crate) fn install_once() {
    LazyLock::force(&ENDED);
}

/// A sampled span elsewhere, in a trace of its own.
pub(crate) fn elsewhere() -> TraceContext {
    let (trace, span) =
        (RandomIdGenerator::default().new_trace_id(), RandomIdGenerator::default().new_span_id());
    TraceContext { traceparent: Some(format!("00-{trace}-{span}-01")), tracestate: None }
}

/// The spans of a trace that have ended, in that order.
pub(crate) fn of(trace: &TraceContext) -> Vec<SpanData> {
    let id = trace.traceparent.as_deref().and_then(|text| TraceId::from_hex(text.split('-').nth(1)?).ok());
    let ended = ENDED.0.0.lock().unwrap();
    ended.iter().filter(|span| Some(span.span_context.trace_id()) == id).cloned().collect()
}
