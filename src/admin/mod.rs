//! The admin door: health and metrics for everyone whom it is open to, acts for those with its token.
//!
//! | path | |
//! | --- | --- |
//! | `GET /livez`, `GET /readyz`, `GET /readyz/calls` | open; beyond loopback `/readyz` gives its reasons to those with the token alone |
//! | `GET /metrics` | beyond loopback for those with the token |
//! | `POST /v1/forget`, `GET /v1/audit` | for those with the token, everywhere |
//!
//! - `access`: the token
//! - `health`, `acts`: what is answered
//! - `server`: connections, and their limits
//! - `records`: what is logged

mod access;
mod acts;
mod health;
pub(crate) mod records;
mod server;

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::http::StatusCode;
use axum::middleware;
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use secrecy::SecretString;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::access::Refusals;
use crate::service::custody::Custodian;
use crate::service::readiness::Readiness;

/// The longest body that is read, in bytes.
const BODY_LENGTH_MAX: usize = 4 * 1024;

/// How the door is locked.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// What administrators prove themselves with. Without one nobody may do anything.
    pub token: Option<SecretString>,
    /// Whether metrics and reasons are for those with the token alone.
    pub is_guarded: bool,
    /// Whether it is open to a network without a guard. Said in the log at every start.
    pub is_insecure: bool,
}

/// What the answers need.
#[derive(Clone)]
struct Door {
    settings: Arc<Settings>,
    readiness: Readiness,
    custodian: Custodian,
    refusals: Arc<Refusals>,
}

/// Serves until `shutdown`, without waiting for connections that stay open.
///
/// # Errors
/// None at present: a listener that fails is tried again.
pub async fn serve(
    settings: Settings,
    listener: TcpListener,
    readiness: Readiness,
    custodian: Custodian,
    shutdown: CancellationToken,
) -> std::io::Result<()> {
    if settings.is_insecure {
        records::Insecure.log();
    }
    let door =
        Door { settings: Arc::new(settings), readiness, custodian, refusals: Arc::new(Refusals::new()) };
    tokio::select! {
        () = server::run(listener, router(door)) => {}
        () = shutdown.cancelled() => {}
    }
    Ok(())
}

fn router(door: Door) -> Router {
    Router::new()
        .route("/livez", get(async || "ok"))
        .route("/readyz", get(health::ready))
        .route("/readyz/calls", get(health::takes_calls))
        .route("/metrics", get(health::metrics))
        .route("/v1/forget", post(acts::forget))
        .route("/v1/audit", get(acts::audit))
        .fallback(async || refusal(StatusCode::NOT_FOUND, "there is nothing here"))
        .method_not_allowed_fallback(async || {
            refusal(StatusCode::METHOD_NOT_ALLOWED, "this is not done here by that method")
        })
        .layer(middleware::from_fn_with_state(door.clone(), access::guard))
        .layer(DefaultBodyLimit::max(BODY_LENGTH_MAX))
        .with_state(door)
}

/// An answer that says why not.
fn refusal(code: StatusCode, text: &str) -> Response {
    (code, Json(json!({ "error": text }))).into_response()
}
