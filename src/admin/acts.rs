//! What administrators do: forget someone, and read what was done.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest as _, RawQuery, Request, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::json;
use tokio::time::timeout;
use url::form_urlencoded;

use super::server::From;
use super::{Door, records, refusal};
use crate::domain::command::OrganizationId;
use crate::domain::erasure::Whose;
use crate::service::custody::Error;

/// The time for a request's body.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Under which name acts are recorded: the token proves no other.
const ACTOR: &str = "admin";

/// Acts that are read at once, and at most.
const ACTS_DEFAULT: usize = 100;
const ACTS_MAX: usize = 1_000;

/// The body of `/v1/forget`: one of both.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    guest_organization_id: Option<String>,
    requester_organization_id: Option<String>,
}

impl Wanted {
    fn read(body: &[u8]) -> Result<Whose, String> {
        // The error's own text could quote what was sent.
        let wanted: Self = serde_json::from_slice(body).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!(
                "the body must be a JSON object with guest_organization_id or requester_organization_id alone; it is \
                 not, at line {line}, column {column}"
            )
        })?;
        let (name, whose, id): (_, fn(OrganizationId) -> Whose, _) =
            match (wanted.guest_organization_id, wanted.requester_organization_id) {
                (Some(id), None) => ("guest_organization_id", Whose::Guest, id),
                (None, Some(id)) => ("requester_organization_id", Whose::Organization, id),
                _ => return Err("give either guest_organization_id or requester_organization_id".to_owned()),
            };
        OrganizationId::parse(&id).map(whose).map_err(|rule| format!("{name} {rule}"))
    }
}

pub(super) async fn forget(
    State(door): State<Door>,
    Extension(From(address)): Extension<From>,
    request: Request,
) -> Response {
    let body = match timeout(BODY_TIMEOUT, Bytes::from_request(request, &())).await {
        Ok(Ok(body)) => body,
        Ok(Err(rejection)) => {
            return last(refusal(rejection.status(), "the body is too long or was cut off"));
        }
        Err(_elapsed) => return last(refusal(StatusCode::REQUEST_TIMEOUT, "the body did not come in time")),
    };
    let whose = match Wanted::read(&body) {
        Ok(whose) => whose,
        Err(text) => return refusal(StatusCode::BAD_REQUEST, &text),
    };
    let custodian = door.custodian.clone();
    // A caller who goes away does not cut it off.
    let done =
        tokio::spawn(async move { custodian.forget(whose, ACTOR, Some(address.to_string())).await }).await;
    match done {
        Ok(Ok(forgotten)) => {
            records::BodiesErased { forgotten }.log();
            (StatusCode::OK, Json(forgotten)).into_response()
        }
        Ok(Err(error @ Error::Busy)) => refusal(StatusCode::CONFLICT, &error.to_string()),
        Ok(Err(Error::Store(error))) => unavailable(&error),
        Err(error) => unavailable(&error),
    }
}

pub(super) async fn audit(State(door): State<Door>, RawQuery(query): RawQuery) -> Response {
    let (mut limit, mut before) = (ACTS_DEFAULT, None);
    for (name, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let is_read = match &*name {
            "limit" => value.parse().is_ok_and(|number| {
                limit = number;
                (1..=ACTS_MAX).contains(&number)
            }),
            "before" => value.parse().is_ok_and(|number: i64| {
                before = Some(number);
                number > 0
            }),
            _ => false,
        };
        if !is_read {
            let text = format!(
                "limit must be from 1 to {ACTS_MAX}, before the number of an act; nothing else is asked"
            );
            return refusal(StatusCode::BAD_REQUEST, &text);
        }
    }
    match door.custodian.acts(before, limit).await {
        Ok(acts) => (StatusCode::OK, Json(json!({ "acts": acts }))).into_response(),
        Err(error) => unavailable(&error),
    }
}

fn unavailable(error: &impl std::fmt::Display) -> Response {
    records::ActFailed { error }.log();
    refusal(
        StatusCode::SERVICE_UNAVAILABLE,
        "the store failed; the log says why. What was erased is erased: ask again for the rest",
    )
}

/// The rest of the request is not read.
fn last(mut answer: Response) -> Response {
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    answer
}
