//! The program; everything it does is in the library.

use std::process::ExitCode;

use guest_connection_adapter::{app, cli};

fn main() -> ExitCode {
    cli::run(app::run)
}
