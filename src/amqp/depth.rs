//! How much waits in the queues, as the broker tells, for metrics.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use tokio::sync::watch;
use tokio::time::sleep;

use super::generation::Generation;
use super::link::Channels;
use super::settings::Settings;
use super::topology::{self, Look};
use crate::telemetry::catalogue as metric;

/// How often the broker is asked.
const INTERVAL: Duration = Duration::from_secs(10);

/// What the broker said last of each queue. What it says nothing of is not in it.
#[derive(Debug, Clone, Default)]
pub struct Depths(Arc<Mutex<BTreeMap<String, Look>>>);

impl Depths {
    /// Has it told to whoever asks for metrics.
    pub fn observe(&self) {
        for (metric, value) in [
            (metric::QUEUE_MESSAGES, (|look| look.ready) as fn(&Look) -> u32),
            (metric::QUEUE_CONSUMERS, |look| look.consumers),
        ] {
            let depths = self.clone();
            metric.observe(move |seen| {
                for (queue, look) in &*depths.lock() {
                    let attribute = KeyValue::new("messaging.destination.name", queue.clone());
                    seen.observe(f64::from(value(look)), &[attribute]);
                }
            });
        }
    }

    /// Asks for ever, by whatever connection there is.
    pub async fn run(&self, settings: &Settings, mut connection: watch::Receiver<Option<Channels>>) {
        let names = &settings.names;
        let generations = std::iter::once(settings.partitions).chain(settings.partitions_from);
        let sources = generations.flat_map(|partitions| Generation(partitions).sources(names));
        let mut queues: Vec<_> = sources.map(|source| source.queue).collect();
        queues.push(names.dead_letters_queue.clone());
        loop {
            let channels = connection.borrow_and_update().clone();
            let mut looks = BTreeMap::new();
            if let Some(channels) = channels {
                for queue in &queues {
                    // What cannot be looked at is told of by those who use it.
                    if let Ok(Some(look)) = topology::look(&channels, queue, settings.connect_timeout).await {
                        looks.insert(queue.clone(), look);
                    }
                }
            }
            *self.lock() = looks;
            tokio::select! {
                () = sleep(INTERVAL) => {}
                Ok(()) = connection.changed() => {}
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Look>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
