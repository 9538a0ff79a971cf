//! Which traces are exported: what began elsewhere is its beginner's decision, of the others a share is.

use opentelemetry::Context;
use opentelemetry::KeyValue;
use opentelemetry::trace::{Link, SpanContext, SpanKind, TraceContextExt as _, TraceId, TraceState};
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, SamplingResult, ShouldSample};

/// Decides about each span as it begins.
#[derive(Debug, Clone)]
pub(super) struct Sampling {
    /// For traces that begin here.
    share: Sampler,
    /// Whether what is not exported is recorded all the same, for [`keep`](super::keep) to decide at its end.
    records_all: bool,
}

impl Sampling {
    /// Exports `ratio` of what begins here, from 0 to 1.
    pub(super) fn new(ratio: f64, records_all: bool) -> Self {
        Self { share: Sampler::TraceIdRatioBased(ratio), records_all }
    }

    /// Exports nothing, and hands the decisions of others on.
    pub(super) fn nothing() -> Self {
        Self { share: Sampler::AlwaysOff, records_all: false }
    }
}

impl ShouldSample for Sampling {
    fn should_sample(
        &self,
        parent: Option<&Context>,
        trace_id: TraceId,
        name: &str,
        kind: &SpanKind,
        attributes: &[KeyValue],
        links: &[Link],
    ) -> SamplingResult {
        let parent = parent.map(|parent| parent.span().span_context().clone()).filter(SpanContext::is_valid);
        let is_sampled = match &parent {
            Some(parent) => parent.is_sampled(),
            // What came through a queue begins a trace of its own, and follows the sender's decision to export.
            None => {
                links.iter().any(|link| link.span_context.is_sampled()) || {
                    let decided = self.share.should_sample(None, trace_id, name, kind, attributes, links);
                    decided.decision == SamplingDecision::RecordAndSample
                }
            }
        };
        let decision = match (is_sampled, self.records_all) {
            (true, _) => SamplingDecision::RecordAndSample,
            (false, true) => SamplingDecision::RecordOnly,
            (false, false) => SamplingDecision::Drop,
        };
        let trace_state = parent.map_or_else(TraceState::default, |parent| parent.trace_state().clone());
        SamplingResult { decision, attributes: Vec::new(), trace_state }
    }
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::{SpanId, TraceFlags};

    use super::*;

    fn span(is_sampled: bool) -> SpanContext {
        let flags = TraceFlags::default().with_sampled(is_sampled);
        SpanContext::new(TraceId::from(7), SpanId::from(8), flags, true, TraceState::default())
    }

    fn decision(sampling: &Sampling, parent: Option<bool>, link: Option<bool>) -> SamplingDecision {
        let parent = parent.map(|is_sampled| Context::new().with_remote_span_context(span(is_sampled)));
        let links: Vec<_> = link.into_iter().map(|is_sampled| Link::with_context(span(is_sampled))).collect();
        sampling
            .should_sample(parent.as_ref(), TraceId::from(9), "name", &SpanKind::Consumer, &[], &links)
            .decision
    }

    #[test]
    fn the_beginner_of_a_trace_decides_and_the_rest_is_a_share() {
        let (none, all) = (Sampling::new(0.0, false), Sampling::new(1.0, false));
        for (sampling, own) in [(&none, SamplingDecision::Drop), (&all, SamplingDecision::RecordAndSample)] {
            assert_eq!(decision(sampling, None, None), own);
            assert_eq!(decision(sampling, None, Some(false)), own);
            assert_eq!(decision(sampling, None, Some(true)), SamplingDecision::RecordAndSample);
            assert_eq!(decision(sampling, Some(true), None), SamplingDecision::RecordAndSample);
            assert_eq!(decision(sampling, Some(false), Some(true)), SamplingDecision::Drop);
        }
        assert_eq!(decision(&Sampling::new(0.0, true), Some(false), None), SamplingDecision::RecordOnly);
        assert_eq!(decision(&Sampling::nothing(), None, None), SamplingDecision::Drop);
    }
}
