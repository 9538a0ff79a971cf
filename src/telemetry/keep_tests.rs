use std::sync::Arc;
use std::time::SystemTime;

use opentelemetry::trace::{SpanBuilder, TraceContextExt as _, Tracer as _, TracerProvider as _};
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};

use super::*;
use crate::telemetry::sampling::Sampling;

/// The names of what was handed on, sampled as an exporter wants it.
#[derive(Debug, Clone, Default)]
struct Exported(Arc<Mutex<Vec<String>>>);

impl Exported {
    fn take(&self) -> Vec<String> {
        let mut names = std::mem::take(&mut *self.0.lock().unwrap());
        names.sort();
        names
    }
}

impl SpanProcessor for Exported {
    fn on_start(&self, _: &mut Span, _: &Context) {}
    fn on_end(&self, span: SpanData) {
        assert!(span.span_context.is_sampled());
        self.0.lock().unwrap().push(span.name.to_string());
    }
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

fn tracer(worth: Worth, ratio: f64) -> (SdkTracer, Exported) {
    let exported = Exported::default();
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampling::new(ratio, worth.is_any()))
        .with_span_processor(Keep::new(exported.clone(), worth))
        .build();
    (provider.tracer("test"), exported)
}

const ERRORS: Worth = Worth { errors: true, slower_than: None };

#[test]
fn a_trace_with_an_error_is_kept_whole_and_what_comes_of_it_later() {
    let (tracer, exported) = tracer(ERRORS, 0.0);
    let root = Context::new().with_span(tracer.start_with_context("root", &Context::new()));
    tracer.start_with_context("before", &root).end();
    let mut failing = tracer.start_with_context("failing", &root);
    failing.set_status(Status::error("no"));
    failing.end();
    assert_eq!(exported.take(), ["before", "failing"]);
    tracer.start_with_context("after", &root).end();
    root.span().end();
    let later = Context::new().with_remote_span_context(root.span().span_context().clone());
    tracer.start_with_context("later", &later).end();
    assert_eq!(exported.take(), ["after", "later", "root"]);
}

/// One that can be looked into.
#[derive(Debug)]
struct Shared(Arc<Keep<Exported>>);
impl SpanProcessor for Shared {
    fn on_start(&self, span: &mut Span, context: &Context) {
        self.0.on_start(span, context);
    }
    fn on_end(&self, span: SpanData) {
        self.0.on_end(span);
    }
    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }
    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

#[test]
fn a_trace_without_one_leaves_nothing_behind() {
    let exported = Exported::default();
    let keep = Arc::new(Keep::new(exported.clone(), ERRORS));
    let provider = SdkTracerProvider::builder()
        .with_sampler(Sampling::new(0.0, true))
        .with_span_processor(Shared(keep.clone()))
        .build();
    let tracer = provider.tracer("test");
    for _ in 0..100 {
        let root = Context::new().with_span(tracer.start_with_context("root", &Context::new()));
        tracer.start_with_context("child", &root).end();
        root.span().end();
    }
    assert_eq!(exported.take(), Vec::<String>::new());
    let traces = keep.lock();
    assert!(traces.open.is_empty() && traces.spans == 0 && traces.kept.is_empty());
}

#[test]
fn a_slow_trace_is_kept_and_a_sampled_one_anyway() {
    let worth = Worth { errors: false, slower_than: Some(Duration::from_secs(2)) };
    let (tracer, exported) = tracer(worth, 0.0);
    let now = SystemTime::now();
    for (name, seconds) in [("quick", 1), ("slow", 2)] {
        let began = now - Duration::from_secs(seconds);
        let builder = SpanBuilder::from_name(name).with_start_time(began);
        tracer.build_with_context(builder, &Context::new()).end_with_timestamp(now);
    }
    let mut failed = tracer.start_with_context("failed", &Context::new());
    failed.set_status(Status::error("no"));
    failed.end();
    assert_eq!(exported.take(), ["slow"]);
    let (tracer, exported) = self::tracer(worth, 1.0);
    tracer.start_with_context("quick", &Context::new()).end();
    assert_eq!(exported.take(), ["quick"]);
}

#[test]
fn what_is_kept_back_and_remembered_is_bounded() {
    let (tracer, _) = tracer(ERRORS, 0.0);
    let mut traces = Traces::default();
    for number in 1..=2 * KEPT_MAX as u128 {
        traces.note_kept(TraceId::from(number));
    }
    assert_eq!((traces.kept.len(), traces.kept_order.len()), (KEPT_MAX, KEPT_MAX));
    let exported = Exported::default();
    let keep = Keep::new(exported, ERRORS);
    let root = Context::new().with_span(tracer.start_with_context("root", &Context::new()));
    let id = root.span().span_context().trace_id();
    keep.lock().open.entry(id).or_default().open = 3 * SPANS_MAX;
    for _ in 0..2 * SPANS_MAX {
        let span = tracer.start_with_context("child", &root);
        keep.on_end(span.exported_data().unwrap());
    }
    assert_eq!(keep.lock().spans, SPANS_MAX);
}
