//! What is looked at from outside: the broker's consumers and queues, readiness, the logs.

use std::collections::BTreeMap;

use harness::{Adapter, DEADLINE, Node, World};
use serde_json::Value;
use simulator::Entry;
use tokio::time::timeout;
use uuid::Uuid;

/// Whether a PATCH for `guest` was received.
pub fn sent(guest: Uuid) -> impl Fn(&[Entry]) -> bool {
    move |entries| entries.iter().any(|entry| entry.is_patch_of(guest))
}

/// The configuration that makes faults show within seconds.
pub const QUICK: &str = r#"
amqp.heartbeat = "1s"
amqp.connect_timeout = "2s"
amqp.confirm_timeout = "1s"
amqp.check_interval = "300ms"
"#;

/// Waits until a part of readiness is not ready for a reason that holds `text`.
pub async fn not_ready(adapter: &Adapter, part: &str, text: &str) {
    let is = |status: u16, body: &Value| {
        let part = &body["parts"][part];
        status == 503
            && part["status"] == "not_ready"
            && part["detail"].as_str().is_some_and(|detail| detail.contains(text))
    };
    adapter.readiness(is).await;
}

/// Waits until the log holds a line with all `words`.
pub async fn logged(adapter: &Adapter, words: &[&str]) {
    let wanted = |line: &str| words.iter().all(|word| line.contains(word));
    if let Err(lines) = adapter.log().wait_for(DEADLINE, wanted).await {
        panic!("{words:?} is not in the log:\n{}", lines.join("\n"));
    }
}

/// The prefetch of every consumer of `queue`.
pub async fn prefetches(node: &Node, queue: &str) -> Vec<u64> {
    // Numbers alone would be written as text.
    let expression = format!(
        "[null | [proplists:get_value(prefetch_count, C) || C <- rabbit_amqqueue:consumers_all(<<\"/\">>), \
         element(4, proplists:get_value(queue_name, C)) == <<\"{queue}\">>]]."
    );
    let text = node.eval(&expression).await;
    let values: Vec<Option<u64>> =
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    values.into_iter().flatten().collect()
}

/// Waits until there is exactly one consumer, with its prefetch. The broker may keep a lost one until its heartbeat
/// fails.
pub async fn one_consumer(node: &Node, queue: &str, prefetch: u64) {
    let mut last = Vec::new();
    let one = async {
        while last != [prefetch] {
            last = prefetches(node, queue).await;
        }
    };
    assert!(timeout(DEADLINE, one).await.is_ok(), "the consumers' prefetches are {last:?}, not [{prefetch}]");
}

/// The messages of `queue`, ready or handed out.
pub async fn messages(node: &Node, queue: &str) -> u64 {
    let expression = format!(
        "{{ok, Q}} = rabbit_amqqueue:lookup({{resource, <<\"/\">>, queue, <<\"{queue}\">>}}), \
         [{{_, M}}] = rabbit_amqqueue:info(Q, [messages]), M."
    );
    let text = node.eval(&expression).await;
    text.parse().unwrap_or_else(|error| panic!("{error}: {text}"))
}

/// Waits until everything in `queue` is acknowledged.
pub async fn emptied(node: &Node, queue: &str) {
    let empty = async { while messages(node, queue).await > 0 {} };
    assert!(timeout(DEADLINE, empty).await.is_ok(), "{} messages are left", messages(node, queue).await);
}

/// Ends the adapter well, and asserts that no message is left and that none was settled twice or on the wrong channel.
/// `broker_log` is that of a node of the test's own, if there is one.
pub async fn end_settled(world: World, node: Option<&Node>) {
    let (broker, queue) = (world.broker.again().await, world.names.commands.clone());
    let log = world.adapter.log().clone();
    world.end().await;
    let gone = async { while broker.consumers(&queue).await > 0 {} };
    timeout(DEADLINE, gone).await.expect("the consumer is gone");
    assert_eq!(broker.depth(&queue).await, 0, "a message is left");
    let misplaced = |line: &&str| line.contains("unknown delivery tag");
    let lines = log.all().join("\n");
    assert_eq!(lines.lines().find(misplaced), None);
    if let Some(node) = node {
        assert_eq!(node.log().lines().find(misplaced), None);
    }
}

/// The keys of the next `count` commands that events tell of, sorted. An event may come twice, but under one id.
pub async fn keys(world: &mut World, count: usize) -> Vec<String> {
    let mut ids = BTreeMap::new();
    let all = async {
        while ids.len() < count {
            let event = world.events.next().await.json();
            let key = event["data"]["command"]["idempotency_key"].as_str().unwrap().to_owned();
            let id = event["id"].clone();
            assert_eq!(*ids.entry(key).or_insert_with(|| id.clone()), id);
        }
    };
    let in_time = timeout(2 * DEADLINE, all).await.is_ok();
    assert!(in_time, "events of {} commands instead of {count}", ids.len());
    ids.into_keys().collect()
}

/// Waits for the event of one command.
pub async fn event_of(world: &mut World, key: &str) -> Value {
    loop {
        let event = world.events.next().await.json();
        if event["data"]["command"]["idempotency_key"] == key {
            return event;
        }
    }
}
