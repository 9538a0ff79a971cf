//! Words that the stories share.

use std::time::{Duration, Instant};

use guest_connection_adapter::proto::{ArchiveGuestConnectionResponse, Command};
use harness::disk::{Disk, Fault};
use harness::{DEADLINE, World};
use serde_json::Value;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

/// Short waits; no attempt is so short that a loaded machine exceeds it.
pub const QUICK: &str = r#"
amqp.delivery_hold = "2s"
upstream.attempt_timeout = "3s"
upstream.command_timeout = "5s"
upstream.settle = "1s"
upstream.defer_delay_base = "100ms"
upstream.defer_delay_max = "500ms"
store.lease = "8s"
"#;

/// Longer than anything that is waited for.
pub const FOR_EVER: Duration = Duration::from_secs(3600);

/// What keeps the store from taking data.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    Disk(Fault),
    /// Another program holds the file locked.
    Locked,
}

/// A world whose store is in trouble, until this is over.
pub struct InTrouble<'a> {
    disk: &'a Disk,
    intruder: Option<rusqlite::Connection>,
}

impl Trouble {
    pub fn begin<'a>(self, world: &World, disk: &'a Disk) -> InTrouble<'a> {
        let intruder = match self {
            Self::Disk(fault) => {
                disk.set(fault);
                None
            }
            Self::Locked => {
                let intruder = rusqlite::Connection::open(world.setup.store()).unwrap();
                intruder.busy_timeout(DEADLINE).unwrap();
                intruder.execute_batch("BEGIN EXCLUSIVE").unwrap();
                Some(intruder)
            }
        };
        InTrouble { disk, intruder }
    }
}

impl InTrouble<'_> {
    pub fn over(self) {
        self.disk.set(Fault::None);
        if let Some(intruder) = self.intruder {
            intruder.execute_batch("ROLLBACK").unwrap();
        }
    }
}

pub async fn call(
    world: &World,
    guest: Uuid,
    key: &str,
    timeout: Duration,
) -> Result<ArchiveGuestConnectionResponse, Status> {
    let mut request = Request::new(world.upstream.archive(guest, key));
    request.set_timeout(timeout);
    world.client().await.archive_guest_connection(request).await.map(tonic::Response::into_inner)
}

/// The call is refused since the store takes nothing, before its deadline, and is told when to come again.
pub async fn is_refused(world: &World, guest: Uuid, key: &str) {
    let (timeout, started) = (Duration::from_secs(4), Instant::now());
    let status = call(world, guest, key, timeout).await.expect_err("the store takes nothing");
    let details = status.get_error_details();
    let reason = details.error_info().unwrap_or_else(|| panic!("{status:?}")).reason.clone();
    assert_eq!((status.code(), reason.as_str()), (Code::Unavailable, "STORE_UNAVAILABLE"), "{status:?}");
    assert!(details.retry_info().is_some_and(|info| info.retry_delay.is_some()), "{status:?}");
    assert!(started.elapsed() < timeout, "{:?}", started.elapsed());
}

/// Waits until readiness says no for the store, in words that hold `words`.
pub async fn is_not_ready(world: &World, words: &str) -> String {
    let part = |body: &Value| body["parts"]["store"].clone();
    let told = |status: u16, body: &Value| {
        let store = part(body);
        status == 503
            && store["status"] == "not_ready"
            && store["detail"].as_str().is_some_and(|text| text.contains(words))
    };
    let body = world.adapter.readiness(told).await;
    part(&body)["detail"].as_str().unwrap().to_owned()
}

/// The key of the command that an event tells of.
pub fn key_of(event: &Value) -> String {
    event["data"]["command"]["idempotency_key"].as_str().unwrap().to_owned()
}

/// Waits until `count` messages lie ready in the commands queue.
pub async fn until_depth(world: &World, count: u32) {
    let reached = async {
        while world.broker.depth(&world.names.commands).await != count {
            harness::look_again().await;
        }
    };
    tokio::time::timeout(DEADLINE, reached).await.expect("the messages are with the broker");
}

/// A command whose event is told and noted.
pub async fn one_is_done(world: &mut World) {
    call(world, Uuid::new_v4(), "before", DEADLINE).await.expect("all is well");
    is_told(world, "before").await;
}

/// The next event is that of `key`, and that is noted. Otherwise a store that takes nothing could not note it, and it would
/// come again.
pub async fn is_told(world: &mut World, key: &str) {
    assert_eq!(key_of(&world.events.next().await.json()), key);
    let noted = |command: &Command| command.event.as_ref().is_some_and(|event| event.confirmed);
    world.upstream.command_when(&world.adapter, key, noted).await;
}

/// A command that shows that all events before it have come: it is the next one.
pub async fn nothing_more_is_told(world: &mut World) {
    let guest = Uuid::new_v4();
    call(world, guest, &guest.to_string(), DEADLINE).await.expect("all is well again");
    assert_eq!(key_of(&world.events.next().await.json()), guest.to_string());
}
