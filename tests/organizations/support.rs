//! More organisations than a world has by itself.

use guest_connection_adapter::proto;
use harness::adapter::{replace_file, secret_file};
use harness::{DEADLINE, World};
use serde_json::{Value, json};
use simulator::Simulator;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

/// What makes an adapter notice and try again soon.
pub const QUICK: &str = r#"
organizations_check_interval = "50ms"
upstream.retry_delay_base = "20ms"
upstream.retry_delay_max = "100ms"
upstream.defer_delay_base = "50ms"
upstream.defer_delay_max = "200ms"
upstream.token_delay_base = "50ms"
upstream.token_delay_max = "200ms"
"#;

/// An organisation with an API client of its own.
pub struct Other {
    pub name: String,
    pub id: Uuid,
    secret: String,
}

impl Other {
    pub fn new(name: &str) -> Self {
        Self { name: name.to_owned(), id: Uuid::now_v7(), secret: format!("secret-of-{name}") }
    }

    fn client(&self) -> String {
        format!("client-of-{}", self.name)
    }

    /// Makes its API client known.
    pub fn register(&self, simulator: &Simulator) {
        simulator.register_client(&self.client(), &self.secret, self.id);
    }

    /// Its line of configuration, and the file with its secret. `more` are further keys.
    pub fn line(&self, world: &World, more: &str) -> String {
        let file = secret_file(world.setup.directory(), &self.name, &self.secret);
        format!(
            r#"organizations.{} = {{ id = "{}", client_id = "{}", client_secret_file = "{}"{more} }}"#,
            self.name,
            self.id,
            self.client(),
            file.display()
        )
    }

    pub fn archive(&self, guest: Uuid, key: &str) -> proto::ArchiveGuestConnectionRequest {
        proto::ArchiveGuestConnectionRequest {
            guest_organization_id: guest.to_string(),
            requester_organization_id: self.id.to_string(),
            idempotency_key: key.to_owned(),
            ..<_>::default()
        }
    }

    pub fn message(&self, guest: Uuid, key: &str) -> Value {
        json!({
            "requester_organization_id": self.id, "guest_organization_id": guest, "archived": true,
            "idempotency_key": key,
        })
    }
}

/// Waits until the adapter has taken so many changes.
pub async fn changed(world: &World, count: usize) {
    let is_change = |line: &&String| line.contains("the organisations have changed");
    let seen =
        world.adapter.log().wait_until(DEADLINE, |lines| lines.iter().filter(is_change).count() >= count);
    seen.await.unwrap_or_else(|lines| panic!("no change:\n{}", lines.join("\n")));
}

/// The detail of the organisations' part, as soon as it has this status.
pub async fn readiness(world: &World, status: &str) -> String {
    let part = |value: &Value| value["parts"]["organizations"].clone();
    let value = world.adapter.readiness(|_, value| part(value)["status"] == status).await;
    assert_eq!(value["status"], "ready", "{value}");
    part(&value)["detail"].as_str().unwrap_or_default().to_owned()
}

pub fn rotate(world: &World, file: &str, secret: &str) {
    replace_file(&world.setup.directory().join(file), secret);
}

/// The reason that a status gives.
pub fn reason(status: &Status) -> (Code, String) {
    (status.code(), status.get_details_error_info().expect("details").reason)
}

pub fn not_configured() -> (Code, String) {
    (Code::PermissionDenied, "REQUESTER_NOT_CONFIGURED".to_owned())
}
