//! Counts events by command, over every loss of its own connection.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::StreamExt as _;
use lapin::options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions};
use lapin::types::FieldTable;
use lapin::{Connection, ConnectionProperties};
use serde_json::Value;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use uuid::Uuid;

use crate::stage::EVENTS_QUEUE;

/// Events taken at once.
const PREFETCH: u16 = 1_000;

/// The wait before it connects again.
const RECONNECT_DELAY: Duration = Duration::from_millis(500);

/// What was counted.
#[derive(Debug, Default)]
pub struct Counted {
    /// The event of each key.
    ids: HashMap<u64, Uuid>,
    /// Deliveries, repeats included.
    pub deliveries: usize,
    /// Keys with more than one event id, and events that cannot be read.
    pub faults: Vec<String>,
}

impl Counted {
    /// How many commands have their event.
    #[must_use]
    pub fn commands(&self) -> usize {
        self.ids.len()
    }

    fn add(&mut self, body: &[u8]) {
        self.deliveries += 1;
        let read = serde_json::from_slice::<Value>(body).ok().and_then(|event| {
            let id = event["id"].as_str()?.parse().ok()?;
            let key = event["data"]["command"]["idempotency_key"].as_str()?;
            Some((key.rsplit('-').next()?.parse().ok()?, id))
        });
        match read {
            None => self.faults.push(format!("an event cannot be read: {}", String::from_utf8_lossy(body))),
            Some((key, id)) => {
                let first = *self.ids.entry(key).or_insert(id);
                if first != id {
                    self.faults.push(format!("command {key} has the events {first} and {id}"));
                }
            }
        }
    }
}

/// A consumer of events that only counts. Dropping it ends it.
pub struct Counter {
    counted: Arc<Mutex<Counted>>,
    consuming: JoinHandle<()>,
}

impl Counter {
    /// Counts from now on. Keys have to end in `-<number>`.
    #[must_use]
    pub fn start(broker: &str) -> Self {
        let counted: Arc<Mutex<Counted>> = Arc::default();
        let (uri, kept) = (broker.to_owned(), counted.clone());
        let consuming = tokio::spawn(async move {
            loop {
                // What ends it is no news: it connects again, and what was not acknowledged comes again.
                let _ = consume(&uri, &kept).await;
                sleep(RECONNECT_DELAY).await;
            }
        });
        Self { counted, consuming }
    }

    /// Looks at what was counted.
    pub fn look<T>(&self, look: impl FnOnce(&Counted) -> T) -> T {
        look(&self.counted.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.consuming.abort();
    }
}

async fn consume(uri: &str, counted: &Mutex<Counted>) -> lapin::Result<()> {
    let connection = Connection::connect(uri, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await?;
    let (options, arguments) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = channel.basic_consume(EVENTS_QUEUE.into(), "".into(), options, arguments).await?;
    let mut unacknowledged = 0;
    while let Some(delivery) = consumer.next().await {
        let delivery = delivery?;
        counted.lock().unwrap_or_else(PoisonError::into_inner).add(&delivery.data);
        unacknowledged += 1;
        if unacknowledged >= PREFETCH / 2 {
            delivery.acker.ack(BasicAckOptions { multiple: true }).await?;
            unacknowledged = 0;
        }
    }
    Ok(())
}
