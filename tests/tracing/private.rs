//! Personal data, tokens and bodies are nowhere in what is told of a command: spans, metrics, log records.

use harness::{CLIENT_SECRET, Collector, World};
use lapin::BasicProperties;
use serde_json::json;
use simulator::Rule;
use tonic::Request;
use uuid::Uuid;

use super::support::*;

/// Somebody's address, which stands in whatever can hold one.
const SOMEBODY: &str = "jane.doe@private.example";

#[tokio::test]
async fn neither_persons_nor_secrets_are_told_of() {
    let collector = Collector::start().await;
    let lines = format!(
        "telemetry.otlp_endpoint = \"{}\"\ntelemetry.otlp_logs = true\ntelemetry.log_filter = \"trace\"",
        collector.endpoint()
    );
    let mut world = World::start(PROGRAM, &lines).await;
    let mut letters = world.broker.consume(&world.names.dead_letters).await;
    let mut client = world.client().await;
    // The API's answer holds addresses of its own; this one is refused with another.
    client.archive_guest_connection(Request::new(world.upstream.archive(Uuid::new_v4(), "k"))).await.unwrap();
    let (invalid, broken, moved) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    let detail = json!({"detail": [{"loc": ["body", SOMEBODY], "msg": format!("{SOMEBODY} is unknown"), "type": "x"}]});
    world.upstream.simulator.script(Rule::patch().guest(invalid).status(422).json(detail));
    world.upstream.simulator.script(Rule::patch().guest(broken).status(500).text(SOMEBODY));
    world.upstream.simulator.script(Rule::patch().guest(moved).status(302).header("location", SOMEBODY));
    for guest in [invalid, moved] {
        client.archive_guest_connection(Request::new(world.upstream.archive(guest, ""))).await.unwrap_err();
    }
    let mut request = Request::new(world.upstream.archive(broken, ""));
    request.set_timeout(std::time::Duration::from_secs(2));
    request.metadata_mut().insert("authorization", format!("Bearer {SOMEBODY}").parse().unwrap());
    client.archive_guest_connection(request).await.unwrap_err();
    world.events.take(1).await;
    // A message that holds an address where it should not, one that cannot be read, one of an unknown sort.
    let guest = Uuid::new_v4();
    let mut message = world.upstream.message(guest, true, "m");
    message["contact"] = SOMEBODY.into();
    message["expire_time"] = SOMEBODY.into();
    world.send(guest, &message).await;
    for (body, kind) in [(SOMEBODY.as_bytes(), "application/json"), (b"{}", SOMEBODY)] {
        let properties = BasicProperties::default().with_content_type(kind.into());
        world.broker.publish(&world.names, &guest.to_string(), properties, body).await;
    }
    for _ in 0..3 {
        letters.next().await;
    }
    let scraped = world.adapter.metrics().await;
    let written = world.adapter.log().all().join("\n");
    world.end().await;
    let told = [
        ("spans", format!("{:?}", collector.spans())),
        ("metrics", format!("{:?}", collector.metrics())),
        ("log records", format!("{:?}", collector.logs())),
        ("scraped metrics", scraped),
        ("the log", written),
    ];
    for (what, text) in told {
        assert!(text.len() > 1_000, "there is something: {what}");
        for secret in [SOMEBODY, "@", CLIENT_SECRET, "Bearer", "guest_org_name"] {
            let found = text
                .find(secret)
                .map(|at| text[at.saturating_sub(300)..(at + 100).min(text.len())].to_owned());
            assert_eq!(found, None, "{secret} in {what}");
        }
    }
}
