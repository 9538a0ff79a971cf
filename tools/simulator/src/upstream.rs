//! The API itself: the PATCH and the token endpoint.

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{StatusCode, header};
use axum::response::Response;
use bytes::Bytes;
use chrono::Utc;

use crate::admission::Refusal;
use crate::answer;
use crate::contract::{self, BODY_BYTES_MAX, Call, PatchHead};
use crate::journal::{Endpoint, Entry, Origin};
use crate::problem::{Violation, json_response, limited_body, refusal};
use crate::socket::SocketControl;
use crate::state::{Outstanding, Shared};

/// A request that was entered in the journal. While it lives, its PATCH counts as outstanding.
pub(crate) struct Exchange {
    pub(crate) shared: Arc<Shared>,
    pub(crate) seq: u64,
    outstanding: Option<Outstanding>,
}

impl Exchange {
    fn begin(shared: &Arc<Shared>, endpoint: Endpoint, head: &PatchHead, origin: Origin) -> Self {
        let (seq, outstanding) = shared.lock().arrive(endpoint, head, origin);
        shared.changed.notify_waiters();
        Self { shared: Arc::clone(shared), seq, outstanding }
    }

    /// The status line goes out; the body may take its time.
    pub(crate) fn status(&self, status: StatusCode) {
        self.shared.amend(self.seq, |entry| {
            entry.status = Some(status.as_u16());
            entry.status_at = Some(Utc::now());
        });
    }

    /// The answer is complete.
    pub(crate) fn answered(mut self, status: StatusCode) {
        let answered = |entry: &mut Entry| {
            let now = Some(Utc::now());
            entry.status = Some(status.as_u16());
            entry.status_at = entry.status_at.or(now);
            entry.answered_at = now;
            entry.ended_at = now;
        };
        let mut inner = self.shared.lock();
        if let Some(entry) = inner.journal.get_mut(self.seq) {
            answered(entry);
        }
        if let Some(outstanding) = self.outstanding.take() {
            inner.end(outstanding);
        }
        drop(inner);
        self.shared.changed.notify_waiters();
    }

    fn refuse(self, refused: Refusal) -> Response {
        match refused {
            Refusal::Violations(violations) => {
                let (status, body) = refusal(&violations);
                self.answered(status);
                json_response(status, body)
            }
            Refusal::Limited(retry_after) => {
                self.answered(StatusCode::TOO_MANY_REQUESTS);
                let mut response = json_response(StatusCode::TOO_MANY_REQUESTS, limited_body());
                if let Some(value) = retry_after {
                    response.headers_mut().insert(header::RETRY_AFTER, value);
                }
                response
            }
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(outstanding) = self.outstanding.take() {
            let mut inner = self.shared.lock();
            if let Some(entry) = inner.journal.get_mut(self.seq) {
                entry.ended_at = Some(Utc::now());
            }
            inner.end(outstanding);
            drop(inner);
            self.shared.changed.notify_waiters();
        }
    }
}

/// Answers everything that is not the control API.
pub(crate) async fn handle(
    State(shared): State<Arc<Shared>>,
    ConnectInfo(socket): ConnectInfo<SocketControl>,
    request: Request,
) -> Response {
    let (parts, body) = request.into_parts();
    let origin = Origin { traceparent: contract::traceparent(&parts.headers), peer: socket.peer() };
    match contract::call(&parts.method, parts.uri.path(), &shared.base_path) {
        Ok(Call::Patch(guest)) => {
            let head = contract::patch_head(&parts, guest);
            let exchange = Exchange::begin(&shared, Endpoint::Patch, &head, origin);
            let body = read(body).await.and_then(|body| contract::patch_body(&body));
            let admission = shared.lock().admit_patch(exchange.seq, head, body);
            match admission {
                Ok((effect, plan)) => answer::answer(exchange, effect, plan, shared.delay, &socket).await,
                Err(refusal) => exchange.refuse(refusal),
            }
        }
        Ok(Call::Token) => {
            let violations = contract::token_head(&parts);
            let exchange = Exchange::begin(&shared, Endpoint::Token, &PatchHead::default(), origin);
            let body = read(body).await.and_then(|body| contract::token_body(&body));
            let admission = shared.lock().admit_token(exchange.seq, violations, body);
            match admission {
                Ok((effect, plan)) => {
                    answer::answer(exchange, effect, plan, std::time::Duration::ZERO, &socket).await
                }
                Err(refusal) => exchange.refuse(refusal),
            }
        }
        Err(violation) => {
            let exchange = Exchange::begin(&shared, Endpoint::Other, &PatchHead::default(), origin);
            shared.lock().note(exchange.seq, std::slice::from_ref(&violation), |_| {});
            exchange.refuse(Refusal::Violations(vec![violation]))
        }
    }
}

async fn read(body: Body) -> Result<Bytes, Vec<Violation>> {
    to_bytes(body, BODY_BYTES_MAX)
        .await
        .map_err(|_| vec![Violation::form(&["body"], "is too long or was cut")])
}
