//! The log records of the program.

use crate::telemetry::record::records;

records! { "cli";
    /// SIGTERM or SIGINT has come: the adapter takes nothing new in and ends what is under way.
    INFO Stopping "stopping; a second signal ends the process at once";
    /// The process ends with code 0.
    INFO Stopped "stopped";
    /// The adapter could not begin its work or go on with it; the process ends.
    ///
    /// `error` says why; whatever supervises the process should start it again.
    ERROR Failed<'a> "the adapter failed" {
        error: &'a str => value "error",
    }
    /// The adapter's main task has panicked; the process ends.
    ///
    /// A fault of the adapter: report it. Whatever supervises the process should start it again.
    ERROR FailedUnexpectedly<'a> "the adapter failed unexpectedly" {
        error: &'a str => value "error",
    }
    /// The time of `shutdown.drain_timeout` is over. No command is lost.
    ///
    /// If it happens at every stop, give the drain more time, and the supervisor more still.
    WARN DrainCutShort "work was still under way at the end of the drain; it is taken up after the next start";
}
