//! Errors in the contract's form, and the violations that cause them.

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::Response;
use serde::Serialize;

/// One entry of an error body.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Detail {
    pub(crate) loc: Vec<String>,
    pub(crate) msg: String,
    #[serde(rename = "type")]
    pub(crate) kind: &'static str,
    pub(crate) code: &'static str,
}

/// One way in which a request breaks the contract, with the status that answers it.
#[derive(Debug, Clone)]
pub(crate) struct Violation {
    pub(crate) status: StatusCode,
    pub(crate) detail: Detail,
}

impl Violation {
    fn new(status: StatusCode, kind: &'static str, code: &'static str, loc: &[&str], msg: String) -> Self {
        let loc = loc.iter().map(|&part| part.to_owned()).collect();
        Self { status, detail: Detail { loc, msg, kind, code } }
    }

    /// The request is no call of the API (404 or 405).
    pub(crate) fn operation(status: StatusCode, msg: String) -> Self {
        Self::new(status, "request", "unsupported_crud_operation", &[], msg)
    }

    /// The form of the request is wrong (400): headers, query, syntax.
    pub(crate) fn form(loc: &[&str], msg: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "request", "invalid_request", loc, msg.into())
    }

    /// A field has a value that it may not have (422).
    pub(crate) fn field(loc: &[&str], msg: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "validation", "invalid_field", loc, msg.into())
    }

    /// The bearer token is missing, unknown, revoked or expired (401).
    pub(crate) fn token(msg: &str) -> Self {
        let loc = &["header", "authorization"];
        Self::new(StatusCode::UNAUTHORIZED, "oauth", "oauth_invalid_token", loc, msg.to_owned())
    }

    /// The client credentials are unknown (401).
    pub(crate) fn credentials() -> Self {
        let (code, msg) = ("oauth_invalid_client_credentials", "client credentials are not valid");
        Self::new(StatusCode::UNAUTHORIZED, "oauth", code, &[], msg.to_owned())
    }

    /// The token's organisation may not do this (403).
    pub(crate) fn access(loc: &[&str], msg: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "permission", "organization_access_denied", loc, msg.to_owned())
    }

    /// There is no such connection (404).
    pub(crate) fn unknown_connection() -> Self {
        let (code, msg) = ("guest_connection_not_found", "there is no such guest connection");
        Self::new(StatusCode::NOT_FOUND, "resource", code, &["path", "guest_org_id"], msg.to_owned())
    }

    /// The line that the journal keeps.
    pub(crate) fn summary(&self) -> String {
        if self.detail.loc.is_empty() {
            return self.detail.msg.clone();
        }
        format!("{}: {}", self.detail.loc.join("."), self.detail.msg)
    }

    /// Which status wins when a request breaks the contract in several ways: lower comes first.
    fn rank(&self) -> u8 {
        match self.status {
            StatusCode::METHOD_NOT_ALLOWED => 0,
            StatusCode::UNAUTHORIZED => 1,
            StatusCode::FORBIDDEN => 2,
            StatusCode::BAD_REQUEST => 3,
            StatusCode::UNPROCESSABLE_ENTITY => 4,
            _ => 5,
        }
    }
}

/// The status and body that answer these violations; every violation is one entry of the body.
pub(crate) fn refusal(violations: &[Violation]) -> (StatusCode, Vec<u8>) {
    let worst = violations.iter().min_by_key(|violation| violation.rank());
    let status = worst.map_or(StatusCode::BAD_REQUEST, |violation| violation.status);
    let details: Vec<&Detail> = violations.iter().map(|violation| &violation.detail).collect();
    (status, error_body(&details))
}

/// The body of a 429.
pub(crate) fn limited_body() -> Vec<u8> {
    let msg = "too many requests".to_owned();
    error_body(&[&Detail { loc: Vec::new(), msg, kind: "request", code: "rate_limit_exceeded" }])
}

/// The body of a scripted error status without a body of its own.
pub(crate) fn scripted_body(status: StatusCode, maintenance: bool) -> Vec<u8> {
    let (kind, code) = if maintenance {
        ("maintenance", "service_under_maintenance")
    } else {
        ("simulator", "scripted_fault")
    };
    let msg = format!("scripted answer {}", status.as_u16());
    error_body(&[&Detail { loc: Vec::new(), msg, kind, code }])
}

fn error_body(details: &[&Detail]) -> Vec<u8> {
    // Strings always serialise.
    serde_json::to_vec(&serde_json::json!({ "detail": details })).unwrap_or_default()
}

/// A response with a JSON body.
pub(crate) fn json_response(status: StatusCode, body: impl Into<Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
