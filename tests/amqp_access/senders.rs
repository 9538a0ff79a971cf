//! Who sent a message, by the `user_id` that the broker checks.

use harness::World;
use harness::broker::{Broker, Inbox};
use lapin::BasicProperties;
use lapin::options::BasicPublishOptions;
use serde_json::Value;
use uuid::Uuid;

use crate::PROGRAM;
use crate::support::{ALL, Place};

/// A world in which the user `billing` may archive in the name of `test`, and nobody anything else.
async fn world(place: &Place, lines: &str) -> World {
    let lines = format!(
        "amqp.identify = \"user_id\"\norganizations_check_interval = \"50ms\"\n\
         principals.billing = {{ amqp_users = [\"billing\"], organizations = [\"test\"], methods = [\"archive\"] }}\n{lines}"
    );
    World::start_on(PROGRAM, &place.node, &lines).await
}

/// A client of the broker as a user of its own.
async fn client(place: &Place, user: &str) -> Broker {
    place.user(user, "pw", ALL).await;
    Broker::connect_to(&place.node.uri().replace("guest:guest", &format!("{user}:pw"))).await
}

async fn send(world: &World, client: &Broker, user_id: Option<&str>, reply_to: &str, body: &Value) {
    let mut properties = BasicProperties::default().with_reply_to(reply_to.into());
    if let Some(user) = user_id {
        properties = properties.with_user_id(user.into());
    }
    client.publish(&world.names, "key", properties, &serde_json::to_vec(body).unwrap()).await;
}

/// The next message is refused: with a dead letter, a reply, and no trace of a command.
async fn refused(world: &World, inboxes: &mut (Inbox, Inbox), key: &str, reason: &str) {
    let letter = inboxes.0.next().await;
    let told = letter.table("x-guest-connection-adapter");
    assert_eq!(told.get("reason").map(String::as_str), Some(reason), "{key}: {told:?}");
    assert_eq!(*letter.properties.user_id(), None);
    let reply = inboxes.1.next().await.json();
    assert_eq!(
        (reply["status"].as_str(), reply["reason"].as_str()),
        (Some("refused"), Some(reason)),
        "{key}"
    );
    let unknown = world.upstream.command(&world.adapter, key).await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound, "{key}");
}

#[tokio::test]
async fn only_a_user_with_a_grant_is_obeyed() {
    let place = Place::turn().await;
    let mut world = world(&place, "").await;
    let (billing, other) = (client(&place, "billing").await, client(&place, "other").await);
    let replies = world.broker.queue().await;
    let mut inboxes =
        (world.broker.subscribe(&world.names.dead_letters).await, world.broker.consume(&replies).await);
    let guest = Uuid::new_v4();
    let body = |archived, key: &str| world.upstream.message(guest, archived, key);
    send(&world, &other, None, &replies, &body(true, "missing")).await;
    refused(&world, &mut inboxes, "missing", "UNAUTHENTICATED").await;
    send(&world, &other, Some("other"), &replies, &body(true, "unknown")).await;
    refused(&world, &mut inboxes, "unknown", "UNAUTHENTICATED").await;
    send(&world, &billing, Some("billing"), &replies, &body(false, "method")).await;
    refused(&world, &mut inboxes, "method", "NOT_PERMITTED").await;
    let mut foreign = body(true, "organization");
    foreign["requester_organization_id"] = Uuid::new_v4().to_string().into();
    send(&world, &billing, Some("billing"), &replies, &foreign).await;
    refused(&world, &mut inboxes, "organization", "NOT_PERMITTED").await;
    // A stranger does not even learn that this is no command.
    send(&world, &other, None, &replies, &Value::from("no command")).await;
    refused(&world, &mut inboxes, "no-command", "UNAUTHENTICATED").await;
    assert_eq!(world.upstream.received(guest), 0);

    // The default requester is applied before it is asked for whom.
    let mut unnamed = body(true, "permitted");
    unnamed.as_object_mut().unwrap().remove("requester_organization_id");
    send(&world, &billing, Some("billing"), &replies, &unnamed).await;
    assert_eq!(world.events.next().await.json()["data"]["guest_connection"]["archived"], true);
    assert_eq!(inboxes.1.next().await.json()["status"], "succeeded");
    assert_eq!(world.upstream.applied(guest), [true]);
    world.end().await;
}

#[tokio::test]
async fn the_broker_lets_nobody_pose_as_someone_else() {
    let place = Place::turn().await;
    let world = world(&place, "").await;
    let forger = client(&place, "forger").await;
    let body = serde_json::to_vec(&world.upstream.message(Uuid::new_v4(), true, "forged")).unwrap();
    let properties = BasicProperties::default().with_user_id("billing".into());
    let options = BasicPublishOptions { mandatory: true, ..<_>::default() };
    let publish = forger.channel().basic_publish(
        world.names.commands.as_str().into(),
        "key".into(),
        options,
        &body,
        properties,
    );
    let error = publish.await.unwrap().await.unwrap_err().to_string();
    assert!(
        error.contains("user_id property set to 'billing' but authenticated user was 'forger'"),
        "{error}"
    );
    // What was sent after it is refused, so it was looked at before: nothing came of it.
    let mut letters = world.broker.subscribe(&world.names.dead_letters).await;
    send(&world, &forger.again().await, None, "", &Value::from("next")).await;
    assert_eq!(letters.next().await.body, b"\"next\"");
    let unknown = world.upstream.command(&world.adapter, "forged").await.unwrap_err();
    assert_eq!(unknown.code(), tonic::Code::NotFound);
    world.end().await;
}

#[tokio::test]
async fn who_names_no_user_can_count_as_a_principal_and_a_change_is_followed() {
    let place = Place::turn().await;
    let line = "amqp.principal = \"legacy\"\n\
                principals.legacy = { organizations = [\"test\"], methods = [\"unarchive\"] }";
    let mut world = world(&place, line).await;
    let late = client(&place, "late").await;
    let replies = world.broker.queue().await;
    let mut inboxes =
        (world.broker.subscribe(&world.names.dead_letters).await, world.broker.consume(&replies).await);
    let guest = Uuid::new_v4();
    let body = |archived, key: &str| world.upstream.message(guest, archived, key);
    send(&world, &late, None, &replies, &body(false, "legacy")).await;
    assert_eq!(inboxes.1.next().await.json()["status"], "succeeded");
    send(&world, &late, None, &replies, &body(true, "legacy-archive")).await;
    refused(&world, &mut inboxes, "legacy-archive", "NOT_PERMITTED").await;
    // A user whom nobody knows is not the one without a name.
    send(&world, &late, Some("late"), &replies, &body(false, "late")).await;
    refused(&world, &mut inboxes, "late", "UNAUTHENTICATED").await;

    let grant =
        "principals.late = { amqp_users = [\"late\"], organizations = [\"*\"], methods = [\"archive\"] }";
    world.setup = world.setup.clone().config(grant);
    world.setup.write();
    let told =
        world.adapter.log().wait_for(harness::DEADLINE, |line| line.contains("\"senders\":true")).await;
    told.expect("the change is told");
    send(&world, &late, Some("late"), &replies, &body(true, "late-again")).await;
    assert_eq!(inboxes.1.next().await.json()["status"], "succeeded");
    assert_eq!(world.upstream.applied(guest), [false, true]);
    world.end().await;
}

#[tokio::test]
async fn principals_whom_messages_are_not_asked_for_are_warned_of() {
    let place = Place::turn().await;
    let lines = "principals.billing = { amqp_users = [\"billing\"], organizations = [\"test\"] }";
    let world = World::start_on(PROGRAM, &place.node, lines).await;
    let is_warning = |line: &String| line.contains("WARN") && line.contains("amqp.identify");
    assert!(world.adapter.log().all().iter().any(is_warning), "{:?}", world.adapter.log().all());
    let (status, _) = world.adapter.terminate().await;
    assert!(status.success());
}
