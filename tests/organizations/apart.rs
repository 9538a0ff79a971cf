//! Each with its own credentials, at its own API; and who is meant when nobody is named.

use harness::World;
use serde_json::json;
use simulator::{Config, Endpoint, Simulator};
use uuid::Uuid;

use crate::support::{Other, PROGRAM, QUICK, changed, not_configured, reason};

#[tokio::test]
async fn no_token_is_sent_for_another_organisation() {
    let world = World::start(PROGRAM, QUICK).await;
    let others: Vec<_> = ["a", "b", "c", "d"].map(Other::new).into();
    let lines: Vec<_> = others.iter().map(|other| other.line(&world, "")).collect();
    others.iter().for_each(|other| other.register(&world.upstream.simulator));
    world.setup.clone().config(&lines.join("\n")).write();
    changed(&world, 1).await;
    let client = world.client().await;
    let calls = (0..80).map(|number| {
        let (mut client, other) = (client.clone(), &others[number % others.len()]);
        let call = other.archive(Uuid::new_v4(), &format!("k-{number}"));
        async move { client.archive_guest_connection(call).await.unwrap() }
    });
    futures::future::join_all(calls).await;
    let journal = world.upstream.simulator.journal();
    let patches: Vec<_> = journal.iter().filter(|entry| entry.endpoint == Endpoint::Patch).collect();
    assert_eq!(patches.len(), 80);
    assert!(patches.iter().all(|entry| entry.client_organization == entry.requester), "{patches:#?}");
    assert_eq!(journal.len() - patches.len(), others.len(), "a token request for each");
    world.end().await;
}

#[tokio::test]
async fn organisations_with_different_base_urls_go_to_different_apis() {
    let world = World::start(PROGRAM, QUICK).await;
    let elsewhere =
        Simulator::start(Config { base_path: "/v2".to_owned(), ..Config::default() }).await.unwrap();
    let other = Other::new("other");
    other.register(&elsewhere);
    let base_url = format!(r#", base_url = "{}""#, elsewhere.base_url());
    world.setup.clone().config(&other.line(&world, &base_url)).write();
    changed(&world, 1).await;
    let mut client = world.client().await;
    let (here, there) = (Uuid::new_v4(), Uuid::new_v4());
    client.archive_guest_connection(world.upstream.archive(here, "k")).await.unwrap();
    client.archive_guest_connection(other.archive(there, "k")).await.unwrap();
    assert_eq!((world.upstream.received(here), world.upstream.received(there)), (1, 0));
    let received = elsewhere.journal();
    assert_eq!(received.len(), 2, "a token and a PATCH");
    assert!(received.iter().any(|entry| entry.is_patch_of(there) && entry.applied));
    // It moves: the token of the one API does not go to the other.
    other.register(&world.upstream.simulator);
    world.setup.clone().config(&other.line(&world, "")).write();
    changed(&world, 2).await;
    let moved = Uuid::new_v4();
    client.archive_guest_connection(other.archive(moved, "k-2")).await.unwrap();
    assert_eq!(world.upstream.applied(moved), [true]);
    assert_eq!(elsewhere.violations(), Vec::<String>::new());
    world.end().await;
}

#[tokio::test]
async fn a_request_without_a_requester_is_the_default_organisation_s() {
    let mut world = World::start(PROGRAM, QUICK).await;
    let mut client = world.client().await;
    let requester = world.upstream.requester;
    // With one organisation alone, that one is meant.
    let anonymous = |guest: Uuid, key: &str| {
        let mut call = world.upstream.archive(guest, key);
        call.requester_organization_id.clear();
        call
    };
    let calls = [anonymous(Uuid::new_v4(), "k-1"), anonymous(Uuid::new_v4(), "k-2")];
    let [first, second] = calls;
    client.archive_guest_connection(first).await.unwrap();
    assert_eq!(
        world.events.next().await.json()["data"]["command"]["requester_organization_id"],
        json!(requester)
    );
    let guest = Uuid::new_v4();
    let mut message = world.upstream.message(guest, true, "m-1");
    message.as_object_mut().unwrap().remove("requester_organization_id");
    world.send(guest, &message).await;
    assert_eq!(
        world.events.next().await.json()["data"]["command"]["requester_organization_id"],
        json!(requester)
    );
    // It is found by its key without a requester too.
    let key =
        guest_connection_adapter::proto::CommandKey { idempotency_key: "m-1".to_owned(), ..<_>::default() };
    let lookup = guest_connection_adapter::proto::get_command_request::Lookup::Key(key);
    let request = guest_connection_adapter::proto::GetCommandRequest { lookup: Some(lookup) };
    let found = client.get_command(request).await.unwrap().into_inner().command.unwrap();
    assert_eq!(found.requester_organization_id, requester.to_string());

    // With two, nobody is meant until one is named.
    let other = Other::new("other");
    other.register(&world.upstream.simulator);
    let two = world.setup.clone().config(&other.line(&world, ""));
    two.write();
    changed(&world, 1).await;
    let refused = client.archive_guest_connection(second.clone()).await.unwrap_err();
    assert_eq!(reason(&refused), (tonic::Code::InvalidArgument, "INVALID_FIELDS".to_owned()));
    let mut letters = world.broker.consume(&world.names.dead_letters).await;
    message["idempotency_key"] = json!("m-2");
    world.send(guest, &message).await;
    let told = letters.next().await.table("x-guest-connection-adapter");
    assert_eq!(told["reason"], "INVALID_FIELDS");
    two.config("default_organization = \"other\"").write();
    changed(&world, 2).await;
    client.archive_guest_connection(second).await.unwrap();
    assert_eq!(
        world.events.next().await.json()["data"]["command"]["requester_organization_id"],
        json!(other.id)
    );
    world.end().await;
}

#[tokio::test]
async fn who_is_not_configured_leaves_nothing_in_the_store() {
    let world = World::start(PROGRAM, QUICK).await;
    let (mut client, stranger) = (world.client().await, Other::new("stranger"));
    let mut letters = world.broker.consume(&world.names.dead_letters).await;
    let guest = Uuid::new_v4();
    let refused = client.archive_guest_connection(stranger.archive(guest, "call")).await.unwrap_err();
    assert_eq!(reason(&refused), not_configured());
    world.send(guest, &stranger.message(guest, "message")).await;
    let told = letters.next().await.table("x-guest-connection-adapter");
    assert_eq!(told["reason"], "REQUESTER_NOT_CONFIGURED");
    assert!(!told.contains_key("state"), "it never became a command: {told:?}");
    let store = world.setup.store();
    assert!(world.upstream.simulator.journal().is_empty());
    world.broker.depth_when(&world.names.commands, |depth| depth == 0).await;
    let (status, _) = world.adapter.terminate().await;
    assert!(status.success());
    let store = rusqlite::Connection::open(store).unwrap();
    for table in ["commands", "connections", "outbox"] {
        let rows: i64 =
            store.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0)).unwrap();
        assert_eq!(rows, 0, "{table}");
    }
}
