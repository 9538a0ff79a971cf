//! How long the store takes for each step of a command, with one caller and with many: `make bench-core`. SQLite in a folder
//! under `target/`, and PostgreSQL if `DATABASE_URL` is set.

#![allow(clippy::expect_used, clippy::panic, reason = "a bench fails by panicking")]

#[path = "path/fixture.rs"]
#[allow(dead_code, reason = "the other benches use the rest of it")]
mod fixture;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group, criterion_main};
use futures::StreamExt as _;
use futures::stream;
use guest_connection_adapter::domain::command::{Command, CommandId, IdempotencyKey, OrganizationId};
use guest_connection_adapter::domain::connection::Connection;
use guest_connection_adapter::domain::lifecycle::{Acceptance, Finish};
use guest_connection_adapter::domain::record::CommandRecord;
use guest_connection_adapter::domain::reply::classify;
use guest_connection_adapter::service::ports::{Accepted, Begun, Finished, Store, StoreFuture, SystemClock};
use guest_connection_adapter::service::tenure::Slots;
use guest_connection_adapter::store::postgres::{PostgresStore, Settings as PostgresSettings, Target};
use guest_connection_adapter::store::sqlite::{Settings as SqliteSettings, SqliteStore};
use harness::Database;
use tokio::runtime::Runtime;
use uuid::Uuid;

const CALLERS: [usize; 2] = [1, 64];

/// Callers that prepare what is measured.
const PREPARERS: usize = 256;

/// Rows that one look at the outbox yields.
const OUTBOX_LENGTH: u64 = 256;

/// Calls `call` for each input, by so many callers each of whom waits for the answer, and says how long that took.
async fn timed<I, O>(
    callers: usize,
    inputs: Vec<I>,
    mut call: impl FnMut(I) -> StoreFuture<O>,
) -> (Duration, Vec<O>) {
    let mut answers = Vec::with_capacity(inputs.len());
    let began = Instant::now();
    let mut calls = stream::iter(inputs).map(&mut call).buffer_unordered(callers);
    while let Some(answer) = calls.next().await {
        answers.push(answer.expect("the store answers"));
    }
    (began.elapsed(), answers)
}

/// A command of a connection of its own.
fn acceptance() -> Acceptance {
    let command = Command {
        requester: OrganizationId(Uuid::from_u128(1)),
        connection: Connection {
            target: OrganizationId(Uuid::from_u128(1)),
            guest: OrganizationId(Uuid::new_v4()),
        },
        archived: true,
        key: IdempotencyKey::parse(&Uuid::new_v4().to_string()).expect("a key"),
        issue_time: None,
        expire_time: None,
    };
    Acceptance { id: CommandId(Uuid::now_v7()), reply: None, ..fixture::acceptance(command) }
}

fn acceptances(count: u64) -> Vec<Acceptance> {
    (0..count).map(|_| acceptance()).collect()
}

fn success(record: &CommandRecord) -> Finish {
    let verdict = classify(&fixture::ok(), true);
    Finish { id: record.id, epoch: record.epoch, event_id: Uuid::now_v7(), ..fixture::finish(verdict) }
}

/// A store, and what is done to it.
#[derive(Clone)]
struct Bench(Arc<dyn Store>);

impl Bench {
    async fn claim(&self, callers: usize, count: u64) -> (Duration, Vec<CommandRecord>) {
        let claim = |request| self.0.accept(request, Some(Uuid::now_v7()));
        let (elapsed, answers) = timed(callers, acceptances(count), claim).await;
        let claimed = answers.into_iter().map(|answer| match answer {
            Accepted::Fresh(_, Some(Begun::Claimed(record))) => record,
            other => panic!("not claimed: {other:?}"),
        });
        (elapsed, claimed.collect())
    }

    async fn finish(&self, callers: usize, count: u64) -> Duration {
        let (_, claimed) = self.claim(PREPARERS, count).await;
        let finishes = claimed.iter().map(success).collect();
        let (elapsed, answers) = timed(callers, finishes, |finish| self.0.finish(finish)).await;
        assert!(answers.iter().all(|answer| matches!(answer, Finished::Settled(_))), "a claim was lost");
        elapsed
    }

    /// Confirms all that waits, so that nothing does.
    async fn empty_outbox(&self) {
        while let numbers @ [_, ..] = self.outbox().await.as_slice() {
            self.0.confirm(numbers.to_vec()).await.expect("it is confirmed");
        }
    }

    /// The numbers of all that waits to be published.
    async fn outbox(&self) -> Vec<i64> {
        let mut numbers = Vec::new();
        loop {
            let after = numbers.last().copied().unwrap_or_default();
            let rows = self.0.outbox(after, 1_000, Slots::ALL).await.expect("rows");
            if rows.is_empty() {
                return numbers;
            }
            numbers.extend(rows.iter().map(|row| row.number));
        }
    }

    async fn look(&self, callers: usize, count: u64) -> Duration {
        let limit = usize::try_from(OUTBOX_LENGTH).expect("it is small");
        let looks = vec![(); usize::try_from(count).expect("it is small")];
        let (elapsed, answers) = timed(callers, looks, |()| self.0.outbox(0, limit, Slots::ALL)).await;
        assert!(answers.iter().all(|rows| rows.len() == limit), "rows are missing");
        elapsed
    }

    async fn confirm(&self, callers: usize, count: u64) -> Duration {
        self.empty_outbox().await;
        self.finish(PREPARERS, count).await;
        let numbers = self.outbox().await;
        assert_eq!(numbers.len() as u64, count, "each command has one event");
        timed(callers, numbers, |number| self.0.confirm(vec![number])).await.0
    }
}

fn measure(criterion: &mut Criterion, runtime: &Runtime, kind: &str, store: &Bench) {
    let mut group = criterion.benchmark_group(format!("store/{kind}"));
    group.sample_size(10).sampling_mode(SamplingMode::Flat).throughput(Throughput::Elements(1));
    for callers in CALLERS {
        let name = |step: &str| BenchmarkId::new(step, callers);
        group.bench_function(name("accept and claim"), |bencher| {
            bencher.iter_custom(|count| runtime.block_on(store.claim(callers, count)).0);
        });
        group.bench_function(name("finish"), |bencher| {
            bencher.iter_custom(|count| runtime.block_on(store.finish(callers, count)));
        });
        runtime.block_on(async {
            store.empty_outbox().await;
            store.finish(PREPARERS, OUTBOX_LENGTH).await;
        });
        group.bench_function(name("outbox of 256"), |bencher| {
            bencher.iter_custom(|count| runtime.block_on(store.look(callers, count)));
        });
        group.bench_function(name("confirm"), |bencher| {
            bencher.iter_custom(|count| runtime.block_on(store.confirm(callers, count)));
        });
    }
    group.finish();
    runtime.block_on(store.0.close()).expect("it is closed");
}

fn sqlite(criterion: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let mode = Permissions::from_mode(0o700);
    // Not the system's folder, which may lie in memory.
    let folder = tempfile::Builder::new().permissions(mode).tempdir_in(env!("CARGO_TARGET_TMPDIR"));
    let folder = folder.expect("a folder");
    let settings = SqliteSettings::new(folder.path().join("store.db"));
    let store = SqliteStore::open(settings, fixture::TERMS, fixture::RETENTION, Arc::new(SystemClock));
    let store = Bench(Arc::new(store.expect("a store")));
    measure(criterion, &runtime, "SQLite", &store);
}

fn postgres(criterion: &mut Criterion) {
    let Ok(server) = std::env::var("DATABASE_URL") else { return };
    let runtime = Runtime::new().expect("a runtime");
    let store = runtime.block_on(async {
        let database = Database::create_at(&server).await;
        let patience = Duration::from_secs(10);
        let target = Target::new(database.url(), None, None, patience, patience).expect("an address");
        let settings = PostgresSettings::new(target);
        PostgresStore::open(settings, fixture::TERMS, fixture::RETENTION, Arc::new(SystemClock)).await
    });
    let store = Bench(Arc::new(store.expect("a store")));
    measure(criterion, &runtime, "PostgreSQL", &store);
}

criterion_group!(benches, sqlite, postgres);
criterion_main!(benches);
