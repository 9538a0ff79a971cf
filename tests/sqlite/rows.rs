//! What is stored is what is read back, whatever the texts and times.

use std::sync::Arc;

use chrono::{DateTime, TimeDelta};
use guest_connection_adapter::domain::access::AskedBy;
use guest_connection_adapter::domain::command::{Command, CommandId, IdempotencyKey, OrganizationId};
use guest_connection_adapter::domain::connection::Connection;
use guest_connection_adapter::domain::error::{FieldViolation, Reason, Refusal};
use guest_connection_adapter::domain::lifecycle::{Acceptance, Finish};
use guest_connection_adapter::domain::message::Message;
use guest_connection_adapter::domain::record::{Door, JsonText, Outcome, ReplyAddress};
use guest_connection_adapter::domain::reply::Verdict;
use guest_connection_adapter::domain::trace::TraceContext;
use guest_connection_adapter::service::ports::{Accepted, Begun, Finished};
use guest_connection_adapter::service::tenure::Slots;
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use uuid::Uuid;

use super::SqliteHarness;
use crate::conformance::world::{World, end};

const CASES: usize = 60;

fn organization() -> impl Strategy<Value = OrganizationId> {
    (1u128..).prop_map(|id| OrganizationId(Uuid::from_u128(id)))
}

fn text() -> impl Strategy<Value = Option<String>> {
    proptest::option::of(prop_oneof!["\\PC{0,40}", any::<String>()])
}

prop_compose! {
    fn acceptance()(
        (requester, target, guest) in (organization(), organization(), organization()),
        (archived, by_message) in any::<(bool, bool)>(),
        (key, id) in ("[!-~]{1,255}", any::<u128>()),
        (issued, expires) in (proptest::option::of(0i64..i64::from(u32::MAX)), proptest::option::of(1i64..1_000_000)),
        (traceparent, tracestate, correlation_id) in (text(), text(), text()),
        reply in proptest::option::of((any::<String>(), text())), (principal, address) in (text(), text()),
    ) -> Acceptance {
        let micros = |micros: i64| DateTime::from_timestamp_micros(micros).expect("a time");
        Acceptance {
            command: Command {
                requester, connection: Connection { target, guest }, archived,
                key: IdempotencyKey::parse(&key).expect("a key"),
                issue_time: issued.map(|seconds| micros(seconds * 1_000_003)),
                expire_time: expires.map(|days| micros(days * 86_400_000_000) + TimeDelta::days(365 * 60)),
            },
            id: CommandId(Uuid::from_u128(id)),
            door: if by_message { Door::Amqp } else { Door::Grpc },
            asked_by: AskedBy { principal, address },
            trace: TraceContext { traceparent, tracestate },
            correlation_id,
            reply: reply.map(|(reply_to, correlation_id)| ReplyAddress { reply_to, correlation_id }),
            is_owned: true,
            put_off: None,
        }
    }
}

prop_compose! {
    fn outcome()(
        refused in any::<bool>(), status in proptest::option::of(100u16..1000), message in any::<String>(),
        fields in proptest::collection::vec((any::<String>(), any::<String>()), 0..3),
        retry_after in proptest::option::of(any::<std::time::Duration>()), object in any::<(String, f64)>(),
        incomplete in any::<bool>(),
    ) -> Outcome {
        let violations = fields.into_iter().map(|(field, rule)| FieldViolation::new(field, rule)).collect();
        let refusal = Refusal { violations, retry_after, ..Refusal::new(Reason::UpstreamInvalid, message) };
        let object = serde_json::json!({ object.0: object.1, "n": [null] }).to_string();
        Outcome {
            refusal: refused.then_some(refusal),
            upstream_status: status,
            guest_connection: JsonText::object(&object).filter(|_| !refused),
            incomplete,
        }
    }
}

#[tokio::test]
async fn rows_are_read_back_as_they_were_written() {
    let world = World::new(SqliteHarness::new().await);
    let store = world.store();
    let mut runner = TestRunner::deterministic();
    let mut after = 0;
    for _ in 0..CASES {
        let (request, outcome) = (acceptance(), outcome()).new_tree(&mut runner).unwrap().current();
        let answer = store.accept(request.clone(), Some(Uuid::now_v7())).await.unwrap();
        let Accepted::Fresh(_, Some(Begun::Claimed(claimed))) = answer else { panic!("{answer:?}") };
        assert_eq!(claimed.command, request.command);
        assert_eq!((&claimed.trace, &claimed.correlation_id), (&request.trace, &request.correlation_id));
        assert_eq!(claimed.replies, Vec::from_iter(request.reply.clone()));
        assert_eq!(store.command(claimed.id).await.unwrap().as_ref(), Some(&claimed));

        let verdict = if outcome.refusal.is_some() {
            Verdict::Rejected(outcome.clone())
        } else {
            Verdict::Applied { outcome: outcome.clone() }
        };
        let finish = Finish { id: claimed.id, epoch: claimed.epoch, ..end(verdict) };
        let Finished::Settled(ended) = store.finish(finish).await.unwrap() else { panic!("stale") };
        assert_eq!(ended.outcome, Some(outcome));
        let key = request.command.key.clone();
        let found = store.command_by_key(request.command.requester, key).await.unwrap();
        assert_eq!(found.as_ref(), Some(&ended));

        for row in store.outbox(after, 100, Slots::ALL).await.unwrap() {
            after = row.number;
            let told = match Arc::unwrap_or_clone(row.message) {
                Message::Event(event) => (event.command, event.guest_connection),
                Message::DeadLetter(letter) => (letter.command, None),
                Message::Reply(reply) => {
                    assert_eq!(Some(reply.address), request.reply);
                    assert_eq!(Some(&reply.outcome), ended.outcome.as_ref());
                    (reply.command.expect("a command"), reply.outcome.guest_connection)
                }
            };
            assert_eq!(told.0, (&ended).into());
            let shown = ended.outcome.as_ref().and_then(|outcome| outcome.guest_connection.clone());
            assert!(told.1 == shown || told.1.is_none());
        }
    }
    world.check_books().await;
}
