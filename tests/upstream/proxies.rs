//! A proxy by the environment: a child process is given one, since the environment is a process's own.

use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use harness::Upstream;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use crate::adapter::{call, setup, unreachable};
use crate::peer::{answer, next, request, token};
use crate::tls::{self, Authority};

/// A name that only the proxy knows.
const HOST: &str = "upstream.test";

const PASSWORD: &str = "pr0xy-s3cret";

/// How a proxy serves.
#[derive(Clone, Copy)]
enum Service {
    /// CONNECT leads there.
    Tunnel(SocketAddr),
    /// CONNECT is answered with this status.
    Refuse(&'static str),
    /// It answers as the API does.
    Forward,
}

/// A proxy, which tells of the head of each request.
async fn proxy(service: Service) -> (SocketAddr, mpsc::UnboundedReceiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, heads) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let seen = seen.clone();
            tokio::spawn(async move {
                while let Some(request) = request(&mut socket).await {
                    let is_token = request.starts_with("POST ");
                    let _ = seen.send(request);
                    match service {
                        Service::Tunnel(target) => {
                            let mut upstream = TcpStream::connect(target).await.unwrap();
                            socket.write_all(b"HTTP/1.1 200 Connection Established\r\n\r\n").await.unwrap();
                            let _ = tokio::io::copy_bidirectional(&mut socket, &mut upstream).await;
                            return;
                        }
                        Service::Refuse(status) => {
                            let _ = socket.write_all(&answer(status, "", "<html>")).await;
                            return;
                        }
                        Service::Forward if is_token => socket.write_all(&token("t", 60)).await.unwrap(),
                        Service::Forward => {
                            socket.write_all(&answer("200 OK", "", r#"{"archived": true}"#)).await.unwrap();
                        }
                    }
                }
            });
        }
    });
    (address, heads)
}

#[tokio::test]
async fn the_way_leads_through_a_tunnel_and_its_password_stays_secret() {
    let authority = Authority::new();
    let target = tls::serve(authority.server(HOST, &[])).await;
    let (address, mut heads) = proxy(Service::Tunnel(target)).await;
    let adapter = setup(&format!("https://{HOST}/v1-beta"), Some(&authority.file()))
        .config("telemetry.log_filter = \"trace,reqwest=trace,hyper_util=trace,hyper=trace\"")
        .env("HTTPS_PROXY", &format!("http://adapter:{PASSWORD}@{address}"))
        .start_ready()
        .await;
    call(&adapter, "k").await.unwrap();
    let head = next(&mut heads).await;
    let credentials = STANDARD.encode(format!("adapter:{PASSWORD}"));
    assert!(head.starts_with(&format!("CONNECT {HOST}:443 HTTP/1.1\r\n")), "{head}");
    assert!(
        head.to_lowercase().contains(&format!("proxy-authorization: basic {credentials}").to_lowercase()),
        "{head}"
    );
    assert!(!head.to_lowercase().contains("bearer"), "what is for the API is not for the proxy");
    let (_, log) = adapter.terminate().await;
    assert!(!log.is_empty());
    assert!(log.iter().all(|line| !line.contains(PASSWORD) && !line.contains(&credentials)));
}

#[tokio::test]
async fn a_tunnel_that_is_refused_is_no_connection() {
    for refusal in ["407 Proxy Authentication Required", "502 Bad Gateway", "403 Forbidden"] {
        let (address, mut heads) = proxy(Service::Refuse(refusal)).await;
        let adapter = setup(&format!("https://{HOST}/v1-beta"), None)
            .env("HTTPS_PROXY", &format!("http://adapter:{PASSWORD}@{address}"))
            .start_ready()
            .await;
        unreachable(&call(&adapter, "k").await.unwrap_err());
        assert!(next(&mut heads).await.starts_with("CONNECT "));
        let (_, log) = adapter.terminate().await;
        assert!(log.iter().all(|line| !line.contains(PASSWORD)));
    }
}

#[tokio::test]
async fn what_is_not_behind_tls_is_forwarded() {
    let (address, mut heads) = proxy(Service::Forward).await;
    let adapter = setup(&format!("http://{HOST}/v1-beta"), None)
        .env("HTTP_PROXY", &format!("http://{address}"))
        .start_ready()
        .await;
    call(&adapter, "k").await.unwrap();
    assert!(next(&mut heads).await.starts_with(&format!("POST http://{HOST}/v1-beta/oauth2/token ")));
    assert!(next(&mut heads).await.starts_with(&format!("PATCH http://{HOST}/v1-beta/guest-connections/")));
}

#[tokio::test]
async fn a_host_that_is_set_apart_is_reached_directly() {
    let upstream = Upstream::start().await;
    let (address, mut heads) = proxy(Service::Refuse("502 Bad Gateway")).await;
    let adapter = upstream
        .setup(env!("CARGO_BIN_EXE_guest-connection-adapter"))
        .env("HTTP_PROXY", &format!("http://{address}"))
        .env("NO_PROXY", "localhost,127.0.0.1")
        .start_ready()
        .await;
    let request = upstream.archive(uuid::Uuid::new_v4(), "k");
    adapter.client().await.archive_guest_connection(request).await.unwrap();
    assert!(heads.try_recv().is_err());
}
