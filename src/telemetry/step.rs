//! Steps: the parts that a command's time is made of, each measured, and a span where its trace is recorded.
//!
//! Where nobody records it costs two looks at the clock and a count.

use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{Span as _, SpanBuilder, SpanKind, Status, TraceContextExt as _, Tracer as _};
use opentelemetry::{Context, KeyValue};

use super::instruments::instruments;
use super::{context, span};
use crate::domain::trace::TraceContext;

/// What was shorter leaves no span: a wait that was none.
const SPAN_LENGTH_MIN: Duration = Duration::from_micros(20);

/// Where a command's time goes. The names are those of spans and of the attribute `step`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Name {
    /// Until the command is durable.
    Accept,
    /// Until it is at the head of its lane.
    LaneWait,
    /// Until it may be sent: the token, the upstream's limits, a pause.
    GateWait,
    /// From when a command was due to when it was taken up.
    RecoveryWait,
    /// Until it has its claim.
    Claim,
    /// One request to the upstream. Its span is that of the HTTP client.
    Attempt,
    /// Between two requests.
    RetryWait,
    /// Until its end is durable.
    Finish,
    /// From the writing of a message to its publication being noted.
    Relay,
    /// From handing a message to the broker until it has confirmed it.
    Confirm,
    /// The acknowledgement of a message. Its span is that of messaging.
    Settle,
}

impl Name {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Accept => "accept",
            Self::LaneWait => "lane_wait",
            Self::GateWait => "gate_wait",
            Self::RecoveryWait => "recovery_wait",
            Self::Claim => "claim",
            Self::Attempt => "attempt",
            Self::RetryWait => "retry_wait",
            Self::Finish => "finish",
            Self::Relay => "relay",
            Self::Confirm => "confirm",
            Self::Settle => "settle",
        }
    }
}

/// A step under way, below the span that is entered. It ends when it is dropped.
#[derive(Debug)]
#[must_use = "a step ends when it is dropped"]
pub struct Step {
    name: Name,
    began: Instant,
    recorded: Option<Recorded>,
}

/// What the span of a step needs.
#[derive(Debug)]
struct Recorded {
    parent: Context,
    began: SystemTime,
    error: Option<&'static str>,
    described: Option<Conventional>,
}

/// A span that is called otherwise than its step, by the conventions of its kind.
#[derive(Debug)]
pub struct Conventional {
    /// Its name. Of few values, as those of all spans.
    pub name: String,
    /// Its kind.
    pub kind: SpanKind,
    /// Its attributes.
    pub attributes: Vec<KeyValue>,
}

impl Step {
    /// Begins a step.
    pub fn begin(name: Name) -> Self {
        let parent = Context::current();
        let is_recorded = parent.span().is_recording();
        let recorded =
            is_recorded.then(|| Recorded { parent, began: SystemTime::now(), error: None, described: None });
        Self { name, began: Instant::now(), recorded }
    }

    /// Describes its span, if there is to be one.
    pub fn describe(&mut self, describe: impl FnOnce() -> Conventional) {
        if let Some(recorded) = &mut self.recorded {
            recorded.described = Some(describe());
        }
    }

    /// Notes that it failed, and why in a stable word.
    pub fn fail(&mut self, error_type: &'static str) {
        if let Some(recorded) = &mut self.recorded {
            recorded.error = Some(error_type);
        }
    }

    /// Ends it.
    pub fn end(self) {}
}

impl Drop for Step {
    fn drop(&mut self) {
        let length = self.began.elapsed();
        measure(self.name, length);
        if let Some(Recorded { parent, began, error, described }) = self.recorded.take()
            && length >= SPAN_LENGTH_MIN
        {
            let mut described = described.unwrap_or_else(|| Conventional::of(self.name));
            described.attributes.extend(error.map(|error| KeyValue::new("error.type", error)));
            record(described.kind.clone(), (began, began + length), &parent, || described);
        }
    }
}

/// Records a step that began at `began` and ends now, in the trace of `context`.
pub fn past(
    name: Name,
    began: SystemTime,
    attributes: impl FnOnce() -> Vec<KeyValue>,
    context: &TraceContext,
) {
    let now = SystemTime::now();
    measure(name, now.duration_since(began).unwrap_or_default());
    let parent = context::remote(context);
    if parent.span().span_context().is_valid() {
        // Another machine's clock may be ahead of this one's.
        let describe = || Conventional { attributes: attributes(), ..Conventional::of(name) };
        record(SpanKind::Internal, (began.min(now), now), &parent, describe);
    }
}

/// Counts a step that has a span of its own.
pub fn measure(name: Name, length: Duration) {
    instruments().step_duration.record(length.as_secs_f64(), &[KeyValue::new("step", name.as_str())]);
}

/// Makes the span of a step that has ended. It is described if it is recorded.
fn record(
    kind: SpanKind,
    (began, ended): (SystemTime, SystemTime),
    parent: &Context,
    describe: impl FnOnce() -> Conventional,
) {
    let Some(tracer) = span::tracer() else { return };
    let builder = SpanBuilder::default().with_kind(kind).with_start_time(began);
    let mut span = tracer.build_with_context(builder, parent);
    if !span.is_recording() {
        return;
    }
    let Conventional { name, attributes, .. } = describe();
    let failed = attributes.iter().any(|attribute| attribute.key.as_str() == "error.type");
    span.update_name(name);
    span.set_attributes(attributes);
    if failed {
        span.set_status(Status::error(""));
    }
    span.end_with_timestamp(ended);
}

impl Conventional {
    fn of(name: Name) -> Self {
        Self { name: name.as_str().to_owned(), kind: SpanKind::Internal, attributes: Vec::new() }
    }
}
