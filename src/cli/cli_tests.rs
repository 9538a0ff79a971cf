use std::convert::Infallible;
use std::io;
use std::time::Instant;

use clap::CommandFactory as _;

use super::*;

/// `ExitCode` has no comparison of its own.
fn same(left: ExitCode, right: u8) -> bool {
    format!("{left:?}") == format!("{:?}", ExitCode::from(right))
}

#[test]
fn the_command_line_is_consistent() {
    Arguments::command().debug_assert();
}

#[test]
fn half_of_the_cores_run_tasks_and_one_at_least() {
    let of = |cores| worker_threads(Ok(NonZeroUsize::new(cores).unwrap()));
    assert_eq!([of(1), of(2), of(3), of(4), of(64)], [1, 1, 1, 2, 32]);
    assert_eq!(worker_threads(Err(io::Error::other("unknown"))), 1);
}

#[tokio::test]
async fn the_exit_code_says_how_it_ended() {
    let shutdown = CancellationToken::new();
    let timeout = Duration::from_secs(60);
    let good = supervised(async { Ok::<_, Infallible>(()) }, &shutdown, timeout).await;
    assert!(same(good, 0));
    let bad = supervised(async { Err(io::Error::other("broken")) }, &shutdown, timeout).await;
    assert!(same(bad, EXIT_FAILURE));
}

#[tokio::test]
async fn what_hangs_is_left_behind() {
    let shutdown = CancellationToken::new();
    shutdown.cancel();
    let started = Instant::now();
    let hanging = std::future::pending::<Result<(), Infallible>>();
    let code = supervised(hanging, &shutdown, Duration::from_millis(50)).await;
    assert!(same(code, 0));
    assert!(started.elapsed() < Duration::from_secs(5));
}
