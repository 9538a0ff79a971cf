//! Who may do what at the admin door, and what becomes of odd requests.

use harness::{DEADLINE, Setup, Upstream};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::support::{PROGRAM, TOKEN, bearer, raw, request};

async fn setup() -> (Upstream, Setup) {
    let upstream = Upstream::start().await;
    let setup = upstream.setup(PROGRAM);
    (upstream, setup)
}

#[tokio::test]
async fn without_a_token_nobody_can_act() {
    let (_upstream, setup) = setup().await;
    let adapter = setup.start_ready().await;
    for line in ["GET /livez", "GET /readyz", "GET /metrics"] {
        assert_eq!(request(adapter.admin, line, &[], "").await.status, 200, "{line}");
    }
    for headers in [vec![], vec![bearer("")], vec![bearer(TOKEN)]] {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        for line in ["POST /v1/forget", "GET /v1/audit", "GET /v1/elsewhere"] {
            let answer = request(adapter.admin, line, &headers, "{}").await;
            assert_eq!(answer.status, 403, "{line}: {answer:?}");
            assert!(answer.body.contains("admin.token_file"), "{answer:?}");
        }
    }
    // Each is counted, and told of in the log now and then.
    let metrics = adapter.metrics().await;
    assert!(metrics.contains("adapter_admin_refused_total{reason=\"no_token_configured\"} 9\n"), "{metrics}");
    adapter
        .log()
        .wait_for(DEADLINE, |line| line.contains("a request to the admin door was refused"))
        .await
        .expect("it is told");
}

#[tokio::test]
async fn every_refusal_is_clear() {
    let (_upstream, setup) = setup().await;
    let adapter = setup.env("GCA_ADMIN__TOKEN", TOKEN).start_ready().await;
    let admin = adapter.admin;
    assert_eq!(request(admin, "GET /metrics", &[], "").await.status, 200, "on loopback as before");
    let good = bearer(TOKEN);
    let wrong = [
        vec![],
        vec![bearer("0123456789abcdef-admin-tokem")],
        vec![bearer(&TOKEN[1..])],
        vec![bearer(&format!("{TOKEN} "))],
        vec![format!("authorization: {TOKEN}")],
        vec![format!("authorization: Basic {TOKEN}")],
        vec![good.clone(), good.clone()],
    ];
    for headers in wrong.iter().take(3).chain(&wrong[4..]) {
        let headers: Vec<&str> = headers.iter().map(String::as_str).collect();
        for line in ["POST /v1/forget", "GET /v1/audit", "DELETE /v1/audit", "GET /v1/elsewhere"] {
            let answer = request(admin, line, &headers, "{}").await;
            assert_eq!(answer.status, 401, "{line} {headers:?}: {answer:?}");
            assert!(answer.head.contains("www-authenticate: bearer"), "{answer:?}");
            assert!(!answer.body.contains("0123456789"), "{answer:?}");
        }
    }
    let id = "0190c1d4-7c1e-7d3a-9a53-5c1f6e1b2a77";
    let both = format!(r#"{{"guest_organization_id": "{id}", "requester_organization_id": "{id}"}}"#);
    let deep = "[".repeat(2_000);
    let long = format!(r#"{{"guest_organization_id": "{}"}}"#, "x".repeat(5_000));
    let twice = format!(r#"{{"guest_organization_id": "{id}", "guest_organization_id": "{id}"}}"#);
    for (line, body, status) in [
        ("GET /v1/forget", "", 405),
        ("POST /livez", "", 405),
        ("GET /elsewhere", "", 404),
        ("GET /v1/elsewhere", "", 404),
        ("GET /v1/../metrics", "", 404),
        ("POST /v1/forget", "", 400),
        ("POST /v1/forget", "{}", 400),
        ("POST /v1/forget", "not JSON", 400),
        ("POST /v1/forget", &both, 400),
        ("POST /v1/forget", &twice, 400),
        ("POST /v1/forget", &deep, 400),
        ("POST /v1/forget", r#"{"guest_organization_id": "me@example.org"}"#, 400),
        ("POST /v1/forget", r#"{"guest": 1}"#, 400),
        ("POST /v1/forget", &long, 413),
        ("GET /v1/audit?limit=0", "", 400),
        ("GET /v1/audit?limit=1001", "", 400),
        ("GET /v1/audit?before=x", "", 400),
        ("GET /v1/audit?after=1", "", 400),
    ] {
        let answer = request(admin, line, &[&good], body).await;
        assert_eq!(answer.status, status, "{line} {body}: {answer:?}");
        let error = answer.json()["error"].as_str().unwrap().to_owned();
        assert!(!error.is_empty() && error.is_ascii() && !error.contains('@'), "{answer:?}");
    }
    let large = format!("GET /livez HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "x".repeat(20_000));
    assert_eq!(raw(admin, &large).await.status, 431);
    let many = format!("GET /livez HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(100));
    assert_eq!(raw(admin, &many).await.status, 431);
    assert_eq!(raw(admin, "nonsense\r\n\r\n").await.status, 400);
    assert_eq!(request(admin, "GET /livez", &[], "").await.status, 200);
}

#[tokio::test]
async fn beyond_loopback_only_health_is_open_and_keeps_its_reasons() {
    let (_upstream, setup) = setup().await;
    let setup =
        setup.config("admin.listen = \"0.0.0.0:0\"\nstore.path = \"a/b.db\"").env("GCA_ADMIN__TOKEN", TOKEN);
    let adapter = setup.start_ready().await;
    let admin = adapter.admin;
    assert_eq!(request(admin, "GET /livez", &[], "").await.status, 200);
    let good = bearer(TOKEN);
    for (line, known) in [("GET /metrics", 200), ("GET /elsewhere", 404), ("GET /v1/audit", 200)] {
        assert_eq!(request(admin, line, &[], "").await.status, 401, "{line}");
        assert_eq!(request(admin, line, &[&good], "").await.status, known, "{line}");
    }
    // Something is wrong: the store's file is gone.
    std::fs::remove_file(setup.directory().join("a/b.db")).unwrap();
    adapter.readiness(|status, _| status == 503).await;
    let (open, known) =
        (request(admin, "GET /readyz", &[], "").await, request(admin, "GET /readyz", &[&good], "").await);
    assert_eq!((open.status, known.status), (503, 503));
    assert_eq!(open.json()["parts"]["store"]["status"], "not_ready");
    assert!(!open.body.contains("b.db"), "{open:?}");
    assert!(known.body.contains("b.db"), "{known:?}");
}

#[tokio::test]
async fn it_is_not_opened_to_a_network_by_mistake() {
    let (_upstream, setup) = setup().await;
    let setup = setup.config("admin.listen = \"0.0.0.0:0\"");
    let (status, log) = setup.start_in_vain().await;
    assert_eq!(status.code(), Some(2));
    assert!(log.contains("admin.listen") && log.contains("admin.token_file"), "{log}");
    for token in ["short", "with a space in it, and long enough"] {
        let (status, log) = setup.clone().env("GCA_ADMIN__TOKEN", token).start_in_vain().await;
        assert_eq!(status.code(), Some(2));
        assert!(log.contains("admin.token: must be") && !log.contains(token), "{log}");
    }
    let adapter = setup.config("admin.insecure = true").start_ready().await;
    let warned =
        adapter.log().all().iter().any(|line| line.contains("WARN") && line.contains("admin.insecure"));
    assert!(warned, "{:?}", adapter.log().all());
    assert_eq!(request(adapter.admin, "GET /metrics", &[], "").await.status, 200);
    assert_eq!(request(adapter.admin, "POST /v1/forget", &[], "{}").await.status, 403, "no way to write");
}

#[tokio::test]
async fn many_who_ask_for_health_all_the_time_keep_nobody_out() {
    let (_upstream, setup) = setup().await;
    let adapter = setup.env("GCA_ADMIN__TOKEN", TOKEN).start_ready().await;
    // One that has shown the token, and keeps its place.
    let mut known = TcpStream::connect(adapter.admin).await.unwrap();
    let audit = format!("GET /v1/audit HTTP/1.1\r\nhost: x\r\n{}\r\n\r\n", bearer(TOKEN));
    known.write_all(audit.as_bytes()).await.unwrap();
    answered(&mut known).await;
    let mut busy = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(adapter.admin).await.unwrap();
        stream.write_all(b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        answered(&mut stream).await;
        busy.push(stream);
    }
    assert_eq!(request(adapter.admin, "GET /livez", &[], "").await.status, 200);
    assert_eq!(request(adapter.admin, "GET /v1/audit", &[&bearer(TOKEN)], "").await.status, 200);
    known.write_all(audit.as_bytes()).await.unwrap();
    answered(&mut known).await;
}

/// Reads the beginning of an answer.
async fn answered(stream: &mut TcpStream) {
    let mut begin = [0; 12];
    timeout(DEADLINE, stream.read_exact(&mut begin)).await.expect("in time").expect("an answer");
    assert_eq!(&begin, b"HTTP/1.1 200");
    // The rest, so that it is not taken for the next one.
    let mut rest = [0; 4096];
    let _ = timeout(DEADLINE, stream.read(&mut rest)).await.expect("in time").expect("the rest");
}

#[tokio::test]
async fn slow_clients_are_let_go() {
    let (_upstream, setup) = setup().await;
    let adapter = setup.env("GCA_ADMIN__TOKEN", TOKEN).start_ready().await;
    let begun =
        format!("POST /v1/forget HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n{}\r\n\r\n{{", bearer(TOKEN));
    let (mut silent, mut heads, mut idle, mut bodies) = (vec![], vec![], vec![], vec![]);
    for (connections, text) in [
        (&mut silent, ""),
        (&mut heads, "GET /livez HTTP/1.1\r\nx: "),
        (&mut idle, "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n"),
        (&mut bodies, &begun),
    ] {
        for _ in 0..15 {
            let mut stream = TcpStream::connect(adapter.admin).await.unwrap();
            stream.write_all(text.as_bytes()).await.unwrap();
            connections.push(stream);
        }
    }
    // They have almost every place there is, and lose it.
    for (stream, wanted) in
        silent.iter_mut().map(|stream| (stream, "")).chain(bodies.iter_mut().map(|stream| (stream, " 408 ")))
    {
        let mut answer = String::new();
        timeout(DEADLINE, stream.read_to_string(&mut answer)).await.expect("it is closed").unwrap();
        assert!(answer.contains(wanted), "{answer}");
    }
    assert_eq!(request(adapter.admin, "GET /livez", &[], "").await.status, 200);
}
