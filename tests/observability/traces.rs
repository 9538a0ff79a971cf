//! What dashboards ask Jaeger for is there in the spans of an adapter that has worked.

use std::collections::BTreeSet;

use harness::collector::Span;
use harness::{Collector, DEADLINE, look_again};
use opentelemetry_proto::tonic::trace::v1::Status;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::Value;
use tokio::time::timeout;

use crate::{dashboards, traffic};

/// Whether a span has the name, and an attribute for each tag, that a search wants. Jaeger makes `error` of a span's status.
fn fits(search: &Value, span: &Span) -> bool {
    let is_named = search["operation"].as_str().is_none_or(|name| span.name == name);
    let tags = search["tags"].as_str().unwrap_or_default().split(' ').filter_map(|tag| tag.split_once('='));
    let has = |name: &str| match name {
        "error" => span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error),
        name => span.attributes.iter().any(|attribute| attribute.key == name),
    };
    is_named && tags.map(|(name, _)| name).all(has)
}

/// The searches that find nothing.
fn in_vain(spans: &[Span]) -> BTreeSet<String> {
    let searches = dashboards::searches();
    let vain = searches.iter().filter(|search| !spans.iter().any(|span| fits(search, span)));
    vain.map(|search| format!("{} {}", search["operation"], search["tags"])).collect()
}

#[tokio::test]
async fn every_search_of_a_dashboard_finds_spans_after_real_traffic() {
    let collector = Collector::start().await;
    let endpoint = format!("telemetry.otlp_endpoint = \"{}\"", collector.endpoint());
    let world = traffic::start(&endpoint).await;
    traffic::run(&world).await;
    let mut left = in_vain(&[]);
    assert!(left.len() > 5, "they are found: {left:?}");
    // Spans come in batches.
    let found = async {
        while !left.is_empty() {
            look_again().await;
            left = in_vain(&collector.spans());
        }
    };
    let in_time = timeout(DEADLINE, found).await;
    assert!(in_time.is_ok(), "no span for {left:#?}");
    world.end().await;
}

#[test]
fn a_search_wants_name_and_tags() {
    let search = serde_json::json!({"operation": "a", "tags": "b=1 error=true"});
    let mut span = Span { name: "a".to_owned(), ..Span::default() };
    assert!(!fits(&search, &span), "it has no tag");
    span.attributes
        .push(opentelemetry_proto::tonic::common::v1::KeyValue { key: "b".to_owned(), ..<_>::default() });
    assert!(!fits(&search, &span), "it has not failed");
    span.status = Some(Status { code: StatusCode::Error.into(), ..Status::default() });
    assert!(fits(&search, &span));
    span.name = "c".to_owned();
    assert!(!fits(&search, &span), "it has another name");
}
