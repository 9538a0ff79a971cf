//! Cases 15 to 21: messages that cannot be worked on, retries, dead letters.

use harness::World;
use lapin::BasicProperties;
use lapin::types::{AMQPValue, ByteArray, FieldTable};
use uuid::Uuid;

use crate::{PROGRAM, rewriter};

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
    world.end().await;
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
    world.end().await;
}
