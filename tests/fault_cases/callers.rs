//! Calls of the gRPC door, and what the cases wait for.

use std::time::Duration;

use guest_connection_adapter::proto::ArchiveGuestConnectionResponse;
use guest_connection_adapter::proto::guest_connection_service_client::GuestConnectionServiceClient;
use harness::{DEADLINE, World};
use simulator::Entry;
use tokio::task::JoinHandle;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

pub type Answer = Result<ArchiveGuestConnectionResponse, Status>;

/// A call to archive, on a connection and a task of its own.
pub fn spawn_archive(world: &World, guest: Uuid, key: &str, timeout: Duration) -> JoinHandle<Answer> {
    let (address, message) = (world.adapter.grpc, world.upstream.archive(guest, key));
    tokio::spawn(async move {
        let channel = tonic::transport::Channel::from_shared(format!("http://{address}")).unwrap();
        let mut client = GuestConnectionServiceClient::new(channel.connect().await.unwrap());
        let mut request = Request::new(message);
        request.set_timeout(timeout);
        client.archive_guest_connection(request).await.map(tonic::Response::into_inner)
    })
}

pub async fn archive(world: &World, guest: Uuid, key: &str) -> Answer {
    spawn_archive(world, guest, key, DEADLINE).await.unwrap()
}

#[track_caller]
pub fn is_refused<T: std::fmt::Debug>(answer: Result<T, Status>, code: Code, reason: &str) -> Status {
    let status = answer.expect_err(reason);
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{status:?}"));
    assert_eq!((status.code(), info.reason.as_str()), (code, reason), "{status:?}");
    status
}

/// Waits until a PATCH of `guest` has arrived.
pub async fn until_sent(world: &World, guest: Uuid) {
    let sent = |entries: &[Entry]| entries.iter().any(|entry| entry.is_patch_of(guest));
    world.upstream.simulator.wait_for(sent, DEADLINE).await.expect("a PATCH is under way");
}

/// The key of the next event's command.
pub async fn event(world: &mut World) -> String {
    let event = world.events.next().await.json();
    event["data"]["command"]["idempotency_key"].as_str().unwrap().to_owned()
}

/// The next event is that of a new command, and the adapter ends well with an empty queue.
pub async fn nothing_more_is_told(mut world: World) {
    let guest = Uuid::new_v4();
    archive(&world, guest, "the-last").await.expect("all is well");
    assert_eq!(event(&mut world).await, "the-last");
    let (names, broker) = (world.names.clone(), harness::Broker::connect().await);
    world.end().await;
    assert_eq!(broker.depth(&names.commands).await, 0);
}
