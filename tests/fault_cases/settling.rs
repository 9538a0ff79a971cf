//! Cases 1 to 9: settling, and the connection to the broker. Where a literal duration is made small by configuration,
//! the comment says which one `make soak` uses.

use std::time::Duration;

use guest_connection_adapter::proto::ArchiveGuestConnectionRequest;
use harness::{DEADLINE, Direction, Node, World};
use lapin::BasicProperties;
use lapin::options::{ExchangeDeleteOptions, QueueDeleteOptions};
use simulator::Rule;
use uuid::Uuid;

use crate::PROGRAM;
use crate::support::{
    QUICK, emptied, end_settled, event_of, keys, logged, not_ready, one_consumer, prefetches, sent,
};

#[tokio::test]
async fn case_01_an_ack_on_a_closed_connection_is_none() {
    let node = Node::shared().await;
    let mut world = World::start_on(PROGRAM, &node, "").await;
    let guest = Uuid::new_v4();
    // The literal 5 s; closing the connections takes about 1 s.
    world.upstream.simulator.script(Rule::patch().guest(guest).delay(Duration::from_secs(3)));
    world.send(guest, &world.upstream.message(guest, true, "k")).await;
    world.upstream.simulator.wait_for(sent(guest), DEADLINE).await.expect("the PATCH is under way");
    node.ctl(&["close_all_connections", "test"]).await;
    world.reconnect().await;
    one_consumer(&node, &world.names.commands, 256).await;
    assert_eq!(keys(&mut world, 1).await, ["k"]);
    // Handed out again, it finds its record: acknowledged without a second PATCH.
    emptied(&node, &world.names.commands).await;
    assert_eq!(world.upstream.received(guest), 1);
    end_settled(world, Some(&node)).await;
}

#[tokio::test]
async fn case_02_a_cancelled_consumer_is_a_fault_and_comes_back() {
    let mut world = World::start(PROGRAM, "amqp.reconnect_delay_base = \"1s\"").await;
    let options = QueueDeleteOptions::default();
    world.broker.channel().queue_delete(world.names.commands.as_str().into(), options).await.unwrap();
    not_ready(&world.adapter, "amqp.consume", "the broker has ended the consumer").await;
    world.adapter.ready().await;
    assert_eq!(world.broker.consumers(&world.names.commands).await, 1);
    let guest = Uuid::new_v4();
    world.send(guest, &world.upstream.message(guest, true, "k")).await;
    assert_eq!(keys(&mut world, 1).await, ["k"]);
    end_settled(world, None).await;
}

#[tokio::test]
async fn case_03_a_broker_that_is_away_for_long_is_found_again() {
    let mut node = Node::shared().await;
    let mut world = World::start_on(PROGRAM, &node, "amqp.prefetch = 7").await;
    // One more adapter, under other names, for which the broker is away from the start.
    let late = world.upstream.setup(PROGRAM).broker_at(&world.broker.address(), &harness::Names::default());
    let (before, during, after) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    world.upstream.simulator.script(Rule::patch().guest(before).delay(Duration::from_secs(1)));
    world.send(before, &world.upstream.message(before, true, "before")).await;
    world.upstream.simulator.wait_for(sent(before), DEADLINE).await.expect("it is under way");
    node.down().await;
    let late = late.start().await;
    for adapter in [&world.adapter, &late] {
        for part in ["amqp.consume", "amqp.publish", "amqp.reply"] {
            not_ready(adapter, part, "no connection to the broker").await;
        }
    }
    // The other door goes on, and its event waits.
    let request = world.upstream.archive(during, "during");
    world.client().await.archive_guest_connection(request).await.expect("an answer");
    // Longer than the largest step, which is 1 s here: five failures in a row take more. The literal 15 min in the soak.
    let failures = |lines: &[String]| {
        let is = |line: &&String| line.contains("broker: not available") && line.contains("consume");
        lines.iter().filter(is).count()
    };
    let away = world.adapter.log().wait_until(DEADLINE, |lines| failures(lines) >= 6).await;
    away.expect("it goes on trying");
    node.up().await;
    world.adapter.ready().await;
    late.ready().await;
    world.reconnect().await;
    world.send(after, &world.upstream.message(after, true, "after")).await;
    assert_eq!(keys(&mut world, 3).await, ["after", "before", "during"]);
    assert_eq!(prefetches(&node, &world.names.commands).await, [7]);
    for guest in [before, during, after] {
        assert_eq!(world.upstream.received(guest), 1);
    }
    assert!(late.terminate().await.0.success());
    end_settled(world, Some(&node)).await;
}

#[tokio::test]
async fn case_04_an_error_on_a_publishing_channel_leaves_the_consumer_alone() {
    let mut world = World::start(PROGRAM, "").await;
    let exchange = world.names.events.clone();
    let options = ExchangeDeleteOptions::default();
    world.broker.channel().exchange_delete(exchange.as_str().into(), options).await.unwrap();
    let (first, second) = (Uuid::new_v4(), Uuid::new_v4());
    world.send(first, &world.upstream.message(first, true, "k-1")).await;
    // The exchange is declared again, and there is no queue at it: 404 first, then held.
    logged(&world.adapter, &["messages could not be published", "404"]).await;
    let held = |_: u16, body: &serde_json::Value| body["parts"]["events"]["status"] == "degraded";
    let body = world.adapter.readiness(held).await;
    assert_eq!(body["parts"]["amqp.consume"]["status"], "ready");
    world.send(second, &world.upstream.message(second, true, "k-2")).await;
    world.upstream.simulator.wait_for(sent(second), DEADLINE).await.expect("consuming goes on");
    world.events = world.broker.subscribe(&exchange).await;
    assert_eq!(keys(&mut world, 2).await, ["k-1", "k-2"]);
    let faults = world.adapter.log().all();
    assert!(!faults.iter().any(|line| line.contains("broker: not available")), "no connection was lost");
    end_settled(world, None).await;
}

#[tokio::test]
async fn case_05_a_message_is_settled_before_the_broker_loses_patience() {
    let node = Node::shared().await;
    // The literal 60 s; the broker looks every half second here.
    node.eval("application:set_env(rabbit, consumer_timeout, 2000).").await;
    let lines =
        "amqp.delivery_hold = \"1s\"\nupstream.attempt_timeout = \"20s\"\ngrpc.answer_timeout = \"20s\"";
    let mut world = World::start_on(PROGRAM, &node, lines).await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).times(1).hang());
    world.send(guest, &world.upstream.message(guest, true, "k")).await;
    world.upstream.simulator.wait_for(sent(guest), DEADLINE).await.expect("the PATCH hangs");
    emptied(&node, &world.names.commands).await;
    assert_eq!(world.upstream.received(guest), 1, "it hangs still");
    world.upstream.simulator.reset_connections();
    assert_eq!(keys(&mut world, 1).await, ["k"]);
    assert!(!world.adapter.log().all().iter().any(|line| line.contains("broker: not available")));

    // Where the bound is set wrong, the broker closes the channel, and another one is opened.
    world.adapter.terminate().await;
    world.setup = world.setup.config("amqp.delivery_hold = \"20s\"");
    world.adapter = world.setup.start_ready().await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).times(1).hang());
    world.send(guest, &world.upstream.message(guest, true, "k-2")).await;
    logged(&world.adapter, &["broker: not available", "406", "timeout"]).await;
    world.adapter.ready().await;
    world.upstream.simulator.reset_connections();
    assert_eq!(keys(&mut world, 1).await, ["k-2"]);
    node.eval("application:set_env(rabbit, consumer_timeout, 1800000).").await;
    end_settled(world, Some(&node)).await;
}

#[tokio::test]
async fn case_06_a_message_is_settled_once_and_on_its_own_channel() {
    let node = Node::shared().await;
    let (mut world, proxy) = World::start_behind(PROGRAM, Some(&node), QUICK).await;
    let mut letters = world.broker.consume(&world.names.dead_letters).await;
    // Confirms stay away, so that the end of waiting for them meets the end of the connection.
    for round in 0..5 {
        let guest = Uuid::new_v4();
        proxy.freeze(Direction::ToClient);
        let id = format!("m-{round}");
        let properties = BasicProperties::default().with_message_id(id.as_str().into());
        world.broker.publish(&world.names, "guest", properties, b"poison").await;
        proxy.reset();
        proxy.thaw();
        world.send(guest, &world.upstream.message(guest, true, &format!("k-{round}"))).await;
        event_of(&mut world, &format!("k-{round}")).await;
        // Placed once or more often, always as itself.
        while letters.next().await.properties.message_id().as_ref().unwrap().as_str() != id {}
        assert_eq!(world.upstream.received(guest), 1);
    }
    emptied(&node, &world.names.commands).await;
    one_consumer(&node, &world.names.commands, 256).await;
    end_settled(world, Some(&node)).await;
}

#[tokio::test]
async fn case_07_prefetch_is_bound_again_before_consuming() {
    let node = Node::shared().await;
    let mut world = World::start_on(PROGRAM, &node, "amqp.prefetch = 16").await;
    world.upstream.simulator.script(Rule::patch().delay(Duration::from_millis(20)));
    // The literal 400,000 in the soak.
    let guests: Vec<Uuid> = (0..1_000).map(|_| Uuid::new_v4()).collect();
    let messages = guests.iter().map(|guest| {
        let body = world.upstream.message(*guest, true, &guest.to_string());
        (guest.to_string(), BasicProperties::default(), serde_json::to_vec(&body).unwrap())
    });
    world.broker.publish_all(&world.names, messages.collect()).await;
    node.ctl(&["close_all_connections", "test"]).await;
    world.reconnect().await;
    one_consumer(&node, &world.names.commands, 16).await;
    let mut expected: Vec<String> = guests.iter().map(Uuid::to_string).collect();
    expected.sort();
    assert_eq!(keys(&mut world, guests.len()).await, expected);
    assert!(guests.iter().all(|guest| world.upstream.received(*guest) == 1));
    assert!(world.upstream.simulator.stats().max_outstanding <= 2 * 16, "no more than was handed out");
    end_settled(world, Some(&node)).await;
}

#[tokio::test]
async fn case_08_an_alarm_stops_publishing_and_nothing_else() {
    let node = Node::shared().await;
    let mut world = World::start_on(PROGRAM, &node, QUICK).await;
    // The literal 60 s: longer than a confirm may take, which is 1 s here.
    let alarms: [([&str; 2], [&str; 2]); 2] = [
        (["set_vm_memory_high_watermark", "0"], ["set_vm_memory_high_watermark", "0.9"]),
        (["set_disk_free_limit", "999999GB"], ["set_disk_free_limit", "50MB"]),
    ];
    for (raise, lower) in alarms {
        let (queued, called) = (Uuid::new_v4(), Uuid::new_v4());
        world.upstream.simulator.script(Rule::patch().guest(queued).delay(Duration::from_secs(3)));
        world.send(queued, &world.upstream.message(queued, true, &queued.to_string())).await;
        node.ctl(&raise).await;
        let request = world.upstream.archive(called, &called.to_string());
        world.client().await.archive_guest_connection(request).await.expect("the other door works");
        not_ready(&world.adapter, "amqp.publish", "blocked").await;
        logged(&world.adapter, &["messages could not be published", "blocked"]).await;
        // Acknowledgements go out meanwhile, on a connection of their own.
        emptied(&node, &world.names.commands).await;
        node.ctl(&lower).await;
        world.adapter.ready().await;
        let mut expected = [queued.to_string(), called.to_string()];
        expected.sort();
        assert_eq!(keys(&mut world, 2).await, expected);
        assert_eq!((world.upstream.received(queued), world.upstream.received(called)), (1, 1));
    }
    one_consumer(&node, &world.names.commands, 256).await;
    // An event may be there a little earlier than the acknowledgement.
    emptied(&node, &world.names.commands).await;
    end_settled(world, Some(&node)).await;
}

#[tokio::test]
async fn case_09_a_request_to_end_finishes_what_is_under_way() {
    let mut world = World::start(PROGRAM, "amqp.prefetch = 5").await;
    // The literal 3 s in the soak.
    world.upstream.simulator.script(Rule::patch().delay(Duration::from_secs(1)));
    let guests: Vec<Uuid> = (0..10).map(|_| Uuid::new_v4()).collect();
    let client = world.client().await;
    let calls: Vec<_> = guests[..5]
        .iter()
        .map(|guest| {
            let (mut client, request) = (client.clone(), world.upstream.archive(*guest, "k-grpc"));
            let request = ArchiveGuestConnectionRequest { idempotency_key: guest.to_string(), ..request };
            tokio::spawn(async move { client.archive_guest_connection(request).await })
        })
        .collect();
    for guest in &guests[5..] {
        world.send(*guest, &world.upstream.message(*guest, true, &guest.to_string())).await;
    }
    let under_way = |entries: &[simulator::Entry]| guests.iter().all(|guest| sent(*guest)(entries));
    world.upstream.simulator.wait_for(under_way, DEADLINE).await.expect("ten PATCHes are under way");
    // Beyond the prefetch: not begun, and left to the broker.
    let waiting: Vec<Uuid> = (0..3).map(|_| Uuid::new_v4()).collect();
    for guest in &waiting {
        world.send(*guest, &world.upstream.message(*guest, true, &guest.to_string())).await;
    }
    let (status, log) = world.adapter.terminate().await;
    assert!(status.success(), "{}", log.join("\n"));
    for call in calls {
        let answer = call.await.unwrap().expect("a call under way is answered");
        assert!(!answer.into_inner().replayed);
    }
    // Everything was published before the end, and acknowledged.
    assert_eq!(world.events.take(10).await.len(), 10);
    assert!(guests.iter().all(|guest| world.upstream.received(*guest) == 1));
    assert_eq!(world.broker.depth(&world.names.commands).await, 3);
    world.adapter = world.setup.start_ready().await;
    assert_eq!(world.events.take(3).await.len(), 3);
    end_settled(world, None).await;
}
