//! The checks of the contract that need nothing but the request.

use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

use crate::problem::Violation;

/// Bodies beyond this many bytes are refused unread.
pub(crate) const BODY_BYTES_MAX: usize = 64 * 1024;
const CLIENT_ID_CHARS_MAX: usize = 128;
const CLIENT_SECRET_CHARS_MAX: usize = 64;

/// The headers that every call may carry.
const COMMON_HEADERS: [&str; 7] =
    ["host", "accept", "user-agent", "content-length", "content-type", "traceparent", "tracestate"];
/// The headers that only the PATCH may carry.
const PATCH_HEADERS: [&str; 3] = ["authorization", "requester-organization-id", "target-organization-id"];

/// The call that a request makes.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Call<'a> {
    /// The PATCH, with the last path segment as it was sent.
    Patch(&'a str),
    /// A token is asked for.
    Token,
}

/// Tells the call from method and path.
pub(crate) fn call<'a>(method: &Method, path: &'a str, base: &str) -> Result<Call<'a>, Violation> {
    let Some(rest) = path.strip_prefix(base) else {
        return Err(no_resource(path));
    };
    let (call, expected) = if rest == "/oauth2/token" {
        (Call::Token, Method::POST)
    } else {
        match rest.strip_prefix("/guest-connections/") {
            Some(guest) if !guest.is_empty() && !guest.contains('/') => (Call::Patch(guest), Method::PATCH),
            _ => return Err(no_resource(path)),
        }
    };
    if *method == expected {
        Ok(call)
    } else {
        let msg = format!("method {method} is not supported on {path}");
        Err(Violation::operation(StatusCode::METHOD_NOT_ALLOWED, msg))
    }
}

fn no_resource(path: &str) -> Violation {
    Violation::operation(StatusCode::NOT_FOUND, format!("path {path} is not part of the API"))
}

/// What head and path of a PATCH say; a field that breaks the contract is none and has its violation.
#[derive(Debug, Default)]
pub(crate) struct PatchHead {
    pub(crate) requester: Option<Uuid>,
    pub(crate) target: Option<Uuid>,
    pub(crate) guest: Option<Uuid>,
    pub(crate) token: Option<String>,
    pub(crate) violations: Vec<Violation>,
}

/// Reads and checks all of a PATCH but its body.
pub(crate) fn patch_head(parts: &Parts, guest: &str) -> PatchHead {
    let mut violations = Vec::new();
    check_common(parts, &PATCH_HEADERS, &mut violations);
    let token = bearer(&parts.headers).map_err(|violation| violations.push(violation)).ok();
    let requester = organization(&parts.headers, PATCH_HEADERS[1], &mut violations);
    let target = organization(&parts.headers, PATCH_HEADERS[2], &mut violations);
    let guest = hyphenated(guest);
    if guest.is_none() {
        violations.push(Violation::field(&["path", "guest_org_id"], "is not a uuid"));
    }
    PatchHead { requester, target, guest, token, violations }
}

/// Checks all of a token request but its body.
pub(crate) fn token_head(parts: &Parts) -> Vec<Violation> {
    let mut violations = Vec::new();
    check_common(parts, &[], &mut violations);
    violations
}

/// The `traceparent` of a request, if it can be read.
pub(crate) fn traceparent(headers: &HeaderMap) -> Option<String> {
    headers.get("traceparent")?.to_str().ok().map(str::to_owned)
}

fn check_common(parts: &Parts, own: &[&str], violations: &mut Vec<Violation>) {
    if parts.uri.query().is_some() {
        violations.push(Violation::form(&["query"], "the call has no query"));
    }
    for name in parts.headers.keys() {
        let name = name.as_str();
        if !COMMON_HEADERS.contains(&name) && !own.contains(&name) {
            violations.push(Violation::form(&["header", name], "is not a header of the contract"));
        } else if parts.headers.get_all(name).iter().count() > 1 {
            violations.push(Violation::form(&["header", name], "is given more than once"));
        }
    }
    match parts.headers.get("content-type") {
        None => violations.push(Violation::form(&["header", "content-type"], "is missing")),
        Some(value) if value != "application/json" => {
            violations.push(Violation::form(&["header", "content-type"], "is not application/json"));
        }
        Some(_) => {}
    }
    if parts.headers.contains_key("traceparent") {
        if !traceparent(&parts.headers).is_some_and(|value| is_traceparent(&value)) {
            violations.push(Violation::form(&["header", "traceparent"], "is not a W3C trace parent"));
        }
    } else if parts.headers.contains_key("tracestate") {
        violations.push(Violation::form(&["header", "tracestate"], "comes without traceparent"));
    }
}

/// Version 00 of the W3C form, with ids that are not all zero.
fn is_traceparent(value: &str) -> bool {
    let hex = |part: &str, length: usize| {
        part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let set = |part: &str| part.bytes().any(|byte| byte != b'0');
    let parts: Vec<&str> = value.split('-').collect();
    let [version, trace, span, flags] = parts[..] else { return false };
    version == "00" && hex(trace, 32) && set(trace) && hex(span, 16) && set(span) && hex(flags, 2)
}

fn bearer(headers: &HeaderMap) -> Result<String, Violation> {
    let value = headers.get("authorization").ok_or_else(|| Violation::token("is missing"))?;
    let token = value.to_str().ok().and_then(|value| value.strip_prefix("Bearer "));
    match token {
        Some(token) if !token.is_empty() && !token.contains(char::is_whitespace) => Ok(token.to_owned()),
        _ => Err(Violation::token("is not a bearer token")),
    }
}

fn organization(headers: &HeaderMap, name: &str, violations: &mut Vec<Violation>) -> Option<Uuid> {
    let Some(value) = headers.get(name) else {
        violations.push(Violation::field(&["header", name], "is missing"));
        return None;
    };
    let id = value.to_str().ok().and_then(hyphenated);
    if id.is_none() {
        violations.push(Violation::field(&["header", name], "is not a uuid"));
    }
    id
}

/// The hyphenated form only; it alone has 36 characters.
fn hyphenated(text: &str) -> Option<Uuid> {
    if text.len() == 36 { Uuid::try_parse(text).ok() } else { None }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PatchBody {
    archived: bool,
}

/// Reads the body of a PATCH: exactly `{"archived": <bool>}`.
pub(crate) fn patch_body(body: &[u8]) -> Result<bool, Vec<Violation>> {
    check_fields(
        body,
        &["archived"],
        |_, value| {
            if value.is_boolean() { None } else { Some("is not a boolean") }
        },
    )?;
    serde_json::from_slice::<PatchBody>(body).map(|body| body.archived).map_err(|_| twice())
}

/// The body of a token request. It has no `Debug`, so that the secret can't be shown by accident.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TokenBody {
    pub(crate) client_id: String,
    pub(crate) client_secret: String,
}

/// Reads the body of a token request: exactly `client_id` and `client_secret`, of the lengths of the contract.
pub(crate) fn token_body(body: &[u8]) -> Result<TokenBody, Vec<Violation>> {
    check_fields(body, &["client_id", "client_secret"], |name, value| {
        let max = if name == "client_id" { CLIENT_ID_CHARS_MAX } else { CLIENT_SECRET_CHARS_MAX };
        match value.as_str().map(|text| text.chars().count()) {
            None => Some("is not a string"),
            Some(length) if length == 0 || length > max => Some("is too short or too long"),
            Some(_) => None,
        }
    })?;
    serde_json::from_slice(body).map_err(|_| twice())
}

fn twice() -> Vec<Violation> {
    vec![Violation::field(&["body"], "a field is given twice")]
}

/// Checks that a body is an object of exactly these fields; `fault` says what is wrong with a value.
/// Values are not repeated in the messages, since they may be secrets.
fn check_fields(
    body: &[u8],
    names: &[&str],
    fault: impl Fn(&str, &Value) -> Option<&'static str>,
) -> Result<(), Vec<Violation>> {
    let value: Value =
        serde_json::from_slice(body).map_err(|_| vec![Violation::form(&["body"], "is not JSON")])?;
    let Value::Object(fields) = value else {
        return Err(vec![Violation::field(&["body"], "is not an object")]);
    };
    let mut violations = Vec::new();
    for &name in names {
        let fault = fields.get(name).map_or(Some("is missing"), |value| fault(name, value));
        violations.extend(fault.map(|fault| Violation::field(&["body", name], fault)));
    }
    for name in fields.keys().filter(|name| !names.contains(&name.as_str())) {
        violations.push(Violation::field(&["body", name], "is not a field of the contract"));
    }
    if violations.is_empty() { Ok(()) } else { Err(violations) }
}
