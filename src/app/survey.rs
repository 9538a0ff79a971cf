//! What metrics tell of the state of things: counted in the store from time to time, looked at elsewhere when it is asked for.

#![allow(clippy::cast_precision_loss, reason = "metrics are floating-point numbers")]

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::AsyncInstrument;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::records;
use crate::domain::record::State;
use crate::mycreditapp::MyCreditApp;
use crate::service::archiver::Archiver;
use crate::service::gate::Census;
use crate::service::ports::{Books, Oldest, Store};
use crate::service::readiness::{Condition, Readiness};
use crate::service::tally;
use crate::telemetry::catalogue as metric;

/// How often it is asked since when what is not done waits.
const INTERVAL: Duration = Duration::from_secs(5);

/// Counting the books takes the longer the more is kept: no more than this part of the time, as a divisor, is spent on it.
const BOOKS_DIVISOR: u32 = 20;

/// How often the books are counted, at most.
const BOOKS_INTERVAL_MIN: Duration = Duration::from_secs(5);

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
        let seat = store.tenure().seat();
        loop {
            // What fails here fails for others, too, who tell of it.
            if let Ok(oldest) = store.oldest().await {
                self.lock().oldest = Some((oldest, Instant::now()));
            }
            let instances = seat.borrow().count.max(1);
            sleep(INTERVAL * instances).await;
        }
    }

    /// Each change is complete before the lock is let go, so a poisoned lock guards sound data.
    fn lock(&self) -> MutexGuard<'_, Counted> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has what was counted told to whoever asks for metrics.
    fn observe(&self) {
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
        let observe = |metric: metric::Metric, tell: fn(&Books) -> Told| {
            let survey = self.clone();
            metric.observe(move |seen| {
                if let Some((books, _)) = &survey.lock().books {
                    observe_all(seen, tell(books));
                }
            });
        };
        observe(metric::BOOKS_COMMANDS, |books| {
            by("state", State::ALL.iter().map(|state| state.as_str()).zip(books.by_state))
        });
        observe(metric::BOOKS_OUTBOX, |books| {
            let Books { outbox_written, outbox_confirmed, outbox_pending, .. } = *books;
            let counts =
                [("written", outbox_written), ("confirmed", outbox_confirmed), ("pending", outbox_pending)];
            by("state", counts)
        });
        observe(metric::BOOKS_BALANCE, |books| {
            let balances = [("commands", books.commands_balance()), ("outbox", books.outbox_balance())];
            balances.map(|(book, balance)| (balance as f64, Some(KeyValue::new("book", book)))).into()
        });
        observe(metric::SUSPECT, |books| alone(books.suspect as f64));
        let survey = self.clone();
        metric::BOOKS_AGE.observe(move |seen| {
            let counted = survey.lock();
            let books = counted.books.as_ref().map(|(_, at)| *at);
            let oldest = counted.oldest.as_ref().map(|(_, at)| *at);
            if let Some(at) = books.into_iter().chain(oldest).min() {
                seen.observe(at.elapsed().as_secs_f64(), &[]);
            }
        });
    }
}

/// Has what was counted, and the parts of the process, told to whoever asks for metrics. The survey is to be run.
pub(super) fn begin(
    archiver: &Archiver,
    upstream: &Arc<MyCreditApp>,
    store: &Arc<dyn Store>,
    readiness: &Readiness,
) -> Survey {
    tally::show();
    let survey = Survey::default();
    survey.observe();
    observe_parts(archiver, store, readiness);
    observe_gate(archiver);
    observe_tokens(upstream);
    survey
}

fn observe_parts(archiver: &Archiver, store: &Arc<dyn Store>, readiness: &Readiness) {
    let load = archiver.load().clone();
    metric::UNDER_WAY.observe(move |seen| {
        let counts = load.under_way().map(|count| count as u64);
        observe_all(seen, by("way", ["call", "message", "recovered"].into_iter().zip(counts)));
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
}

fn observe_gate(archiver: &Archiver) {
    let observe = |metric: metric::Metric, tell: fn(&Census) -> Told| {
        let gate = archiver.gate().clone();
        metric.observe(move |seen| observe_all(seen, tell(&gate.census())));
    };
    observe(metric::BREAKERS, |census| {
        by("state", ["closed", "open", "half_open", "untried"].into_iter().zip(census.breakers))
    });
    observe(metric::REQUESTERS, |census| {
        by("state", ["served", "paused", "broken"].into_iter().zip(census.requesters))
    });
    observe(metric::CONCURRENCY_LIMIT, |census| alone(census.limit as f64));
    observe(metric::CONCURRENCY_IN_USE, |census| alone(census.in_use as f64));
    observe(metric::WAITING, |census| alone(census.waiting as f64));
    observe(metric::BUDGET_EXHAUSTED, |census| alone(census.exhausted as f64));
}

/// Values of a metric, and what each is told apart by.
type Told = Vec<(f64, Option<KeyValue>)>;

fn alone(value: f64) -> Told {
    vec![(value, None)]
}

fn by(attribute: &'static str, counts: impl IntoIterator<Item = (&'static str, u64)>) -> Told {
    let told = |(name, count)| (count as f64, Some(KeyValue::new(attribute, name)));
    counts.into_iter().map(told).collect()
}

fn observe_all(seen: &dyn AsyncInstrument<f64>, told: Told) {
    for (value, attribute) in told {
        seen.observe(value, attribute.as_slice());
    }
}

fn observe_tokens(upstream: &Arc<MyCreditApp>) {
    let tokens = Arc::clone(upstream);
    metric::TOKENS.observe(move |seen| {
        let census = tokens.tokens();
        observe_all(seen, by("state", [("valid", census.valid), ("failing", census.failing)]));
    });
    let tokens = Arc::clone(upstream);
    metric::TOKEN_AGE.observe(move |seen| {
        seen.observe(tokens.tokens().oldest.unwrap_or_default().as_secs_f64(), &[]);
    });
}
