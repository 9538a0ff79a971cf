//! The contract's JSON and headers: strict in what is sent, tolerant in what is read.

use std::time::{Duration, SystemTime};

use ::http::{HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::domain::drift::{Drift, DriftKind};
use crate::domain::reply::{self, Answer};

/// The header that names the organisation which owns the API client.
pub const REQUESTER: HeaderName = HeaderName::from_static("requester-organization-id");

/// The header that names the organisation which is acted upon.
pub const TARGET: HeaderName = HeaderName::from_static("target-organization-id");

/// The longest wait that a `Retry-After` is believed to mean.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What stands before the token in the `Authorization` header.
const SCHEME: &str = "Bearer ";

/// The longest token that is taken, in bytes.
pub const TOKEN_LENGTH_MAX: usize = 16 * 1024;

/// The lifetime of a token whose `expires_in` says nothing usable. Short enough to notice an expiry soon; if it was
/// still too long, the API refuses the token and it is replaced.
const LIFETIME_ASSUMED: Duration = Duration::from_secs(60);

/// A lifetime shorter than this, in seconds, is no use to anybody.
const LIFETIME_MIN: f64 = 1.0;

/// The longest lifetime that is believed.
const LIFETIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// The body of the PATCH.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct PatchBody {
    /// The value that the connection shall have.
    pub archived: bool,
}

/// The body of a token request.
#[derive(Serialize)]
pub struct TokenRequest<'a> {
    /// The client's id.
    pub client_id: &'a str,
    /// The client's secret.
    pub client_secret: &'a str,
}

/// The answer to a token request.
#[derive(Deserialize)]
struct TokenAnswer {
    access_token: String,
    #[serde(default)]
    expires_in: Value,
}

/// A token as it was given out.
pub struct IssuedToken {
    /// The value of the `Authorization` header.
    pub header: HeaderValue,
    /// How long it lasts, counted from the request.
    pub lifetime: Duration,
}

/// Reads the answer to a token request. `None` if there is no usable token in it.
pub fn issued_token(body: &[u8]) -> Option<IssuedToken> {
    let answer: TokenAnswer = serde_json::from_slice(body).ok()?;
    Some(IssuedToken { header: bearer(&answer.access_token)?, lifetime: lifetime(&answer.expires_in) })
}

/// How the answer to a token request differs from the contract.
pub fn token_drifts(answer: &Answer) -> Vec<Drift> {
    if !(200..300).contains(&answer.status) {
        return reply::error_drifts(answer);
    }
    let read = answer.body.as_deref().and_then(|body| serde_json::from_slice::<Value>(body).ok());
    let fits = read.as_ref().and_then(Value::as_object).is_some_and(|fields| {
        fields.len() == 2
            && fields.get("access_token").is_some_and(Value::is_string)
            && fields.get("expires_in").is_some_and(Value::is_u64)
    });
    if fits { Vec::new() } else { vec![Drift::whole(DriftKind::TokenForm)] }
}

/// The `Authorization` header for a token, marked sensitive. `None` if the token cannot be one.
pub fn bearer(token: &str) -> Option<HeaderValue> {
    let fits = !token.is_empty()
        && token.len() <= TOKEN_LENGTH_MAX
        && token.bytes().all(|byte| byte.is_ascii_graphic());
    let mut header = HeaderValue::try_from(format!("{SCHEME}{token}")).ok().filter(|_| fits)?;
    header.set_sensitive(true);
    Some(header)
}

/// What an answer says, without the token of its request: one that quotes it must not have us tell it to callers, in events
/// or in the store. `header` is the `Authorization` header as it was sent.
///
/// A token of a few characters is none that anybody gives out, and would be found everywhere.
pub fn without(body: Vec<u8>, header: &[u8]) -> Vec<u8> {
    const TOKEN_LENGTH_MIN: usize = 5;
    let token = header.strip_prefix(SCHEME.as_bytes()).unwrap_or(header);
    let Some(token) = str::from_utf8(token).ok().filter(|token| token.len() >= TOKEN_LENGTH_MIN) else {
        return body;
    };
    // JSON can write the same text in many ways, each of them with a backslash.
    let body = if body.contains(&b'\\') { without_in_json(body, token) } else { body };
    without_bytes(body, token.as_bytes())
}

const STAND_IN: &str = "(token)";

fn without_in_json(body: Vec<u8>, token: &str) -> Vec<u8> {
    let Ok(mut value) = serde_json::from_slice::<Value>(&body) else { return body };
    if replace(&mut value, token) { serde_json::to_vec(&value).unwrap_or_default() } else { body }
}

/// Takes the token out of every text, names of fields included. Yields whether there was one. The depth is bounded by the
/// parser's.
fn replace(value: &mut Value, token: &str) -> bool {
    match value {
        Value::String(text) if text.contains(token) => {
            *text = text.replace(token, STAND_IN);
            true
        }
        Value::Array(items) => items.iter_mut().fold(false, |found, item| replace(item, token) | found),
        Value::Object(fields) => {
            let mut found = fields.values_mut().fold(false, |found, field| replace(field, token) | found);
            if fields.keys().any(|name| name.contains(token)) {
                found = true;
                let renamed = std::mem::take(fields).into_iter();
                *fields = renamed.map(|(name, field)| (name.replace(token, STAND_IN), field)).collect();
            }
            found
        }
        _ => false,
    }
}

fn without_bytes(body: Vec<u8>, token: &[u8]) -> Vec<u8> {
    let found = |from: usize| {
        let rest = body.get(from..)?;
        rest.windows(token.len()).position(|window| window == token).map(|at| from + at)
    };
    let (mut shown, mut from) = (Vec::new(), 0);
    while let Some(at) = found(from) {
        shown.extend_from_slice(&body[from..at]);
        shown.extend_from_slice(STAND_IN.as_bytes());
        from = at + token.len();
    }
    if from == 0 {
        return body;
    }
    shown.extend_from_slice(&body[from..]);
    shown
}

fn lifetime(expires_in: &Value) -> Duration {
    let seconds = match expires_in {
        Value::Number(number) => number.as_f64(),
        Value::String(text) => text.trim().parse().ok(),
        _ => None,
    };
    match seconds {
        // Infinity and what does not fit a Duration are far above the maximum as well.
        Some(seconds) if seconds >= LIFETIME_MIN => {
            Duration::try_from_secs_f64(seconds).unwrap_or(LIFETIME_MAX).min(LIFETIME_MAX)
        }
        _ => LIFETIME_ASSUMED,
    }
}

/// Reads `Retry-After` in both of its forms (RFC 9110, 10.2.3), between nothing and an hour.
pub fn retry_after(header: Option<&HeaderValue>, now: SystemTime) -> Option<Duration> {
    let text = header?.to_str().ok()?.trim();
    let delay = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().map_or(RETRY_AFTER_MAX, Duration::from_secs)
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).unwrap_or_default()
    };
    Some(delay.min(RETRY_AFTER_MAX))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms_and_clamped() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let read = |text: &str| retry_after(Some(&HeaderValue::from_str(text).unwrap()), now);
        let date = |seconds| httpdate::fmt_http_date(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        assert_eq!(read("0"), Some(Duration::ZERO));
        assert_eq!(read(" 7 "), Some(Duration::from_secs(7)));
        assert_eq!(read("99999999999999999999999"), Some(RETRY_AFTER_MAX));
        assert_eq!(read("86400"), Some(RETRY_AFTER_MAX));
        assert_eq!(read(&date(1_700_000_030)), Some(Duration::from_secs(30)));
        assert_eq!(read(&date(1_600_000_000)), Some(Duration::ZERO));
        assert_eq!(read(&date(1_900_000_000)), Some(RETRY_AFTER_MAX));
        for odd in ["-1", "soon", "", "1.5"] {
            assert_eq!(read(odd), None, "{odd}");
        }
        assert_eq!(retry_after(None, now), None);
    }

    #[test]
    fn lifetimes_are_read_whatever_stands_there() {
        for (expires_in, seconds) in [
            (json!(300), 300),
            (json!("300"), 300),
            (json!(300.0), 300),
            (json!(0), 60),
            (json!(-5), 60),
            (json!(0.001), 60),
            (json!(1), 1),
            (json!(null), 60),
            (json!("soon"), 60),
            (json!([]), 60),
            (json!(1e300), 86_400),
            (json!("inf"), 86_400),
            (json!(u64::MAX), 86_400),
        ] {
            assert_eq!(lifetime(&expires_in), Duration::from_secs(seconds), "{expires_in}");
        }
        assert_eq!(lifetime(&json!("NaN")), LIFETIME_ASSUMED);
    }

    #[test]
    fn a_token_that_is_quoted_is_taken_out() {
        let read = |body: &str| String::from_utf8(without(body.into(), b"Bearer a.b.c")).unwrap();
        assert_eq!(read(r#"{"msg": "a.b.c, Bearer a.b.c"}"#), r#"{"msg": "(token), Bearer (token)"}"#);
        // However JSON writes it, in values and in names.
        let escaped = r#"{"\u0061.b.c": ["x a\u002eb.c"], "n": "a.b\u002Ec", "plain": 1}"#;
        assert_eq!(read(escaped), r#"{"(token)":["x (token)"],"n":"(token)","plain":1}"#);
        let slashes =
            String::from_utf8(without(br#"{"msg": "to\/ke\/n"}"#.to_vec(), b"Bearer to/ke/n")).unwrap();
        assert_eq!(slashes, r#"{"msg":"(token)"}"#);
        assert_eq!(read(r#"{"line": "a\nb"}"#), r#"{"line": "a\nb"}"#, "nothing else is touched");
        for plain in ["", "a.b", "{}"] {
            assert_eq!(read(plain), plain);
        }
    }

    #[test]
    fn a_token_is_taken_out_of_what_quotes_it() {
        let without = |body: &str, token: &str| {
            let shown = without(body.into(), format!("Bearer {token}").as_bytes());
            String::from_utf8(shown).unwrap()
        };
        assert_eq!(without("a secret.jwt, secret.jwt!", "secret.jwt"), "a (token), (token)!");
        assert_eq!(without("nothing of it", "secret.jwt"), "nothing of it");
        assert_eq!(without("", "secret.jwt"), "");
        // One that stands in its own stand-in.
        assert_eq!(without("to t", "t"), "to t");
        assert_eq!(without("a (token)) b", "(token))"), "a (token) b");
    }

    #[test]
    fn a_token_without_use_is_none() {
        for body in [r"{}", r#"{"access_token": ""}"#, r#"{"access_token": "a\r\nb: c"}"#, "<html>", ""] {
            assert!(issued_token(body.as_bytes()).is_none(), "{body}");
        }
        let token = issued_token(br#"{"access_token": "a.b.c", "token_type": "bearer"}"#).unwrap();
        assert!(token.header.is_sensitive());
        assert_eq!(token.header.to_str().unwrap(), "Bearer a.b.c");
    }
}
