//! What the adapter is measured against: the same work without tracking anything, as well as it can be done.
//!
//! - [`loops`]: from queue to exchange
//! - [`service`]: from call to answer

mod loops;
mod service;

use std::time::Duration;

use clap::{Args, ValueEnum};
use reqwest::{Client, header};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::Outcome;

/// Which floor, and where everything is.
#[derive(Debug, Clone, Args)]
pub struct Arguments {
    kind: Kind,
    #[arg(long)]
    amqp: String,
    #[arg(long)]
    queue: String,
    #[arg(long)]
    exchange: String,
    #[arg(long)]
    upstream: String,
    #[arg(long)]
    client_id: String,
    #[arg(long)]
    client_secret: String,
    #[arg(long)]
    requester: Uuid,
    #[arg(long, default_value_t = 256)]
    prefetch: u16,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    BareLoop,
    BestLoop,
    BareService,
}

/// Runs until it is stopped.
pub async fn run(arguments: Arguments) -> Outcome {
    let api = Api::new(&arguments).await?;
    match arguments.kind {
        Kind::BareLoop => loops::bare(&arguments, api).await,
        Kind::BestLoop => loops::best(&arguments, api).await,
        Kind::BareService => service::run(api).await,
    }
}

/// The API, with a token that was got once.
#[derive(Clone)]
struct Api {
    client: Client,
    base: String,
    token: String,
    requester: String,
}

impl Api {
    async fn new(arguments: &Arguments) -> Outcome<Self> {
        // As the adapter's: the same pool, the same deadline.
        let client = Client::builder()
            .timeout(Duration::from_secs(5))
            .pool_max_idle_per_host(512)
            .redirect(reqwest::redirect::Policy::none())
            .build()?;
        let base = arguments.upstream.trim_end_matches('/').to_owned();
        let credentials = json!({"client_id": arguments.client_id, "client_secret": arguments.client_secret});
        let answer = client.post(format!("{base}/oauth2/token")).json(&credentials).send().await?;
        let answer: Value = answer.error_for_status()?.json().await?;
        let token = answer["access_token"].as_str().ok_or("no token")?;
        Ok(Self {
            client,
            base,
            token: format!("Bearer {token}"),
            requester: arguments.requester.to_string(),
        })
    }

    /// One PATCH. Yields the connection as the API shows it.
    async fn patch(&self, guest: &str, archived: bool) -> Outcome<Vec<u8>> {
        let answer = self
            .client
            .patch(format!("{}/guest-connections/{guest}", self.base))
            .header(header::AUTHORIZATION, &self.token)
            .header("requester-organization-id", &self.requester)
            .header("target-organization-id", &self.requester)
            .json(&json!({"archived": archived}))
            .send()
            .await?;
        Ok(answer.error_for_status()?.bytes().await?.to_vec())
    }
}

/// An event of the adapter's size about a connection.
fn event(guest: &str, connection: &[u8]) -> Outcome<(Uuid, Vec<u8>)> {
    let id = Uuid::now_v7();
    let connection: &serde_json::value::RawValue = serde_json::from_slice(connection)?;
    let event = json!({
        "specversion": "1.0",
        "id": id,
        "source": "/guest-connection-adapter",
        "type": "ai.mycreditapp.guest-connection.archived.v1",
        "subject": format!("{guest}/{guest}"),
        "time": chrono::Utc::now(),
        "datacontenttype": "application/json",
        "data": {"guest_connection": connection, "command": {"guest_organization_id": guest, "id": Uuid::now_v7(),
            "state": "succeeded", "attempts": 1, "idempotency_key": id}, "incomplete": false},
    });
    Ok((id, serde_json::to_vec(&event)?))
}
