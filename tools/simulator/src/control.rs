//! The control API, under `/_control`.

use std::sync::Arc;

use axum::extract::{Path, State};
use axum::http::{StatusCode, Uri};
use axum::routing::{delete, get, post};
use axum::{Json, Router};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::connection::Connection;
use crate::faults::{Rule, RuleId, ScriptedRule};
use crate::journal::{Entry, Stats};
use crate::limit::{Limit, Limiter};
use crate::state::{Load, Shared};
use crate::tally::Tally;

pub(crate) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/_control/faults", get(faults).post(script).delete(clear_faults))
        .route("/_control/faults/{id}", delete(remove_fault))
        .route("/_control/limit", post(set_limit).delete(clear_limit))
        .route("/_control/journal", get(journal))
        .route("/_control/connections", get(connections).post(add_connection))
        .route("/_control/stats", get(stats))
        .route("/_control/tally", get(tally))
        .route("/_control/reset", post(reset))
        .route("/_control/revoke-tokens", post(revoke_tokens))
}

/// A connection with the count of its outstanding PATCH requests, as the control API lists it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConnectionReport {
    /// The connection.
    pub connection: Connection,
    /// Its outstanding PATCH requests.
    pub load: Load,
}

async fn faults(State(shared): State<Arc<Shared>>) -> Json<Vec<ScriptedRule>> {
    Json(shared.lock().script.rules().to_vec())
}

/// Takes all rules or, if one is invalid, none.
async fn script(
    State(shared): State<Arc<Shared>>,
    Json(rules): Json<Vec<Rule>>,
) -> Result<StatusCode, (StatusCode, String)> {
    for (index, rule) in rules.iter().enumerate() {
        rule.validate()
            .map_err(|fault| (StatusCode::UNPROCESSABLE_ENTITY, format!("rule {index}: {fault}\n")))?;
    }
    let mut inner = shared.lock();
    for rule in rules {
        inner.script.push(rule);
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn clear_faults(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.lock().script.clear();
    StatusCode::NO_CONTENT
}

async fn remove_fault(State(shared): State<Arc<Shared>>, Path(id): Path<RuleId>) -> StatusCode {
    if shared.lock().script.remove(id) { StatusCode::NO_CONTENT } else { StatusCode::NOT_FOUND }
}

async fn set_limit(State(shared): State<Arc<Shared>>, Json(limit): Json<Limit>) -> StatusCode {
    shared.lock().limiter = Some(Limiter::new(limit));
    StatusCode::NO_CONTENT
}

async fn clear_limit(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.lock().limiter = None;
    StatusCode::NO_CONTENT
}

/// The query is nothing or `after=<seq>`.
async fn journal(
    State(shared): State<Arc<Shared>>,
    uri: Uri,
) -> Result<Json<Vec<Entry>>, (StatusCode, &'static str)> {
    let after = match uri.query() {
        None => Some(0),
        Some(query) => query.strip_prefix("after=").and_then(|seq| seq.parse().ok()),
    };
    let after = after.ok_or((StatusCode::BAD_REQUEST, "the query is not after=<seq>\n"))?;
    Ok(Json(shared.lock().journal.after(after).to_vec()))
}

async fn connections(State(shared): State<Arc<Shared>>) -> Json<Vec<ConnectionReport>> {
    let inner = shared.lock();
    let report = |(key, connection): (_, &Connection)| ConnectionReport {
        connection: connection.clone(),
        load: inner.loads.get(key).copied().unwrap_or_default(),
    };
    Json(inner.connections.iter().map(report).collect())
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewConnection {
    target: Uuid,
    guest: Uuid,
}

async fn add_connection(
    State(shared): State<Arc<Shared>>,
    Json(new): Json<NewConnection>,
) -> (StatusCode, Json<Connection>) {
    (StatusCode::CREATED, Json(shared.lock().connection_mut((new.target, new.guest)).clone()))
}

async fn stats(State(shared): State<Arc<Shared>>) -> Json<Stats> {
    Json(shared.lock().stats())
}

async fn tally(State(shared): State<Arc<Shared>>) -> Json<Tally> {
    Json(Tally::of(shared.lock().journal.as_slice()))
}

async fn reset(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.reset();
    StatusCode::NO_CONTENT
}

async fn revoke_tokens(State(shared): State<Arc<Shared>>) -> StatusCode {
    shared.lock().tokens.revoke(None);
    StatusCode::NO_CONTENT
}
