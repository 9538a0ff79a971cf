//! Metrics as a scraper and as a collector get them.

use guest_connection_adapter::telemetry::catalogue;
use harness::collector::ResourceMetrics;
use harness::{Collector, Upstream};

use super::PROGRAM;

const BUILD_INFO: &str = "adapter.build_info";

#[test]
fn the_page_tells_every_metric() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let page = catalogue::page();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &page).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap(), page, "UPDATE_DOCS=1 writes it anew");
}

#[tokio::test]
async fn a_scraper_sees_what_is_running() {
    let upstream = Upstream::start().await;
    let adapter = upstream.setup(PROGRAM).start_ready().await;
    let text = adapter.metrics().await;
    let version = env!("CARGO_PKG_VERSION");
    let line = format!("adapter_build_info{{service_version=\"{version}\"}} 1");
    assert!(text.lines().any(|found| found == line), "{text}");
    let target = text.lines().find(|line| line.starts_with("target_info{")).expect("the resource");
    for attribute in ["service_name=\"guest-connection-adapter\"", "service_instance_id=\""] {
        assert!(target.contains(attribute), "{target}");
    }
}

#[tokio::test]
async fn a_collector_gets_the_same_at_the_latest_when_the_adapter_stops() {
    let (upstream, collector) = (Upstream::start().await, Collector::start().await);
    let endpoint = format!("telemetry.otlp_endpoint = \"{}\"", collector.endpoint());
    let adapter = upstream.setup(PROGRAM).config(&endpoint).start_ready().await;
    let (status, log) = adapter.terminate().await;
    assert!(status.success(), "{log:#?}");
    let exports = collector.metrics();
    let export = exports.iter().find(|export| names(export).contains(&BUILD_INFO)).expect("build info");
    let resource = export.resource.as_ref().expect("a resource");
    let attributes: Vec<_> = resource.attributes.iter().map(|attribute| attribute.key.as_str()).collect();
    for name in ["service.name", "service.version", "service.instance.id"] {
        assert!(attributes.contains(&name), "{attributes:?}");
    }
}

#[tokio::test]
async fn a_collector_that_is_away_holds_up_no_stop() {
    let upstream = Upstream::start().await;
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("telemetry.otlp_endpoint = \"http://{}\"", silent.local_addr().unwrap());
    let adapter = upstream.setup(PROGRAM).config(&endpoint).start_ready().await;
    let started = std::time::Instant::now();
    let (status, log) = adapter.terminate().await;
    assert!(status.success(), "{log:#?}");
    assert!(started.elapsed() < std::time::Duration::from_secs(8), "the flush is bounded");
}

fn names(export: &ResourceMetrics) -> Vec<&str> {
    let metrics = export.scope_metrics.iter().flat_map(|scope| &scope.metrics);
    metrics.map(|metric| metric.name.as_str()).collect()
}
