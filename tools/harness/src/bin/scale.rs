//! What one, two and three instances do on this machine, with SQLite and with PostgreSQL: the drain of a backlog of messages,
//! and calls; and whose processor time it is.
//!
//! All parts share the machine, the stand-in of the API and the clients in this process too, so this shows what a command costs
//! and that instances do not get in one another's way, not how far they scale. `make scale`, in the environment of
//! `scripts/broker run` and `scripts/database run`.

#![allow(clippy::print_stdout, reason = "it is there to print")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures"
)]

use std::error::Error;
use std::time::{Duration, Instant};

use harness::broker::Inbox;
use harness::measure::{self, percentile, ticks_of, ticks_of_family};
use harness::{Adapter, Broker, Database, Names, Setup, Upstream};
use simulator::{Entry, Rule};
use uuid::Uuid;

/// Messages of a backlog, and connections that they are for.
const MESSAGES: usize = 6_000;
const GUESTS: usize = 2_000;

/// How long is called, and by how many.
const CALLING: Duration = Duration::from_secs(8);
const CALLERS: usize = 64;

/// Calls one at a time.
const ALONE: usize = 500;

/// Kills, the leases meanwhile, and calls of which half bring events that the killed one would have published.
const TAKE_OVERS: usize = 5;
const LEASE: Duration = Duration::from_secs(5);
const INSTANCE_LEASE: Duration = Duration::from_secs(2);
const EVENTS: usize = 40;
const PATIENCE: Duration = Duration::from_secs(30);
const BRIEF: &str = r#"
upstream.connect_timeout = "1s"
upstream.attempt_timeout = "2s"
upstream.command_timeout = "3s"
upstream.settle = "1s"
"#;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Processor time in clock ticks, by part.
#[derive(Clone, Copy, Default)]
struct Ticks {
    adapters: u64,
    store: u64,
    broker: u64,
    rest: u64,
}

impl Ticks {
    fn since(self, before: Self) -> Self {
        Self {
            adapters: self.adapters - before.adapters,
            store: self.store - before.store,
            broker: self.broker - before.broker,
            rest: self.rest - before.rest,
        }
    }

    /// Microseconds for each of `count`: a tick is 10 ms.
    fn each(self, count: usize) -> [u64; 4] {
        [self.adapters, self.store, self.broker, self.rest].map(|ticks| ticks * 10_000 / count.max(1) as u64)
    }
}

fn ticks(adapters: &[Adapter]) -> Outcome<Ticks> {
    Ok(Ticks {
        adapters: adapters.iter().map(|adapter| ticks_of(&adapter.pid().to_string())).sum(),
        store: ticks_of_family(&std::env::var("DATABASE_PID")?),
        broker: ticks_of(&std::env::var("AMQP_PID")?),
        rest: ticks_of("self"),
    })
}

/// Where commands are kept, and how many instances there are.
struct Way {
    name: &'static str,
    instances: usize,
    is_postgres: bool,
    partitions: u16,
}

const WAYS: [Way; 6] = [
    Way { name: "SQLite", instances: 1, is_postgres: false, partitions: 0 },
    Way { name: "PostgreSQL", instances: 1, is_postgres: true, partitions: 0 },
    Way { name: "PostgreSQL", instances: 2, is_postgres: true, partitions: 0 },
    Way { name: "PostgreSQL", instances: 3, is_postgres: true, partitions: 0 },
    Way { name: "12 partitions", instances: 1, is_postgres: true, partitions: 12 },
    Way { name: "12 partitions", instances: 3, is_postgres: true, partitions: 12 },
];

/// Drains a backlog. Yields the rate, and the processor time of each message.
async fn drain(setup: &Setup, way: &Way, upstream: &Upstream, broker: &Broker, names: &Names) -> Outcome {
    // The queue is there once an instance has been.
    setup.start_ready().await.terminate().await;
    let mut events = broker.subscribe(&names.events).await;
    broker.publish_all(names, measure::backlog(upstream, MESSAGES, GUESTS)).await;
    let before = ticks(&[])?;
    let mut adapters = Vec::new();
    for _ in 0..way.instances {
        adapters.push(setup.start().await);
    }
    events.take(MESSAGES).await;
    let spent = ticks(&adapters)?.since(before).each(MESSAGES);
    let rate = measure::rate(&upstream.simulator.journal()).ok_or("nothing was sent")?;
    let [own, store, broker, rest] = spent;
    let Way { name, instances, .. } = way;
    println!("{name:<13} {instances:>2}  drain   {rate:>8.0}/s {own:>10} {store:>8} {broker:>8} {rest:>8}");
    for adapter in adapters {
        adapter.terminate().await;
    }
    Ok(())
}

/// Calls all instances, many at once and then one at a time.
async fn call(setup: &Setup, way: &Way, upstream: &Upstream) -> Outcome {
    let mut adapters = Vec::new();
    for _ in 0..way.instances {
        adapters.push(setup.start_ready().await);
    }
    let (before, until) = (ticks(&adapters)?, Instant::now() + CALLING);
    let times = measure::call(&adapters, &upstream.organizations[0], CALLERS, until).await?;
    let rate = times.len() as f64 / CALLING.as_secs_f64();
    let [own, store, broker, rest] = ticks(&adapters)?.since(before).each(times.len());
    let Way { name, instances, .. } = way;
    println!(
        "{name:<13} {instances:>2}  calls   {rate:>8.0}/s {own:>10} {store:>8} {broker:>8} {rest:>8}   p50 {} p99 {}",
        percentile(&times, 50),
        percentile(&times, 99)
    );
    let mut client = adapters[0].client().await;
    let mut alone = Vec::new();
    for _ in 0..ALONE {
        let (guest, began) = (Uuid::new_v4(), Instant::now());
        client.archive_guest_connection(upstream.archive(guest, &guest.to_string())).await?;
        alone.push(began.elapsed());
    }
    alone.sort();
    println!(
        "{name:<13} {instances:>2}  alone                                                      p50 {} p99 {}",
        percentile(&alone, 50),
        percentile(&alone, 99)
    );
    for adapter in adapters {
        adapter.terminate().await;
    }
    Ok(())
}

/// Kills an instance that has sent a PATCH, and measures until another one sends it again; and until the events are published
/// that only the killed one might have.
async fn take_over(setup: &Setup, upstream: &Upstream, events: &mut Inbox) -> Outcome {
    for round in 1..=TAKE_OVERS {
        let (stays, dies) = (setup.start_ready().await, setup.start_ready().await);
        tokio::time::sleep(INSTANCE_LEASE).await;
        let guest = Uuid::new_v4();
        upstream.simulator.script(Rule::patch().guest(guest).times(1).hang());
        let (mut client, call) = (dies.client().await, upstream.archive(guest, &guest.to_string()));
        let call = tokio::spawn(async move { client.archive_guest_connection(call).await });
        let sent = |count| {
            move |entries: &[Entry]| entries.iter().filter(|entry| entry.is_patch_of(guest)).count() == count
        };
        upstream.simulator.wait_for(sent(1), PATIENCE).await?;
        dies.kill().await;
        let killed = Instant::now();
        let mut client = stays.client().await;
        for _ in 0..EVENTS {
            let guest = Uuid::new_v4();
            client.archive_guest_connection(upstream.archive(guest, &guest.to_string())).await?;
        }
        events.take(EVENTS).await;
        let published = killed.elapsed();
        upstream.simulator.wait_for(sent(2), PATIENCE).await?;
        let claimed = killed.elapsed();
        println!(
            "take-over {round}: events after {} ms, what it had begun after {} ms",
            published.as_millis(),
            claimed.as_millis()
        );
        events.take(1).await;
        call.abort();
        stays.terminate().await;
    }
    Ok(())
}

#[tokio::main]
async fn main() -> Outcome {
    let program = std::env::current_exe()?.with_file_name("guest-connection-adapter");
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    println!("{build} build; {MESSAGES} messages for {GUESTS} connections; {CALLERS} callers\n");
    println!("store          n            commands   adapters    store   broker     rest   microseconds");
    for way in &WAYS {
        let (upstream, broker, names) = (Upstream::start().await, Broker::connect().await, Names::default());
        let database = Database::create().await;
        let setup = upstream.setup(&program).broker(&broker, &names);
        let setup = if way.is_postgres {
            let lines = format!("store.url = \"{}\"\namqp.partitions = {}", database.url(), way.partitions);
            setup.config(&lines)
        } else {
            setup
        };
        drain(&setup, way, &upstream, &broker, &names).await?;
        call(&setup, way, &upstream).await?;
    }
    println!("\nstore.lease {LEASE:?}, store.instance_lease {INSTANCE_LEASE:?}");
    let (upstream, broker, names) = (Upstream::start().await, Broker::connect().await, Names::default());
    let database = Database::create().await;
    let lines = format!(
        "store.url = \"{}\"\nstore.lease = \"{LEASE:?}\"\nstore.instance_lease = \"{INSTANCE_LEASE:?}\"\n{BRIEF}",
        database.url()
    );
    let setup = upstream.setup(&program).broker(&broker, &names).config(&lines);
    setup.start_ready().await.terminate().await;
    take_over(&setup, &upstream, &mut broker.subscribe(&names.events).await).await?;
    println!(
        "\nadapters, store, broker, rest (API, clients): microseconds of processor time for each command;"
    );
    println!("that of the embedded store is the adapter's.");
    Ok(())
}
