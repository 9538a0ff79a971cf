use std::sync::Arc;

use guest_connection_adapter::amqp::{BrokerPublisher, Settings};
use guest_connection_adapter::service::readiness::Readiness;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::pipeline::Pipeline;
use crate::support::{Client, not_ready, ready, settings};

/// A publisher that need not come up.
fn start(settings: Settings) -> (Readiness, tokio_util::sync::DropGuard) {
    let readiness = Readiness::default();
    let publisher = BrokerPublisher::new(Arc::new(settings), &readiness);
    let shutdown = CancellationToken::new();
    let stop = shutdown.clone();
    tokio::spawn(async move { publisher.run(stop).await });
    (readiness, shutdown.drop_guard())
}

#[tokio::test]
async fn what_is_declared_can_be_declared_again() {
    let settings = settings("topology");
    for _ in 0..2 {
        let pipeline = Pipeline::start(&settings).await;
        pipeline.ready().await;
        pipeline.stop().await;
    }
    let client = Client::new().await;
    assert_eq!(client.counts(&settings.names.commands_queue).await.0, 0);
    assert_eq!(client.counts(&settings.names.dead_letters_queue).await.0, 0);
}

#[tokio::test]
async fn a_queue_in_another_form_is_named_and_left_alone() {
    let settings = settings("conflict");
    let client = Client::new().await;
    let queue = settings.names.commands_queue.as_str();
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    client.channel.queue_declare(queue.into(), options, FieldTable::default()).await.expect("declared");
    client.send("", queue, Default::default(), b"precious").await;

    let pipeline = Pipeline::start(&settings).await;
    let reason = not_ready(&pipeline.readiness, "amqp.consume", "406").await;
    assert!(reason.contains(&format!("queue \"{queue}\"")), "{reason}");
    assert!(reason.contains("inequivalent arg"), "{reason}");
    pipeline.stop().await;
    assert_eq!(client.counts(queue).await.0, 1);
}

#[tokio::test]
async fn without_declaring_the_dead_letter_exchange_is_demanded() {
    let declaring = settings("passive");
    let settings = Settings { declare: false, ..declaring.clone() };
    let pipeline = Pipeline::start(&settings).await;
    let exchange = &settings.names.dead_letters_exchange;
    let reason = not_ready(&pipeline.readiness, "amqp.consume", "404").await;
    assert!(reason.contains(&format!("exchange \"{exchange}\"")), "{reason}");

    let declarer = Pipeline::start(&declaring).await;
    declarer.ready().await;
    ready(&pipeline.readiness, "amqp.consume").await;
    declarer.stop().await;
    pipeline.stop().await;
}

#[tokio::test]
async fn refused_credentials_are_told_without_the_password() {
    let settings =
        Settings { password: SecretString::from("s3cret-and-wrong".to_owned()), ..settings("refused") };
    let (readiness, _guard) = start(settings);
    let reason = not_ready(&readiness, "amqp.publish", "refused the credentials").await;
    assert!(!reason.contains("s3cret"), "{reason}");
}

#[tokio::test]
async fn a_missing_vhost_is_named() {
    let mut settings = settings("vhost");
    settings.address.vhost = "nowhere".to_owned();
    let (readiness, _guard) = start(settings);
    not_ready(&readiness, "amqp.publish", "vhost \"nowhere\"").await;
}
