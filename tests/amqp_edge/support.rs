//! A second, plain client of the broker, and what the tests wait with.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use guest_connection_adapter::amqp::{Address, BrokerPublisher, Names, Settings};
use guest_connection_adapter::domain::command::{Command, CommandId, IdempotencyKey, OrganizationId};
use guest_connection_adapter::domain::connection::Connection as GuestConnection;
use guest_connection_adapter::domain::message::{CommandSummary, Event, EventKind, Message};
use guest_connection_adapter::domain::record::State;
use guest_connection_adapter::domain::retry::Backoff;
use guest_connection_adapter::domain::trace::TraceContext;
use guest_connection_adapter::service::readiness::{Condition, Readiness};
use guest_connection_adapter::wire::cloudevents::Origin;
use harness::FaultProxy;
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::FieldTable;
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The longest that anything may take.
pub const DEADLINE: Duration = Duration::from_secs(20);

/// Awaits `work`, which must end in time.
pub async fn in_time<T>(what: &str, work: impl Future<Output = T>) -> T {
    timeout(DEADLINE, work).await.unwrap_or_else(|_| panic!("{what}: not within {DEADLINE:?}"))
}

pub fn uri() -> String {
    std::env::var("AMQP_URI").expect(
        "AMQP_URI names the broker to test against; `scripts/broker run -- cargo test --test amqp_edge` sets it",
    )
}

/// Settings with names of their own, and waits short enough for a test.
pub fn settings(test: &str) -> Settings {
    let (address, credentials) = Address::parse(&uri()).expect("AMQP_URI");
    let (username, password) = credentials.expect("AMQP_URI has credentials");
    let unique = format!("{test}-{}", Uuid::now_v7().simple());
    let origin = Origin { source: "/adapter".to_owned(), type_prefix: "com.example".to_owned() };
    Settings {
        names: Names {
            commands_exchange: format!("{unique}.commands"),
            commands_queue: format!("{unique}.commands"),
            dead_letters_exchange: format!("{unique}.dead-letters"),
            dead_letters_queue: format!("{unique}.dead-letters"),
            events_exchange: format!("{unique}.events"),
        },
        backoff: Backoff { delay_base: Duration::from_millis(50), delay_max: Duration::from_millis(200) },
        confirm_timeout: Duration::from_secs(3),
        connect_timeout: Duration::from_secs(3),
        grace: Duration::from_millis(500),
        ..Settings::new(address, username, password, origin)
    }
}

/// A proxy before a broker, and the broker's address by it.
pub fn behind_proxy(direct: &Address) -> (FaultProxy, Address) {
    let socket = format!("{}:{}", direct.host, direct.port).parse().expect("a socket's address");
    let proxy = FaultProxy::start(socket);
    let address = Address { port: proxy.address().port(), ..direct.clone() };
    (proxy, address)
}

/// A publisher that is up.
pub async fn publisher(settings: &Settings) -> (BrokerPublisher, Readiness, CancellationToken) {
    let readiness = Readiness::default();
    let publisher = BrokerPublisher::new(Arc::new(settings.clone()), &readiness);
    let shutdown = CancellationToken::new();
    let (running, stop) = (publisher.clone(), shutdown.clone());
    tokio::spawn(async move { running.run(stop).await });
    ready(&readiness, "amqp.publish").await;
    ready(&readiness, "amqp.reply").await;
    (publisher, readiness, shutdown)
}

/// Waits until a part is in a condition that satisfies `is`.
pub async fn condition(readiness: &Readiness, part: &str, is: impl Fn(&Condition) -> bool) -> Condition {
    let mut changes = readiness.subscribe();
    let conditions = changes.wait_for(|conditions| conditions.get(part).is_some_and(&is));
    let conditions = match timeout(DEADLINE, conditions).await {
        Ok(conditions) => conditions.expect("readiness lives"),
        Err(_) => panic!("{part}: {:?}", readiness.conditions()),
    };
    conditions[part].clone()
}

pub async fn ready(readiness: &Readiness, part: &str) {
    condition(readiness, part, |condition| *condition == Condition::Ready).await;
}

/// Waits until a part is not ready for a reason that holds `text`.
pub async fn not_ready(readiness: &Readiness, part: &str, text: &str) -> String {
    let is =
        |condition: &Condition| matches!(condition, Condition::NotReady(reason) if reason.contains(text));
    match condition(readiness, part, is).await {
        Condition::NotReady(reason) => reason,
        _ => unreachable!("it was waited for"),
    }
}

/// A client of its own.
pub struct Client {
    _connection: Connection,
    pub channel: Channel,
}

impl Client {
    pub async fn new() -> Self {
        let uri = uri();
        let connection = Connection::connect(&uri, ConnectionProperties::default());
        let connection = in_time("connecting", connection).await.expect("a connection");
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        Self { _connection: connection, channel }
    }

    /// Declares a transient queue bound to `exchange`, and consumes from it.
    pub async fn subscribe(&self, exchange: &str, key: &str) -> (String, lapin::Consumer) {
        let queue = self.queue().await;
        let options = QueueBindOptions::default();
        self.channel
            .queue_bind(queue.as_str().into(), exchange.into(), key.into(), options, FieldTable::default())
            .await
            .expect("bound");
        let consumer = self.consume(&queue).await;
        (queue, consumer)
    }

    /// A transient queue.
    pub async fn queue(&self) -> String {
        let options = QueueDeclareOptions { auto_delete: true, ..QueueDeclareOptions::default() };
        let queue = self.channel.queue_declare("".into(), options, FieldTable::default());
        queue.await.expect("a queue").name().to_string()
    }

    pub async fn consume(&self, queue: &str) -> lapin::Consumer {
        let options = BasicConsumeOptions::default();
        let consumer = self.channel.basic_consume(queue.into(), "".into(), options, FieldTable::default());
        consumer.await.expect("a consumer")
    }

    /// Sends to `exchange`; the broker has it when this returns.
    pub async fn send(&self, exchange: &str, key: &str, properties: BasicProperties, body: &[u8]) {
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let sent = self.channel.basic_publish(exchange.into(), key.into(), options, body, properties);
        let confirmation = sent.await.expect("sent").await.expect("confirmed");
        assert!(confirmation.is_ack());
        assert_eq!(confirmation.take_message(), None, "there is a queue");
    }

    /// How many messages of a queue are ready, and how many consumers it has.
    pub async fn counts(&self, queue: &str) -> (u32, u32) {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = self.channel.queue_declare(queue.into(), options, FieldTable::default());
        let queue = queue.await.expect("the queue is there");
        (queue.message_count(), queue.consumer_count())
    }
}

impl Client {
    /// What is left in a queue that the adapter has consumed from, in order. The broker takes messages back some time
    /// after their channel is closed: with the consumer.
    pub async fn left(&self, queue: &str) -> Vec<Vec<u8>> {
        in_time("the end of the consumer", async { while self.counts(queue).await.1 > 0 {} }).await;
        let last = Uuid::now_v7().to_string();
        self.send("", queue, BasicProperties::default(), last.as_bytes()).await;
        let mut consumer = self.consume(queue).await;
        let mut left = Vec::new();
        loop {
            let data = next(&mut consumer).await.data;
            if data == last.as_bytes() {
                return left;
            }
            left.push(data);
        }
    }
}

/// The next message, acknowledged.
pub async fn next(consumer: &mut lapin::Consumer) -> Delivery {
    let delivery = in_time("a message", consumer.next()).await.expect("a message").expect("a message");
    assert!(delivery.acker.ack(BasicAckOptions::default()).await.expect("acknowledged"));
    delivery
}

/// An event about a guest of its own.
pub fn event(kind: EventKind) -> Arc<Message> {
    let now = chrono::Utc::now();
    let organization = || OrganizationId(Uuid::now_v7());
    let command = Command {
        requester: organization(),
        connection: GuestConnection { target: organization(), guest: organization() },
        archived: true,
        key: IdempotencyKey::generated(Uuid::now_v7()),
        issue_time: None,
        expire_time: None,
    };
    Arc::new(Message::Event(Box::new(Event {
        id: Uuid::now_v7(),
        kind,
        sequence: 1,
        time: now,
        trace: TraceContext::default(),
        correlation_id: "conversation".to_owned(),
        command: CommandSummary {
            id: CommandId(Uuid::now_v7()),
            command,
            state: State::Succeeded,
            effective_time: now,
            attempts: 1,
            generation: 1,
        },
        guest_connection: None,
        incomplete: false,
    })))
}
