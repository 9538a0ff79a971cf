//! Odd answers by HTTP/1: the status decides, whatever the rest is; without a status nothing is known.

use std::time::Duration;

use guest_connection_adapter::domain::guest_connection::read;
use guest_connection_adapter::domain::reply::{Answer, Reply, Verdict, classify};
use guest_connection_adapter::mycreditapp::MyCreditApp;
use guest_connection_adapter::service::ports::Upstream as _;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::peer::{REQUESTER, answer, next, organization, patch, request, serve, with_static_token};

const BODY: &str = r#"{"archived": true}"#;

async fn send(upstream: &MyCreditApp) -> Reply {
    let authorization = upstream.authorize(organization(REQUESTER), false).await.unwrap();
    upstream.patch(patch(), authorization).await
}

/// The reply to a request that is answered with `bytes`, after which the connection is closed.
async fn reply_to(bytes: Vec<u8>) -> Reply {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            request(&mut socket).await;
            // The client may have had enough before the end.
            let _ = socket.write_all(&bytes).await;
            let _ = socket.shutdown().await;
            while request(&mut socket).await.is_some() {}
        }
    });
    send(&with_static_token(address)).await
}

fn answered(reply: Reply) -> Answer {
    match reply {
        Reply::Answered(answer) => answer,
        other => panic!("{other:?}"),
    }
}

/// Whether the outcome of a 2xx shows the value, or is incomplete.
fn shows_the_value(answer: &Answer) -> bool {
    match classify(&Reply::Answered(answer.clone()), true) {
        Verdict::Applied { outcome } => {
            let shown = outcome.guest_connection.as_ref().and_then(|text| read(text).0.archived);
            assert_eq!(outcome.incomplete, shown.is_none());
            shown == Some(true)
        }
        other => panic!("a 2xx took effect: {other:?}"),
    }
}

#[tokio::test]
async fn a_2xx_took_effect_whatever_its_body_is() {
    let utf16: Vec<u8> = BODY.encode_utf16().flat_map(u16::to_le_bytes).collect();
    let with_body = |headers: &str, body: &[u8]| {
        let head = format!("HTTP/1.1 200 OK\r\n{headers}content-length: {}\r\n\r\n", body.len());
        [head.as_bytes(), body].concat()
    };
    let cases = [
        ("text/plain", with_body("content-type: text/plain\r\n", BODY.as_bytes()), true),
        ("no type", with_body("", BODY.as_bytes()), true),
        ("byte order mark", with_body("", &[b"\xef\xbb\xbf", BODY.as_bytes()].concat()), true),
        ("HTML", with_body("content-type: text/html\r\n", b"<html><body>Welcome</body></html>"), false),
        ("gzip", with_body("content-encoding: gzip\r\n", b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03"), false),
        ("not UTF-8", with_body("", b"{\"archived\": true, \"guest_name\": \"\xff\xfe\"}"), false),
        ("UTF-16", with_body("content-type: application/json; charset=utf-16\r\n", &utf16), false),
        ("too short", b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"archived\": true}".to_vec(), false),
        (
            "too long",
            b"HTTP/1.1 200 OK\r\ncontent-length: 18\r\n\r\n{\"archived\": true}and more".to_vec(),
            true,
        ),
        ("HTTP/1.0", format!("HTTP/1.0 200 OK\r\n\r\n{BODY}").into_bytes(), true),
        (
            "HTTP/1.0 with a length",
            format!("HTTP/1.0 200 OK\r\ncontent-length: 18\r\n\r\n{BODY}").into_bytes(),
            true,
        ),
        (
            "informational answers before it",
            [
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n".as_slice(),
                &answer("200 OK", "", BODY),
            ]
            .concat(),
            true,
        ),
        (
            "no reason phrase",
            b"HTTP/1.1 200\r\ncontent-length: 18\r\n\r\n{\"archived\": true}".to_vec(),
            true,
        ),
    ];
    for (name, bytes, shown) in cases {
        let answer = answered(reply_to(bytes).await);
        assert_eq!((answer.status, shows_the_value(&answer)), (200, shown), "{name}");
    }
}

#[tokio::test]
async fn an_error_is_told_by_its_status_whatever_its_body_is() {
    for (status, text) in [
        (502, answer("502 Bad Gateway", "content-type: text/html\r\n", "<html>Bad Gateway</html>")),
        (503, answer("503 Service Unavailable", "content-type: text/html\r\nretry-after: 3\r\n", "<html>")),
        (404, answer("404 Not Found", "content-encoding: br\r\n", "xx")),
        (422, b"HTTP/1.1 422 X\r\ncontent-length: 999\r\n\r\n{\"detail\"".to_vec()),
        (500, b"HTTP/1.0 500 X\r\n\r\n".to_vec()),
    ] {
        assert_eq!(answered(reply_to(text).await).status, status);
    }
}

#[tokio::test]
async fn a_long_text_of_an_error_is_cut() {
    let text = "x".repeat(100 * 1024 / 2);
    let body = format!(r#"{{"detail": [{{"loc": ["{text}"], "msg": "{text}", "type": "t", "code": "c"}}]}}"#);
    let (address, _requests) = serve(move |_| Some(answer("422 Unprocessable Content", "", &body))).await;
    let token = guest_connection_adapter::mycreditapp::Credentials::StaticToken("static.jwt".into());
    let mut settings = crate::peer::settings(address, token);
    settings.body_length_max = 1024 * 1024;
    let reply = send(&MyCreditApp::new(settings).unwrap()).await;
    let Verdict::Rejected(outcome) = classify(&reply, true) else { panic!("{reply:?}") };
    let refusal = outcome.refusal.unwrap();
    assert!(refusal.message.len() < 512 + 100, "{}", refusal.message.len());
    assert!(
        refusal.violations.iter().all(|field| field.field.len() <= 512 && field.description.len() <= 512)
    );
}

#[tokio::test]
async fn without_a_readable_head_it_is_unanswered() {
    let many = "x: y\r\n".repeat(1000);
    let large = "y".repeat(1024 * 1024);
    for (name, bytes) in [
        ("many headers", format!("HTTP/1.1 200 OK\r\n{many}content-length: 0\r\n\r\n").into_bytes()),
        (
            "a large header",
            format!("HTTP/1.1 200 OK\r\nx: {large}\r\ncontent-length: 0\r\n\r\n").into_bytes(),
        ),
        ("not HTTP", b"220 mail.example ESMTP\r\n".to_vec()),
        ("TLS", vec![21, 3, 1, 0, 2, 2, 70]),
        ("no status", b"HTTP/1.1 OK\r\n\r\n".to_vec()),
        ("two lengths", b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n{}".to_vec()),
        ("nothing but hints", b"HTTP/1.1 103 Early Hints\r\n\r\n".to_vec()),
        (
            "another protocol",
            b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n".to_vec(),
        ),
    ] {
        let reply = reply_to(bytes).await;
        assert!(matches!(reply, Reply::Unanswered), "{name}: {reply:?}");
    }
}

#[tokio::test]
async fn endless_headers_end_with_the_attempt_or_before() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = with_static_token(listener.local_addr().unwrap());
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        request(&mut socket).await;
        socket.write_all(b"HTTP/1.1 200 OK\r\nx: ").await.unwrap();
        while socket.write_all(&[b'y'; 1024]).await.is_ok() {}
    });
    let started = std::time::Instant::now();
    assert!(matches!(send(&upstream).await, Reply::Unanswered));
    assert!(started.elapsed() < Duration::from_millis(1500));
}

/// The token goes to the API alone.
#[tokio::test]
async fn credentials_do_not_go_where_a_redirect_leads() {
    let (elsewhere, mut strays) = serve(|_| Some(answer("200 OK", "", BODY))).await;
    let location = format!("location: http://localhost:{}/v1-beta\r\n", elsewhere.port());
    let (address, mut requests) = serve(move |_| Some(answer("307 Temporary Redirect", &location, ""))).await;
    assert_eq!(answered(send(&with_static_token(address)).await).status, 307);
    assert!(next(&mut requests).await.contains("authorization: Bearer static.jwt"));
    assert!(strays.try_recv().is_err());
}
