//! A backlog of messages, and the events that come of it.

use std::time::{Duration, Instant};

use futures::StreamExt as _;
use harness::{Broker, Names};
use hdrhistogram::Histogram;
use lapin::Consumer;
use lapin::options::{BasicConsumeOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use tokio::time::timeout;

use crate::scenario::Queue;
use crate::{Outcome, hot};

/// How long nothing may come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Declares everything as the adapter does, but with a queue of this kind.
pub async fn declare(broker: &Broker, names: &Names, queue: Queue) -> Outcome {
    let channel = broker.channel();
    let durable = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    for (exchange, kind) in [
        (&names.commands, lapin::ExchangeKind::Topic),
        (&names.dead_letters, lapin::ExchangeKind::Topic),
        (&names.events, lapin::ExchangeKind::Topic),
    ] {
        channel.exchange_declare(exchange.as_str().into(), kind, durable, FieldTable::default()).await?;
    }
    let mut arguments = FieldTable::default();
    if queue == Queue::Quorum {
        let text = |text: &str| AMQPValue::LongString(text.into());
        arguments.insert("x-queue-type".into(), text("quorum"));
        arguments.insert("x-delivery-limit".into(), AMQPValue::LongInt(1000));
        arguments.insert("x-dead-letter-exchange".into(), text(&names.dead_letters));
        arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
        arguments.insert("x-overflow".into(), text("reject-publish"));
    }
    let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    channel.queue_declare(names.commands.as_str().into(), durable, arguments).await?;
    for (queue, exchange) in [(&names.commands, &names.commands), (&names.dead_letters, &names.dead_letters)]
    {
        if queue == &names.dead_letters {
            channel.queue_declare(queue.as_str().into(), durable, FieldTable::default()).await?;
        }
        let (queue, exchange) = (queue.as_str().into(), exchange.as_str().into());
        channel
            .queue_bind(queue, exchange, "#".into(), QueueBindOptions::default(), FieldTable::default())
            .await?;
    }
    Ok(())
}

/// A durable queue that gets all events, and a consumer of it.
pub async fn events(broker: &Broker, names: &Names) -> Outcome<(String, Consumer)> {
    let queue = broker.lasting_queue(&names.events).await;
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let channel = broker.channel();
    let consume =
        channel.basic_consume(queue.as_str().into(), ShortString::default(), options, FieldTable::default());
    Ok((queue, consume.await?))
}

/// Has all events taken by somebody, as long as the broker is connected. Those that no queue is bound for would stay in the
/// adapter's outbox, and be sent again and again.
pub async fn take_events(broker: &Broker, names: &Names) -> Outcome {
    let (_, mut events) = events(broker, names).await?;
    tokio::spawn(async move { while events.next().await.is_some() {} });
    Ok(())
}

/// What came of a backlog.
pub struct Drained {
    /// Events in a second, between the first and the last.
    pub rate: f64,
    /// How long each came after the beginning.
    pub times: Histogram<u64>,
}

/// Waits for `count` events, those of the hot connection not counted, and tells `each` how many there are so far.
pub async fn drained(events: &mut Consumer, count: usize, mut each: impl FnMut(usize)) -> Outcome<Drained> {
    let (mut times, mut first, began, mut seen) = (crate::calls::times()?, None, Instant::now(), 0);
    while seen < count {
        let next = timeout(PATIENCE, events.next()).await;
        let next = next.map_err(|_| format!("{seen} of {count} events came, then none for {PATIENCE:?}"))?;
        if hot::is_named(next.ok_or("the consumer has ended")??.routing_key.as_str()) {
            continue;
        }
        first.get_or_insert_with(Instant::now);
        times.saturating_record(began.elapsed().as_micros() as u64);
        seen += 1;
        each(seen);
    }
    let length = first.map_or(Duration::ZERO, |first| first.elapsed());
    Ok(Drained { rate: (count as f64 - 1.0) / length.as_secs_f64(), times })
}
