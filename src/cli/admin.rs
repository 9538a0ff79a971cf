//! Acts of administrators: asked of the running adapter by its admin door.

use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use clap::Args;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};

use crate::config::Config;

/// Whose bodies are to be erased.
#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Whose {
    /// A guest: every connection with this organisation
    #[arg(long, value_name = "ID")]
    guest: Option<String>,
    /// An organisation: what was asked in its name, and the connections that it owns
    #[arg(long, value_name = "ID")]
    organization: Option<String>,
}

/// Which acts are to be read.
#[derive(Debug, Args)]
pub(super) struct Page {
    /// At most so many
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    limit: usize,
    /// Only those with numbers below this one
    #[arg(long, value_name = "NUMBER")]
    before: Option<i64>,
}

/// Connecting to an adapter on this machine takes no longer.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// The door ends a connection no later.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(900);

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("there is no admin token: give `admin.token_file`, and restart the adapter")]
    NoToken,
    #[error("the adapter does not answer at {0}; it must be running")]
    Unreachable(SocketAddr, #[source] reqwest::Error),
    #[error("the adapter refuses ({0}): {1}")]
    Refused(u16, String),
    #[error("the client cannot be made")]
    Client(#[from] Box<dyn Error + Send + Sync>),
}

/// Has bodies erased. Yields what was done.
pub(super) fn forget(config: &Config, whose: &Whose) -> Result<Value, Failure> {
    let body = match (&whose.guest, &whose.organization) {
        (Some(id), _) => json!({ "guest_organization_id": id }),
        (None, id) => json!({ "requester_organization_id": id }),
    };
    ask(config, |client, base| client.post(format!("{base}/v1/forget")).json(&body))
}

/// Reads what was done.
pub(super) fn audit(config: &Config, page: &Page) -> Result<Value, Failure> {
    let before = page.before.map(|before| format!("&before={before}")).unwrap_or_default();
    ask(config, |client, base| client.get(format!("{base}/v1/audit?limit={}{before}", page.limit)))
}

fn ask(
    config: &Config,
    request: impl FnOnce(&reqwest::Client, &str) -> reqwest::RequestBuilder,
) -> Result<Value, Failure> {
    let token = config.admin.token.as_ref().ok_or(Failure::NoToken)?;
    let address = reachable(config.admin.listen);
    let client = reqwest::Client::builder()
        .no_proxy()
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(ANSWER_TIMEOUT)
        .build()
        .map_err(|error| Failure::Client(error.into()))?;
    let request = request(&client, &format!("http://{address}")).bearer_auth(token.expose_secret());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Failure::Client(error.into()))?;
    runtime.block_on(async {
        let unreachable = |error| Failure::Unreachable(address, error);
        let response = request.send().await.map_err(unreachable)?;
        let status = response.status();
        let body: Value = response.json().await.map_err(unreachable)?;
        if status.is_success() {
            return Ok(body);
        }
        let text = body["error"].as_str().unwrap_or("it does not say why").to_owned();
        Err(Failure::Refused(status.as_u16(), text))
    })
}

/// Who listens everywhere is reached on this machine.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}
