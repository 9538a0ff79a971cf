//! A panic in one command's work stays with that command: its neighbours, its lane and the consumer go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::time::Duration;

use chrono::TimeDelta;
use guest_connection_adapter::amqp::Settings;
use guest_connection_adapter::domain::Timestamp;
use guest_connection_adapter::domain::access::AskedBy;
use guest_connection_adapter::domain::command::{Command, IdempotencyKey, OrganizationId};
use guest_connection_adapter::domain::connection::Connection;
use guest_connection_adapter::domain::error::Reason;
use guest_connection_adapter::domain::record::{CommandRecord, Door, State};
use guest_connection_adapter::domain::trace::TraceContext;
use guest_connection_adapter::service::archiver::{Answer, Submission};
use guest_connection_adapter::service::ports::{Clock, SystemClock};
use guest_connection_adapter::service::readiness::Condition;
use lapin::BasicProperties;
use tokio::time::Instant;
use uuid::Uuid;

use crate::pipeline::{Pipeline, Place};
use crate::support::{Client, DEADLINE, in_time, settings};

fn requester() -> OrganizationId {
    OrganizationId(Uuid::from_u128(1))
}

async fn send(client: &Client, settings: &Settings, requester: OrganizationId, guest: Uuid, key: &str) {
    let body = format!(
        r#"{{"requester_organization_id":"{requester}","target_organization_id":"{}","guest_organization_id":"{guest}","archived":true,"idempotency_key":"{key}"}}"#,
        self::requester()
    );
    let exchange = settings.names.commands_exchange.as_str();
    client.send(exchange, &guest.to_string(), BasicProperties::default(), body.as_bytes()).await;
}

/// The command under `key`, as soon as it has succeeded.
async fn succeeded(pipeline: &Pipeline, requester: OrganizationId, key: &str) -> CommandRecord {
    state(pipeline, requester, key, State::Succeeded).await
}

/// The command under `key`, as soon as it is in `state`.
async fn state(pipeline: &Pipeline, requester: OrganizationId, key: &str, state: State) -> CommandRecord {
    in_time(key, async {
        loop {
            let key = IdempotencyKey::parse(key).expect("a key");
            let found = pipeline.archiver.command_by_key(requester, key).await;
            if let Ok(Some(record)) = found
                && record.state == state
            {
                return record;
            }
            harness::look_again().await;
        }
    })
    .await
}

/// Consuming never stopped, and every message was settled.
async fn consumed_without_a_stop(pipeline: Pipeline, client: &Client, settings: &Settings) {
    assert_eq!(pipeline.readiness.conditions()["amqp.consume"], Condition::Ready);
    assert_eq!(pipeline.resumes.load(Ordering::SeqCst), 0, "consuming was not suspended");
    assert_eq!(pipeline.counts.acks_lost.load(Ordering::Relaxed), 0, "the channel stayed");
    pipeline.stop().await;
    assert!(client.left(&settings.names.commands_queue).await.is_empty(), "all are acknowledged");
    assert_eq!(client.counts(&settings.names.dead_letters_queue).await.0, 0);
}

/// The first command of a lane panics in the midst of its work, by a message.
async fn of_a_message(place: Place, sent: usize) {
    let settings = settings("panic");
    let mut pipeline = Pipeline::start_recovering(&settings, Arc::new(SystemClock)).await;
    pipeline.ready().await;
    let client = Client::new().await;
    let (guest, other) = (Uuid::now_v7(), Uuid::now_v7());
    // A panic over a token is one of its requester's, whose other commands must go on as well.
    let unlucky = OrganizationId(if place == Place::Authorize { Uuid::from_u128(7) } else { guest });
    let owner = if place == Place::Authorize { unlucky } else { requester() };
    pipeline.upstream.panic_once(place, unlucky);
    send(&client, &settings, owner, guest, "unlucky").await;
    send(&client, &settings, requester(), guest, "behind").await;
    send(&client, &settings, requester(), other, "beside").await;
    in_time("the panic", async {
        while pipeline.upstream.will_panic() {
            harness::look_again().await;
        }
    })
    .await;
    send(&client, &settings, owner, Uuid::now_v7(), "kin").await;
    for (owner, key) in [(requester(), "beside"), (owner, "kin")] {
        succeeded(&pipeline, owner, key).await;
    }
    // Its fate is unknown, so it runs again before the one behind it.
    let first = succeeded(&pipeline, owner, "unlucky").await;
    let second = succeeded(&pipeline, requester(), "behind").await;
    assert!(first.finished_time < second.finished_time, "in order");
    assert_eq!((first.epoch, first.maybe_applied), (2, false), "taken over, and settled by a 2xx");
    assert_eq!(first.event.map(|event| event.sequence), Some(1), "one event each");
    assert_eq!(second.event.map(|event| event.sequence), Some(2));
    let mut of_guest = 0;
    while let Ok(patch) = pipeline.patches.try_recv() {
        of_guest += usize::from(patch.connection.guest.0 == guest);
    }
    assert_eq!(of_guest, sent);
    consumed_without_a_stop(pipeline, &client, &settings).await;
}

#[tokio::test]
async fn a_panic_before_the_patch_stays_with_its_command() {
    of_a_message(Place::Send, 2).await;
}

#[tokio::test]
async fn a_panic_after_the_patch_stays_with_its_command() {
    of_a_message(Place::Answer, 3).await;
}

#[tokio::test]
async fn a_panic_over_a_token_stays_with_its_command() {
    of_a_message(Place::Authorize, 2).await;
}

/// Nothing is durable yet, so the message stays with the broker and comes again.
#[tokio::test]
async fn a_panic_before_the_acceptance_leaves_the_message_with_the_broker() {
    let settings = Settings { delivery_hold: Duration::from_millis(500), ..settings("panic-early") };
    let pipeline = Pipeline::start_recovering(&settings, Arc::new(SystemClock)).await;
    pipeline.ready().await;
    let client = Client::new().await;
    let unlucky = OrganizationId(Uuid::from_u128(7));
    pipeline.upstream.panic_once(Place::Knows, unlucky);
    send(&client, &settings, unlucky, Uuid::now_v7(), "unlucky").await;
    send(&client, &settings, requester(), Uuid::now_v7(), "beside").await;
    succeeded(&pipeline, requester(), "beside").await;
    assert_eq!(succeeded(&pipeline, unlucky, "unlucky").await.epoch, 1);
    assert_eq!(pipeline.counts.panics.load(Ordering::Relaxed), 1);
    pipeline.stop().await;
    assert!(client.left(&settings.names.commands_queue).await.is_empty());
    assert_eq!(client.counts(&settings.names.dead_letters_queue).await.0, 0);
}

#[tokio::test]
async fn a_panic_is_told_to_the_caller_and_a_repeat_hears_the_outcome() {
    let settings = settings("panic-call");
    let pipeline = Pipeline::start_recovering(&settings, Arc::new(SystemClock)).await;
    let guest = OrganizationId(Uuid::now_v7());
    pipeline.upstream.panic_once(Place::Answer, guest);
    let submission = || Submission {
        command: Command {
            requester: requester(),
            connection: Connection { target: requester(), guest },
            archived: true,
            key: IdempotencyKey::parse("unlucky").expect("a key"),
            issue_time: None,
            expire_time: None,
        },
        door: Door::Grpc,
        asked_by: AskedBy::default(),
        trace: TraceContext::default(),
        correlation_id: None,
        reply: None,
        message_length: 0,
        answer_by: Instant::now() + DEADLINE,
    };
    let submit = || pipeline.archiver.submit(submission()).expect("it is taken in");
    let told = in_time("a word", submit()).await.expect("a word on the command");
    let Answer::Deferred(record) = told else { panic!("not deferred: {told:?}") };
    assert_eq!(reason(&record), Some(Reason::Internal));
    in_time("the outcome", submit()).await.expect("it was taken over");
    assert_eq!(succeeded(&pipeline, requester(), "unlucky").await.epoch, 2);
    pipeline.stop().await;
}

fn reason(record: &CommandRecord) -> Option<Reason> {
    record.outcome.as_ref().and_then(|outcome| outcome.refusal.as_ref()).map(|refusal| refusal.reason)
}

/// A clock that can be put forward.
struct Movable(AtomicI64);

impl Clock for Movable {
    fn now(&self) -> Timestamp {
        SystemClock.now() + TimeDelta::hours(self.0.load(Ordering::SeqCst))
    }
}

#[tokio::test]
async fn a_command_that_panics_each_time_is_given_up_in_the_end() {
    let settings = settings("panic-always");
    let clock = Arc::new(Movable(AtomicI64::new(0)));
    let pipeline = Pipeline::start_recovering(&settings, clock.clone()).await;
    pipeline.ready().await;
    let client = Client::new().await;
    let guest = Uuid::now_v7();
    for _ in 0..1_000 {
        pipeline.upstream.panic_once(Place::Send, OrganizationId(guest));
    }
    send(&client, &settings, requester(), guest, "unlucky").await;
    state(&pipeline, requester(), "unlucky", State::Deferred).await;
    clock.0.store(25, Ordering::SeqCst);
    let given_up = state(&pipeline, requester(), "unlucky", State::Abandoned).await;
    assert_eq!(reason(&given_up), Some(Reason::CommandAbandoned));
    assert!(given_up.maybe_applied && given_up.event.is_some(), "and that nobody knows is told");
    consumed_without_a_stop(pipeline, &client, &settings).await;
}

/// A clock that panics a number of times.
struct Brittle(AtomicUsize);

impl Clock for Brittle {
    fn now(&self) -> Timestamp {
        let broken = self.0.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        assert!(broken.is_err(), "a panic as planned");
        SystemClock.now()
    }
}

/// A panic inside the store's transaction is an error of that call, and the end of a claim is written again.
#[tokio::test]
async fn a_panic_at_the_end_of_a_claim_loses_no_outcome() {
    let settings = settings("panic-end");
    let clock = Arc::new(Brittle(AtomicUsize::new(0)));
    let mut pipeline = Pipeline::start_recovering(&settings, clock.clone()).await;
    pipeline.ready().await;
    let client = Client::new().await;
    let held = in_time("the permits", pipeline.upstream.permits.acquire_many(1_000_000)).await;
    held.expect("open").forget();
    send(&client, &settings, requester(), Uuid::now_v7(), "unlucky").await;
    in_time("the claim", async {
        let key = || IdempotencyKey::parse("unlucky").expect("a key");
        while pipeline.archiver.command_by_key(requester(), key()).await.expect("it is read").is_none() {
            harness::look_again().await;
        }
    })
    .await;
    clock.0.store(3, Ordering::SeqCst);
    pipeline.upstream.permits.add_permits(1_000_000);
    pipeline.patch().await;
    assert_eq!(succeeded(&pipeline, requester(), "unlucky").await.attempts, 1, "nothing was repeated");
    assert_eq!(clock.0.load(Ordering::SeqCst), 0, "it did panic");
    pipeline.stop().await;
    assert!(client.left(&settings.names.commands_queue).await.is_empty());
}
