//! The main job, end to end: both doors, one PATCH, one event.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tells a whole story"
)]

use guest_connection_adapter::proto::get_command_request::Lookup;
use guest_connection_adapter::proto::{CommandKey, CommandState, GetCommandRequest};
use harness::{Upstream, World};
use lapin::BasicProperties;
use lapin::types::ShortString;
use serde_json::{Value, json};
use uuid::Uuid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

#[tokio::test]
async fn a_call_is_one_patch_and_one_event_and_its_repeat_is_replayed() {
    let mut world = World::start(PROGRAM, "").await;
    let (mut client, guest) = (world.client().await, Uuid::new_v4());
    let first =
        client.archive_guest_connection(world.upstream.archive(guest, "k-1")).await.unwrap().into_inner();
    assert!(!first.replayed && !first.incomplete);
    let shown = first.guest_connection.clone().expect("a guest connection");
    assert_eq!((shown.archived, shown.guest_organization_id), (Some(true), guest.to_string()));
    assert!(shown.guest_email.contains('@') && shown.created_at.is_some() && !shown.guest_name.is_empty());

    let event = world.events.next().await;
    let body = event.json();
    assert_eq!(body["specversion"], "1.0");
    assert_eq!(body["type"], "ai.mycreditapp.guest-connection.archived.v1");
    assert_eq!(body["subject"], format!("{}/{guest}", world.upstream.requester));
    assert_eq!(body["sequence"], format!("{:020}", 1));
    assert_eq!(body["data"]["incomplete"], false);
    assert_eq!(body["data"]["guest_connection"]["archived"], true);
    assert_eq!(body["data"]["command"]["command_id"], first.command_id);
    assert_eq!(event.routing_key, format!("guest-connection.archived.{guest}"));
    assert_eq!(event.properties.message_id().as_ref().map(ShortString::as_str), body["id"].as_str());
    assert_eq!(*event.properties.delivery_mode(), Some(2));

    let second =
        client.archive_guest_connection(world.upstream.archive(guest, "k-1")).await.unwrap().into_inner();
    assert!(second.replayed);
    assert_eq!(second.guest_connection, first.guest_connection);
    assert_eq!(second.command_id, first.command_id);
    assert_eq!(world.upstream.received(guest), 1);

    // The next event is that of the next command: the replay published nothing.
    client.unarchive_guest_connection(world.upstream.unarchive(guest, "k-2")).await.unwrap();
    let next = world.events.next().await.json();
    assert_eq!(
        (&next["type"], &next["sequence"]),
        (&json!("ai.mycreditapp.guest-connection.unarchived.v1"), &json!(format!("{:020}", 2)))
    );
    assert_eq!(world.upstream.applied(guest), [true, false]);
    world.end().await;
}

#[tokio::test]
async fn a_command_can_be_looked_up_by_its_id_and_by_its_key() {
    let mut world = World::start(PROGRAM, "").await;
    let (mut client, guest) = (world.client().await, Uuid::new_v4());
    let made =
        client.archive_guest_connection(world.upstream.archive(guest, "k")).await.unwrap().into_inner();
    let event = world.events.next().await.json();
    let key = CommandKey {
        requester_organization_id: world.upstream.requester.to_string(),
        idempotency_key: "k".to_owned(),
    };
    for lookup in [Lookup::CommandId(made.command_id.clone()), Lookup::Key(key)] {
        // The event is here, so the broker has it; that the adapter has noted its confirm takes a moment more.
        let command = confirmed(&mut client, lookup).await;
        assert_eq!(command.command_id, made.command_id);
        assert_eq!((command.state(), command.attempts), (CommandState::Succeeded, 1));
        assert_eq!(command.event.expect("an event").event_id, event["id"].as_str().unwrap());
        assert!(command.finish_time.is_some() && command.due_time.is_none());
    }
    let unknown = GetCommandRequest { lookup: Some(Lookup::CommandId(Uuid::now_v7().to_string())) };
    assert_eq!(client.get_command(unknown).await.unwrap_err().code(), tonic::Code::NotFound);
    world.end().await;
}

type Client = guest_connection_adapter::proto::guest_connection_service_client::GuestConnectionServiceClient<
    tonic::transport::Channel,
>;

async fn confirmed(client: &mut Client, lookup: Lookup) -> guest_connection_adapter::proto::Command {
    let confirmed = async {
        loop {
            let request = GetCommandRequest { lookup: Some(lookup.clone()) };
            let command = client.get_command(request).await.unwrap().into_inner().command.unwrap();
            if command.event.as_ref().is_some_and(|event| event.confirmed && event.confirm_time.is_some()) {
                return command;
            }
            harness::look_again().await;
        }
    };
    tokio::time::timeout(harness::DEADLINE, confirmed).await.expect("the event is confirmed")
}

#[tokio::test]
async fn a_message_is_one_patch_one_event_and_one_reply_in_every_format() {
    let mut world = World::start(PROGRAM, "").await;
    let replies = world.broker.queue().await;
    let mut inbox = world.broker.consume(&replies).await;
    let headers = |pairs: &[(&str, &str)]| {
        let mut table = lapin::types::FieldTable::default();
        for (name, value) in pairs {
            table.insert((*name).into(), lapin::types::AMQPValue::LongString((*value).into()));
        }
        table
    };
    let base = || BasicProperties::default().with_reply_to(replies.as_str().into());
    let guests: Vec<Uuid> = (0..4).map(|_| Uuid::new_v4()).collect();
    let json_body = |guest, key: &str| serde_json::to_vec(&world.upstream.message(guest, true, key)).unwrap();
    let mut keyless = world.upstream.message(guests[2], true, "");
    keyless.as_object_mut().unwrap().remove("idempotency_key");
    let structured = json!({
        "specversion": "1.0", "id": "e-1", "source": "/crm", "type": "crm.guest-left.v1",
        "datacontenttype": "application/json", "data": keyless,
    });
    let mut binary = keyless.clone();
    binary["guest_organization_id"] = json!(guests[3]);
    let protobuf = prost::Message::encode_to_vec(&world.upstream.archive(guests[1], "k-protobuf"));
    let messages: Vec<(Uuid, BasicProperties, Vec<u8>)> = vec![
        (guests[0], base().with_content_type("application/json".into()), json_body(guests[0], "k-json")),
        (
            guests[1],
            base()
                .with_content_type("application/x-protobuf".into())
                .with_type("guestconnections.v1.ArchiveGuestConnectionRequest".into()),
            protobuf,
        ),
        (
            guests[2],
            base().with_content_type("application/cloudevents+json".into()),
            serde_json::to_vec(&structured).unwrap(),
        ),
        (
            guests[3],
            base().with_content_type("application/json".into()).with_headers(headers(&[
                ("cloudEvents:specversion", "1.0"),
                ("cloudEvents:id", "e-2"),
                ("cloudEvents:source", "/crm"),
                ("cloudEvents:type", "crm.guest-left.v1"),
            ])),
            serde_json::to_vec(&binary).unwrap(),
        ),
    ];
    for (guest, properties, body) in messages {
        let correlation = guest.to_string();
        let properties = properties.with_correlation_id(correlation.as_str().into());
        world.broker.publish(&world.names, &correlation, properties.clone(), &body).await;
        let reply = inbox.next().await;
        assert_eq!(reply.properties.correlation_id().as_ref().unwrap().as_str(), correlation);
        let reply = reply.json();
        assert_eq!((&reply["status"], &reply["replayed"]), (&json!("succeeded"), &json!(false)), "{reply}");
        assert_eq!(reply["guest_connection"]["archived"], true);
        let event = world.events.next().await.json();
        assert_eq!(event["data"]["command"]["guest_organization_id"], json!(guest));
        // The same message again, as after a lost acknowledgement: the same answer, nothing else.
        world.broker.publish(&world.names, &correlation, properties, &body).await;
        let again = inbox.next().await.json();
        assert_eq!((&again["replayed"], &again["command_id"]), (&json!(true), &reply["command_id"]));
        assert_eq!(world.upstream.applied(guest), [true]);
    }
    world.end().await;
}

#[tokio::test]
async fn what_is_no_command_is_one_dead_letter_with_its_reason_and_a_reply() {
    let mut world = World::start(PROGRAM, "").await;
    let mut letters = world.broker.consume(&world.names.dead_letters).await;
    let replies = world.broker.queue().await;
    let mut inbox = world.broker.consume(&replies).await;
    let mut bad = world.upstream.message(Uuid::new_v4(), true, "k");
    bad["guest_organization_id"] = json!("not-a-uuid");
    bad["archived"] = json!("yes");
    bad["colour"] = json!("red");
    let cases: Vec<(Vec<u8>, &str)> = vec![
        (b"{\"guest_org".to_vec(), "UNDECODABLE"),
        (Vec::new(), "UNDECODABLE"),
        (vec![0xFF, 0xFE], "UNDECODABLE"),
        (serde_json::to_vec(&bad).unwrap(), "INVALID_FIELDS"),
    ];
    for (body, reason) in cases {
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_reply_to(replies.as_str().into())
            .with_message_id("m-1".into());
        world.broker.publish(&world.names, "any", properties, &body).await;
        let letter = letters.next().await;
        assert_eq!(letter.body, body, "the original body");
        assert_eq!(letter.properties.message_id().as_ref().map(ShortString::as_str), Some("m-1"));
        let told = letter.table("x-guest-connection-adapter");
        assert_eq!(told["reason"], reason, "{told:?}");
        let reply = inbox.next().await.json();
        assert_eq!(reply["reason"], reason, "{reply}");
        if reason == "INVALID_FIELDS" {
            let fields: Vec<_> =
                reply["violations"].as_array().unwrap().iter().map(|v| v["field"].clone()).collect();
            for field in ["guest_organization_id", "archived", "colour"] {
                assert!(fields.contains(&Value::from(field)), "{reply}");
                assert!(format!("{told:?}").contains(field), "{told:?}");
            }
        }
    }
    // They were settled: a good command behind them is worked on, and nothing is left in the queue.
    let guest = Uuid::new_v4();
    world.send(guest, &world.upstream.message(guest, true, "good")).await;
    world.events.next().await;
    assert_eq!(world.upstream.applied(guest), [true]);
    let (status, _) = world.adapter.terminate().await;
    assert!(status.success());
    assert_eq!(world.broker.depth(&world.names.commands).await, 0);
}

#[tokio::test]
async fn without_a_broker_events_are_lines_on_standard_output() {
    let upstream = Upstream::start().await;
    let setup = upstream.setup(PROGRAM);
    let adapter = setup.start_ready().await;
    let guest = Uuid::new_v4();
    adapter.client().await.archive_guest_connection(upstream.archive(guest, "k")).await.unwrap();
    let line = adapter.output().wait_for(harness::DEADLINE, |_| true).await.expect("a line");
    let event: Value = serde_json::from_str(&line).unwrap();
    assert_eq!(event["type"], "ai.mycreditapp.guest-connection.archived.v1");
    assert_eq!(event["data"]["guest_connection"]["archived"], true);
    let (status, _) = adapter.terminate().await;
    assert!(status.success());
}
