use std::sync::Arc;

use guest_connection_adapter::amqp::{BrokerPublisher, Settings};
use guest_connection_adapter::service::readiness::Readiness;
use secrecy::SecretString;
use tokio_util::sync::CancellationToken;

use crate::pipeline::Pipeline;
use crate::support::{Client, not_ready, settings};

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
