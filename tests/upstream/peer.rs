//! The other end: raw connections, served by a script.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::Duration;

use guest_connection_adapter::domain::command::OrganizationId;
use guest_connection_adapter::domain::connection::Connection;
use guest_connection_adapter::domain::retry::Backoff;
use guest_connection_adapter::mycreditapp::{Credentials, MyCreditApp, Organization, Settings};
use guest_connection_adapter::service::ports::Patch;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

pub const REQUESTER: &str = "0190c1d4-7c1e-7d3a-9a53-5c1f6e1b2a01";
pub const GUEST: &str = "0190c1d4-7c1e-7d3a-9a53-5c1f6e1b2a02";

/// Answers the requests of every connection with `answer`, given their number from 0, and tells of each.
///
/// `None` leaves the request without an answer and the connection open; an empty answer closes it.
pub async fn serve(
    answer: impl Fn(usize) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let (seen, requests) = mpsc::unbounded_channel();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = std::sync::Arc::new(answer);
    let number = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let (answer, seen, number) = (answer.clone(), seen.clone(), number.clone());
            tokio::spawn(async move {
                while let Some(request) = request(&mut socket).await {
                    // Before a test sees it: the one that it then makes is the next.
                    let number = number.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    seen.send(request).unwrap();
                    match answer(number) {
                        Some(bytes) if bytes.is_empty() => return,
                        Some(bytes) => socket.write_all(&bytes).await.unwrap(),
                        None => {}
                    }
                }
            });
        }
    });
    (address, requests)
}

/// Reads one request, headers and body.
pub async fn request(socket: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let read = socket.read(&mut chunk).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8(bytes.clone()).unwrap();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return Some(text);
            }
        }
    }
}

/// An answer with a body of its full length.
pub fn answer(status: &str, headers: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\n{headers}content-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

/// A token, as the API gives it out.
pub fn token(token: &str, expires_in: u32) -> Vec<u8> {
    answer("200 OK", "", &format!(r#"{{"access_token": "{token}", "expires_in": {expires_in}}}"#))
}

pub fn organization(id: &str) -> OrganizationId {
    OrganizationId::parse(id).unwrap()
}

pub fn patch() -> Patch {
    let requester = organization(REQUESTER);
    let connection = Connection { target: requester, guest: organization(GUEST) };
    Patch { requester, connection, archived: true, resend_count: 0, retry_wait: None, gate_wait: None }
}

pub fn at(address: SocketAddr, credentials: Credentials) -> Organization {
    Organization { base_url: format!("http://{address}/v1-beta").parse().unwrap(), credentials }
}

pub fn settings(address: SocketAddr, credentials: Credentials) -> Settings {
    Settings {
        ca_file: None,
        attempt_timeout: Duration::from_millis(600),
        connect_timeout: Duration::from_millis(300),
        body_length_max: 64 * 1024,
        idle_connections_max: 8,
        idle_timeout: Duration::from_secs(30),
        token_refresh_margin: Duration::from_secs(60),
        token_backoff: Backoff { delay_base: Duration::from_secs(60), delay_max: Duration::from_secs(600) },
        organizations: HashMap::from([(organization(REQUESTER), at(address, credentials))]),
    }
}

/// The address of the API, of the only organisation there is.
pub fn base_url(settings: &mut Settings) -> &mut url::Url {
    &mut settings.organizations.values_mut().next().unwrap().base_url
}

pub fn with_static_token(address: SocketAddr) -> MyCreditApp {
    MyCreditApp::new(settings(address, Credentials::StaticToken("static.jwt".into()))).unwrap()
}

pub fn api_client() -> Credentials {
    api_client_with("s3cret")
}

/// The same with another secret.
pub fn api_client_with(secret: &str) -> Credentials {
    Credentials::Client { client_id: "client-1".to_owned(), client_secret: secret.into() }
}

/// The next request, within ten seconds.
pub async fn next(requests: &mut mpsc::UnboundedReceiver<String>) -> String {
    tokio::time::timeout(Duration::from_secs(10), requests.recv()).await.expect("a request in time").unwrap()
}
