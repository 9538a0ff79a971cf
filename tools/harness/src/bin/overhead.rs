//! What telemetry costs on this machine: the drain of a backlog of messages, and calls, without it, with a share of the traces,
//! with all of them, and with a collector that is connected and silent. `make overhead`, in the environment of
//! `scripts/broker run`.
//!
//! Load, the stand-in of the API and the collector are in this process, on the same cores. The ways take turns, so that a
//! noisy moment falls on all of them; the median of the rounds is shown.

#![allow(clippy::print_stdout, reason = "it is there to print")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures"
)]

use std::error::Error;
use std::time::{Duration, Instant};

use harness::measure::{self, percentile, ticks_of};
use harness::{Broker, Collector, Names, Upstream};
use tokio::net::TcpListener;

/// Messages of a backlog, and connections that they are for.
const MESSAGES: usize = 4_000;
const GUESTS: usize = 2_000;

/// How long is called, and by how many.
const CALLING: Duration = Duration::from_secs(4);
const CALLERS: usize = 64;

/// How often each way is measured.
const ROUNDS: usize = 5;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Where telemetry goes.
#[derive(Clone, Copy, PartialEq)]
enum Receiver {
    Nobody,
    Collector,
    /// Connected, and then nothing.
    Silent,
}

struct Way {
    name: &'static str,
    receiver: Receiver,
    lines: &'static str,
}

const WAYS: [Way; 6] = [
    Way { name: "off", receiver: Receiver::Nobody, lines: "" },
    Way { name: "1 %", receiver: Receiver::Collector, lines: "telemetry.sample_ratio = 0.01" },
    Way {
        name: "1 %, errors and slow ones kept",
        receiver: Receiver::Collector,
        lines: "telemetry.sample_ratio = 0.01\ntelemetry.keep_errors = true\ntelemetry.keep_slower_than = \"2s\"",
    },
    Way { name: "100 %", receiver: Receiver::Collector, lines: "" },
    Way { name: "100 %, logs by OTLP", receiver: Receiver::Collector, lines: "telemetry.otlp_logs = true" },
    Way { name: "100 %, collector silent", receiver: Receiver::Silent, lines: "" },
];

/// One round: rates, the adapter's processor time for each command in microseconds, and times of calls.
#[derive(Clone, Copy)]
struct Figures {
    drained: f64,
    drained_each: u64,
    called: f64,
    called_each: u64,
    p50: u128,
    p99: u128,
    /// How long the exit took, in milliseconds.
    exit: u128,
}

async fn measure(way: &Way) -> Outcome<Figures> {
    let program = std::env::current_exe()?.with_file_name("guest-connection-adapter");
    let (upstream, broker, names) = (Upstream::start().await, Broker::connect().await, Names::default());
    let (collector, silent) = (Collector::start().await, TcpListener::bind("127.0.0.1:0").await?);
    let setup = upstream.setup(&program).broker(&broker, &names).config(way.lines);
    let setup = match way.receiver {
        Receiver::Nobody => setup,
        Receiver::Collector => {
            setup.config(&format!("telemetry.otlp_endpoint = \"{}\"", collector.endpoint()))
        }
        Receiver::Silent => {
            setup.config(&format!("telemetry.otlp_endpoint = \"http://{}\"", silent.local_addr()?))
        }
    };
    // The queue is there once an instance has been.
    setup.start_ready().await.terminate().await;
    let mut events = broker.subscribe(&names.events).await;
    broker.publish_all(&names, measure::backlog(&upstream, MESSAGES, GUESTS)).await;
    let adapter = setup.start().await;
    events.take(MESSAGES).await;
    let spent = ticks_of(&adapter.pid().to_string());
    let drained = measure::rate(&upstream.simulator.journal()).ok_or("nothing was sent")?;
    let adapters = [adapter];
    let times =
        measure::call(&adapters, &upstream.organizations[0], CALLERS, Instant::now() + CALLING).await?;
    let [adapter] = adapters;
    let calling = ticks_of(&adapter.pid().to_string()) - spent;
    let ending = Instant::now();
    adapter.terminate().await;
    let each = |ticks: u64, count: usize| ticks * 10_000 / count.max(1) as u64;
    Ok(Figures {
        drained,
        drained_each: each(spent, MESSAGES),
        called: times.len() as f64 / CALLING.as_secs_f64(),
        called_each: each(calling, times.len()),
        p50: percentile(&times, 50),
        p99: percentile(&times, 99),
        exit: ending.elapsed().as_millis(),
    })
}

/// The middle one by what `key` says.
fn median<T: PartialOrd + Copy>(figures: &[Figures], key: impl Fn(&Figures) -> T) -> T {
    let mut values: Vec<T> = figures.iter().map(key).collect();
    values.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
    values[values.len() / 2]
}

#[tokio::main]
async fn main() -> Outcome {
    let build = if cfg!(debug_assertions) { "debug" } else { "release" };
    println!(
        "{build} build; {MESSAGES} messages for {GUESTS} connections; {CALLERS} callers for {CALLING:?}; median of {ROUNDS}\n"
    );
    let mut all: Vec<Vec<Figures>> = WAYS.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for (way, figures) in WAYS.iter().zip(&mut all) {
            figures.push(measure(way).await?);
        }
    }
    println!(
        "{:<32} {:>8} {:>7} {:>5} {:>9} {:>7} {:>5} {:>7} {:>7} {:>6}",
        "telemetry", "drained", "to off", "CPU", "called", "to off", "CPU", "p50", "p99", "exit"
    );
    println!(
        "{:<32} {:>8} {:>7} {:>5} {:>9} {:>7} {:>5} {:>7} {:>7} {:>6}",
        "", "/s", "", "us", "/s", "", "us", "us", "us", "ms"
    );
    let (drained, called) =
        (median(&all[0], |figures| figures.drained), median(&all[0], |figures| figures.called));
    for (way, figures) in WAYS.iter().zip(&all) {
        let (drains, calls) =
            (median(figures, |figures| figures.drained), median(figures, |figures| figures.called));
        println!(
            "{:<32} {drains:>8.0} {:>7.2} {:>5} {calls:>9.0} {:>7.2} {:>5} {:>7} {:>7} {:>6}",
            way.name,
            drains / drained,
            median(figures, |figures| figures.drained_each),
            calls / called,
            median(figures, |figures| figures.called_each),
            median(figures, |figures| figures.p50),
            median(figures, |figures| figures.p99),
            median(figures, |figures| figures.exit)
        );
    }
    println!(
        "\nCPU: microseconds of the adapter's processor time for each command, its start included where it drains."
    );
    Ok(())
}
