//! The simulator as a program.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program talks to its terminal")]

use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::{ArgAction, Parser};
use simulator::{Client, Config, Limit, Simulator, StaticToken};
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

/// A strict stand-in for the MyCreditApp guest-connections API, with scripted faults and a journal.
// No Debug: it would show secrets. They are parsed by hand, since clap repeats what it can't parse.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// An API client, `id:secret:organization`; repeatable, or separated by commas
    #[arg(long = "client", env = "SIMULATOR_CLIENTS", hide_env_values = true, value_delimiter = ',')]
    clients: Vec<String>,
    /// A token that never expires, `token:organization`; repeatable, or separated by commas
    #[arg(long = "token", env = "SIMULATOR_TOKENS", hide_env_values = true, value_delimiter = ',')]
    tokens: Vec<String>,
    /// How long fetched tokens are valid, in seconds
    #[arg(long, default_value_t = 3600)]
    token_lifetime: u64,
    /// How long every PATCH waits before it is applied, in milliseconds
    #[arg(long, default_value_t = 0)]
    delay_ms: u64,
    /// A limit on the rate of PATCHes, as JSON: `{"requests_per_second": 50}` and what else `POST /_control/limit` takes
    #[arg(long, value_parser = limit)]
    limit: Option<Limit>,
    /// Whether the first PATCH of an unknown connection creates it
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    auto_create: bool,
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("simulator: {message}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), String> {
    let config = Config {
        listen: arguments.listen,
        clients: each(&arguments.clients, client).map_err(|n| format!("client {n} is not id:secret:uuid"))?,
        tokens: each(&arguments.tokens, token).map_err(|n| format!("token {n} is not token:uuid"))?,
        token_lifetime: Duration::from_secs(arguments.token_lifetime),
        delay: Duration::from_millis(arguments.delay_ms),
        limit: arguments.limit,
        auto_create: arguments.auto_create,
        ..Config::default()
    };
    // Before the line is printed, so that who reads it may stop us at once.
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| error.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    let simulator = Simulator::start(config)
        .await
        .map_err(|error| format!("can't listen on {}: {error}", arguments.listen))?;
    println!("simulator listening on {}", simulator.base_url());
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    simulator.shutdown().await;
    Ok(())
}

/// Reads every value, or tells the number of the first that can't be read; the value may hold a secret.
fn each<T>(values: &[String], read: fn(&str) -> Option<T>) -> Result<Vec<T>, usize> {
    values.iter().enumerate().map(|(index, value)| read(value).ok_or(index + 1)).collect()
}

/// The secret is all between the first colon and the last, since it may hold colons.
fn client(value: &str) -> Option<Client> {
    let (client_id, rest) = value.split_once(':')?;
    let (client_secret, organization) = rest.rsplit_once(':')?;
    if client_id.is_empty() || client_secret.is_empty() {
        return None;
    }
    Some(Client {
        client_id: client_id.to_owned(),
        client_secret: client_secret.to_owned(),
        organization_id: organization.parse::<Uuid>().ok()?,
    })
}

fn limit(value: &str) -> Result<Limit, serde_json::Error> {
    serde_json::from_str(value)
}

fn token(value: &str) -> Option<StaticToken> {
    let (token, organization) = value.rsplit_once(':')?;
    let organization_id = organization.parse::<Uuid>().ok()?;
    (!token.is_empty()).then(|| StaticToken { token: token.to_owned(), organization_id })
}
