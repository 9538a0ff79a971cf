//! Spans by the SDK of OpenTelemetry. One that nobody records is no more than ids: it is not described.
//!
//! What a span is around finds it as the present [`Context`]: requests hand its ids on, log records carry them.

use std::borrow::Cow;
use std::sync::OnceLock;

use opentelemetry::context::{FutureExt as _, WithContext};
use opentelemetry::trace::{
    Link, SpanBuilder, SpanContext, SpanKind, SpanRef, Status, TraceContextExt as _, Tracer as _,
};
use opentelemetry::{Context, KeyValue, Value};
use opentelemetry_sdk::trace::SdkTracer;

use super::context;
use crate::domain::command::CommandId;
use crate::domain::trace::TraceContext;

/// Makes spans, once telemetry is set up.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Sets what makes spans, once.
pub fn install(tracer: SdkTracer) {
    // A second one is that of a second set-up, which is refused elsewhere.
    let _ = TRACER.set(tracer);
}

/// What makes spans.
pub(super) fn tracer() -> Option<&'static SdkTracer> {
    TRACER.get()
}

/// What a span goes on from.
#[derive(Debug, Clone, Copy)]
pub enum Origin<'a> {
    /// The present span.
    Present,
    /// A span elsewhere, if there is one; else it begins a trace.
    Below(&'a TraceContext),
    /// It begins a trace, linked to a span elsewhere.
    Linked(&'a TraceContext),
    /// Both: that span may have ended long ago.
    Resumed(&'a TraceContext),
}

/// How a span is shown.
#[derive(Debug)]
pub struct Description {
    /// Its name. Of few values, as those of all spans.
    pub name: Cow<'static, str>,
    /// Its attributes.
    pub attributes: Vec<KeyValue>,
}

/// A span. It ends when the last clone of it is dropped, and what it is around.
#[derive(Debug, Clone, Default)]
pub struct Span(Context);

/// The command that a span is about, once that is known. Kept in the context, for log records.
#[derive(Debug, Default)]
struct About(OnceLock<CommandId>);

impl Span {
    /// Begins a span. `describe` is called if it is recorded.
    pub fn begin(kind: SpanKind, origin: Origin<'_>, describe: impl FnOnce() -> Description) -> Self {
        let (parent, link) = match origin {
            Origin::Present => (Context::current(), None),
            Origin::Below(elsewhere) => (context::remote(elsewhere), None),
            Origin::Linked(elsewhere) => (Context::new(), Some(context::remote(elsewhere))),
            Origin::Resumed(elsewhere) => {
                let remote = context::remote(elsewhere);
                (remote.clone(), Some(remote))
            }
        };
        let Some(tracer) = tracer() else { return Self(parent) };
        let link = link.map(|link| link.span().span_context().clone()).filter(SpanContext::is_valid);
        let mut builder = SpanBuilder::default().with_kind(kind);
        if let Some(link) = link {
            builder = builder.with_links(vec![Link::with_context(link)]);
        }
        let span = Self(parent.with_span(tracer.build_with_context(builder, &parent)));
        if span.is_recorded() {
            let Description { name, attributes } = describe();
            span.inner().update_name(name);
            span.inner().set_attributes(attributes);
        }
        span
    }

    /// The present one.
    #[must_use]
    pub fn present() -> Self {
        Self(Context::current())
    }

    /// The same, being about a command; about one that is [told](Self::tell_command) later, if it is not known yet.
    #[must_use]
    pub fn about(self, command: Option<CommandId>) -> Self {
        let about = About::default();
        if let Some(command) = command {
            // It is new, so this does not fail.
            let _ = about.0.set(command);
        }
        let span = Self(self.0.with_value(about));
        span.show_command();
        span
    }

    /// Tells which command it is about.
    pub fn tell_command(&self, id: CommandId) {
        if let Some(about) = self.0.get::<About>()
            && about.0.set(id).is_ok()
        {
            self.show_command();
        }
    }

    fn show_command(&self) {
        if let Some(id) = self.command().filter(|_| self.is_recorded()) {
            self.set("command.id", id.to_string());
        }
    }

    /// The command that it is about, as far as that is known.
    #[must_use]
    pub fn command(&self) -> Option<CommandId> {
        self.0.get::<About>()?.0.get().copied()
    }

    /// Whether somebody records it. Only then what it is told goes anywhere.
    #[must_use]
    pub fn is_recorded(&self) -> bool {
        self.inner().is_recording()
    }

    /// Sets an attribute.
    pub fn set(&self, name: &'static str, value: impl Into<Value>) {
        if self.is_recorded() {
            self.inner().set_attribute(KeyValue::new(name, value));
        }
    }

    /// Notes that its work failed, and why in a stable word.
    pub fn fail(&self, error_type: &str) {
        if self.is_recorded() {
            self.set("error.type", error_type.to_owned());
            self.inner().set_status(Status::error(""));
        }
    }

    /// Its ids, to be handed on.
    #[must_use]
    pub fn context(&self) -> TraceContext {
        context::of(&self.0)
    }

    /// Puts it around a future.
    pub fn around<F>(&self, future: F) -> WithContext<F> {
        future.with_context(self.0.clone())
    }

    /// Does `work` within it.
    pub fn within<T>(&self, work: impl FnOnce() -> T) -> T {
        let _present = self.0.clone().attach();
        work()
    }

    fn inner(&self) -> SpanRef<'_> {
        self.0.span()
    }
}
