//! What metrics tell of the state of things: counted in the store from time to time, looked at elsewhere when it is asked for.

#![allow(clippy::cast_precision_loss, reason = "metrics are floating-point numbers")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::records;
use crate::domain::record::State;
use crate::mycreditapp::MyCreditApp;
use crate::service::archiver::Archiver;
use crate::service::gate::Census;
use crate::service::ports::{Books, Oldest, Store};
use crate::service::readiness::{Condition, Readiness};
use crate::telemetry::catalogue as metric;

/// How often it is asked since when what is not done waits.
const INTERVAL: Duration = Duration::from_secs(5);

/// Counting the books takes the longer the more is kept: no more than this part of the time, as a divisor, is spent on it.
const BOOKS_DIVISOR: u32 = 20;

/// How often the books are counted, at most.
const BOOKS_INTERVAL_MIN: Duration = Duration::from_secs(10);

/// What was counted last.
#[derive(Clone, Default)]
pub(super) struct Survey(Arc<Mutex<Counted>>);

#[derive(Default)]
struct Counted {
    books: Option<(Books, Instant)>,
    oldest: Option<(Oldest, Instant)>,
}

impl Survey {
    /// Counts until `stop`. What several instances count of one store they divide among them.
    pub(super) async fn run(self, store: Arc<dyn Store>, stop: CancellationToken) {
        tokio::select! {
            () = stop.cancelled() => {}
            () = self.count_books(&store) => {}
            () = self.look_for_oldest(&store) => {}
        }
    }

    async fn count_books(&self, store: &Arc<dyn Store>) {
        let seat = store.tenure().seat();
        loop {
            let began = Instant::now();
            match store.books().await {
                Ok(books) => self.lock().books = Some((books, Instant::now())),
                Err(error) => records::BooksUncounted { error: &error }.log(),
            }
            let interval = BOOKS_INTERVAL_MIN.max(began.elapsed() * BOOKS_DIVISOR);
            let instances = seat.borrow().count.max(1);
            sleep(interval * instances).await;
        }
    }

    async fn look_for_oldest(&self, store: &Arc<dyn Store>) {
        loop {
            // What fails here fails for others, too, who tell of it.
            if let Ok(oldest) = store.oldest().await {
                self.lock().oldest = Some((oldest, Instant::now()));
            }
            sleep(INTERVAL).await;
        }
    }

    /// Each change is complete before the lock is let go, so a poisoned lock guards sound data.
    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has what was counted told to whoever asks for metrics.
    pub(super) fn observe(&self) {
        self.observe_books();
        let survey = self.clone();
        metric::OLDEST_AGE.observe(move |seen| {
            let Some((oldest, at)) = survey.lock().oldest else { return };
            for (state, since) in [
                ("accepted", oldest.accepted),
                ("in_flight", oldest.in_flight),
                ("deferred", oldest.deferred),
                ("maybe_applied", oldest.maybe_applied),
                ("unpublished", oldest.unpublished),
            ] {
                let waited = since.map(|since| (oldest.now - since).to_std().unwrap_or_default());
                let age = waited.map_or(0.0, |waited| (waited + at.elapsed()).as_secs_f64());
                seen.observe(age, &[KeyValue::new("state", state)]);
            }
        });
    }

    fn observe_books(&self) {
        let observe = |metric: metric::Metric, tell: fn(&Books, &mut dyn FnMut(f64, &[KeyValue]))| {
            let survey = self.clone();
            metric.observe(move |seen| {
                if let Some((books, _)) = &survey.lock().books {
                    tell(books, &mut |value, attributes| seen.observe(value, attributes));
                }
            });
        };
        observe(metric::BOOKS_COMMANDS, |books, tell| {
            for (state, count) in State::ALL.iter().zip(books.by_state) {
                tell(count as f64, &[KeyValue::new("state", state.as_str())]);
            }
        });
        observe(metric::BOOKS_OUTBOX, |books, tell| {
            for (state, count) in [
                ("written", books.outbox_written),
                ("confirmed", books.outbox_confirmed),
                ("pending", books.outbox_pending),
            ] {
                tell(count as f64, &[KeyValue::new("state", state)]);
            }
        });
        observe(metric::BOOKS_BALANCE, |books, tell| {
            tell(books.commands_balance() as f64, &[KeyValue::new("book", "commands")]);
            tell(books.outbox_balance() as f64, &[KeyValue::new("book", "outbox")]);
        });
        observe(metric::SUSPECT, |books, tell| tell(books.suspect as f64, &[]));
        let survey = self.clone();
        metric::BOOKS_AGE.observe(move |seen| {
            if let Some((_, at)) = &survey.lock().books {
                seen.observe(at.elapsed().as_secs_f64(), &[]);
            }
        });
    }
}

/// Has the parts of the process looked at by whoever asks for metrics.
pub(super) fn observe_parts(
    archiver: &Archiver,
    upstream: &Arc<MyCreditApp>,
    store: &Arc<dyn Store>,
    readiness: &Readiness,
) {
    let load = archiver.load().clone();
    metric::UNDER_WAY.observe(move |seen| {
        for (way, count) in ["call", "message", "recovered"].into_iter().zip(load.under_way()) {
            seen.observe(count as f64, &[KeyValue::new("way", way)]);
        }
    });
    let lanes = archiver.lanes().clone();
    metric::LANES.observe(move |seen| seen.observe(lanes.len() as f64, &[]));
    let lanes = archiver.lanes().clone();
    metric::LANE_DEPTH_MAX.observe(move |seen| seen.observe(lanes.depth() as f64, &[]));
    let seat = store.tenure().seat();
    metric::INSTANCES.observe(move |seen| seen.observe(f64::from(seat.borrow().count), &[]));
    let parts = readiness.clone();
    metric::PART_CONDITION.observe(move |seen| {
        for (part, condition) in parts.conditions() {
            let value = match condition {
                Condition::Ready => 0.0,
                Condition::Degraded(_) => 1.0,
                Condition::NotReady(_) => 2.0,
            };
            seen.observe(value, &[KeyValue::new("part", part)]);
        }
    });
    observe_gate(archiver);
    observe_tokens(upstream);
}

fn observe_gate(archiver: &Archiver) {
    let observe = |metric: metric::Metric, tell: fn(&Census) -> Vec<(f64, Option<KeyValue>)>| {
        let gate = archiver.gate().clone();
        metric.observe(move |seen| {
            for (value, attribute) in tell(&gate.census()) {
                seen.observe(value, attribute.as_slice());
            }
        });
    };
    observe(metric::BREAKERS, |census| states(["closed", "open", "half_open"], census.breakers));
    observe(metric::REQUESTERS, |census| states(["served", "paused", "broken"], census.requesters));
    observe(metric::CONCURRENCY_LIMIT, |census| vec![(census.limit as f64, None)]);
    observe(metric::CONCURRENCY_IN_USE, |census| vec![(census.in_use as f64, None)]);
    observe(metric::WAITING, |census| vec![(census.waiting as f64, None)]);
    observe(metric::BUDGET_EXHAUSTED, |census| vec![(census.exhausted as f64, None)]);
}

/// What counts of the same thing in three states are told as.
fn states(names: [&'static str; 3], counts: [u64; 3]) -> Vec<(f64, Option<KeyValue>)> {
    let told = |(name, count)| (count as f64, Some(KeyValue::new("state", name)));
    names.into_iter().zip(counts).map(told).collect()
}

fn observe_tokens(upstream: &Arc<MyCreditApp>) {
    let tokens = Arc::clone(upstream);
    metric::TOKENS.observe(move |seen| {
        let census = tokens.tokens();
        for (state, count) in [("valid", census.valid), ("failing", census.failing)] {
            seen.observe(count as f64, &[KeyValue::new("state", state)]);
        }
    });
    let tokens = Arc::clone(upstream);
    metric::TOKEN_AGE.observe(move |seen| {
        seen.observe(tokens.tokens().oldest.unwrap_or_default().as_secs_f64(), &[]);
    });
}
