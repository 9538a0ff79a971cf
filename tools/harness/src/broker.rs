//! A real RabbitMQ, reached by the URI that `scripts/broker run` exports.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use futures::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, Consumer, Queue};
use tokio::time::timeout;
use uuid::Uuid;

use crate::DEADLINE;

/// Names that no other test uses.
#[derive(Debug, Clone)]
pub struct Names {
    /// The commands exchange and queue.
    pub commands: String,
    /// The dead letters exchange and queue.
    pub dead_letters: String,
    /// The events exchange.
    pub events: String,
}

impl Names {
    /// The names that the adapter uses by default.
    #[must_use]
    pub fn usual() -> Self {
        let name = |what: &str| format!("guest-connections.{what}");
        Self { commands: name("commands"), dead_letters: name("dead-letters"), events: name("events") }
    }
}

impl Default for Names {
    fn default() -> Self {
        let id = Uuid::new_v4().simple();
        Self {
            commands: format!("test.{id}.commands"),
            dead_letters: format!("test.{id}.dead-letters"),
            events: format!("test.{id}.events"),
        }
    }
}

/// Access to the broker.
pub struct Broker {
    uri: String,
    _connection: Connection,
    channel: Channel,
}

impl Broker {
    /// Connects to the broker of the environment.
    pub async fn connect() -> Self {
        let uri = std::env::var("AMQP_URI").expect(
            "AMQP_URI is not set: run the tests by `make test`, or `scripts/broker run -- cargo test`",
        );
        Self::connect_to(&uri).await
    }

    /// Connects to the broker at a URI with credentials.
    pub async fn connect_to(uri: &str) -> Self {
        let connection = Connection::connect(uri, ConnectionProperties::default()).await;
        let connection = connection.expect("the broker answers");
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirm mode");
        Self { uri: uri.to_owned(), _connection: connection, channel }
    }

    /// The URI without credentials, as the adapter's configuration wants it.
    #[must_use]
    pub fn address(&self) -> String {
        match self.uri.split_once('@') {
            Some((_, rest)) => format!("amqp://{rest}"),
            None => self.uri.clone(),
        }
    }

    /// The URI with credentials.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> SocketAddr {
        let address = self.address();
        let socket =
            address.trim_start_matches("amqp://").split('/').next().and_then(|text| text.parse().ok());
        socket.unwrap_or_else(|| panic!("{address} is not a socket's address"))
    }

    /// A new connection to the same broker.
    pub async fn again(&self) -> Self {
        Self::connect_to(&self.uri).await
    }

    /// A connection to the same broker by way of another address.
    pub async fn by_way_of(&self, address: SocketAddr) -> Self {
        let direct = self.socket().to_string();
        Self::connect_to(&self.uri.replace(&direct, &address.to_string())).await
    }

    /// The channel, for whatever else a test wants to do.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Publishes a command and waits for the broker's confirm.
    pub async fn publish(&self, names: &Names, routing_key: &str, properties: BasicProperties, body: &[u8]) {
        let publish = self.channel.basic_publish(
            names.commands.as_str().into(),
            routing_key.into(),
            BasicPublishOptions { mandatory: true, ..<_>::default() },
            body,
            properties,
        );
        let confirm = publish.await.expect("published").await.expect("a confirm");
        assert!(matches!(confirm, Confirmation::Ack(None)), "the command was not taken: {confirm:?}");
    }

    /// Publishes many messages, `(routing key, properties, body)`, and waits for all confirms.
    pub async fn publish_all(&self, names: &Names, messages: Vec<(String, BasicProperties, Vec<u8>)>) {
        let mut confirms = Vec::with_capacity(messages.len());
        for (routing_key, properties, body) in messages {
            let publish = self.channel.basic_publish(
                names.commands.as_str().into(),
                routing_key.as_str().into(),
                BasicPublishOptions { mandatory: true, ..<_>::default() },
                &body,
                properties,
            );
            confirms.push(publish.await.expect("published"));
        }
        for confirm in confirms {
            assert!(matches!(confirm.await.expect("a confirm"), Confirmation::Ack(None)));
        }
    }

    /// Declares a queue of the test's own, bound to everything of `exchange`, which must be there.
    pub async fn subscribe(&self, exchange: &str) -> Inbox {
        let queue = self.queue().await;
        self.bind(&queue, exchange).await;
        self.consume(&queue).await
    }

    /// Declares a queue of the test's own, bound to everything of `exchange`, that outlives connections and restarts.
    pub async fn lasting_queue(&self, exchange: &str) -> String {
        let name = format!("test.{}", Uuid::new_v4().simple());
        let options = QueueDeclareOptions { durable: true, ..<_>::default() };
        let declared = self.channel.queue_declare(name.as_str().into(), options, FieldTable::default());
        declared.await.expect("declared");
        self.bind(&name, exchange).await;
        name
    }

    /// Binds a queue to everything of `exchange`.
    pub async fn bind(&self, queue: &str, exchange: &str) {
        let options = QueueBindOptions::default();
        let bound = self.channel.queue_bind(
            queue.into(),
            exchange.into(),
            "#".into(),
            options,
            FieldTable::default(),
        );
        bound.await.expect("bound");
    }

    /// Declares a queue of the test's own, for replies.
    pub async fn queue(&self) -> String {
        let options = QueueDeclareOptions { exclusive: true, auto_delete: false, ..<_>::default() };
        let name = format!("test.{}", Uuid::new_v4().simple());
        self.channel
            .queue_declare(name.as_str().into(), options, FieldTable::default())
            .await
            .expect("declared");
        name
    }

    /// Takes messages from a queue.
    pub async fn consume(&self, queue: &str) -> Inbox {
        let options = BasicConsumeOptions { no_ack: true, ..<_>::default() };
        let consume =
            self.channel.basic_consume(queue.into(), ShortString::default(), options, FieldTable::default());
        Inbox { consumer: consume.await.expect("a consumer"), kept: VecDeque::new() }
    }

    /// How many messages lie ready in a queue.
    pub async fn depth(&self, queue: &str) -> u32 {
        self.look_at(queue).await.message_count()
    }

    /// How many consumers a queue has.
    pub async fn consumers(&self, queue: &str) -> u32 {
        self.look_at(queue).await.consumer_count()
    }

    async fn look_at(&self, queue: &str) -> Queue {
        let options = QueueDeclareOptions { passive: true, ..<_>::default() };
        let declared = self.channel.queue_declare(queue.into(), options, FieldTable::default()).await;
        declared.expect("the queue is there")
    }

    /// How many messages lie in a queue that are handed out to nobody, as soon as it is as wanted.
    pub async fn depth_when(&self, queue: &str, wanted: impl Fn(u32) -> bool) -> u32 {
        let found = async {
            loop {
                let depth = self.depth(queue).await;
                if wanted(depth) {
                    return depth;
                }
                crate::look_again().await;
            }
        };
        timeout(DEADLINE, found).await.expect("the depth of the queue becomes as wanted")
    }
}

/// A message that arrived.
#[derive(Debug, Clone)]
pub struct Arrived {
    /// Its routing key.
    pub routing_key: String,
    /// Its properties.
    pub properties: BasicProperties,
    /// Its body.
    pub body: Vec<u8>,
}

impl Arrived {
    /// The body as JSON.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    /// A header as text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        let value = self.properties.headers().as_ref()?.inner().get(name)?;
        value
            .as_long_string()
            .map(ToString::to_string)
            .or_else(|| value.as_short_string().map(ToString::to_string))
    }
}

impl Arrived {
    /// A header that is a table, as names and texts.
    #[must_use]
    pub fn table(&self, name: &str) -> BTreeMap<String, String> {
        let headers = self.properties.headers().as_ref();
        let Some(AMQPValue::FieldTable(table)) = headers.and_then(|headers| headers.inner().get(name)) else {
            return BTreeMap::new();
        };
        table.inner().iter().map(|(name, value)| (name.to_string(), text(value))).collect()
    }
}

fn text(value: &AMQPValue) -> String {
    match value {
        AMQPValue::LongString(text) => text.to_string(),
        AMQPValue::ShortString(text) => text.to_string(),
        AMQPValue::FieldArray(array) => array.as_slice().iter().map(text).collect::<Vec<_>>().join(","),
        other => format!("{other:?}"),
    }
}

fn arrived(delivery: Delivery) -> Arrived {
    Arrived {
        routing_key: delivery.routing_key.to_string(),
        properties: delivery.properties,
        body: delivery.data,
    }
}

/// Messages of a queue, as they arrive.
pub struct Inbox {
    consumer: Consumer,
    /// Messages of an earlier consumer.
    kept: VecDeque<Arrived>,
}

impl Inbox {
    /// The next message.
    pub async fn next(&mut self) -> Arrived {
        self.next_within(DEADLINE).await.expect("a message in time")
    }

    /// The next message, or nothing if none comes in time.
    pub async fn next_within(&mut self, deadline: Duration) -> Option<Arrived> {
        if let Some(kept) = self.kept.pop_front() {
            return Some(kept);
        }
        let delivery = timeout(deadline, self.consumer.next()).await.ok()??.expect("a delivery");
        Some(arrived(delivery))
    }

    /// What has come before the connection ended, to be had from `next` first.
    pub(crate) fn succeed(&mut self, mut earlier: Self) {
        self.kept = earlier.kept;
        while let Some(Some(Ok(delivery))) = earlier.consumer.next().now_or_never() {
            self.kept.push_back(arrived(delivery));
        }
    }

    /// The next `count` messages.
    pub async fn take(&mut self, count: usize) -> Vec<Arrived> {
        let mut arrived = Vec::with_capacity(count);
        while arrived.len() < count {
            arrived.push(self.next().await);
        }
        arrived
    }
}
