//! A world with a reader of dead letters and of replies, and what is asked of it.

use std::time::Duration;

use guest_connection_adapter::proto::guest_connection_service_client::GuestConnectionServiceClient;
use guest_connection_adapter::proto::{ArchiveGuestConnectionResponse, Command, CommandState};
use harness::broker::Inbox;
use harness::{DEADLINE, World};
use lapin::BasicProperties;
use serde_json::Value;
use tokio::task::JoinHandle;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

/// Attempts may take long, and what is deferred stays so until somebody asks.
pub const PATIENT: &str = r#"
upstream.attempt_timeout = "20s"
upstream.command_timeout = "25s"
upstream.settle = "1s"
amqp.delivery_hold = "3s"
"#;

/// Retry-After beyond the time of a claim: the command ends or is deferred at once, and for long.
pub const LATER: &str = "100";

pub type Answer = Result<ArchiveGuestConnectionResponse, Status>;

/// A world, its dead letters, and a queue for replies.
pub struct Scene {
    pub world: World,
    pub letters: Inbox,
    pub replies: Inbox,
    queue: String,
}

/// A door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    Grpc,
    Amqp,
}

impl Scene {
    pub async fn start(lines: &str) -> Self {
        let world = World::start(PROGRAM, lines).await;
        let letters = world.broker.consume(&world.names.dead_letters).await;
        let queue = world.broker.queue().await;
        let replies = world.broker.consume(&queue).await;
        Self { world, letters, replies, queue }
    }

    /// A call, on a connection and a task of its own.
    pub fn spawn_call(
        &self,
        guest: Uuid,
        archived: bool,
        key: &str,
        timeout: Duration,
    ) -> JoinHandle<Answer> {
        let (address, upstream) = (self.world.adapter.grpc, &self.world.upstream);
        let (archive, unarchive) = (upstream.archive(guest, key), upstream.unarchive(guest, key));
        tokio::spawn(async move {
            let channel = tonic::transport::Channel::from_shared(format!("http://{address}")).unwrap();
            let mut client = GuestConnectionServiceClient::new(channel.connect().await.unwrap());
            if archived {
                let mut request = Request::new(archive);
                request.set_timeout(timeout);
                return client.archive_guest_connection(request).await.map(tonic::Response::into_inner);
            }
            let mut request = Request::new(unarchive);
            request.set_timeout(timeout);
            let answer = client.unarchive_guest_connection(request).await?.into_inner();
            Ok(ArchiveGuestConnectionResponse {
                command_id: answer.command_id,
                replayed: answer.replayed,
                guest_connection: answer.guest_connection,
                idempotency_key: answer.idempotency_key,
                incomplete: answer.incomplete,
            })
        })
    }

    pub async fn call(&self, guest: Uuid, key: &str, timeout: Duration) -> Answer {
        self.spawn_call(guest, true, key, timeout).await.unwrap()
    }

    /// A message that wants a reply, correlated by `name`.
    pub async fn send(&self, guest: Uuid, archived: bool, key: &str, name: &str) {
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_correlation_id(name.into())
            .with_reply_to(self.queue.as_str().into());
        let body = self.world.upstream.message(guest, archived, key);
        self.world.send_with(guest, properties, &body).await;
    }

    /// The next reply, and to which message it is.
    pub async fn reply(&mut self) -> (String, Value) {
        let reply = self.replies.next().await;
        (reply.properties.correlation_id().as_ref().unwrap().to_string(), reply.json())
    }

    pub async fn until(&self, key: &str, wanted: CommandState) -> Command {
        self.world.upstream.command_when(&self.world.adapter, key, |command| command.state() == wanted).await
    }

    /// The command under `key`, once nothing of it changes by itself: its event, if there is one, is confirmed.
    pub async fn settled(&self, key: &str) -> Command {
        let settled = |command: &Command| command.event.as_ref().is_none_or(|event| event.confirmed);
        self.world.upstream.command_when(&self.world.adapter, key, settled).await
    }

    /// The key of the next event's command.
    pub async fn event(&mut self) -> String {
        let event = self.world.events.next().await.json();
        event["data"]["command"]["idempotency_key"].as_str().unwrap().to_owned()
    }

    /// The key with another value and with another guest, by both doors: four conflicts, and nothing else happens.
    pub async fn conflicts(&mut self, guest: Uuid, key: &str) {
        let sent = self.world.upstream.received(guest);
        let before = self.settled(key).await;
        let stranger = Uuid::new_v4();
        for (other, archived) in [(guest, false), (stranger, true)] {
            let answer = self.spawn_call(other, archived, key, DEADLINE).await.unwrap();
            is_refused(&answer, Code::FailedPrecondition, "IDEMPOTENCY_KEY_REUSED");
            self.send(other, archived, key, "conflict").await;
            let letter = self.letters.next().await;
            assert_eq!(letter.table("x-guest-connection-adapter")["reason"], "IDEMPOTENCY_KEY_REUSED");
            assert_eq!(letter.json()["guest_organization_id"], other.to_string());
            let (name, reply) = self.reply().await;
            assert_eq!((name.as_str(), &reply["reason"]), ("conflict", &"IDEMPOTENCY_KEY_REUSED".into()));
        }
        let after = self.world.upstream.command(&self.world.adapter, key).await.unwrap();
        assert_eq!(self.world.upstream.received(stranger), 0, "no PATCH");
        if before.finish_time.is_some() {
            assert_eq!(after, before, "the command is left alone");
            assert_eq!(self.world.upstream.received(guest), sent);
        }
        assert_eq!((after.command_id, after.archived), (before.command_id, true));
    }

    /// The next event and the next reply are those of a new command, and nothing is left anywhere.
    pub async fn nothing_more_is_told(mut self) {
        let guest = Uuid::new_v4();
        self.send(guest, true, "the-last", "the-last").await;
        assert_eq!(self.event().await, "the-last");
        assert_eq!(self.reply().await.0, "the-last");
        let (names, broker) = (self.world.names.clone(), harness::Broker::connect().await);
        drop(self.letters);
        self.world.end().await;
        assert_eq!(broker.depth(&names.commands).await, 0);
        assert_eq!(broker.depth(&names.dead_letters).await, 0);
    }
}

#[track_caller]
pub fn is_refused(answer: &Answer, code: Code, reason: &str) -> Status {
    let status = answer.as_ref().expect_err(reason);
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("{status:?}"));
    assert_eq!((status.code(), info.reason.as_str()), (code, reason), "{status:?}");
    status.clone()
}

/// The twin's own deadline came first: it is told so, and when to come again.
#[track_caller]
pub fn is_in_progress(answer: &Answer) {
    let status = is_refused(answer, Code::Aborted, "COMMAND_IN_PROGRESS");
    assert!(status.get_error_details().retry_info().is_some_and(|info| info.retry_delay.is_some()));
}
