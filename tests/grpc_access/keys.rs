//! Keys from a URL: rotated, withheld, and served badly.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use harness::adapter::secret_file;
use harness::{Adapter, DEADLINE, Upstream};
use jsonwebtoken::Header;
use rustls::pki_types::PrivateKeyDer;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use crate::changes::Load;
use crate::support::{Issuer, archive, claims, reason, set, setup_with_url, unauthenticated};

/// A server of keys.
#[derive(Clone)]
struct Server {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
}

struct Answer {
    status: StatusCode,
    body: String,
    fetches: usize,
}

impl Server {
    async fn start(status: StatusCode, body: String) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answer = Arc::new(Mutex::new(Answer { status, body, fetches: 0 }));
        let app = axum::Router::new().route("/jwks", get(serve)).with_state(answer.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, answer }
    }

    fn url(&self) -> String {
        format!("http://{}/jwks", self.address)
    }

    fn says(&self, status: StatusCode, body: String) {
        let mut answer = self.answer.lock().unwrap();
        (answer.status, answer.body) = (status, body);
    }

    fn fetches(&self) -> usize {
        self.answer.lock().unwrap().fetches
    }
}

async fn serve(State(answer): State<Arc<Mutex<Answer>>>) -> impl IntoResponse {
    let mut answer = answer.lock().unwrap();
    answer.fetches += 1;
    (answer.status, [("location", "http://127.0.0.1:1/")], answer.body.clone())
}

/// The detail of the part, as soon as it has this status.
async fn part(adapter: &Adapter, status: &str) -> String {
    let part = |value: &Value| value["parts"]["jwt"].clone();
    let value = adapter.readiness(|_, value| part(value)["status"] == status).await;
    part(&value)["detail"].as_str().unwrap_or_default().to_owned()
}

/// No fetch by the clock within a test.
const SELDOM: &str = "jwt.jwks_refresh_interval = \"1h\"";

#[tokio::test]
async fn keys_rotate_at_their_url_and_no_call_fails() {
    let (old, new) = (Issuer::rsa("old"), Issuer::ec("new"));
    let server = Server::start(StatusCode::OK, set(&[&old])).await;
    let upstream = Upstream::start_with(2).await;
    let adapter = setup_with_url(&upstream, &server.url(), SELDOM).start_ready().await;
    let loads: Vec<_> = {
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(adapter.client().await);
        }
        let organization = &upstream.organizations[0];
        clients.into_iter().map(|c| Load::start(c, organization.clone(), old.token("first"))).collect()
    };
    for load in &loads {
        load.goes_on().await;
    }
    assert_eq!(server.fetches(), 1);
    // The issuer publishes its next key and signs with it at once: the first calls wait for the fetch.
    server.says(StatusCode::OK, set(&[&old, &new]));
    for load in &loads {
        *load.token.lock().unwrap() = new.token("first");
    }
    for load in loads {
        load.end().await;
    }
    assert!((2..=6).contains(&server.fetches()), "{}", server.fetches());
    assert!(adapter.terminate().await.0.success());
}

#[tokio::test]
async fn made_up_keys_make_few_fetches_and_delay_nobody_else() {
    let issuer = Issuer::ec("key");
    let server = Server::start(StatusCode::OK, set(&[&issuer])).await;
    let upstream = Upstream::start_with(2).await;
    let adapter = setup_with_url(&upstream, &server.url(), SELDOM).start_ready().await;
    let mut client = adapter.client().await;
    let started = std::time::Instant::now();
    for number in 0..60 {
        let head = Header { kid: Some(format!("made-up-{number}")), ..issuer.header() };
        let token = issuer.sign(&head, &claims("first"));
        let refused = archive(&mut client, &token, upstream.archive(Uuid::new_v4(), "k")).await.unwrap_err();
        assert_eq!(reason(&refused), unauthenticated());
        let call = upstream.archive(Uuid::new_v4(), &format!("k-{number}"));
        archive(&mut client, &issuer.token("first"), call).await.expect("a known key waits for nothing");
    }
    // The first one, five at once, and one in five seconds.
    let bound = 6 + usize::try_from(started.elapsed().as_secs() / 5).unwrap() + 1;
    assert!((2..=bound).contains(&server.fetches()), "{} in {:?}", server.fetches(), started.elapsed());
    assert!(adapter.terminate().await.0.success());
}

#[tokio::test]
async fn keys_that_cannot_be_fetched_any_more_still_hold() {
    let (issuer, other) = (Issuer::ec("key"), Issuer::ec("other"));
    let server = Server::start(StatusCode::OK, set(&[&issuer])).await;
    let upstream = Upstream::start_with(2).await;
    let lines = "jwt.jwks_refresh_interval = \"1s\"";
    let adapter = setup_with_url(&upstream, &server.url(), lines).start_ready().await;
    let mut client = adapter.client().await;
    for (status, body, told) in [
        (StatusCode::INTERNAL_SERVER_ERROR, set(&[&other]), "the answer is 500"),
        // Nobody is followed elsewhere.
        (StatusCode::FOUND, set(&[&other]), "the answer is 302"),
        (StatusCode::OK, "x".repeat(300 * 1024), "the answer is larger than 256 KiB"),
        (StatusCode::OK, "{\"keys\": []}".to_owned(), "holds no key"),
        (StatusCode::OK, "<html>".to_owned(), "is neither a key set"),
    ] {
        server.says(status, body);
        let found = async {
            loop {
                let detail = part(&adapter, "degraded").await;
                if detail.contains(told) {
                    return detail;
                }
                harness::look_again().await;
            }
        };
        let detail = tokio::time::timeout(DEADLINE, found).await.expect(told);
        assert!(detail.contains("still hold"), "{detail}");
        let call = upstream.archive(Uuid::new_v4(), &Uuid::new_v4().to_string());
        archive(&mut client, &issuer.token("first"), call).await.expect("the last good keys");
    }
    server.says(StatusCode::OK, set(&[&other]));
    part(&adapter, "ready").await;
    let call = upstream.archive(Uuid::new_v4(), &Uuid::new_v4().to_string());
    archive(&mut client, &other.token("first"), call.clone()).await.expect("the new one");
    assert_eq!(
        reason(&archive(&mut client, &issuer.token("first"), call).await.unwrap_err()),
        unauthenticated()
    );
    assert!(adapter.terminate().await.0.success());
}

#[tokio::test]
async fn a_server_of_keys_that_is_away_at_the_start_is_waited_for() {
    let issuer = Issuer::rsa("key");
    let upstream = Upstream::start_with(2).await;
    // It listens and says nothing: the longest way to be away.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", silent.local_addr().unwrap());
    let adapter = setup_with_url(&upstream, &url, "").start().await;
    let detail = part(&adapter, "not_ready").await;
    let call = upstream.archive(Uuid::new_v4(), "k");
    let refused =
        archive(&mut adapter.client().await, &issuer.token("first"), call.clone()).await.unwrap_err();
    assert_eq!(reason(&refused), unauthenticated());
    assert!(detail == "starting" || detail.contains("none were got yet"), "{detail}");
    let app = Arc::new(Mutex::new(Answer { status: StatusCode::OK, body: set(&[&issuer]), fetches: 0 }));
    let app = axum::Router::new().route("/jwks", get(serve)).with_state(app);
    tokio::spawn(async move { axum::serve(silent, app).await });
    part(&adapter, "ready").await;
    adapter.ready().await;
    archive(&mut adapter.client().await, &issuer.token("first"), call).await.expect("it is there");
    assert!(adapter.terminate().await.0.success());
    // Nobody listens.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let adapter = setup_with_url(&upstream, &format!("http://{free}/jwks"), "").start().await;
    let told = async {
        while !part(&adapter, "not_ready").await.contains("none were got yet") {
            harness::look_again().await;
        }
    };
    tokio::time::timeout(DEADLINE, told).await.expect("it says why");
    assert!(adapter.terminate().await.0.success());
}

/// Serves `body` over TLS, as `localhost`, and yields its port and its certificate, which is its own authority.
async fn serve_by_tls(body: String) -> (u16, String) {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let config = config.unwrap().with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key);
    let acceptor = TlsAcceptor::from(Arc::new(config.unwrap()));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer =
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // A client that does not trust it goes away.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = [0; 4096];
            let _ = stream.read(&mut head).await;
            let _ = stream.write_all(answer.as_bytes()).await;
            let _ = stream.shutdown().await;
        }
    });
    (port, made.cert.pem())
}

#[tokio::test]
async fn keys_come_by_tls_from_a_server_that_is_trusted_and_from_no_other() {
    let issuer = Issuer::ec("key");
    let upstream = Upstream::start_with(2).await;
    let (port, authority) = serve_by_tls(set(&[&issuer])).await;
    let setup = setup_with_url(&upstream, &format!("https://localhost:{port}/jwks"), "");
    let adapter = setup.start().await;
    let told = async {
        while !part(&adapter, "not_ready").await.contains("none were got yet") {
            harness::look_again().await;
        }
    };
    tokio::time::timeout(DEADLINE, told).await.expect("it says why");
    assert!(adapter.terminate().await.0.success());
    let file = secret_file(setup.directory(), "ca.pem", &authority);
    let line = format!("jwt.jwks_ca_file = \"{}\"", file.display());
    let adapter = setup.config(&line).start_ready().await;
    let call = upstream.archive(Uuid::new_v4(), "k");
    archive(&mut adapter.client().await, &issuer.token("first"), call).await.expect("known");
    assert!(adapter.terminate().await.0.success());
}
