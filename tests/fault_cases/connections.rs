//! More of the same kind as cases 1 to 21: what else can befall the connections to the broker.

use std::time::{Duration, Instant};

use harness::{Broker, DEADLINE, Direction, FaultProxy, Names, Node, Upstream, World};
use lapin::options::{
    BasicPublishOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, QueueDeleteOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Confirmation, ExchangeKind};
use simulator::Rule;
use tokio::time::timeout;
use uuid::Uuid;

use crate::PROGRAM;
use crate::support::{QUICK, end_settled, event_of, keys, logged, not_ready, one_consumer, sent};

#[tokio::test]
async fn a_connection_that_is_lost_without_a_word_is_noticed_by_its_heartbeat() {
    let (mut world, proxy) = World::start_behind(PROGRAM, None, QUICK).await;
    let (held, lost) = (Uuid::new_v4(), Uuid::new_v4());
    world.upstream.simulator.script(Rule::patch().guest(held).delay(Duration::from_secs(1)));
    world.send(held, &world.upstream.message(held, true, "held")).await;
    world.upstream.simulator.wait_for(sent(held), DEADLINE).await.expect("it is under way");
    let started = Instant::now();
    proxy.strand();
    // The broker hands it to a consumer that is not there any more.
    world.send(lost, &world.upstream.message(lost, true, "lost")).await;
    // Those that are used may notice by what they ask for; the idle one has nothing but its heartbeat.
    for (purpose, reason) in [("consume", ""), ("publish", ""), ("reply", "heartbeat")] {
        let purpose = format!("\"purpose\":\"{purpose}\"");
        logged(&world.adapter, &["broker: not available", &purpose, reason]).await;
    }
    let noticed = started.elapsed();
    // Twice the heartbeat of 1 s, and what a loaded machine takes.
    assert!(noticed < Duration::from_secs(6), "{noticed:?}");
    assert_eq!(keys(&mut world, 2).await, ["held", "lost"]);
    assert_eq!((world.upstream.received(held), world.upstream.received(lost)), (1, 1));
    let one = async { while world.broker.consumers(&world.names.commands).await != 1 {} };
    timeout(DEADLINE, one).await.expect("the lost consumer is dropped");
    // What was held on the way arrives late, and at nobody.
    proxy.thaw();
    let guest = Uuid::new_v4();
    world.send(guest, &world.upstream.message(guest, true, "after")).await;
    event_of(&mut world, "after").await;
    end_settled(world, None).await;
}

/// How many threads of a process have this name.
fn threads(pid: u32, name: &str) -> usize {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process runs");
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
    names.filter(|found| found.trim() == name).count()
}

#[tokio::test]
async fn a_silent_broker_is_tried_again_and_nothing_piles_up() {
    let (upstream, broker, names) = (Upstream::start().await, Broker::connect().await, Names::default());
    let proxy = FaultProxy::start(broker.socket());
    proxy.leave_unattended();
    let lines = "amqp.connect_timeout = \"200ms\"\namqp.reconnect_delay_max = \"100ms\"\ntelemetry.log_repeats_max = 0";
    let setup = upstream.setup(PROGRAM).broker_at(&proxy.amqp_uri(), &names).config(lines);
    let adapter = setup.start().await;
    let attempts = |lines: &[String]| lines.iter().filter(|line| line.contains("did not answer")).count();
    adapter.log().wait_until(DEADLINE, |lines| attempts(lines) >= 24).await.expect("it goes on trying");
    for part in ["amqp.consume", "amqp.publish", "amqp.reply"] {
        not_ready(&adapter, part, "did not answer within 200ms").await;
    }
    // One attempt each is under way, and one may be ending.
    let under_way = threads(adapter.pid(), "lapin-io-loop");
    assert!(under_way <= 6, "{under_way} threads for three connections");
    // Its calls are served meanwhile.
    let guest = Uuid::new_v4();
    adapter.client().await.archive_guest_connection(upstream.archive(guest, "k")).await.expect("an answer");
    proxy.accept();
    adapter.ready().await;
    assert_eq!(broker.consumers(&names.commands).await, 1);
    assert!(adapter.terminate().await.0.success());
}

/// Adds a virtual host and lets its user in: one call, since each takes a second.
const ADD_HOST: &str = r#"rabbit_vhost:add(<<"late">>, <<"test">>), A = <<".*">>,
rabbit_auth_backend_internal:set_permissions(<<"late">>, <<"late">>, A, A, A, <<"test">>)."#;

#[tokio::test]
async fn refused_credentials_and_a_refused_host_are_named_and_tried_again() {
    let node = Node::shared().await;
    let (upstream, names) = (Upstream::start().await, Names::default());
    let setup = upstream.setup(PROGRAM);
    let password = harness::adapter::secret_file(setup.directory(), "password", "s3cret-of-late");
    let lines = format!("amqp.username = \"late\"\namqp.password_file = \"{}\"", password.display());
    let uri = format!("amqp://{}/late", node.address());
    let setup = setup.broker_at(&uri, &names).config(&lines);
    let adapter = setup.start().await;
    let all_parts = async |text: &str| {
        for part in ["amqp.consume", "amqp.publish", "amqp.reply"] {
            not_ready(&adapter, part, text).await;
        }
    };
    all_parts("refused the credentials of user \"late\"").await;
    node.ctl(&["add_user", "late", "s3cret-of-late"]).await;
    all_parts("does not let user \"late\" into vhost \"late\"").await;
    node.eval(ADD_HOST).await;
    adapter.ready().await;
    // The host goes away under its connections, and comes back empty.
    node.ctl(&["delete_vhost", "late"]).await;
    all_parts("into vhost \"late\"").await;
    node.eval(ADD_HOST).await;
    adapter.ready().await;
    let (status, log) = adapter.terminate().await;
    assert!(status.success());
    assert!(!log.join("\n").contains("s3cret"));
}

#[tokio::test]
async fn each_connection_comes_back_on_its_own() {
    let node = Node::shared().await;
    let mut world = World::start_on(PROGRAM, &node, "").await;
    let mut lost = Vec::new();
    for purpose in ["consume", "publish", "reply"] {
        let close = format!(
            "[rabbit_networking:close_connection(P, \"test\") || [{{pid, P}}, {{client_properties, C}}] <- \
             rabbit_networking:connection_info_all([pid, client_properties]), {{_, _, N}} <- \
             [lists:keyfind(<<\"connection_name\">>, 1, C)], N == <<\"guest-connection-adapter {purpose}\">>]."
        );
        assert!(node.eval(&close).await.contains("ok"), "there is such a connection");
        lost.push(purpose.to_owned());
        let words = ["broker: not available", &format!("\"purpose\":\"{purpose}\""), "CONNECTION_FORCED"];
        logged(&world.adapter, &words).await;
        world.adapter.ready().await;
        let guest = Uuid::new_v4();
        let replies = world.broker.queue().await;
        let mut answers = world.broker.consume(&replies).await;
        let properties = BasicProperties::default().with_reply_to(replies.as_str().into());
        world.send_with(guest, properties, &world.upstream.message(guest, true, purpose)).await;
        event_of(&mut world, purpose).await;
        assert_eq!(answers.next().await.json()["status"], "succeeded");
        assert_eq!(world.upstream.received(guest), 1);
    }
    let lines = world.adapter.log().all();
    let records = lines.iter().filter(|line| line.contains("broker: not available"));
    let purposes = records.map(|line| {
        let record = harness::adapter::record(line).expect("a record");
        harness::adapter::field(&record, "purpose").expect("a purpose").to_owned()
    });
    assert_eq!(purposes.collect::<Vec<_>>(), lost, "each was lost once, and no other with it");
    one_consumer(&node, &world.names.commands, 256).await;
    end_settled(world, Some(&node)).await;
}

/// Messages that come in and dead letters may have headers as large as the broker takes; replies never do.
#[tokio::test]
async fn replies_have_frames_of_their_own_length() {
    let node = Node::shared().await;
    let world = World::start_on(PROGRAM, &node, "").await;
    for (purpose, length) in [("consume", "131072"), ("publish", "131072"), ("reply", "16384")] {
        let lengths = format!(
            "[F || [{{frame_max, F}}, {{client_properties, C}}] <- \
             rabbit_networking:connection_info_all([frame_max, client_properties]), {{_, _, N}} <- \
             [lists:keyfind(<<\"connection_name\">>, 1, C)], N == <<\"guest-connection-adapter {purpose}\">>]."
        );
        assert_eq!(node.eval(&lengths).await, format!("[{length}]"), "{purpose}");
    }
    end_settled(world, Some(&node)).await;
}

/// Publishes until the broker has a queue for it.
async fn publish_until_routed(broker: &Broker, exchange: &str, body: &[u8]) {
    let routed = async {
        loop {
            let sent = broker.channel().basic_publish(
                exchange.into(),
                "guest".into(),
                BasicPublishOptions { mandatory: true, ..<_>::default() },
                body,
                BasicProperties::default(),
            );
            if matches!(sent.await.unwrap().await.unwrap(), Confirmation::Ack(None)) {
                return;
            }
        }
    };
    timeout(DEADLINE, routed).await.expect("the binding is back");
}

#[tokio::test]
async fn what_is_deleted_beside_the_consumer_is_declared_again() {
    let mut world = World::start(PROGRAM, QUICK).await;
    let names = world.names.clone();
    let guest = Uuid::new_v4();
    let command = |key: &str| serde_json::to_vec(&world.upstream.message(guest, true, key)).unwrap();
    let commands = [command("k-1"), command("k-2")];
    let (queue, exchange) = (names.commands.as_str(), names.commands.as_str());
    let unbound =
        world.broker.channel().queue_unbind(queue.into(), exchange.into(), "#".into(), FieldTable::default());
    unbound.await.unwrap();
    publish_until_routed(&world.broker, exchange, &commands[0]).await;

    let deleted = world.broker.channel().exchange_delete(exchange.into(), ExchangeDeleteOptions::default());
    deleted.await.unwrap();
    let back = async {
        loop {
            // A channel does not survive such a question with the answer no.
            let (broker, options) = (world.broker.again().await, ExchangeDeclareOptions::default());
            let options = ExchangeDeclareOptions { passive: true, ..options };
            let found = broker.channel().exchange_declare(
                exchange.into(),
                ExchangeKind::Topic,
                options,
                FieldTable::default(),
            );
            if found.await.is_ok() {
                return;
            }
        }
    };
    timeout(DEADLINE, back).await.expect("the exchange is back");
    publish_until_routed(&world.broker, exchange, &commands[1]).await;
    assert_eq!(keys(&mut world, 2).await, ["k-1", "k-2"]);

    let options = QueueDeleteOptions::default();
    world.broker.channel().queue_delete(names.dead_letters.as_str().into(), options).await.unwrap();
    publish_until_routed(&world.broker, &names.dead_letters, b"a letter").await;
    // None of it was a fault: the consumer stayed.
    let faults = world.adapter.log().all();
    assert!(!faults.iter().any(|line| line.contains("broker: not available")));
    assert_eq!(world.broker.consumers(queue).await, 1);
    end_settled(world, None).await;
}

#[tokio::test]
async fn what_is_missing_and_not_declared_is_told_and_waited_for() {
    let mut world = World::start(PROGRAM, QUICK).await;
    let names = world.names.clone();
    world.adapter.terminate().await;
    world.setup = world.setup.config("amqp.declare = false");
    world.adapter = world.setup.start_ready().await;
    let exchange = names.dead_letters.as_str();
    let deleted = world.broker.channel().exchange_delete(exchange.into(), ExchangeDeleteOptions::default());
    deleted.await.unwrap();
    not_ready(&world.adapter, "amqp.consume", &format!("exchange \"{exchange}\": 404")).await;
    let options = ExchangeDeclareOptions { durable: true, ..<_>::default() };
    let declared = world.broker.channel().exchange_declare(
        exchange.into(),
        ExchangeKind::Topic,
        options,
        FieldTable::default(),
    );
    declared.await.unwrap();
    world.adapter.ready().await;
    let guest = Uuid::new_v4();
    world.send(guest, &world.upstream.message(guest, true, "k")).await;
    assert_eq!(keys(&mut world, 1).await, ["k"]);
    end_settled(world, None).await;
}

#[tokio::test]
async fn a_message_that_the_broker_refuses_holds_up_its_connection_alone() {
    let node = Node::shared().await;
    node.eval("application:set_env(rabbit, max_message_size, 20000).").await;
    let (mut world, proxy) = World::start_behind(PROGRAM, Some(&node), QUICK).await;
    let (large, small): (Uuid, Vec<Uuid>) = (Uuid::new_v4(), (0..6).map(|_| Uuid::new_v4()).collect());
    let body = serde_json::json!({"archived": true, "padding": "x".repeat(50_000)});
    world.upstream.simulator.script(Rule::patch().guest(large).times(1).status(200).json(body).applied());
    // Together they wait for the broker, and go out as one batch.
    proxy.freeze(Direction::Both);
    let mut client = world.client().await;
    for guest in small[..3].iter().chain([&large]).chain(&small[3..]) {
        let request = world.upstream.archive(*guest, &guest.to_string());
        client.archive_guest_connection(request).await.expect("an answer");
    }
    let request = world.upstream.unarchive(large, "behind");
    client.unarchive_guest_connection(request).await.expect("an answer");
    proxy.reset();
    proxy.thaw();
    let mut expected: Vec<String> = small.iter().map(Uuid::to_string).collect();
    expected.sort();
    assert_eq!(keys(&mut world, 6).await, expected);
    logged(&world.adapter, &["a message has ended the channel", "406"]).await;
    world.adapter.readiness(|_, body| body["parts"]["events"]["status"] == "degraded").await;
    // Once the broker takes it, it goes out, and what is behind it.
    node.eval("application:set_env(rabbit, max_message_size, 134217728).").await;
    assert_eq!(event_of(&mut world, &large.to_string()).await["sequence"], format!("{:020}", 1));
    assert_eq!(event_of(&mut world, "behind").await["sequence"], format!("{:020}", 2));
    world.adapter.readiness(|_, body| body["parts"]["events"]["status"] == "ready").await;
    end_settled(world, Some(&node)).await;
}
