//! What the PATCH and the token request share: one deadline over everything, a cap on the body, a client span.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;
use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Client, ClientBuilder, RequestBuilder, Response, StatusCode};
use tokio::time::{Instant, timeout_at};
use url::Url;

use super::failure::{self, Failure};
use super::{Error, Settings, records, roots, wire};
use crate::domain::reply::Answer;
use crate::domain::trace::TraceContext;
use crate::service::ports::Waited;
use crate::telemetry::instruments::instruments;
use crate::telemetry::span::{Description, Origin, Span};

const TRACEPARENT: HeaderName = HeaderName::from_static(TraceContext::TRACEPARENT);

const TRACESTATE: HeaderName = HeaderName::from_static(TraceContext::TRACESTATE);

/// What some write before a text in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// A client that sends what it is given, once, and nothing else.
pub fn client(settings: &Settings) -> Result<Client, Error> {
    builder(settings)?.build().map_err(Error::Client)
}

/// The same before it is built.
pub fn builder(settings: &Settings) -> Result<ClientBuilder, Error> {
    let mut builder = Client::builder();
    if let Some(file) = &settings.ca_file {
        builder = builder.tls_certs_merge(roots::read(file)?);
    }
    let accept = HeaderMap::from_iter([(header::ACCEPT, HeaderValue::from_static("application/json"))]);
    Ok(builder
        .default_headers(accept)
        .user_agent(concat!("guest-connection-adapter/", env!("CARGO_PKG_VERSION")))
        .redirect(reqwest::redirect::Policy::none())
        // Retries are the service's: it alone knows whether the claim still holds.
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(settings.connect_timeout)
        .pool_max_idle_per_host(settings.idle_connections_max)
        .pool_idle_timeout(settings.idle_timeout)
        // A multiplexed connection that went dead takes one attempt with it, and not the next one too.
        .http2_keep_alive_interval(settings.attempt_timeout / 2)
        .http2_keep_alive_timeout(settings.attempt_timeout / 4))
}

/// An address of the API: its base extended by `segments`.
pub fn endpoint(base: &Url, segments: &[&str]) -> Result<Url, Error> {
    let mut url = base.clone();
    url.set_query(None);
    url.set_fragment(None);
    url.path_segments_mut().map_err(|()| Error::BaseUrl)?.pop_if_empty().extend(segments);
    Ok(url)
}

/// A request as its span and metrics describe it.
pub struct About {
    pub span: Span,
    attributes: Vec<KeyValue>,
}

/// Describes a request by the HTTP conventions. `template` is the path with names in the place of ids.
pub fn about(method: &'static str, url: &Url, template: Arc<str>, resend_count: u32) -> About {
    let span = span(method, url, &template, resend_count);
    let mut attributes = vec![KeyValue::new("http.request.method", method)];
    attributes.extend(place(url, template));
    About { span, attributes }
}

/// Addresses of the API that metrics tell apart, at most: each organisation may have one of its own.
const PLACES_MAX: usize = 16;

/// What stands for an address that is not told apart any more.
const OTHER: &str = "_OTHER";

/// Where a request goes, as metrics tell it.
fn place(url: &Url, template: Arc<str>) -> Vec<KeyValue> {
    static KNOWN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let port = url.port_or_known_default().unwrap_or_default();
    let host = url.host_str().unwrap_or_default();
    let is_known = {
        let name = format!("{host}:{port}{template}");
        let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        known.contains(&name) || (known.len() < PLACES_MAX && known.insert(name))
    };
    if !is_known {
        return vec![KeyValue::new("url.template", OTHER), KeyValue::new("server.address", OTHER)];
    }
    vec![
        KeyValue::new("url.template", template),
        KeyValue::new("server.address", host.to_owned()),
        KeyValue::new("server.port", i64::from(port)),
    ]
}

fn span(method: &'static str, url: &Url, template: &str, resend_count: u32) -> Span {
    let describe = || {
        let mut attributes = vec![
            KeyValue::new("http.request.method", method),
            KeyValue::new("url.full", shown(url).to_string()),
            KeyValue::new("url.template", template.to_owned()),
        ];
        attributes.extend(url.host_str().map(|host| KeyValue::new("server.address", host.to_owned())));
        let port = url.port_or_known_default();
        attributes.extend(port.map(|port| KeyValue::new("server.port", i64::from(port))));
        if resend_count > 0 {
            attributes.push(KeyValue::new("http.request.resend_count", i64::from(resend_count)));
        }
        Description { name: format!("{method} {template}").into(), attributes }
    };
    Span::begin(SpanKind::Client, Origin::Present, describe)
}

/// Writes into a span how long its request was waited with, and why.
pub fn note_waits(span: &Span, retry: Option<Waited>, gate: Option<Waited>) {
    let ms = |waited: Waited| i64::try_from(waited.duration.as_millis()).unwrap_or(i64::MAX);
    if let Some(waited) = retry {
        span.set("retry.delay_ms", ms(waited));
        span.set("retry.reason", waited.reason);
    }
    if let Some(waited) = gate {
        span.set("gate.delay_ms", ms(waited));
        span.set("gate.reason", waited.reason);
    }
}

/// The address without what may be secret.
fn shown(url: &Url) -> Url {
    let mut url = url.clone();
    // Both fail only for an address that cannot have a user, and then there is none to hide.
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url
}

/// Sends a request and reads its answer until `deadline`, its span being the one to hand on and to describe it in.
pub async fn send(
    request: RequestBuilder,
    deadline: Instant,
    body_length_max: usize,
    about: About,
) -> Result<Answer, Failure> {
    let About { span, mut attributes } = about;
    let began = Instant::now();
    let answer = span.around(exchange(request, deadline, body_length_max, &span)).await;
    match &answer {
        Ok(answer) => {
            attributes.push(KeyValue::new("http.response.status_code", i64::from(answer.status)));
            if answer.status >= 400 {
                attributes.push(KeyValue::new("error.type", answer.status.to_string()));
            }
        }
        Err(failure) => attributes.push(KeyValue::new("error.type", failure.as_str())),
    }
    instruments().http_request_duration.record(began.elapsed().as_secs_f64(), &attributes);
    answer
}

async fn exchange(
    request: RequestBuilder,
    deadline: Instant,
    body_length_max: usize,
    span: &Span,
) -> Result<Answer, Failure> {
    let TraceContext { traceparent, tracestate } = span.context();
    let headers = [(TRACEPARENT, traceparent), (TRACESTATE, tracestate)];
    let request = headers.into_iter().fold(request, |request, (name, value)| match value {
        Some(value) => request.header(name, value),
        None => request,
    });
    let response = match timeout_at(deadline, request.send()).await {
        Ok(Ok(response)) => response,
        Ok(Err(error)) => return Err(failed(&error, span)),
        Err(_elapsed) => {
            let failure = Failure::Unanswered("timeout");
            span.fail(failure.as_str());
            records::StatusLate.log();
            return Err(failure);
        }
    };
    let status = response.status();
    span.set("http.response.status_code", i64::from(status.as_u16()));
    if status.is_informational() {
        // One that is handed on is the last word: the other side has changed to a protocol that nobody asked for.
        let failure = Failure::Unanswered("malformed_answer");
        span.fail(failure.as_str());
        records::NoAnswer { status: Some(status.as_u16()), error: None, kind: failure.as_str() }.log();
        return Err(failure);
    }
    if status.is_client_error() || status.is_server_error() {
        span.fail(status.as_str());
    }
    let retry_after = wire::retry_after(response.headers().get(header::RETRY_AFTER), SystemTime::now());
    let body = match timeout_at(deadline, body(response, body_length_max, span)).await {
        Ok(body) => body,
        Err(_elapsed) => {
            unreadable(status, span, "timeout", "it did not come in time");
            None
        }
    };
    Ok(Answer { status: status.as_u16(), retry_after, body })
}

async fn body(mut response: Response, length_max: usize, span: &Span) -> Option<Vec<u8>> {
    let status = response.status();
    let mut body = Vec::new();
    loop {
        match response.chunk().await {
            Ok(Some(chunk)) if body.len() + chunk.len() > length_max => {
                unreadable(status, span, "body_too_large", "it is too large");
                return None;
            }
            Ok(Some(chunk)) => body.extend_from_slice(&chunk),
            Ok(None) => {
                // RFC 8259, 8.1: one may not write it, and may pass over it.
                if body.starts_with(BYTE_ORDER_MARK) {
                    body.drain(..BYTE_ORDER_MARK.len());
                }
                return Some(body);
            }
            Err(error) => {
                unreadable(status, span, "body_cut", &failure::described(&error));
                return None;
            }
        }
    }
}

/// Notes a body that could not be read. The status line came and decides, so this is not the request's failure.
fn unreadable(status: StatusCode, span: &Span, kind: &'static str, text: &str) {
    if status.is_success() {
        span.set("error.type", kind);
    }
    records::BodyUnread { status: status.as_u16(), error: text }.log();
}

fn failed(error: &reqwest::Error, span: &Span) -> Failure {
    let failure = failure::of(error);
    span.fail(failure.as_str());
    let (kind, text) = (failure.as_str(), failure::described(error));
    match failure {
        Failure::Unreachable(obstacle) => {
            records::NotProcessed { why: obstacle.public_text(), error: &text, kind }.log();
        }
        Failure::Unanswered(_) => {
            records::NoAnswer { status: None, error: Some(&text), kind }.log();
        }
    }
    failure
}
