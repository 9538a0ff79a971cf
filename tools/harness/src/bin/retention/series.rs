//! Commands that are claimed and ended in a store, and how long each took.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use guest_connection_adapter::domain::access::AskedBy;
use guest_connection_adapter::domain::command::{Command, CommandId, IdempotencyKey, OrganizationId};
use guest_connection_adapter::domain::connection::Connection;
use guest_connection_adapter::domain::lifecycle::{Acceptance, Finish};
use guest_connection_adapter::domain::record::{CommandRecord, Door, JsonText, Outcome};
use guest_connection_adapter::domain::reply::Verdict;
use guest_connection_adapter::domain::trace::TraceContext;
use guest_connection_adapter::service::ports::{Accepted, Begun, Store};
use tokio::task::JoinSet;
use uuid::Uuid;

/// The requester of every command, and the target of every connection.
pub const REQUESTER: Uuid = Uuid::from_u128(1);

/// The guest of the first connection that is kept; others follow it.
pub const FIRST_GUEST: u128 = 0x4000_8000_0000_0000_0000;

/// The guest of the first connection that is none of those.
const FIRST_HOT: u128 = 0x5000_8000_0000_0000_0000;

/// How commands come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    /// Whether on a few connections, time and again, or on any of those that are kept.
    is_hot: bool,
    in_flight: usize,
}

impl Way {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self { is_hot: true, in_flight: 1 },
        Self { is_hot: false, in_flight: 1 },
        Self { is_hot: true, in_flight: 64 },
        Self { is_hot: false, in_flight: 64 },
    ];

    /// Commands of a turn.
    const fn count(self) -> usize {
        if self.in_flight == 1 { 100 } else { 1_280 }
    }

    /// The guest of a command. Nobody else in flight has the same.
    fn guest(self, worker: usize, connections: u128) -> Uuid {
        if self.is_hot {
            return Uuid::from_u128(FIRST_HOT + worker as u128);
        }
        let (count, worker) = (self.in_flight as u128, worker as u128);
        // 64 bits of a random UUID are enough to draw one.
        let draw = Uuid::new_v4().as_u128() & u128::from(u64::MAX);
        Uuid::from_u128(FIRST_GUEST + draw % (connections / count) * count + worker)
    }
}

impl fmt::Display for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let connections = if self.is_hot { "the same" } else { "any" };
        write!(f, "{connections}, {} in flight", self.in_flight)
    }
}

/// How long claims and their ends took.
#[derive(Default)]
pub struct Series {
    pub claims: Vec<Duration>,
    pub ends: Vec<Duration>,
    took: Duration,
}

impl Series {
    pub const HEAD: &'static str = "commands                 connections            claim p50        p99    end p50        p99  commands/s";

    /// Adds another turn.
    pub fn extend(&mut self, other: Self) {
        self.claims.extend(other.claims);
        self.ends.extend(other.ends);
        self.claims.sort_unstable();
        self.ends.sort_unstable();
        self.took += other.took;
    }

    pub fn row(&self, label: &str, way: Way) -> String {
        let ms = |times, percent| format!("{:.2} ms", percentile(times, percent).as_secs_f64() * 1e3);
        #[allow(clippy::cast_precision_loss, reason = "a rate for people")]
        let per_second = self.claims.len() as f64 / self.took.as_secs_f64();
        format!(
            "{label:<24} {:<22} {:>9} {:>10} {:>10} {:>10} {per_second:>11.0}",
            way.to_string(),
            ms(&self.claims, 50),
            ms(&self.claims, 99),
            ms(&self.ends, 50),
            ms(&self.ends, 99),
        )
    }
}

/// What so many percent of sorted times do not exceed.
pub fn percentile(times: &[Duration], percent: usize) -> Duration {
    times[(times.len() * percent).div_ceil(100).max(1) - 1]
}

/// A turn.
pub async fn run(store: &Arc<dyn Store>, way: Way, connections: u128) -> Series {
    let (mut workers, begun) = (JoinSet::new(), Instant::now());
    for worker in 0..way.in_flight {
        let store = Arc::clone(store);
        workers.spawn(async move {
            let mut times = Vec::new();
            for _ in 0..way.count() / way.in_flight {
                times.push(one(&store, way.guest(worker, connections)).await);
            }
            times
        });
    }
    let (claims, ends) = workers.join_all().await.into_iter().flatten().unzip();
    Series { claims, ends, took: begun.elapsed() }
}

/// One command. Yields how long its claim and its end took.
pub async fn one(store: &Arc<dyn Store>, guest: Uuid) -> (Duration, Duration) {
    let request = acceptance(guest);
    let begun = Instant::now();
    let accepted = store.accept(request, Some(Uuid::now_v7())).await;
    let claim = begun.elapsed();
    let Ok(Accepted::Fresh(_, Some(Begun::Claimed(record)))) = accepted else { panic!("{accepted:?}") };
    let finish = finish(&record);
    let begun = Instant::now();
    store.finish(finish).await.expect("it is ended");
    (claim, begun.elapsed())
}

fn acceptance(guest: Uuid) -> Acceptance {
    let requester = OrganizationId(REQUESTER);
    Acceptance {
        command: Command {
            requester,
            connection: Connection { target: requester, guest: OrganizationId(guest) },
            archived: true,
            key: IdempotencyKey::parse(&Uuid::new_v4().to_string()).expect("a key"),
            issue_time: None,
            expire_time: None,
        },
        id: CommandId(Uuid::now_v7()),
        door: Door::Grpc,
        asked_by: AskedBy {
            principal: Some("billing".to_owned()),
            address: Some("192.0.2.1:4711".to_owned()),
        },
        trace: TraceContext {
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
            tracestate: None,
        },
        correlation_id: None,
        reply: None,
        is_owned: true,
        put_off: None,
    }
}

fn finish(record: &CommandRecord) -> Finish {
    let body = r#"{"guest_org_id":"0b9e4f5a-1c2d-4e3f-8a7b-9c0d1e2f3a4b","status":"connected","archived":true,"name":"A guest"}"#;
    let outcome = Outcome {
        refusal: None,
        upstream_status: Some(200),
        guest_connection: JsonText::object(body),
        incomplete: false,
    };
    Finish {
        id: record.id,
        epoch: record.epoch,
        verdict: Verdict::Applied { outcome },
        attempts: 1,
        maybe_applied: false,
        unanswered_ago: None,
        caller_waits: true,
        defer_delay: Duration::from_secs(5),
        is_paused: false,
        event_id: Uuid::now_v7(),
    }
}
