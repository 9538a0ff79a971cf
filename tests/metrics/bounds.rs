//! What metrics and traces cost stays bounded: series, memory, and the wait for a collector that is silent.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use futures::{StreamExt as _, stream};
use guest_connection_adapter::proto::guest_connection_service_client::GuestConnectionServiceClient;
use harness::{Organization, Upstream};
use tonic::Request;
use tonic::transport::Channel;
use uuid::Uuid;

use super::PROGRAM;

/// Organisations in all, and those after which there are as many series as ever.
const ORGANIZATIONS: usize = 10_000;
const FIRST: usize = 200;

/// Calls at once.
const CALLERS: usize = 64;

/// Series of one instance, at most.
const SERIES_MAX: usize = 1_500;

/// Organisations with an API of their own, where nobody listens.
const ELSEWHERE_FROM: usize = 100;
const ELSEWHERE_TO: usize = 150;

async fn archive_all(client: &GuestConnectionServiceClient<Channel>, organizations: &[Organization]) {
    let calls = organizations.iter().map(|organization| {
        let (mut client, request) = (client.clone(), organization.archive(Uuid::new_v4(), "k"));
        async move { client.archive_guest_connection(Request::new(request)).await.expect("it is served") }
    });
    let answers: Vec<_> = stream::iter(calls).buffer_unordered(CALLERS).collect().await;
    assert_eq!(answers.len(), organizations.len());
}

/// The series of a scrape, without their values.
fn series(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.rsplit_once(' ')?.0.to_owned())).collect()
}

#[tokio::test]
async fn ten_thousand_organizations_have_no_series_of_their_own_but_for_those_listed() {
    let upstream = Upstream::start().await;
    let setup = upstream.setup(PROGRAM);
    let secret = harness::adapter::secret_file(setup.directory(), "common", "a-common-secret");
    let organizations: Vec<_> = (1..=ORGANIZATIONS)
        .map(|number| Organization {
            client_secret: "a-common-secret".to_owned(),
            ..Organization::numbered(number, Uuid::now_v7())
        })
        .collect();
    let mut lines = String::from("telemetry.organizations = [\"test-1\", \"test-9999\"]\n");
    for (number, Organization { name, id, client_id, client_secret }) in organizations.iter().enumerate() {
        upstream.simulator.register_client(client_id, client_secret, *id);
        let secret = secret.display();
        let mut line =
            format!("id = \"{id}\", client_id = \"{client_id}\", client_secret_file = \"{secret}\"");
        if (ELSEWHERE_FROM..ELSEWHERE_TO).contains(&number) {
            write!(line, ", base_url = \"http://127.0.0.1:9/{number}\"").unwrap();
        }
        writeln!(lines, "organizations.{name} = {{ {line} }}").unwrap();
    }
    let adapter = setup.config(&lines).start_ready().await;
    let client = adapter.client().await;
    archive_all(&client, &organizations[..ELSEWHERE_FROM]).await;
    for organization in &organizations[ELSEWHERE_FROM..ELSEWHERE_TO] {
        let request = Request::new(organization.archive(Uuid::new_v4(), "k"));
        client.clone().archive_guest_connection(request).await.expect_err("nobody is there");
    }
    archive_all(&client, &organizations[ELSEWHERE_TO..FIRST]).await;
    let places = adapter.metrics().await;
    let requests =
        places.lines().filter(|line| line.starts_with("http_client_request_duration_seconds_count"));
    let addresses: BTreeSet<_> =
        requests.filter_map(|line| line.split("url_template=\"").nth(1)?.split('"').next()).collect();
    assert!(addresses.len() <= 17 && addresses.contains("_OTHER"), "{addresses:?}");
    // The books are counted by then.
    adapter.metric("adapter_books_commands{state=\"succeeded\"}", |count| count > 0.0).await;
    let first = series(&adapter.metrics().await);
    archive_all(&client, &organizations[FIRST..]).await;
    let text = adapter.metrics().await;
    let all = series(&text);
    let more: Vec<_> =
        all.difference(&first).filter(|series| !series.contains("organization=\"test-9999\"")).collect();
    println!("series after {FIRST} organisations: {}, after {ORGANIZATIONS}: {}", first.len(), all.len());
    assert_eq!(more, Vec::<&String>::new(), "what the others added");
    assert!(all.len() < SERIES_MAX, "{}", all.len());
    for organization in ["test-1", "test-9999"] {
        let one = format!(
            "adapter_organization_commands_total{{organization=\"{organization}\",state=\"succeeded\"}}"
        );
        adapter.metric(&one, |count| (count - 1.0).abs() < f64::EPSILON).await;
    }
    let ids = text.lines().filter(|line| !line.starts_with("target_info")).flat_map(|line| line.split('"'));
    assert_eq!(ids.filter(|text| Uuid::parse_str(text).is_ok()).count(), 0, "no ids");
    assert!(adapter.terminate().await.0.success());
}

/// Commands whose spans fill the queue of the exporter, and more of them for which there is no room.
const FILLING: usize = 2_500;
const MORE: usize = 7_500;

/// The memory by which a process may grow in the meantime, in bytes. Without a bound on the queue it was seen to grow by 45
/// million, with it by 12 to 16 million, which is the store's and the allocator's.
const GROWTH_MAX: f64 = 28_000_000.0;

#[tokio::test]
async fn a_silent_collector_costs_no_call_and_bounded_memory() {
    let upstream = Upstream::start().await;
    // Connected, and then nothing.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("telemetry.otlp_endpoint = \"http://{}\"", silent.local_addr().unwrap());
    let adapter = upstream.setup(PROGRAM).config(&endpoint).start_ready().await;
    let client = adapter.client().await;
    let organization = &upstream.organizations[0];
    let calls = |count: usize| {
        let calls = (0..count).map(|_| {
            let (mut client, request) = (client.clone(), organization.archive(Uuid::new_v4(), ""));
            async move { client.archive_guest_connection(Request::new(request)).await.expect("it is served") }
        });
        stream::iter(calls).buffer_unordered(CALLERS).count()
    };
    assert_eq!(calls(FILLING).await, FILLING);
    let full = adapter.metric("process_memory_usage_bytes", |_| true).await;
    assert_eq!(calls(MORE).await, MORE);
    let grown = adapter.metric("process_memory_usage_bytes", |_| true).await - full;
    println!("{FILLING} commands: {full} bytes; {MORE} more: {grown} bytes more");
    assert!(grown < GROWTH_MAX, "{grown}");
    let (status, log) = adapter.terminate().await;
    assert!(status.success(), "{log:#?}");
    let told = log.iter().filter(|line| line.contains("opentelemetry")).count();
    assert!(told <= 4, "it is said once in a while: {log:#?}");
}
