//! Measures the adapter under load, over real sockets with a real broker, side by side with floors: what does the same
//! without tracking anything. `make bench`, in the environment of `scripts/broker run` and `scripts/database run`.
//!
//! - [`scenario`]: what is measured
//! - [`run`]: all of it, in turn
//! - [`measure`], [`life`]: one measurement, from outside
//! - [`calls`], [`messages`], [`hot`], [`kept`]: the load
//! - [`subject`], [`syncs`]: what is measured, as a process of its own, and what it takes
//! - [`floor`]: what the adapter is measured against
//! - [`figure`], [`targets`]: what a measurement tells, and what it is to be
//! - [`report`], [`machine`], [`page`], [`plot`]: the table, the same as JSON, and the page of what was kept

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is there to print")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    clippy::cast_sign_loss,
    reason = "figures"
)]

mod calls;
mod figure;
mod floor;
mod hot;
mod kept;
mod life;
mod machine;
mod measure;
mod messages;
mod page;
mod plot;
mod report;
mod run;
mod scenario;
mod subject;
mod syncs;
mod targets;

use std::error::Error;
use std::path::{Path, PathBuf};

use clap::{Parser, Subcommand};

use machine::Machine;
use report::Run;

/// What anything here may fail with.
type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Measures everything, or the scenarios whose names hold a text.
    Run {
        /// Only the main ones, briefly.
        #[arg(long)]
        quick: bool,
        /// Only scenarios whose name holds this.
        #[arg(long)]
        only: Option<String>,
        /// How often the main ones are measured; the median is shown.
        #[arg(long)]
        rounds: Option<usize>,
        /// How many messages a backlog has, in place of what the scenarios say.
        #[arg(long)]
        messages: Option<usize>,
        /// For how many seconds is called.
        #[arg(long)]
        seconds: Option<u64>,
        /// How many commands a full store keeps.
        #[arg(long, default_value_t = kept::USUAL)]
        kept: usize,
        /// Where to write the figures as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Figures of a former run, to compare with.
        #[arg(long)]
        compare: Option<PathBuf>,
        /// How long the stand-in of the API waits with every answer besides what the scenarios say, in milliseconds.
        #[arg(long, default_value_t = 0)]
        delay: u64,
    },
    /// Writes docs/performance.md with the figures of a run in it, and the plot of those that are kept.
    Report {
        /// The figures.
        #[arg(long)]
        json: PathBuf,
    },
    /// Runs a floor until it is stopped; started by `run`.
    Floor(floor::Arguments),
}

#[tokio::main]
async fn main() -> Outcome {
    match Cli::parse().command {
        Command::Run { quick, only, rounds, messages, seconds, kept, json, compare, delay } => {
            // Whatever is wrong with these, or changes meanwhile, is not to be found out at the end.
            let plan = run::Plan { is_quick: quick, only, rounds, delay, messages, seconds, kept };
            let (former, machine) = (compare.map(|path| Run::read(&path)).transpose()?, Machine::here());
            if let Some(former) = &former {
                plan.is_comparable(former.scale)?;
            }
            plan.has_room(&std::env::temp_dir())?;
            if let Some(folder) = json.as_ref().and_then(|path| path.parent()) {
                std::fs::create_dir_all(folder)?;
            }
            let run = Run::new(machine, plan.scale(), run::all(&plan).await);
            run.print();
            if let Some(former) = former {
                run.compare(&former);
            }
            if let Some(path) = json {
                run.write(&path)?;
            }
            if run.failures.is_empty() { Ok(()) } else { Err("not all could be measured".into()) }
        }
        Command::Report { json } => page::Docs::of(Path::new(".")).write(Some(&Run::read(&json)?)),
        Command::Floor(arguments) => floor::run(arguments).await,
    }
}
