//! An OTLP/gRPC receiver that keeps the spans, metrics and log records it is sent.

use std::net::SocketAddr;
use std::time::Duration;

use opentelemetry_proto::tonic::collector::logs::v1::logs_service_server::{LogsService, LogsServiceServer};
use opentelemetry_proto::tonic::collector::logs::v1::{ExportLogsServiceRequest, ExportLogsServiceResponse};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
pub use opentelemetry_proto::tonic::logs::v1::LogRecord;
pub use opentelemetry_proto::tonic::metrics::v1::ResourceMetrics;
pub use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::transport::Server;
use tonic::{Request, Response, Status};

/// The receiver. Dropping it stops it.
pub struct Collector {
    address: SocketAddr,
    spans: watch::Receiver<Vec<Span>>,
    metrics: watch::Receiver<Vec<ResourceMetrics>>,
    logs: watch::Receiver<Vec<LogRecord>>,
    server: JoinHandle<()>,
}

struct Spans(watch::Sender<Vec<Span>>);

struct Metrics(watch::Sender<Vec<ResourceMetrics>>);

struct Logs(watch::Sender<Vec<LogRecord>>);

#[tonic::async_trait]
impl TraceService for Spans {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        let resources = request.into_inner().resource_spans.into_iter();
        let spans = resources.flat_map(|resource| resource.scope_spans).flat_map(|scope| scope.spans);
        self.0.send_modify(|kept| kept.extend(spans));
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Metrics {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.0.send_modify(|kept| kept.extend(request.into_inner().resource_metrics));
        Ok(Response::new(ExportMetricsServiceResponse::default()))
    }
}

#[tonic::async_trait]
impl LogsService for Logs {
    async fn export(
        &self,
        request: Request<ExportLogsServiceRequest>,
    ) -> Result<Response<ExportLogsServiceResponse>, Status> {
        let resources = request.into_inner().resource_logs.into_iter();
        let scopes = resources.flat_map(|resource| resource.scope_logs);
        self.0.send_modify(|kept| kept.extend(scopes.flat_map(|scope| scope.log_records)));
        Ok(Response::new(ExportLogsServiceResponse::default()))
    }
}

impl Collector {
    /// Listens on a free port.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let (span_sender, spans) = watch::channel(Vec::new());
        let (metric_sender, metrics) = watch::channel(Vec::new());
        let (log_sender, logs) = watch::channel(Vec::new());
        let serve = Server::builder()
            .add_service(TraceServiceServer::new(Spans(span_sender)))
            .add_service(MetricsServiceServer::new(Metrics(metric_sender)))
            .add_service(LogsServiceServer::new(Logs(log_sender)))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(async move { serve.await.expect("the receiver serves") });
        Self { address, spans, metrics, logs, server }
    }

    /// The endpoint, for `telemetry.otlp_endpoint`.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every span so far.
    #[must_use]
    pub fn spans(&self) -> Vec<Span> {
        self.spans.borrow().clone()
    }

    /// Every export of metrics so far.
    #[must_use]
    pub fn metrics(&self) -> Vec<ResourceMetrics> {
        self.metrics.borrow().clone()
    }

    /// Every log record so far.
    #[must_use]
    pub fn logs(&self) -> Vec<LogRecord> {
        self.logs.borrow().clone()
    }

    /// Every log record, as soon as they are as wanted.
    pub async fn wait_for_logs(
        &self,
        deadline: Duration,
        wanted: impl FnMut(&Vec<LogRecord>) -> bool,
    ) -> Vec<LogRecord> {
        let mut logs = self.logs.clone();
        let found = timeout(deadline, logs.wait_for(wanted)).await.map(|logs| logs.is_ok());
        assert!(found == Ok(true), "the log records did not become as wanted: {:#?}", self.logs());
        self.logs()
    }

    /// Every span, as soon as they are as wanted.
    pub async fn wait_for(&self, deadline: Duration, wanted: impl FnMut(&Vec<Span>) -> bool) -> Vec<Span> {
        let mut spans = self.spans.clone();
        let found = timeout(deadline, spans.wait_for(wanted)).await.map(|spans| spans.is_ok());
        assert!(found == Ok(true), "the spans did not become as wanted: {:#?}", names(&self.spans()));
        self.spans()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.server.abort();
    }
}

fn names(spans: &[Span]) -> Vec<&str> {
    spans.iter().map(|span| span.name.as_str()).collect()
}

/// An id as hexadecimal digits.
#[must_use]
pub fn hex(id: &[u8]) -> String {
    use std::fmt::Write as _;
    id.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// The id that hexadecimal digits stand for, or nothing if they are none.
#[must_use]
pub fn bytes(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(str::from_utf8(pair).ok()?, 16).ok()).collect()
}

/// An attribute as text.
#[must_use]
pub fn attribute(span: &Span, name: &str) -> Option<String> {
    find(&span.attributes, name)
}

/// An attribute of a log record as text.
#[must_use]
pub fn log_attribute(record: &LogRecord, name: &str) -> Option<String> {
    find(&record.attributes, name)
}

/// The body of a log record as text.
#[must_use]
pub fn log_body(record: &LogRecord) -> Option<String> {
    text(record.body.as_ref()?)
}

fn find(attributes: &[KeyValue], name: &str) -> Option<String> {
    text(attributes.iter().find(|attribute| attribute.key == name)?.value.as_ref()?)
}

fn text(value: &AnyValue) -> Option<String> {
    Some(match value.value.as_ref()? {
        any_value::Value::StringValue(text) => text.clone(),
        any_value::Value::IntValue(number) => number.to_string(),
        any_value::Value::BoolValue(flag) => flag.to_string(),
        any_value::Value::DoubleValue(number) => number.to_string(),
        other => format!("{other:?}"),
    })
}
