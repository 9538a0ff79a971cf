//! Measures the adapter under load, over real sockets with a real broker, side by side with floors: what does the same
//! without tracking anything. `make bench`, in the environment of `scripts/broker run` and `scripts/database run`.
//!
//! - [`scenario`]: what is measured
//! - [`run`]: one measurement, from outside
//! - [`calls`], [`messages`]: the load
//! - [`subject`]: what is measured, as a process of its own
//! - [`floor`]: what the adapter is measured against
//! - [`report`]: the table, and the same as JSON

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is there to print")]
#![allow(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "figures"
)]

mod calls;
mod floor;
mod messages;
mod report;
mod run;
mod scenario;
mod subject;

use std::error::Error;
use std::path::PathBuf;

use clap::{Parser, Subcommand};

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
        /// How often each is measured; the median is shown.
        #[arg(long)]
        rounds: Option<usize>,
        /// Where to write the figures as JSON.
        #[arg(long)]
        json: Option<PathBuf>,
        /// Figures of a former run, to compare with.
        #[arg(long)]
        compare: Option<PathBuf>,
        /// How long the stand-in of the API waits with every answer, in milliseconds.
        #[arg(long, default_value_t = 0)]
        delay: u64,
    },
    /// Runs a floor until it is stopped; started by `run`.
    Floor(floor::Arguments),
}

#[tokio::main]
async fn main() -> Outcome {
    match Cli::parse().command {
        Command::Run { quick, only, rounds, json, compare, delay } => {
            let plan = run::Plan { is_quick: quick, only, rounds, delay };
            let figures = run::all(&plan).await?;
            report::print(&figures);
            if let Some(path) = compare {
                report::compare(&figures, &path)?;
            }
            if let Some(path) = json {
                report::write(&figures, &path)?;
            }
            Ok(())
        }
        Command::Floor(arguments) => floor::run(arguments).await,
    }
}
