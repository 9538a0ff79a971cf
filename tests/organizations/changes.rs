//! What takes effect without a restart.

use harness::{CLIENT_ID, DEADLINE, World};
use serde_json::json;
use simulator::{Endpoint, Rule};
use uuid::Uuid;

use crate::support::{Other, PROGRAM, QUICK, changed, not_configured, readiness, reason, rotate};

#[tokio::test]
async fn an_organisation_that_is_added_is_served() {
    let mut world = World::start(PROGRAM, QUICK).await;
    let (mut client, other) = (world.client().await, Other::new("other"));
    other.register(&world.upstream.simulator);
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    let refused = client.archive_guest_connection(other.archive(first, "k")).await.unwrap_err();
    assert_eq!(reason(&refused), not_configured());
    world.setup.clone().config(&other.line(&world, "")).write();
    changed(&world, 1).await;
    client.archive_guest_connection(other.archive(first, "k")).await.unwrap();
    world.events.next().await;
    world.send(second, &other.message(second, "k-2")).await;
    let event = world.events.next().await.json();
    assert_eq!(event["data"]["command"]["requester_organization_id"], json!(other.id));
    // Those that were there before are served as before, with the token that they had.
    client.archive_guest_connection(world.upstream.archive(Uuid::new_v4(), "k")).await.unwrap();
    world.end().await;
}

/// The tokens that were given out to `organization`.
fn tokens(world: &World, organization: Uuid) -> usize {
    let journal = world.upstream.simulator.journal();
    let of = |entry: &&simulator::Entry| entry.client_organization == Some(organization);
    journal.iter().filter(of).filter(|entry| entry.endpoint == Endpoint::Token && entry.applied).count()
}

#[tokio::test]
async fn a_rotated_secret_gets_a_token_at_once_and_no_call_fails_meanwhile() {
    let world = World::start(PROGRAM, QUICK).await;
    let mut client = world.client().await;
    client.archive_guest_connection(world.upstream.archive(Uuid::new_v4(), "k-0")).await.unwrap();
    assert_eq!(tokens(&world, world.upstream.requester), 1);
    world.upstream.simulator.register_client(CLIENT_ID, "the-next-secret", world.upstream.requester);
    rotate(&world, "client_secret", "the-next-secret\n");
    let mut number = 0;
    while tokens(&world, world.upstream.requester) < 2 {
        number += 1;
        let call = world.upstream.archive(Uuid::new_v4(), &format!("k-{number}"));
        client.archive_guest_connection(call).await.unwrap();
    }
    // The first one is worth nothing any more; the adapter has another secret to ask with.
    world.upstream.simulator.revoke_tokens();
    client.archive_guest_connection(world.upstream.archive(Uuid::new_v4(), "last")).await.unwrap();
    changed(&world, 1).await;
    world.end().await;
}

#[tokio::test]
async fn a_token_that_is_revoked_under_many_calls_fails_none_of_them() {
    let world = World::start(PROGRAM, QUICK).await;
    let client = world.client().await;
    let call = async |key: &str| {
        client.clone().archive_guest_connection(world.upstream.archive(Uuid::new_v4(), key)).await.unwrap();
    };
    call("before").await;
    world.upstream.simulator.revoke_tokens();
    let keys: Vec<_> = (0..16).map(|number| format!("k-{number}")).collect();
    futures::future::join_all(keys.iter().map(|key| call(key))).await;
    assert_eq!(tokens(&world, world.upstream.requester), 2, "one request for all of them");
    world.end().await;
}

#[tokio::test]
async fn a_rotated_static_token_is_used_at_once() {
    let world = World::arranged(PROGRAM, |setup| {
        let token = harness::adapter::secret_file(setup.directory(), "token", "first.token");
        let requester = Uuid::now_v7();
        let line =
            format!(r#"organizations.test = {{ id = "{requester}", token_file = "{}" }}"#, token.display());
        setup.config(QUICK).config(&line)
    });
    let world = world.await;
    let line = world.setup.text().lines().find(|line| line.starts_with("organizations.test")).unwrap();
    let requester: Uuid = line.split('"').nth(1).unwrap().parse().unwrap();
    world.upstream.simulator.register_token("first.token", requester);
    let call = |key: &str| {
        let mut call = world.upstream.archive(Uuid::new_v4(), key);
        call.requester_organization_id = requester.to_string();
        call
    };
    let mut client = world.client().await;
    client.archive_guest_connection(call("k-1")).await.unwrap();
    world.upstream.simulator.revoke_tokens();
    world.upstream.simulator.register_token("second.token", requester);
    rotate(&world, "token", "second.token");
    changed(&world, 1).await;
    client.archive_guest_connection(call("k-2")).await.unwrap();
    let journal = world.upstream.simulator.journal();
    assert!(journal.iter().all(|entry| entry.status == Some(200)), "no 401 on the way: {journal:#?}");
    world.end().await;
}

#[tokio::test]
async fn an_organisation_that_is_removed_is_refused_and_what_it_asked_for_ends() {
    let world = World::start(PROGRAM, QUICK).await;
    let other = Other::new("other");
    other.register(&world.upstream.simulator);
    let with = world.setup.clone().config(&other.line(&world, ""));
    with.write();
    changed(&world, 1).await;
    world.upstream.simulator.script(Rule::patch().requester(other.id).maintenance());
    let mut letters = world.broker.consume(&world.names.dead_letters).await;
    let guests: Vec<_> = (0..4).map(|_| Uuid::new_v4()).collect();
    // A call that waits between its attempts, and a message that was deferred.
    let call = tokio::spawn({
        let (mut client, call) = (world.client().await, other.archive(guests[0], "call"));
        async move { client.archive_guest_connection(call).await }
    });
    world.send(guests[1], &other.message(guests[1], "message")).await;
    let both = |entries: &[simulator::Entry]| {
        guests[..2].iter().all(|guest| entries.iter().any(|entry| entry.is_patch_of(*guest)))
    };
    world.upstream.simulator.wait_for(both, DEADLINE).await.unwrap();
    world.setup.clone().write();
    changed(&world, 2).await;
    assert_eq!(reason(&call.await.unwrap().unwrap_err()), not_configured());
    let letter = letters.next().await;
    let told = letter.table("x-guest-connection-adapter");
    assert_eq!((told["reason"].as_str(), told["state"].as_str()), ("REQUESTER_NOT_CONFIGURED", "failed"));
    // New ones are refused before they become anything.
    let mut client = world.client().await;
    let refused = client.archive_guest_connection(other.archive(guests[2], "late-call")).await.unwrap_err();
    assert_eq!(reason(&refused), not_configured());
    world.send(guests[3], &other.message(guests[3], "late-message")).await;
    let told = letters.next().await.table("x-guest-connection-adapter");
    assert_eq!(told["reason"], "REQUESTER_NOT_CONFIGURED");
    // Who stays is served; and once it is back, the key that failed can come again.
    client.archive_guest_connection(world.upstream.archive(Uuid::new_v4(), "k")).await.unwrap();
    world.upstream.simulator.clear_faults();
    with.write();
    changed(&world, 3).await;
    client.archive_guest_connection(other.archive(guests[0], "call")).await.unwrap();
    assert_eq!(readiness(&world, "ready").await, "");
    world.end().await;
}
