//! Consume, PATCH, publish with a confirm, acknowledge. Nothing is tracked: what comes twice is done twice.

use std::collections::BTreeSet;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use lapin::message::Delivery;
use lapin::options::{
    BasicAckOptions, BasicConsumeOptions, BasicPublishOptions, BasicQosOptions, ConfirmSelectOptions,
};

use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties, Consumer, PublisherConfirm};
use serde_json::Value;

use super::{Api, Arguments, event};
use crate::Outcome;

/// Acknowledgements and confirms that are waited for together.
const BATCH: usize = 64;

struct Line {
    consumer: Consumer,
    consuming: Channel,
    publishing: Channel,
    exchange: String,
    api: Api,
    _connections: [Connection; 2],
}

impl Line {
    async fn open(arguments: &Arguments, api: Api) -> Outcome<Self> {
        let connect = || Connection::connect(&arguments.amqp, ConnectionProperties::default());
        let connections = [connect().await?, connect().await?];
        let consuming = connections[0].create_channel().await?;
        consuming.basic_qos(arguments.prefetch, BasicQosOptions::default()).await?;
        let publishing = connections[1].create_channel().await?;
        publishing.confirm_select(ConfirmSelectOptions::default()).await?;
        let (queue, tag) = (arguments.queue.as_str().into(), ShortString::default());
        let consume =
            consuming.basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default());
        let consumer = consume.await?;
        println!("ready");
        let exchange = arguments.exchange.clone();
        Ok(Self { consumer, consuming, publishing, exchange, api, _connections: connections })
    }

    /// PATCHes for a message and hands its event to the broker.
    async fn work(&self, body: &[u8]) -> Outcome<PublisherConfirm> {
        let command: Value = serde_json::from_slice(body)?;
        let guest = command["guest_organization_id"].as_str().ok_or("no guest")?;
        let archived = command["archived"].as_bool().ok_or("no value")?;
        let connection = self.api.patch(guest, archived).await?;
        let (id, body) = event(guest, &connection)?;
        let properties = BasicProperties::default()
            .with_content_type("application/cloudevents+json".into())
            .with_message_id(id.to_string().into())
            .with_delivery_mode(2);
        let key = format!("guest-connection.archived.{guest}");
        let options = BasicPublishOptions { mandatory: true, ..BasicPublishOptions::default() };
        let (exchange, key) = (self.exchange.as_str().into(), key.as_str().into());
        Ok(self.publishing.basic_publish(exchange, key, options, &body, properties).await?)
    }

    async fn bare(&self, delivery: Delivery) -> Outcome {
        let confirm = self.work(&delivery.data).await?.await?;
        if !confirm.is_ack() {
            return Err("the broker did not take an event".into());
        }
        delivery.acker.ack(BasicAckOptions::default()).await?;
        Ok(())
    }
}

/// Every confirm and every acknowledgement is awaited by itself; as many are under way as may be prefetched.
pub async fn bare(arguments: &Arguments, api: Api) -> Outcome {
    let mut line = Line::open(arguments, api).await?;
    let mut consumer = line.consumer.clone();
    let line = &mut line;
    let mut under_way: FuturesUnordered<BoxFuture<'_, Outcome>> = FuturesUnordered::new();
    loop {
        tokio::select! {
            Some(delivery) = consumer.next() => under_way.push(line.bare(delivery?).boxed()),
            Some(done) = under_way.next() => done?,
            else => return Ok(()),
        }
    }
}

/// Confirms are awaited in batches, and a batch is acknowledged with one word as far as it has no gaps.
pub async fn best(arguments: &Arguments, api: Api) -> Outcome {
    let line = Line::open(arguments, api).await?;
    let mut consumer = line.consumer.clone();
    let mut under_way = FuturesUnordered::new();
    let mut confirms: Vec<(u64, PublisherConfirm)> = Vec::new();
    let mut confirmed: BTreeSet<u64> = BTreeSet::new();
    let mut acked = 0;
    loop {
        tokio::select! {
            Some(delivery) = consumer.next() => {
                let (delivery, line) = (delivery?, &line);
                under_way.push(async move {
                    Ok::<_, Box<dyn std::error::Error + Send + Sync>>((delivery.delivery_tag, line.work(&delivery.data).await?))
                });
                continue;
            }
            Some(done) = under_way.next() => confirms.push(done?),
            else => return Ok(()),
        }
        if confirms.len() < BATCH && !under_way.is_empty() {
            continue;
        }
        for (tag, confirm) in confirms.drain(..) {
            if !confirm.await?.is_ack() {
                return Err("the broker did not take an event".into());
            }
            confirmed.insert(tag);
        }
        let mut reached = acked;
        while confirmed.remove(&(reached + 1)) {
            reached += 1;
        }
        if reached > acked {
            line.consuming.basic_ack(reached, BasicAckOptions { multiple: true }).await?;
            acked = reached;
        }
    }
}
