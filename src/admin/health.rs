//! Whether the process runs, which parts are not ready and why, and what was counted.

use axum::Extension;
use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use serde::Serialize;

use super::Door;
use super::access::Known;
use super::records;
use crate::service::readiness::{self, Condition, Conditions};
use crate::telemetry::metrics;

/// The body of `/readyz`.
#[derive(Debug, Serialize)]
struct Report {
    status: &'static str,
    parts: Conditions,
}

pub(super) async fn metrics() -> Response {
    match metrics::scrape() {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            records::MetricsUnwritten { error: &error }.log();
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

pub(super) async fn ready(State(door): State<Door>, Extension(known): Extension<Known>) -> Response {
    let mut parts = door.readiness.conditions();
    // Before any part has entered itself nothing is known to be ready.
    let (code, status) = if readiness::ready(&parts) && !parts.is_empty() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not_ready")
    };
    if door.settings.is_guarded && known == Known(false) {
        parts.values_mut().for_each(hide);
    }
    (code, Json(Report { status, parts })).into_response()
}

/// Whether calls can be served: what a balancer wants to know, which must not turn callers away for a broker that is away.
pub(super) async fn takes_calls(State(door): State<Door>) -> Response {
    if readiness::takes_calls(&door.readiness.conditions()) {
        (StatusCode::OK, "ready").into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not_ready").into_response()
    }
}

/// Why a part is not well tells of organisations, addresses and files.
fn hide(condition: &mut Condition) {
    match condition {
        Condition::Ready => {}
        Condition::Degraded(detail) | Condition::NotReady(detail) => {
            "told to those with the admin token".clone_into(detail);
        }
    }
}
