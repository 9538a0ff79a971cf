//! Who may ask for what at the admin door.

use std::num::NonZeroU32;
use std::time::Duration;

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Counter;
use secrecy::ExposeSecret as _;
use subtle::ConstantTimeEq as _;

use super::server::{From, Place};
use super::{Door, Settings, records, refusal};
use crate::telemetry::catalogue as metric;

/// Of refusals one is logged in this time, at most. All of them are counted.
const LOG_INTERVAL: Duration = Duration::from_secs(1);

/// Tells of requests that were refused.
pub(super) struct Refusals {
    count: Counter<u64>,
    log: DefaultDirectRateLimiter,
}

impl Refusals {
    pub(super) fn new() -> Self {
        let count = metric::ADMIN_REFUSED.counter();
        let quota = Quota::with_period(LOG_INTERVAL).unwrap_or(Quota::per_second(NonZeroU32::MIN));
        Self { count, log: RateLimiter::direct(quota) }
    }

    fn note(&self, reason: &'static str, request: &Request) {
        self.count.add(1, &[KeyValue::new("reason", reason)]);
        if self.log.check().is_ok() {
            let address = request.extensions().get::<From>().map(|From(address)| address.to_string());
            records::RequestRefused { reason, address: address.as_deref() }.log();
        }
    }
}

/// Whether the caller has shown the token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known(pub(super) bool);

impl Settings {
    /// Whether these headers hold the token, and nothing beside it. Takes as long for each token of the same length.
    fn knows(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else { return false };
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        let (Some(given), None) = (given.next(), given.next()) else { return false };
        let Some((scheme, given)) = given.as_bytes().split_at_checked("Bearer ".len()) else { return false };
        scheme.eq_ignore_ascii_case(b"Bearer ") && given.ct_eq(token.expose_secret().as_bytes()).into()
    }
}

/// Lets pass what is open to the caller, and notes whether the token was shown. What is not there is refused alike.
pub(super) async fn guard(State(door): State<Door>, mut request: Request, next: Next) -> Response {
    let settings = &door.settings;
    let is_known = settings.knows(request.headers());
    let needs_token = match request.uri().path() {
        "/livez" | "/readyz" | "/readyz/calls" => false,
        path if path.starts_with("/v1/") => true,
        _ => settings.is_guarded,
    };
    if needs_token && settings.token.is_none() {
        door.refusals.note("no_token_configured", &request);
        return refusal(
            StatusCode::FORBIDDEN,
            "nobody may do this: there is no admin token (admin.token_file or GCA_ADMIN__TOKEN)",
        );
    }
    if needs_token && !is_known {
        let is_given = request.headers().contains_key(header::AUTHORIZATION);
        door.refusals.note(if is_given { "token_wrong" } else { "token_missing" }, &request);
        let mut answer =
            refusal(StatusCode::UNAUTHORIZED, "show the admin token: Authorization: Bearer TOKEN");
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return answer;
    }
    if is_known && let Some(place) = request.extensions().get::<Place>() {
        place.keep();
    }
    request.extensions_mut().insert(Known(is_known));
    next.run(request).await
}
