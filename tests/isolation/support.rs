//! What is asked for in the name of several organisations, and what is seen of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use chrono::{DateTime, Utc};
use guest_connection_adapter::proto;
use guest_connection_adapter::proto::CommandState;
use guest_connection_adapter::proto::guest_connection_service_client::GuestConnectionServiceClient;
use harness::{DEADLINE, Organization, Setup, World};
use lapin::BasicProperties;
use serde_json::Value;
use simulator::{Endpoint, Entry};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

pub type Client = GuestConnectionServiceClient<Channel>;

/// What makes an adapter try again soon.
const QUICK: &str = r#"
upstream.retry_delay_base = "20ms"
upstream.retry_delay_max = "100ms"
upstream.defer_delay_base = "50ms"
upstream.defer_delay_max = "200ms"
upstream.breaker_delay_base = "100ms"
upstream.breaker_delay_max = "400ms"
upstream.token_delay_base = "50ms"
upstream.token_delay_max = "200ms"
upstream.settle = "1s"
"#;

/// The same with a limit of the first organisation's own.
pub async fn start_limited(count: usize, lines: &str, limit: &str, value: &str) -> World {
    let name = format!("GCA_ORGANIZATIONS__TEST__{limit}");
    let arrange = |setup: Setup| setup.config(QUICK).config(lines).env(&name, value);
    World::arranged_with(count, PROGRAM, arrange).await
}

/// What keeps a breaker open for longer than a test takes.
pub const LASTING: &str = r#"
upstream.breaker_delay_base = "4m"
upstream.breaker_delay_max = "4m"
"#;

/// Everything for `count` organisations, with an adapter that tries again soon. `lines` are added to its configuration.
pub async fn start(count: usize, lines: &str) -> World {
    World::arranged_with(count, PROGRAM, |setup| setup.config(QUICK).config(lines)).await
}

/// A command that is asked for by a message.
#[derive(Clone)]
pub struct Sent {
    pub organization: Organization,
    pub guest: Uuid,
    pub archived: bool,
    pub key: String,
}

impl Sent {
    /// One for a connection of its own.
    pub fn new(organization: &Organization, key: &str) -> Self {
        Self::about(organization, Uuid::new_v4(), true, key)
    }

    pub fn about(organization: &Organization, guest: Uuid, archived: bool, key: &str) -> Self {
        Self { organization: organization.clone(), guest, archived, key: key.to_owned() }
    }

    /// So many, each for a connection of its own. Their keys begin with `tag`.
    pub fn many(organization: &Organization, tag: &str, count: usize) -> Vec<Self> {
        (0..count).map(|number| Self::new(organization, &format!("{tag}-{number}"))).collect()
    }
}

/// Publishes all of them.
pub async fn publish(world: &World, commands: &[Sent]) {
    let message = |command: &Sent| {
        let body = command.organization.message(command.guest, command.archived, &command.key);
        let properties = BasicProperties::default().with_content_type("application/json".into());
        (command.guest.to_string(), properties, serde_json::to_vec(&body).unwrap())
    };
    world.broker.publish_all(&world.names, commands.iter().map(message).collect()).await;
}

/// Waits for the events of these keys, and asserts that each has one and that no other comes meanwhile. An event may come
/// twice, but under one id.
pub async fn events_of(world: &mut World, keys: impl IntoIterator<Item = String>) {
    let wanted: BTreeSet<String> = keys.into_iter().collect();
    let mut ids = BTreeMap::new();
    while ids.len() < wanted.len() {
        let event = timeout(DEADLINE, world.events.next()).await;
        let missing = || wanted.iter().filter(|key| !ids.contains_key(*key)).collect::<Vec<_>>();
        let event = event.unwrap_or_else(|_| panic!("no events of {:?}", missing())).json();
        let key = event["data"]["command"]["idempotency_key"].as_str().unwrap().to_owned();
        assert!(event["type"].as_str().unwrap().ends_with("archived.v1"), "{event}");
        assert!(wanted.contains(&key), "nobody waits for the event of {key}");
        let id = ids.entry(key).or_insert_with(|| event["id"].clone());
        assert_eq!(*id, event["id"], "a second event: {event}");
    }
}

pub fn keys(commands: &[Sent]) -> impl Iterator<Item = String> + '_ {
    commands.iter().map(|command| command.key.clone())
}

/// Asks to archive the connection of a guest, with time enough.
pub async fn call(
    client: &Client,
    organization: &Organization,
    guest: Uuid,
    key: &str,
) -> Result<proto::ArchiveGuestConnectionResponse, Status> {
    call_within(client, organization, guest, key, DEADLINE).await
}

/// The same with the caller's deadline.
pub async fn call_within(
    client: &Client,
    organization: &Organization,
    guest: Uuid,
    key: &str,
    deadline: Duration,
) -> Result<proto::ArchiveGuestConnectionResponse, Status> {
    let mut request = Request::new(organization.archive(guest, key));
    request.set_timeout(deadline);
    client.clone().archive_guest_connection(request).await.map(tonic::Response::into_inner)
}

/// The code, the reason and the time to come back of a refusal.
pub fn told(status: &Status) -> (Code, String, Option<Duration>) {
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    (status.code(), reason, status.get_details_retry_info().and_then(|info| info.retry_delay))
}

/// Asserts that a refusal says this, and when to come back.
pub fn is_told(status: &Status, code: Code, reason: &str) {
    let (code_told, reason_told, retry_delay) = told(status);
    assert_eq!((code_told, reason_told.as_str()), (code, reason), "{status:?}");
    assert!(retry_delay.is_some_and(|delay| delay > Duration::ZERO), "no time to come back: {status:?}");
}

/// Calls for ever new connections until one is refused for `reason` before it is sent. Yields its key and the refusal.
pub async fn refused_for(client: &Client, organizations: &[Organization], reason: &str) -> (String, Status) {
    let refused = async {
        let mut last = None;
        for number in 0_usize.. {
            let organization = &organizations[number % organizations.len()];
            let key = format!("until-{reason}-{number}");
            if let Err(status) = call(client, organization, Uuid::new_v4(), &key).await {
                if told(&status).1 == reason {
                    return (key, status);
                }
                last = Some(status);
            }
            harness::look_again().await;
        }
        panic!("never {reason}: {last:?}")
    };
    timeout(DEADLINE, refused).await.unwrap_or_else(|_| panic!("no call was refused with {reason}"))
}

/// The command of an organisation, or nothing if the key is unknown.
pub async fn command(client: &Client, organization: &Organization, key: &str) -> Option<proto::Command> {
    match client.clone().get_command(organization.lookup(key)).await {
        Ok(response) => response.into_inner().command,
        Err(status) => {
            assert_eq!(status.code(), Code::NotFound, "{status:?}");
            None
        }
    }
}

/// The command of an organisation, as soon as it is as wanted.
pub async fn command_when(
    client: &Client,
    organization: &Organization,
    key: &str,
    wanted: impl Fn(&proto::Command) -> bool,
) -> proto::Command {
    let mut last = None;
    let found = async {
        loop {
            last = command(client, organization, key).await;
            match &last {
                Some(command) if wanted(command) => return command.clone(),
                _ => harness::look_again().await,
            }
        }
    };
    let found = timeout(DEADLINE, found).await;
    found.unwrap_or_else(|_| panic!("{key} did not become as wanted: {last:?}"))
}

pub fn is_final(command: &proto::Command) -> bool {
    use CommandState::{Accepted, Deferred, InFlight};
    ![Accepted, Deferred, InFlight].contains(&command.state())
}

/// Asserts that each of them succeeds, and with how many attempts if that is known.
pub async fn succeeded(client: &Client, commands: &[Sent], attempts: Option<u32>) {
    for sent in commands {
        let command = command_when(client, &sent.organization, &sent.key, is_final).await;
        assert_eq!(command.state(), CommandState::Succeeded, "{command:?}");
        assert!(attempts.is_none_or(|attempts| attempts == command.attempts), "{command:?}");
    }
}

/// The PATCHes of an organisation, in order of arrival.
pub fn patches_of(journal: &[Entry], organization: &Organization) -> Vec<Entry> {
    let is_one =
        |entry: &&Entry| entry.endpoint == Endpoint::Patch && entry.requester == Some(organization.id);
    journal.iter().filter(is_one).cloned().collect()
}

/// The PATCHes of everyone.
pub fn patches(journal: &[Entry]) -> Vec<Entry> {
    journal.iter().filter(|entry| entry.endpoint == Endpoint::Patch).cloned().collect()
}

/// The most of these requests that were outstanding at once.
pub fn most_at_once(entries: &[Entry]) -> usize {
    let mut changes: Vec<(DateTime<Utc>, i32)> = Vec::new();
    for entry in entries {
        changes.push((entry.received_at, 1));
        // At the same moment ends come first, since that is what lets the next one begin.
        changes.extend(entry.ended_at.map(|ended| (ended, -1)));
    }
    changes.sort_unstable();
    let mut outstanding = 0;
    let counts = changes.into_iter().map(|(_, change)| {
        outstanding += change;
        outstanding
    });
    usize::try_from(counts.max().unwrap_or_default()).unwrap()
}

/// Waits until the journal is as wanted.
pub async fn journal_when(world: &World, wanted: impl FnMut(&[Entry]) -> bool) -> Vec<Entry> {
    world.upstream.simulator.wait_for(wanted, DEADLINE).await.unwrap_or_else(|late| panic!("{late}"))
}

/// Waits until `part` of readiness has this status, and yields its detail. The adapter is ready all the same.
pub async fn part_when(world: &World, part: &str, status: &str) -> String {
    let is = |_, body: &Value| body["parts"][part]["status"] == status;
    let body = world.adapter.readiness(is).await;
    assert_eq!(body["status"], "ready", "{body}");
    body["parts"][part]["detail"].as_str().unwrap_or_default().to_owned()
}

/// Asserts that nothing was given up, and that nothing is left in the queue.
pub async fn nothing_is_left(world: &World) {
    assert_eq!(world.broker.depth(&world.names.dead_letters).await, 0, "dead letters");
    world.broker.depth_when(&world.names.commands, |depth| depth == 0).await;
}
