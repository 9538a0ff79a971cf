//! Who may ask for what at the admin door.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::Response;
use secrecy::ExposeSecret as _;
use subtle::ConstantTimeEq as _;

use super::{Door, Settings, refusal};

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
        "/livez" | "/readyz" => false,
        path if path.starts_with("/v1/") => true,
        _ => settings.is_guarded,
    };
    if needs_token && settings.token.is_none() {
        return refusal(
            StatusCode::FORBIDDEN,
            "nobody may do this: there is no admin token (admin.token_file or GCA_ADMIN__TOKEN)",
        );
    }
    if needs_token && !is_known {
        let mut answer =
            refusal(StatusCode::UNAUTHORIZED, "show the admin token: Authorization: Bearer TOKEN");
        answer.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        return answer;
    }
    request.extensions_mut().insert(Known(is_known));
    next.run(request).await
}
