use std::sync::atomic::Ordering;

use guest_connection_adapter::amqp::Settings;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, DecimalValue, FieldArray, FieldTable, LongString};
use uuid::Uuid;

use crate::pipeline::Pipeline;
use crate::support::{Client, behind_proxy, in_time, not_ready, ready, settings};

pub fn body(guest: Uuid, key: &str) -> Vec<u8> {
    let requester = Uuid::from_u128(1);
    format!(
        r#"{{"requester_organization_id":"{requester}","guest_organization_id":"{guest}","archived":true,"idempotency_key":"{key}"}}"#
    )
    .into_bytes()
}

async fn send(client: &Client, settings: &Settings, guest: Uuid, key: &str) {
    let exchange = settings.names.commands_exchange.as_str();
    client.send(exchange, &guest.to_string(), BasicProperties::default(), &body(guest, key)).await;
}

/// Headers of every odd type, none of them needed.
fn odd_headers() -> FieldTable {
    let mut headers = FieldTable::default();
    let mut table = FieldTable::default();
    table.insert("deep".into(), AMQPValue::Void);
    for (name, value) in [
        ("table", AMQPValue::FieldTable(table)),
        ("array", AMQPValue::FieldArray(FieldArray::from(vec![AMQPValue::Boolean(true), AMQPValue::Void]))),
        ("void", AMQPValue::Void),
        ("bytes", AMQPValue::ByteArray(vec![0xff, 0x00].into())),
        ("decimal", AMQPValue::DecimalValue(DecimalValue { scale: 2, value: 5 })),
        ("text", AMQPValue::LongString(LongString::from(vec![0xff, 0xfe]))),
        ("traceparent", AMQPValue::Double(0.5)),
    ] {
        headers.insert(name.into(), value);
    }
    headers
}

#[tokio::test]
async fn commands_are_taken_in_order_and_acknowledged() {
    let settings = settings("order");
    let mut pipeline = Pipeline::start(&settings).await;
    pipeline.ready().await;
    let client = Client::new().await;
    let guest = Uuid::now_v7();
    for number in 0..20 {
        send(&client, &settings, guest, &format!("key-{number}")).await;
    }
    for _ in 0..20 {
        pipeline.patch().await;
    }
    let properties = BasicProperties::default().with_headers(odd_headers());
    let key = guest.to_string();
    client.send(&settings.names.commands_exchange, &key, properties, &body(guest, "odd")).await;
    pipeline.patch().await;
    pipeline.stop().await;
    assert!(client.left(&settings.names.commands_queue).await.is_empty(), "all are acknowledged");
    assert_eq!(client.counts(&settings.names.dead_letters_queue).await.0, 0);
}

#[tokio::test]
async fn a_cut_connection_loses_and_doubles_nothing() {
    let direct = settings("cut");
    let (proxy, address) = behind_proxy(&direct.address);
    let settings = Settings { address, ..direct };
    let mut pipeline = Pipeline::start_held(&settings).await;
    pipeline.ready().await;
    let client = Client::new().await;
    for number in 0..10 {
        send(&client, &settings, Uuid::now_v7(), &format!("key-{number}")).await;
    }
    pipeline.upstream.permits.add_permits(5);
    for _ in 0..5 {
        pipeline.patch().await;
    }
    proxy.cut();
    pipeline.upstream.permits.add_permits(100);
    for _ in 0..5 {
        pipeline.patch().await;
    }
    let watcher = Client::new().await;
    in_time("an empty queue", async {
        loop {
            ready(&pipeline.readiness, "amqp.consume").await;
            send(&client, &settings, Uuid::now_v7(), &Uuid::now_v7().to_string()).await;
            pipeline.patch().await;
            if watcher.counts(&settings.names.commands_queue).await.0 == 0 {
                break;
            }
        }
    })
    .await;
    assert!(pipeline.patches.try_recv().is_err(), "no second PATCH");
    pipeline.stop().await;
    assert!(watcher.left(&settings.names.commands_queue).await.is_empty(), "all are acknowledged");
}

#[tokio::test]
async fn consuming_stops_while_nothing_can_be_taken() {
    let settings = settings("suspended");
    let pipeline = Pipeline::start(&settings).await;
    pipeline.ready().await;
    let client = Client::new().await;
    pipeline.archiver.drain();
    send(&client, &settings, Uuid::now_v7(), "waits").await;
    not_ready(&pipeline.readiness, "amqp.consume", "suspended: DRAINING").await;
    ready(&pipeline.readiness, "amqp.consume").await;
    assert!(pipeline.resumes.load(Ordering::SeqCst) > 0);
    pipeline.stop().await;
    assert_eq!(client.left(&settings.names.commands_queue).await.len(), 1, "it went back");
    assert_eq!(client.counts(&settings.names.dead_letters_queue).await.0, 0);
}
