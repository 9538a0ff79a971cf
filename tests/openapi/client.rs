//! What the client sends, as it comes out of a socket.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use guest_connection_adapter::domain::command::OrganizationId;
use guest_connection_adapter::domain::connection::Connection;
use guest_connection_adapter::domain::reply::Reply;
use guest_connection_adapter::domain::retry::Backoff;
use guest_connection_adapter::mycreditapp::{Credentials, MyCreditApp, Organization, Settings};
use guest_connection_adapter::service::ports::{Patch, Upstream as _};
use guest_connection_adapter::telemetry::span;
use opentelemetry::trace::TracerProvider as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::document::{Document, Message};

/// One request: its method, path, and the rest.
async fn request(socket: &mut TcpStream) -> Option<(String, String, Message)> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let read = socket.read(&mut chunk).await.ok().filter(|read| *read > 0)?;
        bytes.extend_from_slice(&chunk[..read]);
        let text = String::from_utf8(bytes.clone()).unwrap();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let mut lines = head.lines();
        let mut first = lines.next().unwrap().split(' ').map(str::to_owned);
        let headers: BTreeMap<_, _> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        if body.len().to_string() == headers["content-length"] {
            let message = Message { headers, body: body.as_bytes().to_vec() };
            return Some((first.next().unwrap(), first.next().unwrap(), message));
        }
    }
}

#[tokio::test]
async fn requests_are_as_the_document_has_them() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, mut requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        while let Some(found) = request(&mut socket).await {
            let body = if found.0 == "POST" {
                r#"{"access_token":"t","expires_in":60}"#
            } else {
                r#"{"archived":true}"#
            };
            seen.send(found).unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
            socket.write_all(answer.as_bytes()).await.unwrap();
        }
    });
    // With a trace under way, so that its headers are sent too.
    let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
    span::install(provider.tracer("test"));

    let requester = OrganizationId::parse("0190c1d4-7c1e-7d3a-9a53-5c1f6e1b2a01").unwrap();
    let guest = OrganizationId::parse("0190c1d4-7c1e-7d3a-9a53-5c1f6e1b2a02").unwrap();
    let credentials = Credentials::Client { client_id: "client".to_owned(), client_secret: "secret".into() };
    let upstream = MyCreditApp::new(Settings {
        ca_file: None,
        attempt_timeout: Duration::from_secs(10),
        connect_timeout: Duration::from_secs(5),
        body_length_max: 64 * 1024,
        idle_connections_max: 8,
        idle_timeout: Duration::from_secs(30),
        token_refresh_margin: Duration::from_secs(1),
        token_backoff: Backoff { delay_base: Duration::from_secs(1), delay_max: Duration::from_secs(1) },
        organizations: HashMap::from([(
            requester,
            Organization { base_url: format!("http://{address}/v1-beta").parse().unwrap(), credentials },
        )]),
    })
    .unwrap();
    for archived in [true, false] {
        let authorization = upstream.authorize(requester, false).await.unwrap();
        let connection = Connection { target: requester, guest };
        let patch = Patch {
            requester,
            connection,
            archived,
            resend_count: u32::from(archived),
            retry_wait: None,
            gate_wait: None,
        };
        assert!(matches!(upstream.patch(patch, authorization).await, Reply::Answered(_)));
    }
    let document = Document::read();
    let mut methods = Vec::new();
    while let Ok((method, path, message)) = requests.try_recv() {
        let departures = document.request_departures(&method, &path, &message);
        assert!(departures.is_empty(), "{method} {path}: {departures:?}\n{:?}", message.headers.keys());
        methods.push(method);
    }
    assert_eq!(methods, ["POST", "PATCH", "PATCH"]);
}
