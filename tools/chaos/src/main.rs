//! `make chaos`: a run of a seed, told in counts; on failure the seed, the promise and the whole story.

#![allow(
    clippy::print_stdout,
    clippy::expect_used,
    reason = "it is there to print, and may fail by panicking"
)]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use chaos::citizen::{self, Durations};
use chaos::history::History;
use chaos::plan::{Cluster, Plan, Track};
use chaos::soak::{self, Part};
use chaos::{checks, report, run};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;

#[derive(Parser)]
#[command(about = "Disturbs a running adapter and checks its promises from outside")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes a run of its own broker, upstream and adapter.
    Run {
        /// What the run is made of; without one, any.
        #[arg(long)]
        seed: Option<u64>,
        /// For how long commands are sent and faults happen.
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// How many instances there are. Several share a PostgreSQL database.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=9))]
        instances: u8,
        /// Over how many queues commands are spread; 0 is one queue for all.
        #[arg(long, default_value_t = 0)]
        partitions: u16,
        /// Only these faults happen; repeatable; without one, all.
        #[arg(long, value_enum)]
        only: Vec<Track>,
        /// The files of the run are kept even if it passes.
        #[arg(long)]
        keep: bool,
    },
    /// Makes the long and the large runs.
    Soak {
        /// Which; without one, all.
        #[arg(long, value_enum)]
        part: Option<Part>,
        /// The backlog that is drained.
        #[arg(long, default_value_t = 400_000)]
        messages: usize,
    },
    /// Measures how good a client of the API the adapter is; fails if a bound is missed.
    Citizen(Citizen),
    /// Checks the history of an earlier run again.
    Check {
        /// The `history.json` of the run.
        history: PathBuf,
    },
}

#[derive(clap::Args)]
struct Citizen {
    /// Which part; repeatable; without one, all.
    #[arg(long = "part", value_enum)]
    parts: Vec<citizen::Part>,
    /// The load before an outage.
    #[arg(long, default_value_t = 10)]
    warm_up_seconds: u64,
    /// Each outage.
    #[arg(long, default_value_t = 60)]
    outage_seconds: u64,
    /// Each kind of trouble of one organisation.
    #[arg(long, default_value_t = 30)]
    scenario_seconds: u64,
    /// Each kind of a limit, the 5 s to learn it included.
    #[arg(long, default_value_t = 45)]
    pace_seconds: u64,
    /// The calls beside a backlog.
    #[arg(long, default_value_t = 15)]
    door_seconds: u64,
    /// The messages of that backlog.
    #[arg(long, default_value_t = 60_000)]
    waiting: usize,
    /// Where the figures are written.
    #[arg(long, default_value = "target/citizen.json")]
    json: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let command = Arguments::parse().command;
    if let Command::Run { .. } = command {
        // It tells what it has come to before it ends.
        return work(command).await;
    }
    // Left as futures, the parts of a run are dropped, and so stopped, when the program is told to end.
    tokio::select! {
        code = work(command) => code,
        () = told() => {
            println!("chaos: told to end");
            ExitCode::from(130)
        }
    }
}

/// Waits until the program is told to end.
async fn told() {
    let mut terminated = signal(SignalKind::terminate()).expect("signals can be heard");
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {}
        _ = terminated.recv() => {}
    }
}

async fn work(command: Command) -> ExitCode {
    match command {
        Command::Run { seed, seconds, instances, partitions, only, keep } => {
            // Short enough to be typed.
            let seed = seed.unwrap_or_else(|| u64::from(rand::random::<u32>()));
            let cluster = Cluster { instances: instances.into(), partitions };
            let mut plan = Plan::new(seed, Duration::from_secs(seconds), cluster);
            if !only.is_empty() {
                plan.tracks = plan.tracks.only(&only);
            }
            Box::pin(chaos(plan, keep)).await
        }
        Command::Soak { part, messages } => long(part, messages).await,
        Command::Citizen(arguments) => measure(&arguments).await,
        Command::Check { history } => check(&history),
    }
}

async fn chaos(plan: Plan, keeps: bool) -> ExitCode {
    let Plan { seed, cluster, duration, .. } = plan;
    let mut words = format!("SEED={seed} SECONDS={}", duration.as_secs());
    if cluster.is_shared() {
        words = format!("INSTANCES={} PARTITIONS={} {words}", cluster.instances, cluster.partitions);
    }
    println!("chaos: {words}");
    // Heard all the time: what is said between two phases ends the next one.
    let told_to_end = Arc::new(Notify::new());
    let heard = Arc::clone(&told_to_end);
    tokio::spawn(async move {
        loop {
            told().await;
            heard.notify_one();
        }
    });
    let run = match Box::pin(run::run(plan, async || told_to_end.notified().await)).await {
        Ok(run) => run,
        Err(reason) => {
            println!("chaos: the parts of the run were not started: {reason}");
            return ExitCode::FAILURE;
        }
    };
    println!("{}", report::summary(&run));
    if keeps || !run.is_sound() {
        match report::keep(&run) {
            Ok(folder) => println!("chaos: everything about it is in {}", folder.display()),
            Err(error) => println!("chaos: its files could not be kept: {error}"),
        }
    }
    if run.is_sound() {
        println!("chaos: seed {seed} passed");
        return ExitCode::SUCCESS;
    }
    println!("chaos: FAILED; again: make chaos {words}");
    ExitCode::FAILURE
}

async fn long(part: Option<Part>, messages: usize) -> ExitCode {
    let parts = part.map_or_else(|| Part::ALL.to_vec(), |part| vec![part]);
    let mut failed = false;
    for part in parts {
        println!("soak: {part:?}");
        match soak::soak(part, messages).await {
            Ok(figures) => println!("soak: {part:?} passed: {figures}"),
            Err(fault) => {
                println!("soak: {part:?} FAILED: {fault}");
                failed = true;
            }
        }
    }
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

async fn measure(arguments: &Citizen) -> ExitCode {
    let durations = Durations {
        warm_up: Duration::from_secs(arguments.warm_up_seconds),
        outage: Duration::from_secs(arguments.outage_seconds),
        scenario: Duration::from_secs(arguments.scenario_seconds),
        pace: Duration::from_secs(arguments.pace_seconds),
        doors: Duration::from_secs(arguments.door_seconds),
        waiting: arguments.waiting,
    };
    let parts = if arguments.parts.is_empty() { &citizen::Part::ALL } else { arguments.parts.as_slice() };
    let report = citizen::citizen(parts, &durations).await;
    let text = serde_json::to_string_pretty(&report).expect("figures are JSON");
    if let Err(error) = std::fs::write(&arguments.json, text) {
        println!("citizen: {}: {error}", arguments.json.display());
        return ExitCode::FAILURE;
    }
    println!("citizen: the figures are in {}", arguments.json.display());
    report.faults.iter().for_each(|fault| println!("citizen: MISSED {fault}"));
    if report.faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn check(path: &PathBuf) -> ExitCode {
    let read = std::fs::read(path).map_err(|error| error.to_string());
    let history = read.and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string()));
    let history: History = match history {
        Ok(history) => history,
        Err(error) => {
            println!("chaos: {}: {error}", path.display());
            return ExitCode::FAILURE;
        }
    };
    let checked = checks::all(&history);
    println!("{}", report::verdict(&history, &checked));
    if checked.iter().all(|check| check.findings.is_empty()) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
