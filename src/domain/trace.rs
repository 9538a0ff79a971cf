//! The W3C trace context that a command carries from its caller to its event.

use serde::{Deserialize, Serialize};

/// A W3C trace context in its header form (<https://www.w3.org/TR/trace-context/>). Empty where there is none.
///
/// Only `telemetry` gives it meaning; everything else hands it on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TraceContext {
    /// The `traceparent` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// The `tracestate` header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

impl TraceContext {
    /// The header name of [`Self::traceparent`].
    pub const TRACEPARENT: &'static str = "traceparent";
    /// The header name of [`Self::tracestate`].
    pub const TRACESTATE: &'static str = "tracestate";
}
