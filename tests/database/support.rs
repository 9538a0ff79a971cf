//! Words that the stories share.

use guest_connection_adapter::proto::ArchiveGuestConnectionResponse;
use guest_connection_adapter::proto::guest_connection_service_client::GuestConnectionServiceClient;
use harness::{Database, World};
use serde_json::Value;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

/// Messages in hand, at most.
pub const PREFETCH: usize = 16;

/// Short waits; no attempt is so short that a loaded machine exceeds it.
const QUICK: &str = r#"
amqp.prefetch = 16
amqp.delivery_hold = "2s"
upstream.attempt_timeout = "3s"
upstream.command_timeout = "5s"
upstream.settle = "1s"
upstream.defer_delay_base = "100ms"
upstream.defer_delay_max = "500ms"
store.lease = "8s"
store.instance_lease = "3s"
store.statement_timeout = "2s"
"#;

/// An adapter with its store in `database`.
pub async fn world(database: &Database) -> World {
    World::start(PROGRAM, &format!("{QUICK}store.url = \"{}\"\n", database.url())).await
}

/// Archives by a call with so many seconds.
pub async fn call(
    client: &mut GuestConnectionServiceClient<Channel>,
    world: &World,
    guest: Uuid,
    key: &str,
) -> Result<ArchiveGuestConnectionResponse, Status> {
    let mut request = Request::new(world.upstream.archive(guest, key));
    request.set_timeout(harness::DEADLINE);
    client.archive_guest_connection(request).await.map(tonic::Response::into_inner)
}

/// A refusal tells that it is for a time, and when to come again. What was under way when the store went away may be unknown.
#[track_caller]
pub fn is_for_a_time(status: &Status) {
    let details = status.get_error_details();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    assert!(details.retry_info().is_some_and(|info| info.retry_delay.is_some()), "{status:?}");
}

/// The key of the command that an event tells of.
pub fn key_of(event: &Value) -> String {
    event["data"]["command"]["idempotency_key"].as_str().unwrap().to_owned()
}
