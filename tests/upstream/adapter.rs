//! The same through the whole adapter: what a caller is told, what the log and the spans say.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use guest_connection_adapter::domain::obstacle::Obstacle;
use guest_connection_adapter::proto::{ArchiveGuestConnectionRequest, ArchiveGuestConnectionResponse};
use harness::adapter::{field, record};
use harness::collector::attribute;
use harness::{Adapter, Collector, DEADLINE, Setup, Upstream};
use serde_json::json;
use simulator::Rule;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::peer::{GUEST, REQUESTER};
use crate::tls::{Authority, insecure};

const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

/// What fails is told soon, since no token is asked for again in time; and no attempt is short on a loaded machine.
const BRIEF: &str = r#"
upstream.attempt_timeout = "10s"
upstream.connect_timeout = "9s"
upstream.command_timeout = "20s"
upstream.retry_delay_base = "50ms"
upstream.retry_delay_max = "100ms"
upstream.defer_delay_base = "1m"
upstream.token_delay_base = "1m"
upstream.token_delay_max = "1m"
"#;

/// An adapter for an API at `base`, whose certificate is of `authority`.
pub fn setup(base: &str, authority: Option<&Path>) -> Setup {
    let authority = authority.map(|file| format!("upstream.ca_file = \"{}\"", file.display()));
    Setup::new(PROGRAM, base, REQUESTER.parse().unwrap()).config(BRIEF).config(&authority.unwrap_or_default())
}

pub async fn call(adapter: &Adapter, key: &str) -> Result<ArchiveGuestConnectionResponse, Status> {
    let mut request = Request::new(ArchiveGuestConnectionRequest {
        requester_organization_id: REQUESTER.to_owned(),
        guest_organization_id: GUEST.to_owned(),
        idempotency_key: key.to_owned(),
        ..<_>::default()
    });
    request.set_timeout(DEADLINE);
    Ok(adapter.client().await.archive_guest_connection(request).await?.into_inner())
}

#[track_caller]
pub fn unreachable(status: &Status) {
    let details = status.get_error_details();
    let info = details.error_info().expect("an ErrorInfo");
    assert_eq!(
        (status.code(), info.reason.as_str()),
        (Code::Unavailable, "UPSTREAM_UNREACHABLE"),
        "{status:?}"
    );
    assert_eq!(info.metadata.get("maybe_applied"), None, "certainly not");
}

async fn told_plainly(obstacle: Obstacle, address: SocketAddr, authority: &Authority) {
    let collector = Collector::start().await;
    let adapter = setup(&format!("https://{address}/v1-beta"), Some(&authority.file()))
        .config(&format!("telemetry.otlp_endpoint = \"{}\"", collector.endpoint()))
        .start_ready()
        .await;
    let status = call(&adapter, "k").await.unwrap_err();
    unreachable(&status);
    assert_eq!(status.message(), obstacle.public_text());
    let logged = |line: &str| {
        let record = record(line).unwrap_or_default();
        field(&record, "why") == Some(obstacle.public_text())
            && field(&record, "error.type") == Some(obstacle.as_str())
    };
    adapter.log().wait_for(DEADLINE, logged).await.unwrap_or_else(|lines| panic!("{lines:#?}"));
    let typed = |spans: &Vec<_>| {
        spans.iter().any(|span| attribute(span, "error.type").as_deref() == Some(obstacle.as_str()))
    };
    collector.wait_for(DEADLINE, typed).await;
}

#[tokio::test]
async fn a_connection_that_is_not_secure_is_told_plainly() {
    let authority = Authority::new();
    for (obstacle, address) in insecure(&authority).await {
        if obstacle != Obstacle::Tls {
            told_plainly(obstacle, address, &authority).await;
        }
    }
}

#[tokio::test]
async fn a_file_of_authorities_without_use_keeps_the_adapter_from_starting() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    for content in [None, Some("")] {
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let (status, log) = setup("https://127.0.0.1:1/", Some(&path)).start_in_vain().await;
        assert_eq!(status.code(), Some(2), "{log}");
        assert!(log.contains("upstream.ca_file") && log.contains("ca.pem"), "{log}");
    }
}

#[tokio::test]
async fn a_long_text_of_an_error_is_cut_wherever_it_is_shown() {
    let upstream = Upstream::start().await;
    let adapter = upstream.setup(PROGRAM).start_ready().await;
    let text = "x".repeat(100 * 1024);
    let entry = json!({"loc": ["body", text], "msg": text, "type": "t", "code": "c"});
    let body = json!({"detail": [entry, entry, entry]});
    for (status, key) in [(422, "refused"), (403, "forbidden")] {
        let guest = Uuid::new_v4();
        upstream.simulator.script(Rule::patch().guest(guest).status(status).json(body.clone()));
        let request = upstream.archive(guest, key);
        let told = adapter.client().await.archive_guest_connection(request).await.unwrap_err();
        let longest = "x".repeat(513);
        assert!(told.message().contains("xxx") && !told.message().contains(&longest), "{}", told.message());
        let kept = upstream.command(&adapter, key).await.unwrap();
        assert!(!format!("{kept:?}").contains(&longest));
        let settled = |line: &str| line.contains("command settled");
        adapter.log().wait_for(DEADLINE, settled).await.expect("a line");
        assert!(adapter.log().all().iter().all(|line| !line.contains(&longest)));
    }
}

/// A proxy's page says nothing of the API, and its status is believed.
#[tokio::test]
async fn the_page_of_a_proxy_is_an_error_like_any_other() {
    let upstream = Upstream::start().await;
    let adapter = upstream.setup(PROGRAM).config(BRIEF).start_ready().await;
    let guest = Uuid::new_v4();
    for status in [502, 503] {
        let page = Rule::patch().guest(guest).times(1).status(status).text("<html>jane@example.com</html>");
        upstream.simulator.script(page.header("content-type", "text/html"));
    }
    let mut request = Request::new(upstream.archive(guest, "k"));
    request.set_timeout(Duration::from_secs(10));
    adapter.client().await.archive_guest_connection(request).await.unwrap();
    assert_eq!(upstream.received(guest), 3, "tried again until it was done");
    assert!(adapter.log().all().iter().all(|line| !line.contains("jane")));
}
