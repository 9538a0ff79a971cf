//! The PATCH: what is sent, and what every kind of answer comes to.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use guest_connection_adapter::domain::reply::{Answer, Reply};
use guest_connection_adapter::domain::trace::TraceContext;
use guest_connection_adapter::mycreditapp::{Credentials, MyCreditApp};
use guest_connection_adapter::service::ports::{Patch, Upstream};
use guest_connection_adapter::telemetry::span::{self, Description, Origin, Span};
use opentelemetry::trace::{SpanKind, Status, TracerProvider as _};
use opentelemetry_sdk::trace::{SdkTracerProvider, SpanData, SpanExporter};
use opentelemetry_semantic_conventions::attribute::{
    ERROR_TYPE, HTTP_REQUEST_METHOD, HTTP_REQUEST_RESEND_COUNT, HTTP_RESPONSE_STATUS_CODE, SERVER_ADDRESS,
    SERVER_PORT, URL_FULL, URL_TEMPLATE,
};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::peer::{
    GUEST, REQUESTER, answer, base_url, next, organization, patch, request, serve, settings,
    with_static_token,
};

async fn send(upstream: &MyCreditApp) -> Reply {
    let authorization = upstream.authorize(organization(REQUESTER), false).await.unwrap();
    let started = Instant::now();
    let reply = upstream.patch(patch(), authorization).await;
    assert!(started.elapsed() < Duration::from_millis(1500), "the attempt timeout holds for everything");
    reply
}

fn answered(reply: Reply) -> Answer {
    match reply {
        Reply::Answered(answer) => answer,
        other => panic!("{other:?}"),
    }
}

/// The spans of all tests that have ended.
static SPANS: LazyLock<(Spans, SdkTracerProvider)> = LazyLock::new(|| {
    let spans = Spans::default();
    let provider = SdkTracerProvider::builder().with_simple_exporter(spans.clone()).build();
    span::install(provider.tracer("test"));
    (spans, provider)
});

/// A span that begins a trace.
fn command() -> Span {
    LazyLock::force(&SPANS);
    let describe = || Description { name: "command".into(), attributes: Vec::new() };
    Span::begin(SpanKind::Internal, Origin::Below(&TraceContext::default()), describe)
}

#[tokio::test]
async fn the_request_is_that_of_the_contract() {
    let (address, mut requests) = serve(|_| Some(answer("200 OK", "", "{}"))).await;
    let upstream = with_static_token(address);

    let span = command();
    let own = span.context().traceparent.unwrap();
    answered(span.around(send(&upstream)).await);

    let request = next(&mut requests).await;
    let (head, body) = request.split_once("\r\n\r\n").unwrap();
    assert_eq!(body, r#"{"archived":true}"#);
    let mut lines: Vec<_> = head.lines().collect();
    assert_eq!(lines.remove(0), format!("PATCH /v1-beta/guest-connections/{GUEST} HTTP/1.1"));
    let traceparent = lines.iter().position(|line| line.starts_with("traceparent: ")).unwrap();
    let traceparent = &lines.remove(traceparent)["traceparent: ".len()..];
    assert_eq!(traceparent[..36], own[..36], "of the same trace");
    assert_ne!(traceparent, own, "from the attempt's own span");
    lines.sort_unstable();
    let expected = [
        "accept: application/json".to_owned(),
        "authorization: Bearer static.jwt".to_owned(),
        "content-length: 17".to_owned(),
        "content-type: application/json".to_owned(),
        format!("host: {address}"),
        format!("requester-organization-id: {REQUESTER}"),
        format!("target-organization-id: {REQUESTER}"),
        format!("user-agent: guest-connection-adapter/{}", env!("CARGO_PKG_VERSION")),
    ];
    assert_eq!(lines, expected);
}

#[tokio::test]
async fn an_answer_is_handed_on_as_it_came() {
    let (address, _requests) = serve(|number| {
        Some(match number {
            0 => answer("200 OK", "", r#"{"archived": true}"#),
            1 => answer("204 No Content", "", ""),
            2 => answer("503 Service Unavailable", "retry-after: 7\r\n", "<html>"),
            3 => answer("429 Too Many Requests", "retry-after: Fri, 31 Dec 1999 23:59:59 GMT\r\n", ""),
            _ => answer("422 Unprocessable Content", "", r#"{"detail": []}"#),
        })
    })
    .await;
    let upstream = with_static_token(address);
    let expected = [
        (200, None, r#"{"archived": true}"#),
        (204, None, ""),
        (503, Some(Duration::from_secs(7)), "<html>"),
        (429, Some(Duration::ZERO), ""),
        (422, None, r#"{"detail": []}"#),
    ];
    for (status, retry_after, body) in expected {
        let answer = answered(send(&upstream).await);
        assert_eq!((answer.status, answer.retry_after), (status, retry_after));
        assert_eq!(answer.body.as_deref(), Some(body.as_bytes()));
    }
}

#[tokio::test]
async fn redirects_are_not_followed() {
    let (elsewhere, mut strays) = serve(|_| Some(answer("200 OK", "", "{}"))).await;
    let (address, _requests) = serve(move |number| {
        let status = ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"][number];
        Some(answer(status, &format!("location: http://{elsewhere}/\r\n"), ""))
    })
    .await;
    let upstream = with_static_token(address);
    for status in [301, 302, 303, 307, 308] {
        assert_eq!(answered(send(&upstream).await).status, status);
    }
    assert!(strays.try_recv().is_err());
}

#[tokio::test]
async fn without_a_connection_it_is_unreachable() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    assert!(matches!(send(&with_static_token(closed)).await, Reply::Unreachable(_)), "refused");

    // TLS with an end that says nothing at all, and with one that hangs up.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let dead_address = dead.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = dead.accept().await {
            drop(socket);
        }
    });
    for address in [silent.local_addr().unwrap(), dead_address] {
        let token = Credentials::StaticToken("static.jwt".into());
        let mut settings = settings(address, token);
        base_url(&mut settings).set_scheme("https").unwrap();
        let upstream = MyCreditApp::new(settings).unwrap();
        assert!(matches!(send(&upstream).await, Reply::Unreachable(_)), "no TLS");
    }

    let token = Credentials::StaticToken("static.jwt".into());
    let mut settings = settings(closed, token);
    base_url(&mut settings).set_host(Some("no-such-host.invalid")).unwrap();
    assert!(
        matches!(send(&MyCreditApp::new(settings).unwrap()).await, Reply::Unreachable(_)),
        "no such name"
    );
}

#[tokio::test]
async fn a_request_without_a_status_line_is_unanswered_and_not_repeated() {
    for bytes in [None, Some(Vec::new()), Some(b"HTTP/1.1 2".to_vec()), Some(b"SSH-2.0-x\r\n\r\n".to_vec())] {
        let text = format!("{bytes:?}");
        let (address, mut requests) = serve(move |_| bytes.clone()).await;
        assert!(matches!(send(&with_static_token(address)).await, Reply::Unanswered), "{text}");
        next(&mut requests).await;
        assert!(requests.try_recv().is_err(), "sent once: {text}");
    }
}

/// Serves every request with `head` and then with `chunk` again and again, `pause` apart.
async fn dripping(
    head: &'static [u8],
    chunk: &'static [u8],
    pause: Duration,
    cut_after: usize,
) -> MyCreditApp {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            request(&mut socket).await;
            socket.write_all(head).await.unwrap();
            for _ in 0..cut_after {
                if socket.write_all(chunk).await.is_err() {
                    break;
                }
                tokio::time::sleep(pause).await;
            }
        }
    });
    with_static_token(address)
}

#[tokio::test]
async fn a_body_that_cannot_be_read_leaves_the_status() {
    const HEAD: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n";
    const CHUNKED: &[u8] = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n";
    const LARGE: &[u8] = &[b'x'; 16 * 1024];
    let pause = Duration::from_millis(50);
    let cases = [
        ("dripped", dripping(HEAD, b"x", pause, usize::MAX).await),
        ("cut", dripping(HEAD, b"x", Duration::ZERO, 3).await),
        ("no chunk", dripping(CHUNKED, b"zz\r\n", Duration::ZERO, 1).await),
        ("too large", dripping(HEAD, LARGE, Duration::ZERO, 100).await),
        ("endless", dripping(CHUNKED, b"4\r\nabcd\r\n", Duration::ZERO, usize::MAX).await),
    ];
    for (name, upstream) in cases {
        let answer = answered(send(&upstream).await);
        assert_eq!((answer.status, answer.body), (200, None), "{name}");
    }
}

#[tokio::test]
async fn dripped_headers_end_with_the_attempt() {
    let pause = Duration::from_millis(50);
    let upstream = dripping(b"HTTP/1.1 200 OK\r\n", b"x: y\r\n", pause, usize::MAX).await;
    assert!(matches!(send(&upstream).await, Reply::Unanswered));
}

/// Keeps what is exported.
#[derive(Debug, Clone, Default)]
struct Spans(std::sync::Arc<std::sync::Mutex<Vec<SpanData>>>);

impl SpanExporter for Spans {
    async fn export(&self, batch: Vec<SpanData>) -> opentelemetry_sdk::error::OTelSdkResult {
        self.0.lock().unwrap().extend(batch);
        Ok(())
    }
}

#[tokio::test]
async fn an_attempt_is_a_client_span() {
    let command = command();
    let trace = command.context().traceparent.unwrap()[3..35].to_owned();
    let (address, _requests) =
        serve(|number| (number < 2).then(|| answer(["200 OK", "503 Service Unavailable"][number], "", "{}")))
            .await;
    let upstream = with_static_token(address);
    for resend_count in 0..3 {
        let authorization = upstream.authorize(organization(REQUESTER), false).await.unwrap();
        command.around(upstream.patch(Patch { resend_count, ..patch() }, authorization)).await;
    }
    let ended = SPANS.0.0.lock().unwrap();
    let of_trace = |span: &&SpanData| span.span_context.trace_id().to_string() == trace;
    let spans: Vec<_> = ended.iter().filter(of_trace).collect();
    let expected = [
        (Some("200"), None, None),
        (Some("503"), Some("503"), Some("1")),
        (None, Some("timeout"), Some("2")),
    ];
    assert_eq!(spans.len(), expected.len());
    for (span, (status, error, resend_count)) in spans.iter().zip(expected) {
        let attribute = |name: &str| {
            let found = span.attributes.iter().find(|attribute| attribute.key.as_str() == name);
            found.map(|attribute| attribute.value.to_string())
        };
        let name = "PATCH /v1-beta/guest-connections/{guest_org_id}";
        assert_eq!((span.name.as_ref(), &span.span_kind), (name, &SpanKind::Client));
        assert_eq!(attribute(HTTP_REQUEST_METHOD).as_deref(), Some("PATCH"));
        assert_eq!(attribute(SERVER_ADDRESS).as_deref(), Some("127.0.0.1"));
        assert_eq!(attribute(SERVER_PORT), Some(address.port().to_string()));
        assert_eq!(attribute(URL_TEMPLATE).as_deref(), Some("/v1-beta/guest-connections/{guest_org_id}"));
        assert_eq!(attribute(URL_FULL), Some(format!("http://{address}/v1-beta/guest-connections/{GUEST}")));
        assert_eq!(attribute(HTTP_RESPONSE_STATUS_CODE).as_deref(), status);
        assert_eq!(attribute(ERROR_TYPE).as_deref(), error);
        assert_eq!(attribute(HTTP_REQUEST_RESEND_COUNT).as_deref(), resend_count);
        assert_eq!(matches!(span.status, Status::Error { .. }), error.is_some());
        assert!(!format!("{span:?}").contains("jwt"));
    }
}
