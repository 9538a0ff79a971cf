//! Traces that were not chosen for export and turn out to be worth it: those with an error, or slow ones.
//!
//! Their spans are recorded and kept back until no span of the trace is open in this process. What others record of such a
//! trace is theirs to keep: they were told that it is not exported.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry::trace::{Span as _, SpanContext, Status, TraceId};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};

use super::instruments::instruments;

/// Spans kept back, at most. What is more is not kept, and counted.
const SPANS_MAX: usize = 16_384;

/// Traces of whose keeping is remembered, at most: what comes of them later, such as their events, is kept as well.
const KEPT_MAX: usize = 4_096;

/// What makes a trace worth keeping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Worth {
    /// A span of it failed.
    pub errors: bool,
    /// A span of it took at least this long.
    pub slower_than: Option<Duration>,
}

impl Worth {
    /// Whether anything is.
    #[must_use]
    pub const fn is_any(&self) -> bool {
        self.errors || self.slower_than.is_some()
    }

    fn has(&self, span: &SpanData) -> bool {
        let failed = self.errors && matches!(span.status, Status::Error { .. });
        let length = span.end_time.duration_since(span.start_time).unwrap_or_default();
        failed || self.slower_than.is_some_and(|least| length >= least)
    }
}

/// Hands on the spans that are sampled, and those of traces worth keeping.
#[derive(Debug)]
pub(super) struct Keep<P> {
    next: P,
    worth: Worth,
    traces: Mutex<Traces>,
}

#[derive(Debug, Default)]
struct Traces {
    open: HashMap<TraceId, Trace>,
    /// In all of them.
    spans: usize,
    kept: HashSet<TraceId>,
    /// The same, the oldest first.
    kept_order: VecDeque<TraceId>,
}

/// A trace that is not known to be worth keeping yet.
#[derive(Debug, Default)]
struct Trace {
    /// Spans that have begun and not ended.
    open: usize,
    ended: Vec<SpanData>,
}

impl Traces {
    fn note_kept(&mut self, trace: TraceId) {
        if self.kept.insert(trace) {
            self.kept_order.push_back(trace);
        }
        if self.kept_order.len() > KEPT_MAX
            && let Some(oldest) = self.kept_order.pop_front()
        {
            self.kept.remove(&oldest);
        }
    }

    /// Takes a span that has ended. Yields those that are to be exported by it.
    fn end(&mut self, span: SpanData, is_worth_it: bool) -> Vec<SpanData> {
        let id = span.span_context.trace_id();
        let trace = self.open.entry(id).or_default();
        trace.open = trace.open.saturating_sub(1);
        let is_over = trace.open == 0;
        let mut export = Vec::new();
        if is_worth_it || self.kept.contains(&id) {
            self.spans -= trace.ended.len();
            export.append(&mut trace.ended);
            export.push(span);
        } else if !is_over && self.spans < SPANS_MAX {
            trace.ended.push(span);
            self.spans += 1;
        } else if !is_over {
            instruments().spans_unkept.add(1, &[]);
        }
        if is_over && let Some(trace) = self.open.remove(&id) {
            self.spans -= trace.ended.len();
        }
        if is_worth_it {
            self.note_kept(id);
        }
        export
    }
}

impl<P> Keep<P> {
    pub(super) fn new(next: P, worth: Worth) -> Self {
        Self { next, worth, traces: Mutex::default() }
    }

    /// Each change is complete before the lock is let go, so a poisoned lock guards sound data.
    fn lock(&self) -> MutexGuard<'_, Traces> {
        self.traces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: SpanProcessor> SpanProcessor for Keep<P> {
    fn on_start(&self, span: &mut Span, context: &Context) {
        let identity = span.span_context();
        if !identity.is_sampled() {
            self.lock().open.entry(identity.trace_id()).or_default().open += 1;
        }
        self.next.on_start(span, context);
    }

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() {
            return self.next.on_end(span);
        }
        let is_worth_it = self.worth.has(&span);
        let export = self.lock().end(span, is_worth_it);
        for span in export {
            self.next.on_end(as_sampled(span));
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.next.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.next.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.next.set_resource(resource);
    }
}

/// What is not sampled no exporter takes.
fn as_sampled(mut span: SpanData) -> SpanData {
    let old = &span.span_context;
    let flags = old.trace_flags().with_sampled(true);
    span.span_context =
        SpanContext::new(old.trace_id(), old.span_id(), flags, old.is_remote(), old.trace_state().clone());
    span
}

#[cfg(test)]
#[path = "keep_tests.rs"]
mod tests;
