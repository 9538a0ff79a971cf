//! The gRPC door's own refusals, deadlines and twins, over real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tells a whole story"
)]

use std::time::{Duration, SystemTime};

use guest_connection_adapter::proto::guest_connection_service_client::GuestConnectionServiceClient;
use guest_connection_adapter::proto::{ArchiveGuestConnectionRequest, ArchiveGuestConnectionResponse};
use harness::{DEADLINE, World};
use simulator::{Entry, Rule};
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

type Answer = Result<ArchiveGuestConnectionResponse, Status>;

async fn call(world: &World, request: ArchiveGuestConnectionRequest, timeout: Duration) -> Answer {
    let mut request = Request::new(request);
    request.set_timeout(timeout);
    let mut client = world.client().await;
    client.archive_guest_connection(request).await.map(tonic::Response::into_inner)
}

/// The call from a task of its own, on a connection of its own.
fn spawn(
    world: &World,
    request: ArchiveGuestConnectionRequest,
    timeout: Duration,
) -> tokio::task::JoinHandle<Answer> {
    let address = world.adapter.grpc;
    tokio::spawn(async move {
        let channel = tonic::transport::Channel::from_shared(format!("http://{address}")).unwrap();
        let mut request = Request::new(request);
        request.set_timeout(timeout);
        let mut client = GuestConnectionServiceClient::new(channel.connect().await.unwrap());
        client.archive_guest_connection(request).await.map(tonic::Response::into_inner)
    })
}

fn reason(status: &Status) -> String {
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "guest-connection-adapter");
    info.reason.clone()
}

fn is_refused(answer: Answer, code: Code, wanted: &str) -> Status {
    let status = answer.expect_err(wanted);
    assert_eq!((status.code(), reason(&status).as_str()), (code, wanted), "{status:?}");
    status
}

fn ago(span: Duration) -> prost_types::Timestamp {
    SystemTime::now().checked_sub(span).unwrap().into()
}

async fn until_sent(world: &World, guest: Uuid) {
    let sent = |entries: &[Entry]| entries.iter().any(|entry| entry.is_patch_of(guest));
    world.upstream.simulator.wait_for(sent, DEADLINE).await.expect("the PATCH is sent");
}

#[tokio::test]
async fn every_bad_field_is_named_at_once_and_nothing_is_kept() {
    let world = World::start(PROGRAM, "").await;
    let request = ArchiveGuestConnectionRequest {
        guest_organization_id: "nobody".to_owned(),
        requester_organization_id: "someone".to_owned(),
        target_organization_id: Uuid::nil().to_string(),
        idempotency_key: "with space".to_owned(),
        issue_time: Some(prost_types::Timestamp { seconds: 0, nanos: -1 }),
        expire_time: Some(prost_types::Timestamp { seconds: i64::MAX, nanos: 0 }),
    };
    let status = is_refused(call(&world, request, DEADLINE).await, Code::InvalidArgument, "INVALID_FIELDS");
    let details = status.get_error_details();
    let fields: Vec<_> =
        details.bad_request().unwrap().field_violations.iter().map(|v| v.field.clone()).collect();
    for field in [
        "guest_organization_id",
        "requester_organization_id",
        "target_organization_id",
        "idempotency_key",
        "issue_time",
        "expire_time",
    ] {
        assert!(fields.iter().any(|named| named == field), "{field} in {fields:?}");
    }
    assert_eq!(world.upstream.simulator.stats().patches, 0);
    world.end().await;
}

#[tokio::test]
async fn a_stranger_and_too_old_or_expired_wishes_are_refused() {
    let world = World::start(PROGRAM, "").await;
    let guest = Uuid::new_v4();
    let mut stranger = world.upstream.archive(guest, "k-stranger");
    stranger.requester_organization_id = Uuid::new_v4().to_string();
    is_refused(call(&world, stranger, DEADLINE).await, Code::PermissionDenied, "REQUESTER_NOT_CONFIGURED");
    let mut old = world.upstream.archive(guest, "k-old");
    old.issue_time = Some(ago(Duration::from_secs(8 * 24 * 3600)));
    is_refused(call(&world, old, DEADLINE).await, Code::InvalidArgument, "INVALID_FIELDS");
    assert_eq!(world.upstream.command(&world.adapter, "k-old").await.unwrap_err().code(), Code::NotFound);
    let mut expired = world.upstream.archive(guest, "k-expired");
    expired.expire_time = Some(ago(Duration::from_secs(1)));
    is_refused(call(&world, expired, DEADLINE).await, Code::FailedPrecondition, "COMMAND_EXPIRED");
    // It was certainly not sent, so the same key may try again.
    call(&world, world.upstream.archive(guest, "k-expired"), DEADLINE).await.unwrap();
    assert_eq!(world.upstream.received(guest), 1);
    world.end().await;
}

#[tokio::test]
async fn an_older_wish_never_overwrites_a_newer_one() {
    let mut world = World::start(PROGRAM, "").await;
    let guest = Uuid::new_v4();
    let mut newer = world.upstream.unarchive(guest, "k-newer");
    newer.issue_time = Some(ago(Duration::from_secs(10)));
    world.client().await.unarchive_guest_connection(newer).await.unwrap();
    let mut older = world.upstream.archive(guest, "k-older");
    older.issue_time = Some(ago(Duration::from_secs(20)));
    is_refused(call(&world, older.clone(), DEADLINE).await, Code::FailedPrecondition, "SUPERSEDED");
    is_refused(call(&world, older, DEADLINE).await, Code::FailedPrecondition, "SUPERSEDED");
    assert_eq!(world.upstream.applied(guest), [false]);
    assert_eq!(world.events.next().await.json()["data"]["command"]["idempotency_key"], "k-newer");
    world.end().await;
}

#[tokio::test]
async fn twins_are_one_patch_one_event_and_one_answer() {
    let mut world = World::start(PROGRAM, "").await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).times(1).delay(Duration::from_secs(4)));
    let calls: Vec<_> = (0..8).map(|_| spawn(&world, world.upstream.archive(guest, "k"), DEADLINE)).collect();
    until_sent(&world, guest).await;
    // One that cannot wait so long hears that, and when to come again.
    let hasty = call(&world, world.upstream.archive(guest, "k"), Duration::from_secs(2)).await;
    let status = is_refused(hasty, Code::Aborted, "COMMAND_IN_PROGRESS");
    assert!(status.get_error_details().retry_info().is_some());
    // And the same by the other door.
    world.send(guest, &world.upstream.message(guest, true, "k")).await;
    let mut answers = Vec::new();
    for call in calls {
        answers.push(call.await.unwrap().expect("an answer"));
    }
    assert_eq!(answers.iter().filter(|answer| !answer.replayed).count(), 1, "one of them did it");
    assert!(answers.iter().all(|a| a.command_id == answers[0].command_id));
    assert!(answers.iter().all(|a| a.guest_connection == answers[0].guest_connection));
    world.events.next().await;
    assert_eq!(world.upstream.received(guest), 1);
    // The next event is the next command's.
    call(&world, world.upstream.archive(guest, "k-2"), DEADLINE).await.unwrap();
    assert_eq!(world.events.next().await.json()["data"]["command"]["idempotency_key"], "k-2");
    world.end().await;
}

#[tokio::test]
async fn a_deadline_ends_the_wait_and_not_the_work() {
    let mut world = World::start(PROGRAM, "").await;
    let guest = Uuid::new_v4();
    let too_short = call(&world, world.upstream.archive(guest, "k-0"), Duration::from_millis(60)).await;
    // The client gives up by itself at the same time; whichever comes first, nothing was accepted.
    assert!(matches!(too_short.unwrap_err().code(), Code::DeadlineExceeded | Code::Cancelled));
    assert_eq!(world.upstream.command(&world.adapter, "k-0").await.unwrap_err().code(), Code::NotFound);

    world.upstream.simulator.script(Rule::patch().guest(guest).times(1).delay(Duration::from_secs(4)));
    let pending = call(&world, world.upstream.archive(guest, "k"), Duration::from_secs(2)).await;
    is_refused(pending, Code::DeadlineExceeded, "OUTCOME_PENDING");
    world.events.next().await;
    let repeat = call(&world, world.upstream.archive(guest, "k"), DEADLINE).await.unwrap();
    assert!(repeat.replayed);
    assert_eq!(world.upstream.received(guest), 1);

    // Nor does a caller that goes away.
    let gone = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(gone).times(1).delay(Duration::from_millis(500)));
    let caller = spawn(&world, world.upstream.archive(gone, "k-gone"), DEADLINE);
    until_sent(&world, gone).await;
    caller.abort();
    assert_eq!(world.events.next().await.json()["data"]["command"]["idempotency_key"], "k-gone");
    assert_eq!(world.upstream.received(gone), 1);
    world.end().await;
}

#[tokio::test]
async fn what_is_too_much_is_refused_cleanly() {
    let world = World::start(PROGRAM, "grpc.in_flight_max = 1").await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).times(1).delay(Duration::from_secs(1)));
    let first = spawn(&world, world.upstream.archive(guest, "k-1"), DEADLINE);
    until_sent(&world, guest).await;
    let status = is_refused(
        call(&world, world.upstream.archive(Uuid::new_v4(), "k-2"), DEADLINE).await,
        Code::ResourceExhausted,
        "OVERLOADED",
    );
    assert!(status.metadata().get("grpc-retry-pushback-ms").is_some(), "{status:?}");
    first.await.unwrap().unwrap();
    let mut client = world.client().await;
    let large = world.upstream.archive(guest, &"k".repeat(70_000));
    let status = client.archive_guest_connection(large).await.unwrap_err();
    assert_eq!((status.code(), reason(&status).as_str()), (Code::ResourceExhausted, "BODY_TOO_LARGE"));
    client
        .archive_guest_connection(world.upstream.archive(guest, "k-3"))
        .await
        .expect("the connection survives");
    world.end().await;
}

#[tokio::test]
async fn a_call_without_a_key_gets_one() {
    let world = World::start(PROGRAM, "").await;
    let guest = Uuid::new_v4();
    let made = call(&world, world.upstream.archive(guest, ""), DEADLINE).await.unwrap();
    assert!(!made.idempotency_key.is_empty());
    assert_eq!(
        world.upstream.command(&world.adapter, &made.idempotency_key).await.unwrap().command_id,
        made.command_id
    );
    let again = call(&world, world.upstream.archive(guest, ""), DEADLINE).await.unwrap();
    assert_ne!(again.command_id, made.command_id, "another command");
    world.end().await;
}
