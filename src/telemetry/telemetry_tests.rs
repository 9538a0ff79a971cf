use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::*;
use crate::domain::trace::TraceContext;

const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    fn json(&self) -> Vec<Value> {
        self.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn settings(log_format: Format) -> Settings {
    Settings {
        log_format,
        log_filter: "info".to_owned(),
        otlp_endpoint: None,
        service_name: "guest-connection-adapter".to_owned(),
        service_instance: "test".to_owned(),
        sample_ratio: 1.0,
        keep: Worth::default(),
        organizations: Vec::new(),
    }
}

/// Runs `work` with everything logged into lines.
fn logged(settings: &Settings, work: impl FnOnce()) -> Lines {
    let lines = Lines::default();
    let writer = lines.clone();
    ask_every_subscriber();
    let provider = export::provider(settings, export::resource(settings)).unwrap();
    let subscriber = subscriber(settings, &provider, move || writer.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, work);
    lines
}

fn context(traceparent: &str) -> TraceContext {
    context::from_headers(|name| (name == TraceContext::TRACEPARENT).then_some(traceparent))
}

#[test]
fn a_record_carries_the_trace_of_the_adopted_parent() {
    let lines = logged(&settings(Format::Json), || {
        let span = tracing::info_span!("command");
        context::adopt(&span, &context(TRACEPARENT));
        let own = context::of(&span).traceparent.unwrap();
        span.in_scope(|| {
            tracing::info!(own, count = 3, good = true, "one\ntwo");
            tracing::info_span!("attempt").in_scope(|| tracing::warn!("within"));
        });
        tracing::info!("outside");
    });
    let records = lines.json();
    let [first, second, third] = records.as_slice() else { panic!("{records:?}") };
    assert_eq!(first["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    let own = first["fields"]["own"].as_str().unwrap();
    assert_eq!(own.split('-').nth(2), first["span_id"].as_str());
    assert_eq!(own.split('-').nth(3), Some("01"), "the caller's decision is handed on");
    assert_eq!(first["message"], "one\ntwo");
    assert_eq!((&first["fields"]["count"], &first["fields"]["good"]), (&3.into(), &true.into()));
    assert_eq!(first["level"], "INFO");
    assert!(chrono::DateTime::parse_from_rfc3339(first["timestamp"].as_str().unwrap()).is_ok());
    assert_eq!(second["trace_id"], first["trace_id"]);
    assert_ne!(second["span_id"], first["span_id"]);
    assert_eq!(third.get("trace_id"), None);
}

#[test]
fn text_is_one_line_with_the_trace() {
    let lines = logged(&settings(Format::Text), || {
        let span = tracing::info_span!("command");
        context::adopt(&span, &context(TRACEPARENT));
        span.in_scope(|| tracing::info!(status = 503, text = "a b", "forged\n2026 record"));
    });
    let text = lines.text();
    assert_eq!(text.lines().count(), 1);
    let expected = r#": forged\n2026 record status=503 text="a b" trace=0af7651916cd43dd8448eb211c80319c"#;
    assert!(text.trim_end().ends_with(expected), "{text}");
}

#[test]
fn ids_are_there_without_a_parent_and_whatever_is_logged() {
    let mut settings = settings(Format::Json);
    settings.log_filter = "warn".to_owned();
    let lines = logged(&settings, || {
        let span = tracing::info_span!("command");
        let own = context::of(&span).traceparent.unwrap();
        assert!(own.ends_with("-00"), "nobody records it: {own}");
        span.in_scope(|| tracing::info!("not logged"));
        span.in_scope(|| tracing::warn!(own, "logged"));
    });
    let records = lines.json();
    assert_eq!(records.len(), 1);
    let own = records[0]["fields"]["own"].as_str().unwrap();
    assert_eq!(own.split('-').nth(1), records[0]["trace_id"].as_str());
}

#[test]
fn a_context_goes_through_a_span_and_back() {
    logged(&settings(Format::Json), || {
        let state = "vendor=1,other=2";
        let inbound = context::from_headers(|name| match name {
            "traceparent" => Some(TRACEPARENT),
            "tracestate" => Some(state),
            _ => None,
        });
        let span = tracing::info_span!("command");
        context::adopt(&span, &inbound);
        let outbound = context::of(&span);
        assert_eq!(outbound.traceparent.unwrap()[..36], TRACEPARENT[..36]);
        assert_eq!(outbound.tracestate.as_deref(), Some(state));
    });
}

#[test]
fn malformed_contexts_are_none() {
    let long = format!("{TRACEPARENT}-{}", "0".repeat(200));
    for text in [
        "",
        "00",
        "00-00000000000000000000000000000000-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
        "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-zz",
        "00-0af7651916cd43dd8448eb211c80319\u{fffd}-b7ad6b7169203331-01",
        "\r\n",
        &long,
    ] {
        assert_eq!(context(text), TraceContext::default(), "{text}");
    }
    assert!(context(TRACEPARENT).traceparent.is_some());
}

#[test]
fn what_the_export_says_is_logged_once_in_a_while() {
    let lines = logged(&settings(Format::Json), || {
        for _ in 0..100 {
            tracing::error!(target: "opentelemetry_sdk", name = "BatchSpanProcessor.ExportError", "no collector");
        }
    });
    assert_eq!(lines.json().len(), 1);
}

#[tokio::test]
async fn a_dead_endpoint_holds_nothing_up() {
    // A listener that never answers: connected, and then nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings(Format::Json);
    settings.otlp_endpoint = Some(format!("http://{}", silent.local_addr().unwrap()).parse().unwrap());
    ask_every_subscriber();
    let resource = export::resource(&settings);
    let provider = export::provider(&settings, resource.clone()).unwrap();
    let subscriber = subscriber(&settings, &provider, io::sink).unwrap();
    let guard = Guard::new(provider, metrics::provider(&settings, resource).unwrap());
    tracing::subscriber::with_default(subscriber, || {
        for _ in 0..1000 {
            tracing::info_span!("command").in_scope(|| tracing::info!("done"));
        }
    });
    let started = Instant::now();
    assert!(!guard.shutdown(Duration::from_millis(300)).await);
    assert!(started.elapsed() < Duration::from_secs(2));
}

#[test]
fn no_filter_makes_libraries_tell_what_they_send() {
    let mut settings = settings(Format::Json);
    settings.log_filter =
        "trace,h2=trace,lapin=trace,reqwest=trace,lapin::returned_messages=trace".to_owned();
    let lines = logged(&settings, || {
        tracing::trace!(target: "h2::codec", "headers");
        tracing::debug!(target: "lapin::channels", "a frame");
        tracing::debug!(target: "anything", "a body");
        tracing::warn!(target: "lapin::returned_messages", "a message");
        tracing::trace!("ours");
        tracing::info!(target: "lapin::channels", "closed");
    });
    let messages: Vec<_> = lines.json().iter().map(|record| record["message"].clone()).collect();
    assert_eq!(messages, ["ours", "closed"]);
}

#[test]
fn filters_are_checked() {
    assert!(parse_filter("info,guest_connection_adapter=debug").is_ok());
    assert!(parse_filter("guest_connection_adapter=loud").is_err());
}
