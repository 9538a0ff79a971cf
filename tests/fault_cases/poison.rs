//! Cases 15 to 21: messages that cannot be worked on, retries, dead letters.

use std::time::Duration;

use guest_connection_adapter::proto::CommandState;
use harness::{Broker, DEADLINE, Names, Upstream, World};
use lapin::options::{ExchangeDeclareOptions, QueueDeclareOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, ByteArray, DecimalValue, FieldArray, FieldTable};
use lapin::{BasicProperties, ExchangeKind};
use simulator::Rule;
use uuid::Uuid;

use crate::support::{end_settled, event_of, keys, not_ready};
use crate::{PROGRAM, rewriter};

const OWN_HEADER: &str = "x-guest-connection-adapter";

/// Declares a queue as somebody else did long ago.
async fn declare(broker: &Broker, queue: &str, arguments: &[(&str, AMQPValue)]) {
    let mut table = FieldTable::default();
    for (name, value) in arguments {
        table.insert((*name).into(), value.clone());
    }
    let options = QueueDeclareOptions { durable: true, ..<_>::default() };
    broker.channel().queue_declare(queue.into(), options, table).await.expect("declared");
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(value.into())
}

#[tokio::test]
async fn case_15_nothing_is_requeued_as_a_way_of_waiting() {
    let lines = "upstream.retry_delay_max = \"5ms\"\nupstream.retry_delay_base = \"5ms\"\n\
                 upstream.command_timeout = \"1s\"\nupstream.attempt_timeout = \"900ms\"\n\
                 upstream.connect_timeout = \"500ms\"\n\
                 upstream.defer_delay_base = \"10ms\"\nupstream.defer_delay_max = \"10ms\"";
    let mut world = World::start(PROGRAM, lines).await;
    let mut letters = world.broker.consume(&world.names.dead_letters).await;
    let guest = Uuid::new_v4();
    // More failures than the broker would stand deliveries: 20 by default from RabbitMQ 4 on.
    world.upstream.simulator.script(Rule::patch().guest(guest).times(40).status(425));
    world.send(guest, &world.upstream.message(guest, true, "k")).await;
    assert_eq!(keys(&mut world, 1).await, ["k"]);
    assert_eq!(world.upstream.received(guest), 41);
    assert!(letters.next_within(Duration::from_millis(1)).await.is_none());
    end_settled(world, None).await;
}

#[tokio::test]
async fn case_15_a_queue_without_a_dead_letter_exchange_is_refused() {
    let (upstream, broker, names) = (Upstream::start().await, Broker::connect().await, Names::default());
    declare(&broker, &names.commands, &[("x-queue-type", text("quorum"))]).await;
    let setup = upstream.setup(PROGRAM).broker(&broker, &names);
    let adapter = setup.start().await;
    not_ready(&adapter, "amqp.consume", "406").await;
    assert!(adapter.terminate().await.0.success());
}

#[tokio::test]
async fn case_15_without_declaring_the_dead_letter_exchange_is_demanded() {
    let (upstream, broker, names) = (Upstream::start().await, Broker::connect().await, Names::default());
    let passive = upstream.setup(PROGRAM).broker(&broker, &names).config("amqp.declare = false");
    let adapter = passive.start().await;
    not_ready(&adapter, "amqp.consume", &format!("exchange \"{}\": 404", names.dead_letters)).await;
    // Somebody declares everything.
    let declaring = upstream.setup(PROGRAM).broker(&broker, &names);
    let declarer = declaring.start_ready().await;
    adapter.ready().await;
    assert!(declarer.terminate().await.0.success());
    assert!(adapter.terminate().await.0.success());
}

#[tokio::test]
async fn case_16_attempts_are_counted_in_the_store_and_bounded() {
    // The literals: 24 h of giving up; the soak uses 30 failures under the usual delays.
    let lines = "upstream.retry_delay_max = \"5ms\"\nupstream.retry_delay_base = \"5ms\"\n\
                 upstream.command_timeout = \"500ms\"\nupstream.attempt_timeout = \"400ms\"\n\
                 upstream.connect_timeout = \"200ms\"\nstore.lease = \"1s\"\nstore.give_up_after = \"3s\"\n\
                 grpc.answer_timeout = \"500ms\"\n\
                 upstream.defer_delay_base = \"10ms\"\nupstream.defer_delay_max = \"10ms\"";
    let world = World::start(PROGRAM, lines).await;
    let mut letters = world.broker.consume(&world.names.dead_letters).await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).status(425));
    // What the broker says of earlier lives counts for nothing.
    let mut death = FieldTable::default();
    death.insert("count".into(), AMQPValue::LongLongInt(1_000_000));
    death.insert("queue".into(), text(&world.names.commands));
    let deaths = FieldArray::from(vec![AMQPValue::FieldTable(death)]);
    let mut headers = FieldTable::default();
    headers.insert("x-death".into(), AMQPValue::FieldArray(deaths));
    let properties = BasicProperties::default().with_headers(headers);
    world.send_with(guest, properties, &world.upstream.message(guest, true, "k")).await;
    let letter = letters.next().await;
    assert_eq!(letter.table(OWN_HEADER)["reason"], "COMMAND_ABANDONED");
    let kept = world.upstream.command(&world.adapter, "k").await.unwrap();
    assert_eq!(kept.state(), CommandState::Abandoned);
    assert!(kept.attempts >= 30, "{} attempts", kept.attempts);
    assert_eq!(letter.table(OWN_HEADER)["attempts"], format!("LongLongInt({})", kept.attempts));
    assert_eq!(world.upstream.received(guest), usize::try_from(kept.attempts).unwrap());
    end_settled(world, None).await;
}

#[tokio::test]
async fn case_17_what_is_due_first_runs_first() {
    let lines = "upstream.command_timeout = \"1s\"\nupstream.attempt_timeout = \"900ms\"\n\
                 upstream.connect_timeout = \"500ms\"";
    let mut world = World::start(PROGRAM, lines).await;
    let (long, short) = (Uuid::new_v4(), Uuid::new_v4());
    let wait = |guest, seconds: &str| -> Rule {
        Rule::patch().guest(guest).times(1).status(425).header("retry-after", seconds).into()
    };
    world.upstream.simulator.script(wait(long, "600"));
    world.upstream.simulator.script(wait(short, "1"));
    let deferred =
        |command: &guest_connection_adapter::proto::Command| command.state() == CommandState::Deferred;
    world.send(long, &world.upstream.message(long, true, "long")).await;
    world.upstream.command_when(&world.adapter, "long", deferred).await;
    world.send(short, &world.upstream.message(short, true, "short")).await;
    assert_eq!(keys(&mut world, 1).await, ["short"]);
    assert!(deferred(&world.upstream.command(&world.adapter, "long").await.unwrap()));
    // Neither waits in the queue.
    end_settled(world, None).await;
}

/// The processor time of a process so far, in hundredths of a second.
fn processor_time(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("the process runs");
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

#[tokio::test]
async fn case_18_what_cannot_be_decoded_becomes_one_dead_letter() {
    let world = World::start(PROGRAM, "").await;
    let mut letters = world.broker.consume(&world.names.dead_letters).await;
    let bodies: [&[u8]; 4] = [b"", br#"{"guest_org_id":"#, &[0xFF, 0xFE], br#"{"archived":1,"novel":2}"#];
    for (number, body) in bodies.iter().enumerate() {
        let properties = BasicProperties::default()
            .with_message_id(format!("m-{number}").as_str().into())
            .with_user_id("guest".into());
        world.broker.publish(&world.names, "guest", properties, body).await;
    }
    let mut seen = std::collections::BTreeMap::new();
    for letter in letters.take(bodies.len()).await {
        let id = letter.properties.message_id().as_ref().unwrap().to_string();
        assert_eq!(letter.properties.user_id(), &None, "the broker would check it again");
        seen.insert(id, (letter.body.clone(), letter.table(OWN_HEADER)["reason"].clone()));
    }
    for (number, body) in bodies.iter().enumerate() {
        let reason = if number == 3 { "INVALID_FIELDS" } else { "UNDECODABLE" };
        assert_eq!(seen[&format!("m-{number}")], (body.to_vec(), reason.to_owned()));
    }
    let before = processor_time(world.adapter.pid());
    assert!(letters.next_within(Duration::from_secs(1)).await.is_none(), "one dead letter each");
    let spent = processor_time(world.adapter.pid()) - before;
    assert!(spent < 30, "{spent} hundredths of a second of work, with nothing to do");
    end_settled(world, None).await;
}

/// The bytes of arrays one in another, `depth` deep.
fn nested(depth: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    for _ in 0..depth {
        let length = u32::try_from(bytes.len()).unwrap();
        let inner = std::mem::replace(&mut bytes, vec![b'A']);
        bytes.extend(length.to_be_bytes());
        bytes.extend(inner);
    }
    bytes
}

/// The client library would end the connection over such properties, and so again and again.
#[tokio::test]
async fn case_19_text_that_is_none_harms_no_other_message() {
    let mut world = World::start(PROGRAM, "").await;
    let mut letters = world.broker.consume(&world.names.dead_letters).await;
    let odd = rewriter::client(&world.broker, b"@@", &[0xFF, 0xE9]).await;
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    let mut headers = FieldTable::default();
    headers.insert("na@@me".into(), AMQPValue::Void);
    let properties = BasicProperties::default()
        .with_content_type("application/json".into())
        .with_message_id("id-@@".into())
        .with_correlation_id("correlation-@@".into())
        .with_headers(headers);
    // What is needed is sound, the rest is not.
    let body = serde_json::to_vec(&world.upstream.message(first, true, "k-1")).unwrap();
    odd.publish(&world.names, "key-@@", properties.clone(), &body).await;
    assert_eq!(world.events.next().await.json()["data"]["command"]["idempotency_key"], "k-1");
    // What is needed is not.
    let mut keyless = world.upstream.message(second, true, "");
    keyless.as_object_mut().unwrap().remove("idempotency_key");
    odd.publish(&world.names, "key", properties, &serde_json::to_vec(&keyless).unwrap()).await;
    let letter = letters.next().await;
    assert_eq!(letter.table("x-guest-connection-adapter")["reason"], "INVALID_FIELDS");
    world.send(second, &world.upstream.message(second, true, "k-2")).await;
    assert_eq!(world.events.next().await.json()["data"]["command"]["idempotency_key"], "k-2");
    assert_eq!(world.upstream.simulator.stats().patches, 2);
    end_settled(world, None).await;
}

/// The client library would read such a header by recursion, and overflow its stack: the end of the process.
#[tokio::test]
async fn case_19_headers_that_are_nested_without_end_harm_no_other_message() {
    let mut world = World::start(PROGRAM, "").await;
    let odd = rewriter::client(&world.broker, b"\x04deepx", b"\x04deepA").await;
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    let mut headers = FieldTable::default();
    headers.insert("deep".into(), AMQPValue::ByteArray(ByteArray::from(nested(20_000))));
    let body = serde_json::to_vec(&world.upstream.message(first, true, "k-1")).unwrap();
    let properties = BasicProperties::default().with_headers(headers);
    odd.publish(&world.names, "key", properties, &body).await;
    assert_eq!(world.events.next().await.json()["data"]["command"]["idempotency_key"], "k-1");
    world.send(second, &world.upstream.message(second, true, "k-2")).await;
    assert_eq!(world.events.next().await.json()["data"]["command"]["idempotency_key"], "k-2");
    end_settled(world, None).await;
}

/// Headers of every odd type, none of them needed.
fn odd_headers() -> FieldTable {
    let mut table = FieldTable::default();
    table.insert("inner".into(), AMQPValue::Void);
    let mut headers = FieldTable::default();
    for (name, value) in [
        ("table", AMQPValue::FieldTable(table)),
        ("array", AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::Boolean(true), AMQPValue::Void]))),
        ("void", AMQPValue::Void),
        ("bytes", AMQPValue::ByteArray(ByteArray::from(vec![0xFF, 0xFE]))),
        ("decimal", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 7 })),
        ("double", AMQPValue::Double(1.5)),
        ("text", AMQPValue::LongString(vec![0xC3, 0x28].into())),
        ("traceparent", AMQPValue::LongLongInt(7)),
        ("tracestate", AMQPValue::LongString(vec![0xFF; 64].into())),
    ] {
        headers.insert(name.into(), value);
    }
    headers
}

#[tokio::test]
async fn case_19_odd_headers_are_ignored_where_they_are_not_needed() {
    let mut world = World::start(PROGRAM, "").await;
    let mut letters = world.broker.consume(&world.names.dead_letters).await;
    let guest = Uuid::new_v4();
    let properties =
        BasicProperties::default().with_headers(odd_headers()).with_reply_to("nobody.listens".into());
    world.send_with(guest, properties.clone(), &world.upstream.message(guest, true, "k")).await;
    assert_eq!(keys(&mut world, 1).await, ["k"]);
    assert_eq!(world.upstream.applied(guest), [true]);
    // A dead letter keeps them as they are.
    world.broker.publish(&world.names, "guest", properties, b"poison").await;
    let letter = letters.next().await;
    let headers = letter.properties.headers().as_ref().unwrap().inner();
    for name in ["decimal", "bytes", "text", "array"] {
        assert_eq!(headers.get(name), odd_headers().inner().get(name));
    }
    // A CloudEvent's id is needed where there is no key; of such a type it is none. The next message goes on.
    let mut event = FieldTable::default();
    event.insert("cloudEvents:specversion".into(), text("1.0"));
    event.insert("cloudEvents:id".into(), AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 7 }));
    event.insert("cloudEvents:source".into(), text("/here"));
    event.insert("cloudEvents:type".into(), text("archive"));
    let mut keyless = world.upstream.message(guest, false, "");
    keyless.as_object_mut().unwrap().remove("idempotency_key");
    world.send_with(guest, BasicProperties::default().with_headers(event), &keyless).await;
    let letter = letters.next().await;
    assert!(letter.table(OWN_HEADER).contains_key("reason"), "{:?}", letter.table(OWN_HEADER));
    world.send(guest, &world.upstream.message(guest, false, "k-2")).await;
    event_of(&mut world, "k-2").await;
    assert_eq!(world.upstream.applied(guest), [true, false]);
    end_settled(world, None).await;
}

#[tokio::test]
async fn case_20_every_message_has_a_key_or_says_why_not() {
    let mut world = World::start(PROGRAM, "").await;
    let mut letters = world.broker.consume(&world.names.dead_letters).await;
    let keyless = |guest| {
        let mut body = world.upstream.message(guest, true, "");
        body.as_object_mut().unwrap().remove("idempotency_key");
        body
    };
    let (by_id, without, bare, reused, stranger) =
        (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    world.send_with(by_id, BasicProperties::default().with_message_id("m-1".into()), &keyless(by_id)).await;
    assert_eq!(world.events.next().await.json()["data"]["command"]["idempotency_key"], "m-1");

    let mut expect = async |reason: &str| {
        let letter = letters.next().await;
        assert_eq!(letter.table("x-guest-connection-adapter")["reason"], reason);
    };
    world.send_with(without, BasicProperties::default(), &keyless(without)).await;
    expect("IDEMPOTENCY_KEY_MISSING").await;
    // No properties at all, but a key in the body: JSON is what a message is unless it says otherwise.
    world.send_with(bare, BasicProperties::default(), &world.upstream.message(bare, true, "k-bare")).await;
    assert_eq!(world.events.next().await.json()["data"]["command"]["idempotency_key"], "k-bare");
    world.send(reused, &world.upstream.message(reused, true, "k-bare")).await;
    expect("IDEMPOTENCY_KEY_REUSED").await;
    let mut foreign = world.upstream.message(stranger, true, "k-foreign");
    foreign["requester_organization_id"] = serde_json::json!(Uuid::new_v4());
    world.send(stranger, &foreign).await;
    expect("REQUESTER_NOT_CONFIGURED").await;
    world
        .send_with(stranger, BasicProperties::default().with_content_type("text/csv".into()), &foreign)
        .await;
    expect("CONTENT_TYPE_UNSUPPORTED").await;
    assert_eq!(world.upstream.simulator.stats().patches, 2);
    end_settled(world, None).await;
}

#[tokio::test]
async fn case_21_a_queue_in_another_form_is_named_and_left_alone() {
    let (upstream, broker, names) = (Upstream::start().await, Broker::connect().await, Names::default());
    declare(&broker, &names.commands, &[("x-max-length", AMQPValue::LongInt(10))]).await;
    let options = lapin::options::BasicPublishOptions::default();
    let sent = broker.channel().basic_publish(
        "".into(),
        names.commands.as_str().into(),
        options,
        b"precious",
        BasicProperties::default(),
    );
    sent.await.unwrap().await.unwrap();
    let setup = upstream.setup(PROGRAM).broker(&broker, &names);
    let adapter = setup.start().await;
    not_ready(&adapter, "amqp.consume", &format!("queue \"{}\": 406", names.commands)).await;
    // The other parts do not care; tried again, with a wait in between, and nothing is deleted.
    let body = adapter.readiness(|_, body| body["parts"]["amqp.publish"]["status"] == "ready").await;
    assert!(body["parts"]["amqp.consume"]["detail"].as_str().unwrap().contains("inequivalent arg"), "{body}");
    let refused = |lines: &[String]| {
        let is = |line: &&String| line.contains("broker: not available") && line.contains("inequivalent arg");
        lines.iter().filter(is).count()
    };
    adapter.log().wait_until(DEADLINE, |lines| refused(lines) >= 4).await.expect("it goes on trying");
    assert_eq!(broker.depth(&names.commands).await, 1);
    // An operator saves what is in it and deletes it: no restart is needed.
    let deleted =
        broker.channel().queue_delete(names.commands.as_str().into(), QueueDeleteOptions::default());
    assert_eq!(deleted.await.unwrap(), 1);
    adapter.ready().await;
    assert_eq!(broker.consumers(&names.commands).await, 1);
    assert!(adapter.terminate().await.0.success());
}

#[tokio::test]
async fn case_21_an_exchange_in_another_form_stops_publishing_alone() {
    let (upstream, broker, names) = (Upstream::start().await, Broker::connect().await, Names::default());
    let declared = broker.channel().exchange_declare(
        names.events.as_str().into(),
        ExchangeKind::Fanout,
        ExchangeDeclareOptions { durable: true, ..<_>::default() },
        FieldTable::default(),
    );
    declared.await.unwrap();
    let setup = upstream.setup(PROGRAM).broker(&broker, &names);
    let adapter = setup.start().await;
    not_ready(&adapter, "amqp.publish", &format!("exchange \"{}\": 406", names.events)).await;
    adapter.readiness(|_, body| body["parts"]["amqp.consume"]["status"] == "ready").await;
    let guest = Uuid::new_v4();
    let body = serde_json::to_vec(&upstream.message(guest, true, "k")).unwrap();
    broker.publish(&names, "guest", BasicProperties::default(), &body).await;
    upstream.command_when(&adapter, "k", |command| command.state() == CommandState::Succeeded).await;
    // An operator deletes it: the event goes out by the one that the adapter declares.
    let deleted = broker.channel().exchange_delete(names.events.as_str().into(), <_>::default());
    deleted.await.unwrap();
    adapter.readiness(|_, body| body["parts"]["amqp.publish"]["status"] == "ready").await;
    let event = broker.subscribe(&names.events).await.next().await.json();
    assert_eq!(event["data"]["command"]["idempotency_key"], "k");
    assert!(adapter.terminate().await.0.success());
}
