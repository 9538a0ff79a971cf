use std::io;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use opentelemetry::InstrumentationScope;
use opentelemetry::KeyValue;
use opentelemetry::logs::{AnyValue, Severity};
use opentelemetry::trace::{SpanKind, Status, Tracer as _};
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::logs::{LogProcessor, SdkLogRecord};
use serde_json::Value;
use uuid::Uuid;

use super::*;
use crate::domain::command::CommandId;
use crate::domain::trace::TraceContext;
use crate::telemetry::span::{Description, Origin, Span};

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
        log_repeats_max: 20,
        otlp_endpoint: None,
        otlp_logs: false,
        service_name: "guest-connection-adapter".to_owned(),
        service_instance: "test".to_owned(),
        sample_ratio: 1.0,
        keep: Worth::default(),
        organizations: Vec::new(),
    }
}

/// Keeps the records that an exporter would get.
#[derive(Debug, Clone, Default)]
struct Exported(Arc<Mutex<Vec<SdkLogRecord>>>);

impl LogProcessor for Exported {
    fn emit(&self, record: &mut SdkLogRecord, _: &InstrumentationScope) {
        self.0.lock().unwrap().push(record.clone());
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

/// Runs `work` with everything logged into lines.
fn logged(settings: &Settings, work: impl FnOnce()) -> Lines {
    logged_to_the_end(settings, None, work).0
}

/// The same, and what has the last word.
fn logged_to_the_end(
    settings: &Settings,
    logs: Option<&SdkLoggerProvider>,
    work: impl FnOnce(),
) -> (Lines, Box<dyn FnOnce()>) {
    let lines = Lines::default();
    let writer = lines.clone();
    recorded::install_once();
    let (subscriber, last_words) = subscriber(settings, logs, move || writer.clone()).unwrap();
    tracing::subscriber::with_default(subscriber, work);
    (lines, Box::new(last_words))
}

fn id(n: u128) -> CommandId {
    CommandId(Uuid::from_u128(n))
}

/// A span, with a name that nobody asks for.
fn span(origin: Origin<'_>) -> Span {
    Span::begin(SpanKind::Internal, origin, || Description { name: "span".into(), attributes: Vec::new() })
}

fn context(traceparent: &str) -> TraceContext {
    context::from_headers(|name| (name == TraceContext::TRACEPARENT).then_some(traceparent))
}

#[test]
fn a_record_carries_the_trace_of_its_span() {
    let lines = logged(&settings(Format::Json), || {
        let command = span(Origin::Below(&context(TRACEPARENT)));
        let own = command.context().traceparent.unwrap();
        command.within(|| {
            tracing::info!(own, count = 3, good = true, "one\ntwo");
            span(Origin::Present).within(|| tracing::warn!("within"));
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
        let span = span(Origin::Below(&context(TRACEPARENT)));
        span.within(|| tracing::info!(status = 503, text = "a b", "forged\n2026 record"));
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
        let span = span(Origin::Below(&TraceContext::default()));
        let own = span.context().traceparent.unwrap();
        assert!(own.ends_with("-00") && !span.is_recorded(), "nobody records it: {own}");
        span.within(|| tracing::info!("not logged"));
        span.within(|| tracing::warn!(own, "logged"));
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
        let outbound = span(Origin::Below(&inbound)).context();
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
    let mut settings = settings(Format::Json);
    settings.log_repeats_max = 0;
    let (lines, last_words) = logged_to_the_end(&settings, None, || {
        for _ in 0..100 {
            tracing::error!(target: "opentelemetry_sdk", name = "BatchSpanProcessor.ExportError", "no collector");
            tracing::warn!(target: "opentelemetry-otlp", "it is slow");
        }
    });
    assert_eq!(lines.json().len(), 1);
    last_words();
    assert_eq!(lines.json()[1]["fields"]["suppressed"], 199);
}

#[test]
fn a_record_tells_its_command_whatever_is_logged() {
    let mut settings = settings(Format::Json);
    settings.log_filter = "warn".to_owned();
    let lines = logged(&settings, || {
        tracing::warn!("outside");
        let nothing = TraceContext::default();
        let door = span(Origin::Below(&nothing)).about(None);
        door.within(|| tracing::warn!("not known yet"));
        door.tell_command(id(1));
        door.within(|| {
            tracing::warn!("known");
            span(Origin::Below(&nothing)).about(Some(id(2))).within(|| {
                span(Origin::Present).within(|| tracing::warn!("in the midst"));
                tracing::warn!(command.id = "c3", "of another");
            });
            span(Origin::Below(&nothing)).within(|| tracing::warn!("of none"));
        });
    });
    let told: Vec<_> = lines
        .json()
        .iter()
        .map(|record| (record["message"].clone(), record.get("command_id").cloned().unwrap_or_default()))
        .collect();
    let wanted = [
        ("outside", Value::Null),
        ("not known yet", Value::Null),
        ("known", id(1).to_string().into()),
        ("in the midst", id(2).to_string().into()),
        ("of another", "c3".into()),
        ("of none", Value::Null),
    ];
    assert_eq!(told, wanted.map(|(message, command)| (message.into(), command)));
}

#[test]
fn a_span_is_described_if_it_is_recorded() {
    recorded::install_once();
    let parent = recorded::elsewhere();
    let begin = |origin: Origin<'_>, described: &mut u32| {
        let describe = || {
            *described += 1;
            Description { name: "work".into(), attributes: vec![KeyValue::new("asked", true)] }
        };
        let span = Span::begin(SpanKind::Client, origin, describe).about(Some(id(7)));
        span.set("count", 3);
        span.fail("timeout");
        span
    };
    let mut described = 0;
    drop(begin(Origin::Below(&TraceContext::default()), &mut described));
    assert_eq!(described, 0);
    drop(begin(Origin::Resumed(&parent), &mut described));
    assert_eq!(described, 1);
    let [span] = &recorded::of(&parent)[..] else { panic!("one span") };
    assert_eq!((span.name.as_ref(), &span.span_kind), ("work", &SpanKind::Client));
    let mut shown: Vec<_> = span.attributes.iter().map(|a| format!("{}={}", a.key, a.value)).collect();
    shown.sort();
    assert_eq!(shown, ["asked=true", &format!("command.id={}", id(7)), "count=3", "error.type=timeout"]);
    assert_eq!(span.links.len(), 1);
    assert!(matches!(span.status, Status::Error { .. }));
    let linked = begin(Origin::Linked(&parent), &mut described);
    assert_ne!(linked.context().traceparent.unwrap()[3..35], parent.traceparent.unwrap()[3..35]);
    assert_eq!(described, 2, "it follows the other's decision");
}

#[test]
fn repeats_are_limited_by_place_and_said_at_the_end() {
    let (lines, last_words) = logged_to_the_end(&settings(Format::Json), None, || {
        for number in 0..50 {
            tracing::warn!(number, "one");
            tracing::error!(target: "hyper::client", number, "two");
            tracing::info!(number, "three");
        }
        tracing::warn!("another place");
    });
    let count = |message: &str| lines.json().iter().filter(|record| record["message"] == message).count();
    assert_eq!(["one", "two", "three", "another place"].map(count), [20, 20, 50, 1]);
    assert_eq!(count("records were left out"), 0);
    last_words();
    let mut rest: Vec<_> = lines
        .json()
        .into_iter()
        .filter(|record| record["message"] == "records were left out")
        .map(|record| {
            (
                record["fields"]["record"].clone(),
                record["level"].clone(),
                record["fields"]["suppressed"].clone(),
            )
        })
        .collect();
    rest.sort_by_key(|(message, ..)| message.to_string());
    assert_eq!(rest, [("one".into(), "WARN".into(), 30.into()), ("two".into(), "ERROR".into(), 30.into())]);
}

#[test]
fn no_limit_is_none() {
    let mut settings = settings(Format::Text);
    settings.log_repeats_max = 0;
    let lines = logged(&settings, || {
        for _ in 0..100 {
            tracing::warn!("again");
        }
    });
    assert_eq!(lines.text().lines().count(), 100);
}

#[test]
fn text_ends_with_the_command_and_the_trace() {
    let lines = logged(&settings(Format::Text), || {
        let span = span(Origin::Below(&context(TRACEPARENT))).about(Some(id(1)));
        span.within(|| tracing::info!(command.id = "c1", status = 503, "done"));
    });
    let text = lines.text();
    let expected = ": done status=503 command=c1 trace=0af7651916cd43dd8448eb211c80319c";
    assert!(text.trim_end().ends_with(expected), "{text}");
}

#[test]
fn a_collector_gets_the_same_records_but_those_of_its_carriers() {
    let exported = Exported::default();
    let provider = SdkLoggerProvider::builder().with_log_processor(exported.clone()).build();
    let (lines, _) = logged_to_the_end(&settings(Format::Json), Some(&provider), || {
        let span = span(Origin::Below(&context(TRACEPARENT))).about(Some(id(1)));
        span.within(|| tracing::error!(count = 3, good = true, share = 0.5, text = "a b", "failed"));
        for carrier in CARRIERS {
            // The target of a record is fixed where it stands, but for one from the `log` crate.
            let target = format!("{carrier}::part");
            tracing::warn!(log.target = target, log.line = 7, "of a carrier");
        }
        for _ in 0..30 {
            tracing::warn!("again");
        }
    });
    assert_eq!(lines.json().len(), 1 + CARRIERS.len() + 20);
    let exported = exported.0.lock().unwrap().clone();
    assert_eq!(exported.len(), 1 + 20);
    let record = &exported[0];
    assert_eq!(record.severity_text(), Some("ERROR"));
    assert_eq!(record.severity_number(), Some(Severity::Error));
    assert_eq!(record.body(), Some(&AnyValue::from("failed")));
    assert_eq!(record.target().map(|target| &**target), Some(module_path!()));
    let context = record.trace_context().unwrap();
    assert_eq!(context.trace_id.to_string(), "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(context.span_id.to_string(), lines.json()[0]["span_id"].as_str().unwrap());
    let attribute = |name: &str| {
        record.attributes_iter().find(|(key, _)| key.as_str() == name).map(|(_, value)| value.clone())
    };
    assert_eq!(attribute("command.id"), Some(id(1).to_string().into()));
    assert_eq!(attribute("count"), Some(3.into()));
    assert_eq!(attribute("good"), Some(true.into()));
    assert_eq!(attribute("share"), Some(0.5.into()));
    assert_eq!(attribute("text"), Some("a b".into()));
}

#[tokio::test]
async fn a_dead_endpoint_holds_nothing_up() {
    // A listener that never answers: connected, and then nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut settings = settings(Format::Json);
    settings.otlp_endpoint = Some(format!("http://{}", silent.local_addr().unwrap()).parse().unwrap());
    let resource = export::resource(&settings);
    let provider = export::provider(&settings, resource.clone()).unwrap();
    let tracer = provider.tracer("test");
    let guard = Guard::new(provider, metrics::provider(&settings, resource).unwrap());
    for _ in 0..1000 {
        drop(tracer.start("command"));
    }
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
