//! Health and metrics for operators: `/livez` says that the process runs, `/readyz` which part is not ready and why,
//! `/metrics` what was counted.

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::service::readiness::{self, Conditions, Readiness};
use crate::telemetry::metrics;

/// The body of `/readyz`.
#[derive(Debug, Serialize)]
struct Report {
    status: &'static str,
    parts: Conditions,
}

/// Serves until `shutdown`, without waiting for connections that stay open.
///
/// # Errors
/// The listener failed.
pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .fallback(async || StatusCode::NOT_FOUND)
        .with_state(readiness);
    tokio::select! {
        served = axum::serve(listener, router) => served,
        () = shutdown.cancelled() => Ok(()),
    }
}

async fn metrics() -> Response {
    match metrics::scrape() {
        Ok(text) => ([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], text).into_response(),
        Err(error) => {
            tracing::warn!(%error, "the metrics cannot be written");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn ready(State(readiness): State<Readiness>) -> Response {
    let parts = readiness.conditions();
    // Before any part has entered itself nothing is known to be ready.
    let (code, status) = if readiness::ready(&parts) && !parts.is_empty() {
        (StatusCode::OK, "ready")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "not_ready")
    };
    (code, Json(Report { status, parts })).into_response()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::service::readiness::Condition;

    async fn get(address: std::net::SocketAddr, path: &str) -> (u16, String) {
        let response = reqwest::get(format!("http://{address}{path}")).await.unwrap();
        (response.status().as_u16(), response.text().await.unwrap())
    }

    #[tokio::test]
    async fn health_is_told() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (readiness, shutdown) = (Readiness::default(), CancellationToken::new());
        let server = tokio::spawn(serve(listener, readiness.clone(), shutdown.clone()));
        assert_eq!(get(address, "/livez").await, (200, "ok".to_owned()));
        assert_eq!(get(address, "/metrics").await.0, 200);
        assert_eq!(get(address, "/elsewhere").await.0, 404);
        assert_eq!(get(address, "/readyz").await.0, 503);

        let (store, broker) = (readiness.part("store"), readiness.part("broker"));
        store.set(Condition::Ready);
        let (status, body) = get(address, "/readyz").await;
        let parts = json!({
            "broker": {"status": "not_ready", "detail": "starting"},
            "store": {"status": "ready"},
        });
        assert_eq!(status, 503);
        assert_eq!(
            serde_json::from_str::<Value>(&body).unwrap(),
            json!({"status": "not_ready", "parts": parts})
        );

        broker.set(Condition::Degraded("an event is unroutable".to_owned()));
        let (status, body) = get(address, "/readyz").await;
        assert_eq!(status, 200);
        let body: Value = serde_json::from_str(&body).unwrap();
        assert_eq!(body["status"], "ready");
        assert_eq!(
            body["parts"]["broker"],
            json!({"status": "degraded", "detail": "an event is unroutable"})
        );

        shutdown.cancel();
        server.await.unwrap().unwrap();
    }
}
