//! Answers an admitted request, plainly or as a fault wants it.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::future::pending;
use std::io;
use std::time::Duration;

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{self, StreamExt};
use serde_json::Value;

use crate::connection::Style;
use crate::faults::Action;
use crate::problem::{json_response, scripted_body};
use crate::script::Plan;
use crate::socket::SocketControl;
use crate::state::Effect;
use crate::upstream::Exchange;

/// How much of an endless body is written at once.
const ENDLESS_CHUNK: Bytes = Bytes::from_static(&[b'x'; 16 * 1024]);

/// An admitted request on its way to its answer.
struct Pending<'a> {
    exchange: Exchange,
    effect: Effect,
    delay_after: Duration,
    socket: &'a SocketControl,
}

/// Waits, applies and answers as the plan says. If the client goes away while this waits, the rest is dropped.
pub(crate) async fn answer(
    exchange: Exchange,
    effect: Effect,
    plan: Plan,
    delay: Duration,
    socket: &SocketControl,
) -> Response {
    wait(delay + plan.delay_before).await;
    let style = exchange.shared.style;
    let pending = Pending { exchange, effect, delay_after: plan.delay_after, socket };
    let Some(action) = plan.action else { return pending.plain(style).await };
    match action {
        // The script adds delays up and never hands one on.
        Action::Delay { .. } => pending.plain(style).await,
        Action::WrongArchived => pending.plain(Style { wrong_archived: true, ..style }).await,
        Action::TimeForm { form } => pending.plain(Style { time_form: form, ..style }).await,
        Action::ExtraFields => pending.plain(Style { extra_fields: true, ..style }).await,
        Action::Status { status, headers, body, applied } => {
            pending.status(status, &headers, body.as_ref(), applied).await
        }
        Action::Maintenance => {
            let status = StatusCode::SERVICE_UNAVAILABLE;
            pending.exchange.answered(status);
            json_response(status, scripted_body(status, true))
        }
        Action::ResetBeforeApply => pending.reset(),
        Action::ResetAfterApply => {
            pending.apply().await;
            pending.reset()
        }
        Action::ApplyLate { ms, hang } => {
            pending.apply_late(Duration::from_millis(ms));
            if hang { pending.hang(false).await } else { pending.reset() }
        }
        Action::Hang { applied } => pending.hang(applied).await,
        Action::Drip { interval_ms, headers } => pending.drip(interval_ms, headers).await,
        Action::EndlessBody => pending.endless().await,
        Action::TruncateBody => pending.truncate().await,
        Action::MalformedJson => {
            let body = pending.apply().await;
            pending.exchange.answered(StatusCode::OK);
            json_response(StatusCode::OK, body[..body.len() / 2].to_vec())
        }
        Action::EmptyBody { status } => pending.status(status, &BTreeMap::new(), None, true).await,
    }
}

async fn wait(delay: Duration) {
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
}

impl Pending<'_> {
    async fn apply_styled(&self, style: Style) -> Vec<u8> {
        let body = self.exchange.shared.apply(self.exchange.seq, self.effect, style);
        wait(self.delay_after).await;
        body
    }

    async fn apply(&self) -> Vec<u8> {
        self.apply_styled(self.exchange.shared.style).await
    }

    async fn plain(self, style: Style) -> Response {
        let body = self.apply_styled(style).await;
        self.exchange.answered(StatusCode::OK);
        json_response(StatusCode::OK, body)
    }

    async fn status(
        self,
        status: u16,
        headers: &BTreeMap<String, String>,
        body: Option<&Value>,
        applied: bool,
    ) -> Response {
        if applied {
            self.apply().await;
        }
        // Rules are validated when they are scripted, so status and headers are fit to send.
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = match body {
            Some(Value::String(text)) => {
                let mut response = Response::new(Body::from(text.clone()));
                let plain = HeaderValue::from_static("text/plain; charset=utf-8");
                response.headers_mut().insert(header::CONTENT_TYPE, plain);
                response
            }
            Some(value) => json_response(status, value.to_string()),
            None if status.as_u16() >= 400 => json_response(status, scripted_body(status, false)),
            None => Response::new(Body::empty()),
        };
        *response.status_mut() = status;
        for (name, value) in headers {
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                response.headers_mut().insert(name, value);
            }
        }
        self.exchange.answered(status);
        response
    }

    /// Resets the connection. The answer returned is never seen: writing it fails.
    fn reset(self) -> Response {
        // What is no longer outstanding must be known to be so before the client sees the reset.
        drop(self.exchange);
        self.socket.reset();
        Response::new(Body::empty())
    }

    /// The effect comes on its own, even if the client has long gone.
    fn apply_late(&self, delay: Duration) {
        let (shared, seq, effect) = (self.exchange.shared.clone(), self.exchange.seq, self.effect);
        let task = tokio::spawn({
            let shared = shared.clone();
            async move {
                tokio::time::sleep(delay).await;
                shared.apply(seq, effect, shared.style);
            }
        });
        shared.keep_late(task.abort_handle());
    }

    /// Waits until the server drops this request, which it does when the client closes.
    async fn hang(self, applied: bool) -> Response {
        if applied {
            self.apply().await;
        }
        pending().await
    }

    async fn drip(self, interval_ms: u64, headers: bool) -> Response {
        let body = self.apply().await;
        let status = StatusCode::OK;
        self.exchange.status(status);
        if headers {
            self.socket.drip(interval_ms);
            // When the last byte is out is not seen here; the end of the connection is.
            self.socket.keep(self.exchange);
            let mut response = json_response(status, body);
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return response;
        }
        let length = body.len();
        let bytes = stream::unfold(
            (Bytes::from(body), Some(self.exchange)),
            move |(mut rest, exchange)| async move {
                if rest.is_empty() {
                    return None;
                }
                wait(Duration::from_millis(interval_ms)).await;
                let byte = rest.split_to(1);
                let exchange = if rest.is_empty() {
                    if let Some(exchange) = exchange {
                        exchange.answered(status);
                    }
                    None
                } else {
                    exchange
                };
                Some((Ok::<_, Infallible>(byte), (rest, exchange)))
            },
        );
        sized(Body::from_stream(bytes), length)
    }

    async fn endless(self) -> Response {
        self.apply().await;
        self.exchange.status(StatusCode::OK);
        let opening = stream::iter([Bytes::from_static(br#"{"guest_name":""#)]);
        let exchange = self.exchange;
        let chunks = opening.chain(stream::repeat(ENDLESS_CHUNK)).map(move |chunk| {
            // The exchange lives as long as the stream.
            let _ = &exchange;
            Ok::<_, Infallible>(chunk)
        });
        json_response(StatusCode::OK, Body::from_stream(chunks))
    }

    async fn truncate(self) -> Response {
        let body = self.apply().await;
        self.exchange.status(StatusCode::OK);
        let length = body.len();
        let half = Bytes::from(body).slice(..length / 2);
        let bytes = stream::unfold((Some(half), self.exchange), |(half, exchange)| async move {
            if let Some(half) = half {
                return Some((Ok(half), (None, exchange)));
            }
            // Lets the server write what it has before it learns that there is no more.
            tokio::task::yield_now().await;
            Some((Err(io::Error::from(io::ErrorKind::UnexpectedEof)), (None, exchange)))
        });
        sized(Body::from_stream(bytes), length)
    }
}

/// A 200 with a body that comes in pieces but has its length announced.
fn sized(body: Body, length: usize) -> Response {
    let mut response = json_response(StatusCode::OK, body);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(length));
    response
}
