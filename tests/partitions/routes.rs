//! Which way messages take.

use std::collections::HashMap;

use lapin::BasicProperties;
use uuid::Uuid;

use crate::support::Stage;

#[tokio::test]
async fn a_guest_stays_on_one_queue_and_guests_spread() {
    let stage = Stage::start().await;
    let adapter = stage.instance("amqp.partitions = 4").start_ready().await;
    assert!(adapter.terminate().await.0.success());
    let guests: Vec<_> = (0..200).map(|_| Uuid::new_v4()).collect();
    for _ in 0..2 {
        let messages = guests.iter().map(|guest| (guest.to_string(), BasicProperties::default(), Vec::new()));
        stage.broker.publish_all(&stage.names, messages.collect()).await;
    }
    let mut places = HashMap::new();
    for queue in stage.queues(4) {
        let count = stage.broker.depth_when(&queue, |depth| depth > 0).await;
        let mut inbox = stage.broker.consume(&queue).await;
        let arrived = inbox.take(count as usize).await;
        // Of 100 in the mean; 40 are seven standard deviations less.
        assert!(count >= 40, "{queue}: {count}");
        for message in arrived {
            let known = places.entry(message.routing_key).or_insert_with(|| queue.clone());
            assert_eq!(*known, queue);
        }
    }
    assert_eq!(places.len(), guests.len());
}

#[tokio::test]
async fn messages_by_other_keys_are_counted_and_worked_on() {
    let stage = Stage::start().await;
    let adapter = stage.instance("amqp.partitions = 2").start_ready().await;
    let guest = Uuid::new_v4();
    let keys = [guest.to_string(), "offboarding".to_owned(), guest.to_string().to_uppercase()];
    for (number, key) in keys.iter().enumerate() {
        let body = stage.upstream.message(guest, true, &format!("key-{number}"));
        let body = serde_json::to_vec(&body).unwrap();
        stage.broker.publish(&stage.names, key, BasicProperties::default(), &body).await;
    }
    stage.some(3).await;
    let metrics = adapter.metrics().await;
    assert!(metrics.contains("adapter_amqp_misrouted_total 2"), "{metrics}");
    let log = adapter.log().all();
    assert_eq!(log.iter().filter(|line| line.contains("the routing key of a message")).count(), 1);
    assert!(adapter.terminate().await.0.success());
}
