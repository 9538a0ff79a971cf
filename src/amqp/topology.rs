//! Exchanges, queues and bindings. What exists in another form is reported, never deleted.

use std::time::Duration;

use lapin::options::{ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Channel, ExchangeKind};

use super::link::within;
use super::settings::{Names, Settings};

/// Deliveries of one message after which the broker gives it up. There from the first day, since adding it later means
/// another queue; high, since a channel that is closed hands back everything that was prefetched.
const DELIVERY_LIMIT: i32 = 1000;

/// What consuming needs: commands, and the dead letters into which they fall.
///
/// # Errors
/// Which object cannot be had and why; the channel is of no more use then.
pub async fn consuming(channel: &Channel, settings: &Settings) -> Result<(), String> {
    let topology = Topology { channel, names: &settings.names, patience: settings.connect_timeout };
    if !settings.declare {
        topology.exchange_exists(&settings.names.dead_letters_exchange).await?;
        return topology.queue_exists(&settings.names.commands_queue).await;
    }
    topology.dead_letters().await?;
    topology.commands().await
}

/// What publishing needs: the exchanges of events and of dead letters.
///
/// # Errors
/// As [`consuming`].
pub async fn publishing(channel: &Channel, settings: &Settings) -> Result<(), String> {
    let topology = Topology { channel, names: &settings.names, patience: settings.connect_timeout };
    if !settings.declare {
        topology.exchange_exists(&settings.names.dead_letters_exchange).await?;
        return topology.exchange_exists(&settings.names.events_exchange).await;
    }
    topology.dead_letters().await?;
    topology.exchange(&settings.names.events_exchange).await
}

struct Topology<'a> {
    channel: &'a Channel,
    names: &'a Names,
    patience: Duration,
}

impl Topology<'_> {
    async fn dead_letters(&self) -> Result<(), String> {
        let Names { dead_letters_exchange: exchange, dead_letters_queue: queue, .. } = self.names;
        self.exchange(exchange).await?;
        self.queue(queue, &[]).await?;
        self.bind(queue, exchange).await
    }

    async fn commands(&self) -> Result<(), String> {
        let Names { commands_exchange: exchange, commands_queue: queue, .. } = self.names;
        let dead_letters = self.names.dead_letters_exchange.as_str();
        self.exchange(exchange).await?;
        self.queue(
            queue,
            &[
                ("x-delivery-limit", AMQPValue::LongInt(DELIVERY_LIMIT)),
                ("x-dead-letter-exchange", text(dead_letters)),
                ("x-dead-letter-strategy", text("at-least-once")),
                ("x-overflow", text("reject-publish")),
            ],
        )
        .await?;
        self.bind(queue, exchange).await
    }

    async fn exchange(&self, name: &str) -> Result<(), String> {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        self.declare_exchange(name, options).await
    }

    async fn exchange_exists(&self, name: &str) -> Result<(), String> {
        let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        self.declare_exchange(name, options).await
    }

    async fn declare_exchange(&self, name: &str, options: ExchangeDeclareOptions) -> Result<(), String> {
        let object = format!("exchange \"{name}\"");
        let (name, arguments) = (short(&object, name)?, FieldTable::default());
        let declared = self.channel.exchange_declare(name, ExchangeKind::Topic, options, arguments);
        within(self.patience, &object, declared).await
    }

    async fn queue(&self, name: &str, arguments: &[(&str, AMQPValue)]) -> Result<(), String> {
        let mut table = FieldTable::default();
        table.insert("x-queue-type".into(), text("quorum"));
        for (argument, value) in arguments {
            table.insert((*argument).into(), value.clone());
        }
        let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        self.declare_queue(name, options, table).await
    }

    async fn queue_exists(&self, name: &str) -> Result<(), String> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        self.declare_queue(name, options, FieldTable::default()).await
    }

    async fn declare_queue(
        &self,
        name: &str,
        options: QueueDeclareOptions,
        arguments: FieldTable,
    ) -> Result<(), String> {
        let object = format!("queue \"{name}\"");
        let declared = self.channel.queue_declare(short(&object, name)?, options, arguments);
        within(self.patience, &object, declared).await.map(|_| ())
    }

    async fn bind(&self, queue: &str, exchange: &str) -> Result<(), String> {
        let object = format!("binding of queue \"{queue}\" to exchange \"{exchange}\"");
        let (queue, exchange) = (short(&object, queue)?, short(&object, exchange)?);
        let options = QueueBindOptions::default();
        let bound = self.channel.queue_bind(queue, exchange, "#".into(), options, FieldTable::default());
        within(self.patience, &object, bound).await
    }
}

fn short(object: &str, name: &str) -> Result<ShortString, String> {
    ShortString::try_new(name).map_err(|error| format!("{object}: {error}"))
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}
