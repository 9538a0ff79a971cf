//! The program: what its arguments mean, and the code that it exits with.

mod admin;
mod check;
mod partitions;
pub(crate) mod records;
mod signals;

use std::error::Error;
use std::fmt::Display;
use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use clap::{Parser, Subcommand};
use serde_json::Value;
use tokio_util::sync::CancellationToken;

use crate::config::{self, Config, Faults, reference};
use crate::telemetry;

/// The file that is read if no other is named and it is there.
const CONFIG_FILE: &str = "guest-connection-adapter.toml";

/// The process worked, and then could not go on.
const EXIT_FAILURE: u8 = 1;

/// The configuration, or the command line, is at fault.
const EXIT_CONFIGURATION: u8 = 2;

/// The time beyond the drain that is left to whatever hangs.
const OVERTIME: Duration = Duration::from_secs(2);

/// The time for the last spans.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);

#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the adapter until SIGTERM or SIGINT
    Serve(Source),
    /// Checks the configuration and tells every fault
    Check(Source),
    /// Erases the bodies that are kept of a guest or an organisation, and tells what it did; the adapter must be running
    Forget {
        #[command(flatten)]
        whose: admin::Whose,
        #[command(flatten)]
        source: Source,
    },
    /// Prints the acts of administrators, the newest first; the adapter must be running
    Audit {
        #[command(flatten)]
        page: admin::Page,
        #[command(flatten)]
        source: Source,
    },
    /// Changes the number of partitions
    #[command(subcommand)]
    Partitions(partitions::Act),
    /// Prints a configuration file with every key, its meaning and its default
    ExampleConfig,
}

#[derive(Debug, clap::Args)]
struct Source {
    /// The configuration file [default: guest-connection-adapter.toml if it is there]
    #[arg(long, value_name = "PATH")]
    config: Option<PathBuf>,
}

impl Source {
    fn file(&self) -> Option<PathBuf> {
        let default = || Path::new(CONFIG_FILE).exists().then(|| PathBuf::from(CONFIG_FILE));
        self.config.clone().or_else(default)
    }

    /// Where the configuration comes from, now and later.
    fn resolve(&self) -> config::Source {
        config::Source::new(self.file(), std::env::vars_os())
    }
}

/// Does what the command line says. `serve` runs the adapter until the token is cancelled and its work has ended.
pub fn run<S, F, E>(serve: S) -> ExitCode
where
    S: FnOnce(Config, config::Source, CancellationToken) -> F,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Error + Send + 'static,
{
    match Arguments::parse().command {
        Command::Serve(source) => {
            let source = source.resolve();
            match source.read().config {
                Ok(config) => start(config, source, serve),
                Err(faults) => refuse(&faults),
            }
        }
        Command::Check(source) => {
            let source = source.resolve();
            match source.read().config {
                Ok(config) => match check::store(&config) {
                    Ok(store) => print(&check::summary(&config, source.file(), &store)),
                    Err(faults) => refuse(&faults),
                },
                Err(faults) => refuse(&faults),
            }
        }
        Command::Forget { whose, source } => act(&source, |config| admin::forget(config, &whose)),
        Command::Audit { page, source } => act(&source, |config| admin::audit(config, &page)),
        Command::Partitions(act) => partitions::run(&act),
        Command::ExampleConfig => print(&reference::example()),
    }
}

/// Has the running adapter do something, and prints its answer.
fn act(source: &Source, ask: impl FnOnce(&Config) -> Result<Value, admin::Failure>) -> ExitCode {
    match source.resolve().read().config {
        Ok(config) => match ask(&config) {
            Ok(answer) => print(&format!("{answer:#}\n")),
            Err(error) => fail("it was not done", &error),
        },
        Err(faults) => refuse(&faults),
    }
}

fn start<S, F, E>(config: Config, source: config::Source, serve: S) -> ExitCode
where
    S: FnOnce(Config, config::Source, CancellationToken) -> F,
    F: Future<Output = Result<(), E>> + Send + 'static,
    E: Error + Send + 'static,
{
    let settings = match config.telemetry() {
        Ok(settings) => settings,
        Err(faults) => return refuse(&faults),
    };
    let threads =
        config.limits.worker_threads.unwrap_or_else(|| worker_threads(thread::available_parallelism()));
    let runtime =
        match tokio::runtime::Builder::new_multi_thread().worker_threads(threads).enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => return fail("the runtime cannot be started", &error),
        };
    let code = runtime.block_on(async {
        let guard = match telemetry::init(&settings) {
            Ok(guard) => guard,
            Err(error) => return fail("telemetry cannot be started", &error),
        };
        let shutdown = CancellationToken::new();
        if let Err(error) = signals::watch(shutdown.clone()) {
            return fail("signals cannot be received", &error);
        }
        let drain_timeout = config.shutdown.drain_timeout;
        let code =
            supervised(serve(config, source, shutdown.clone()), &shutdown, drain_timeout + OVERTIME).await;
        guard.shutdown(FLUSH_TIMEOUT).await;
        code
    });
    // Threads that hang in a system call are left behind.
    runtime.shutdown_background();
    code
}

/// Half of the cores: the store's threads, the broker client's and the kernel do as much work as the tasks, and with a
/// thread for each core they would take turns with them.
fn worker_threads(cores: io::Result<NonZeroUsize>) -> usize {
    cores.map_or(1, |cores| (cores.get() / 2).max(1))
}

/// Runs `work`. Once shutdown has begun it has `drain_timeout` to end; what does not is taken up after the next start,
/// so that this is no failure.
async fn supervised<E: Error + Send + 'static>(
    work: impl Future<Output = Result<(), E>> + Send + 'static,
    shutdown: &CancellationToken,
    drain_timeout: Duration,
) -> ExitCode {
    // On a task of its own a blocked thread cannot keep the deadline from being noticed.
    let work = tokio::spawn(work);
    let deadline = async {
        shutdown.cancelled().await;
        tokio::time::sleep(drain_timeout).await;
    };
    tokio::select! {
        ended = work => match ended {
            Ok(Ok(())) => {
                records::Stopped.log();
                ExitCode::SUCCESS
            }
            Ok(Err(error)) => {
                records::Failed { error: &causes(&error) }.log();
                ExitCode::from(EXIT_FAILURE)
            }
            Err(error) => {
                records::FailedUnexpectedly { error: &causes(&error) }.log();
                ExitCode::from(EXIT_FAILURE)
            }
        },
        () = deadline => {
            records::DrainCutShort.log();
            ExitCode::SUCCESS
        }
    }
}

/// An error with its causes.
fn causes(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(error.source(), |cause| Error::source(*cause));
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_closed) => ExitCode::from(EXIT_FAILURE),
    }
}

fn refuse(faults: &Faults) -> ExitCode {
    let count = faults.0.len();
    let noun = if count == 1 { "fault" } else { "faults" };
    complain(&format!("the configuration has {count} {noun}:\n{faults}"));
    ExitCode::from(EXIT_CONFIGURATION)
}

fn fail(text: &str, error: &(dyn Error + 'static)) -> ExitCode {
    complain(&format!("{text}: {}", causes(error)));
    ExitCode::from(EXIT_FAILURE)
}

fn complain(text: &dyn Display) {
    // Standard error is the last resort; if it is closed there is nobody to tell.
    let _ = writeln!(std::io::stderr(), "{text}");
}

#[cfg(test)]
#[path = "cli_tests.rs"]
mod tests;
