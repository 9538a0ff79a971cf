//! Exchanges, queues and bindings. What exists in another form is reported, never deleted; only the queues of a generation
//! that is left are, at an operator's word.

use std::time::Duration;

use lapin::options::{
    ExchangeBindOptions, ExchangeDeclareOptions, ExchangeDeleteOptions, ExchangeUnbindOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{Channel, ExchangeKind};
use tokio::time::timeout;

use super::fault;
use super::generation::Generation;
use super::link::{Channels, within};
use super::settings::{Names, Settings};

/// Deliveries of one message after which the broker gives it up. There from the first day, since adding it later means
/// another queue; high, since a channel that is closed hands back everything that was prefetched.
const DELIVERY_LIMIT: i32 = 1000;

/// The kind of exchange that keeps messages of one routing key together, by a plugin that comes with RabbitMQ.
const HASH_KIND: &str = "x-consistent-hash";

/// The share of routing keys that falls to each queue of such an exchange.
const WEIGHT: &str = "1";

/// What the broker says of a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Look {
    /// Messages that are handed out to nobody.
    pub ready: u32,
    /// Its consumers; of a queue with a single active one no more than that.
    pub consumers: u32,
}

/// What consuming needs: commands, and the dead letters into which they fall.
///
/// # Errors
/// Which object cannot be had and why; the channel is of no more use then.
pub async fn consuming(channel: &Channel, settings: &Settings) -> Result<(), String> {
    let topology = Topology { channel, names: &settings.names, patience: settings.connect_timeout };
    let generation = Generation(settings.partitions);
    if !settings.declare {
        topology.exchange_exists(&settings.names.dead_letters_exchange).await?;
        if let Some(exchange) = generation.exchange(&settings.names) {
            topology.exchange_exists(&exchange).await?;
        }
        for source in generation.sources(&settings.names) {
            topology.queue_exists(&source.queue).await?;
        }
        return Ok(());
    }
    topology.dead_letters().await?;
    topology.commands(generation).await
}

/// Looks at a queue on a channel of its own. None if it is not there.
///
/// # Errors
/// Why that cannot be told.
pub async fn look(channels: &Channels, queue: &str, patience: Duration) -> Result<Option<Look>, String> {
    let object = format!("queue \"{queue}\"");
    let channel = channels.open(patience).await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let declared = channel.queue_declare(short(&object, queue)?, options, FieldTable::default());
    let looked = match timeout(patience, declared).await {
        Ok(Ok(queue)) => Ok(Some(Look { ready: queue.message_count(), consumers: queue.consumer_count() })),
        // The broker has closed the channel with that.
        Ok(Err(error)) if fault::is_not_found(&error) => return Ok(None),
        Ok(Err(error)) => Err(fault::about(&object, &error)),
        Err(_) => Err(format!("{object}: no answer from the broker within {patience:?}")),
    };
    let _ = timeout(patience, channel.close(200, "OK".into())).await;
    looked
}

/// Deletes a queue with whatever it holds, on a channel of its own. One that is not there is as good as deleted.
///
/// # Errors
/// Why it is still there.
pub async fn delete_queue(channels: &Channels, queue: &str, patience: Duration) -> Result<(), String> {
    let object = format!("deleting queue \"{queue}\"");
    let channel = channels.open(patience).await?;
    let deleted = channel.queue_delete(short(&object, queue)?, QueueDeleteOptions::default());
    within(patience, &object, deleted).await?;
    let _ = timeout(patience, channel.close(200, "OK".into())).await;
    Ok(())
}

/// Takes away the binding by which a generation gets commands. One that is not there is as good as taken away.
///
/// # Errors
/// Why it is still there.
pub async fn unbind(channel: &Channel, settings: &Settings, generation: Generation) -> Result<(), String> {
    let Names { commands_exchange: topic, commands_queue: queue, .. } = &settings.names;
    let patience = settings.connect_timeout;
    let object = format!("taking away the binding to exchange \"{topic}\"");
    let source = short(&object, topic)?;
    let arguments = FieldTable::default();
    if let Some(exchange) = generation.exchange(&settings.names) {
        let (exchange, options) = (short(&object, &exchange)?, ExchangeUnbindOptions::default());
        let unbound = channel.exchange_unbind(exchange, source, "#".into(), options, arguments);
        return within(patience, &object, unbound).await;
    }
    let unbound = channel.queue_unbind(short(&object, queue)?, source, "#".into(), arguments);
    within(patience, &object, unbound).await
}

/// Deletes the hash exchange of a generation, if it has one.
///
/// # Errors
/// Why it is still there.
pub async fn delete_exchange(
    channel: &Channel,
    settings: &Settings,
    generation: Generation,
) -> Result<(), String> {
    let Some(exchange) = generation.exchange(&settings.names) else { return Ok(()) };
    let object = format!("deleting exchange \"{exchange}\"");
    let deleted = channel.exchange_delete(short(&object, &exchange)?, ExchangeDeleteOptions::default());
    within(settings.connect_timeout, &object, deleted).await
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
        self.bind(queue, exchange, "#").await
    }

    /// The way of commands. What is bound to the producers' exchange is bound last: a message never meets a way that leads
    /// nowhere, or to some of the partitions only.
    async fn commands(&self, generation: Generation) -> Result<(), String> {
        let Names { commands_exchange: topic, dead_letters_exchange: dead_letters, .. } = self.names;
        self.exchange(topic).await?;
        let mut arguments = vec![
            ("x-delivery-limit", AMQPValue::LongInt(DELIVERY_LIMIT)),
            ("x-dead-letter-exchange", text(dead_letters)),
            ("x-dead-letter-strategy", text("at-least-once")),
            ("x-overflow", text("reject-publish")),
        ];
        let Some(hash) = generation.exchange(self.names) else {
            let queue = self.names.commands_queue.as_str();
            self.queue(queue, &arguments).await?;
            return self.bind(queue, topic, "#").await;
        };
        arguments.push(("x-single-active-consumer", AMQPValue::Boolean(true)));
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        self.declare_exchange(&hash, ExchangeKind::Custom(HASH_KIND.to_owned()), options).await?;
        for source in generation.sources(self.names) {
            self.queue(&source.queue, &arguments).await?;
            self.bind(&source.queue, &hash, WEIGHT).await?;
        }
        self.bind_exchange(&hash, topic).await
    }

    async fn exchange(&self, name: &str) -> Result<(), String> {
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        self.declare_exchange(name, ExchangeKind::Topic, options).await
    }

    /// Of which kind it is does not matter to the broker when it is only looked for.
    async fn exchange_exists(&self, name: &str) -> Result<(), String> {
        let options = ExchangeDeclareOptions { passive: true, ..ExchangeDeclareOptions::default() };
        self.declare_exchange(name, ExchangeKind::Topic, options).await
    }

    async fn declare_exchange(
        &self,
        name: &str,
        kind: ExchangeKind,
        options: ExchangeDeclareOptions,
    ) -> Result<(), String> {
        let object = format!("exchange \"{name}\"");
        let (name, arguments) = (short(&object, name)?, FieldTable::default());
        let declared = self.channel.exchange_declare(name, kind, options, arguments);
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

    async fn bind(&self, queue: &str, exchange: &str, key: &str) -> Result<(), String> {
        let object = format!("binding of queue \"{queue}\" to exchange \"{exchange}\"");
        let (queue, exchange, key) =
            (short(&object, queue)?, short(&object, exchange)?, short(&object, key)?);
        let options = QueueBindOptions::default();
        let bound = self.channel.queue_bind(queue, exchange, key, options, FieldTable::default());
        within(self.patience, &object, bound).await
    }

    async fn bind_exchange(&self, exchange: &str, source: &str) -> Result<(), String> {
        let object = format!("binding of exchange \"{exchange}\" to exchange \"{source}\"");
        let (exchange, source) = (short(&object, exchange)?, short(&object, source)?);
        let options = ExchangeBindOptions::default();
        let bound = self.channel.exchange_bind(exchange, source, "#".into(), options, FieldTable::default());
        within(self.patience, &object, bound).await
    }
}

fn short(object: &str, name: &str) -> Result<ShortString, String> {
    ShortString::try_new(name).map_err(|error| format!("{object}: {error}"))
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}
