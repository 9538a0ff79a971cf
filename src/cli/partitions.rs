//! Partitions: what an operator does when their number changes.

use clap::Subcommand;

use super::{Source, fail, refuse};
use crate::app::partitions;
use std::io::Write as _;
use std::process::ExitCode;

/// What is to be done.
#[derive(Debug, Subcommand)]
pub(super) enum Act {
    /// Leaves the queues of `amqp.partitions_from` for those of `amqp.partitions`, and waits until the former are gone; every
    /// instance must run with this configuration. It can be begun again at any time
    Retire(Source),
}

/// Does it.
pub(super) fn run(act: &Act) -> ExitCode {
    let Act::Retire(source) = act;
    let config = match source.resolve().read().config {
        Ok(config) => config,
        Err(faults) => return refuse(&faults),
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return fail("the runtime cannot be started", &error),
    };
    let mut tell = |text: &str| {
        // Whoever does not listen any more still wants it done.
        let _ = writeln!(std::io::stdout(), "{text}");
    };
    match runtime.block_on(partitions::retire(&config, &mut tell)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail("the partitions are not retired", &error),
    }
}
