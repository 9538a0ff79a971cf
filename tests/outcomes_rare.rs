//! Upstream answers that come in a row, ask for time, point elsewhere, or refuse credentials: through both doors.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use chrono::TimeDelta;
use guest_connection_adapter::proto::{ArchiveGuestConnectionResponse, CommandState};
use harness::broker::Inbox;
use harness::{Upstream, World};
use lapin::BasicProperties;
use serde_json::{Value, json};
use simulator::{Rule, RuleBuilder};
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use uuid::Uuid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

/// Short waits, and attempts so long that a loaded machine does not exceed them.
const QUICK: &str = r#"
upstream.attempt_timeout = "3s"
upstream.command_timeout = "8s"
upstream.retry_delay_base = "50ms"
upstream.retry_delay_max = "100ms"
upstream.defer_delay_base = "500ms"
upstream.defer_delay_max = "500ms"
upstream.token_delay_base = "100ms"
upstream.token_delay_max = "500ms"
upstream.settle = "1s"
"#;

type Fault = fn(RuleBuilder) -> Rule;

/// One guest for each door.
struct Pair {
    call: Uuid,
    message: Uuid,
}

impl Pair {
    /// The next PATCH of each meets these faults, one after another.
    fn new(upstream: &Upstream, faults: &[Fault]) -> Self {
        let pair = Self { call: Uuid::new_v4(), message: Uuid::new_v4() };
        for guest in [pair.call, pair.message] {
            for fault in faults {
                upstream.simulator.script(fault(Rule::patch().guest(guest).times(1)));
            }
        }
        pair
    }

    #[track_caller]
    fn sent(&self, upstream: &Upstream, count: usize) {
        assert_eq!([self.call, self.message].map(|guest| upstream.received(guest)), [count, count]);
    }
}

async fn call(world: &World, guest: Uuid) -> Result<ArchiveGuestConnectionResponse, Status> {
    let request = world.upstream.archive(guest, &guest.to_string());
    Ok(world.client().await.archive_guest_connection(request).await?.into_inner())
}

#[track_caller]
fn told(status: &Status, code: Code, reason: &str) -> ErrorDetails {
    let details = status.get_error_details();
    let info = details.error_info().expect("an ErrorInfo");
    assert_eq!((status.code(), info.reason.as_str()), (code, reason), "{status:?}");
    details
}

/// Where replies come.
struct Desk {
    queue: String,
    inbox: Inbox,
}

impl Desk {
    async fn open(world: &World) -> Self {
        let queue = world.broker.queue().await;
        let inbox = world.broker.consume(&queue).await;
        Self { queue, inbox }
    }

    async fn send(&self, world: &World, guest: Uuid) {
        let properties = BasicProperties::default()
            .with_content_type("application/json".into())
            .with_reply_to(self.queue.as_str().into());
        let body = world.upstream.message(guest, true, &guest.to_string());
        world.send_with(guest, properties, &body).await;
    }

    async fn ask(&mut self, world: &World, guest: Uuid) -> Value {
        self.send(world, guest).await;
        self.inbox.next().await.json()
    }
}

/// After these nobody knows; whether the PATCH took effect.
const UNKNOWN: [(Fault, bool); 5] = [
    (|rule| rule.status(500).into(), false),
    (|rule| rule.status(502).text("<html>").applied().into(), true),
    (|rule| rule.reset_before_apply(), false),
    (|rule| rule.reset_after_apply(), true),
    (|rule| rule.hang_after_apply(), true),
];

const REFUSALS: [(Fault, Code, &str); 3] = [
    (|rule| rule.status(404).into(), Code::NotFound, "UPSTREAM_NOT_FOUND"),
    (|rule| rule.status(422).into(), Code::InvalidArgument, "UPSTREAM_INVALID"),
    // Alone it would let the same key try again; what may have been applied is settled, though.
    (|rule| rule.status(403).into(), Code::PermissionDenied, "UPSTREAM_FORBIDDEN"),
];

#[tokio::test]
async fn a_refusal_after_an_unknown_fate_is_told_as_indeterminate() {
    let mut world = World::start(PROGRAM, QUICK).await;
    let mut letters = world.broker.consume(&world.names.dead_letters).await;
    let mut desk = Desk::open(&world).await;
    for (index, (unknown, applied)) in UNKNOWN.into_iter().enumerate() {
        let (refusal, code, reason) = REFUSALS[index % REFUSALS.len()];
        let pair = Pair::new(&world.upstream, &[unknown, refusal]);
        for _ in ["asked", "repeated"] {
            let details = told(&call(&world, pair.call).await.expect_err("refused"), code, reason);
            let metadata = &details.error_info().unwrap().metadata;
            assert_eq!((&*metadata["command_state"], &*metadata["maybe_applied"]), ("rejected", "true"));
        }
        for replayed in [false, true] {
            let reply = desk.ask(&world, pair.message).await;
            assert_eq!(
                (&reply["status"], &reply["reason"], &reply["replayed"]),
                (&json!("rejected"), &json!(reason), &json!(replayed))
            );
        }
        let letter = letters.next().await;
        assert_eq!(letter.table("x-guest-connection-adapter")["reason"], reason);
        // Exactly these two, since the next pair's are the next ones.
        for guest in [pair.call, pair.message] {
            let event = world.events.next().await.json();
            assert_eq!(event["type"], "ai.mycreditapp.guest-connection.indeterminate.v1");
            assert_eq!(event["data"]["incomplete"], true);
            assert_eq!(event["data"]["command"]["guest_organization_id"], json!(guest));
            assert_eq!(world.upstream.applied(guest).len(), usize::from(applied));
        }
        pair.sent(&world.upstream, 2);
    }
    let (names, broker) = (world.names.clone(), harness::Broker::connect().await);
    world.end().await;
    assert_eq!(broker.depth(&names.commands).await, 0);
}

#[tokio::test]
async fn a_success_after_an_unknown_fate_is_a_plain_success() {
    let mut world = World::start(PROGRAM, QUICK).await;
    let mut desk = Desk::open(&world).await;
    for (unknown, _) in UNKNOWN {
        let pair = Pair::new(&world.upstream, &[unknown]);
        let answer = call(&world, pair.call).await.expect("applied");
        assert!(!answer.replayed && !answer.incomplete);
        let reply = desk.ask(&world, pair.message).await;
        assert_eq!((&reply["status"], &reply["incomplete"]), (&json!("succeeded"), &json!(false)));
        for guest in [pair.call, pair.message] {
            let event = world.events.next().await.json();
            assert_eq!(event["type"], "ai.mycreditapp.guest-connection.archived.v1");
            assert_eq!(event["data"]["command"]["guest_organization_id"], json!(guest));
            let command = world.upstream.command(&world.adapter, &guest.to_string()).await.unwrap();
            assert_eq!((command.maybe_applied, command.attempts), (false, 2));
        }
        pair.sent(&world.upstream, 2);
    }
    world.end().await;
}

#[tokio::test]
async fn a_retry_after_is_kept_even_beyond_the_usual_waits() {
    let world = World::start(PROGRAM, QUICK).await;
    let mut desk = Desk::open(&world).await;
    let pair = Pair::new(&world.upstream, &[|rule| rule.status(429).header("retry-after", "2").into()]);
    call(&world, pair.call).await.expect("served in the end");
    assert_eq!(desk.ask(&world, pair.message).await["status"], "succeeded");
    pair.sent(&world.upstream, 2);
    for guest in [pair.call, pair.message] {
        let mut journal = world.upstream.simulator.journal();
        journal.retain(|entry| entry.is_patch_of(guest));
        let wait = journal[1].received_at - journal[0].answered_at.unwrap();
        assert!(wait >= TimeDelta::seconds(2), "the upstream asked for 2 s and was given {wait}");
    }
    world.end().await;
}

#[tokio::test]
async fn case_30_a_redirection_to_another_host_is_not_followed() {
    let world = World::start(PROGRAM, QUICK).await;
    let mut desk = Desk::open(&world).await;
    let elsewhere = Upstream::start().await;
    for status in [301, 302, 303, 307, 308] {
        let pair = Pair::new(&world.upstream, &[]);
        for guest in [pair.call, pair.message] {
            let location = format!("{}/guest-connections/{guest}", elsewhere.simulator.base_url());
            let rule = Rule::patch().guest(guest).times(1).status(status);
            world.upstream.simulator.script(rule.header("location", &location));
        }
        let refused = call(&world, pair.call).await.expect_err("redirected");
        told(&refused, Code::FailedPrecondition, "UPSTREAM_REJECTED");
        assert_eq!(desk.ask(&world, pair.message).await["reason"], "UPSTREAM_REJECTED");
        pair.sent(&world.upstream, 1);
    }
    assert!(elsewhere.simulator.journal().is_empty(), "{:?}", elsewhere.simulator.journal());
    world.end().await;
}

#[tokio::test]
async fn refused_credentials_defer_a_message_and_end_no_command() {
    let cases: [(Rule, &str, usize); 3] = [
        (Rule::token().status(401).into(), "UPSTREAM_UNAUTHENTICATED", 0),
        (Rule::token().status(503).into(), "UPSTREAM_UNAVAILABLE", 0),
        (Rule::patch().status(401).into(), "UPSTREAM_UNAUTHENTICATED", 2),
    ];
    for (rule, reason, sent) in cases {
        let mut world = World::start(PROGRAM, QUICK).await;
        let mut desk = Desk::open(&world).await;
        world.upstream.simulator.script(rule);
        let pair = Pair::new(&world.upstream, &[]);
        let details = told(&call(&world, pair.call).await.expect_err("no token"), Code::Unavailable, reason);
        assert!(details.retry_info().is_some());
        assert_eq!(details.error_info().unwrap().metadata["command_state"], "failed");
        assert_eq!(world.upstream.received(pair.call), sent, "{reason}");
        desk.send(&world, pair.message).await;
        let key = pair.message.to_string();
        let is_deferred =
            |command: &guest_connection_adapter::proto::Command| command.state() == CommandState::Deferred;
        let deferred = world.upstream.command_when(&world.adapter, &key, is_deferred).await;
        assert!(!deferred.maybe_applied);
        // Unless it was itself the one that tried again.
        let heard = deferred.outcome.unwrap().reason;
        assert!([reason, "REQUESTER_PAUSED"].contains(&heard.as_str()), "{heard}");

        world.upstream.simulator.clear_faults();
        assert_eq!(desk.inbox.next().await.json()["status"], "succeeded");
        // The message's success says that the pause is over, so the call's repeat meets none.
        call(&world, pair.call).await.expect("the same key tries again");
        for guest in [pair.message, pair.call] {
            let event = world.events.next().await.json();
            assert_eq!(event["data"]["command"]["guest_organization_id"], json!(guest));
            assert_eq!(world.upstream.applied(guest), [true]);
        }
        world.end().await;
    }
}
