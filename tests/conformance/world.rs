//! A store under test, and short words for what is done to it.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use chrono::TimeDelta;
use guest_connection_adapter::domain::Timestamp;
use guest_connection_adapter::domain::access::AskedBy;
use guest_connection_adapter::domain::command::{Command, CommandId, IdempotencyKey, OrganizationId};
use guest_connection_adapter::domain::connection::Connection;
use guest_connection_adapter::domain::error::Reason;
use guest_connection_adapter::domain::lifecycle::{Acceptance, Finish, Terms};
use guest_connection_adapter::domain::message::{DeadLetter, Event, Message, Reply};
use guest_connection_adapter::domain::record::{CommandRecord, Door, JsonText, Outcome, ReplyAddress, State};
use guest_connection_adapter::domain::reply::Verdict;
use guest_connection_adapter::domain::trace::TraceContext;
use guest_connection_adapter::service::ports::{Accepted, Begun, Books, Clock, Finished, Store};
use guest_connection_adapter::service::tenure::Slots;
use uuid::Uuid;

pub const TERMS: Terms = Terms {
    lease: TimeDelta::seconds(60),
    settle: TimeDelta::seconds(30),
    hold: TimeDelta::seconds(45),
    give_up_after: TimeDelta::hours(24),
};
pub const RETENTION: TimeDelta = TimeDelta::days(7);

/// A store whose time the test sets.
pub trait Harness: Send {
    fn store(&self) -> Arc<dyn Store>;
    fn now(&self) -> Timestamp;
    /// Moves the store's clock, backwards too.
    fn advance(&self, span: TimeDelta);
    /// The process dies and another one opens the store.
    fn reopen(&mut self) -> impl Future<Output = ()> + Send;
}

/// A clock that stands until it is moved.
pub struct ManualClock(Mutex<Timestamp>);

impl ManualClock {
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new("2026-01-02T03:04:05Z".parse().unwrap())))
    }

    pub fn advance(&self, span: TimeDelta) {
        *self.0.lock().unwrap() += span;
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Timestamp {
        *self.0.lock().unwrap()
    }
}

/// A command to be accepted.
#[derive(Debug, Clone)]
pub struct Wish {
    pub requester: u128,
    pub guest: u128,
    pub archived: bool,
    pub key: String,
    pub issue_time: Option<Timestamp>,
    pub expire_time: Option<Timestamp>,
    pub door: Door,
    pub reply: Option<ReplyAddress>,
    pub asked_by: AskedBy,
}

/// Archive the connection with `guest`, from a gRPC call.
pub fn wish(guest: u128, key: &str) -> Wish {
    Wish {
        requester: 1,
        guest,
        archived: true,
        key: key.to_owned(),
        issue_time: None,
        expire_time: None,
        door: Door::Grpc,
        reply: None,
        asked_by: AskedBy {
            principal: Some("billing".to_owned()),
            address: Some("192.0.2.1:4711".to_owned()),
        },
    }
}

pub fn address(reply_to: &str) -> ReplyAddress {
    ReplyAddress { reply_to: reply_to.to_owned(), correlation_id: Some("c-1".to_owned()) }
}

impl Wish {
    pub fn unarchive(self) -> Self {
        Self { archived: false, ..self }
    }

    pub fn by_amqp(self) -> Self {
        Self { door: Door::Amqp, ..self }
    }

    pub fn reply_to(self, reply_to: &str) -> Self {
        Self { reply: Some(address(reply_to)), ..self }
    }

    pub fn issued(self, time: Timestamp) -> Self {
        Self { issue_time: Some(time), ..self }
    }

    pub fn expires(self, time: Timestamp) -> Self {
        Self { expire_time: Some(time), ..self }
    }

    pub fn acceptance(self) -> Acceptance {
        let requester = OrganizationId(Uuid::from_u128(self.requester));
        let guest = OrganizationId(Uuid::from_u128(1_000 + self.guest));
        Acceptance {
            command: Command {
                requester,
                connection: Connection { target: OrganizationId(Uuid::from_u128(1)), guest },
                archived: self.archived,
                key: IdempotencyKey::parse(&self.key).unwrap(),
                issue_time: self.issue_time,
                expire_time: self.expire_time,
            },
            id: CommandId(Uuid::now_v7()),
            door: self.door,
            asked_by: self.asked_by,
            trace: TraceContext {
                traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_owned()),
                tracestate: Some("vendor=1".to_owned()),
            },
            correlation_id: Some("conversation".to_owned()),
            reply: self.reply,
            is_owned: true,
            put_off: None,
        }
    }
}

/// How a claim ends; the rest is added by [`World::finish`].
pub fn end(verdict: Verdict) -> Finish {
    Finish {
        id: CommandId(Uuid::nil()),
        epoch: 0,
        verdict,
        attempts: 1,
        maybe_applied: false,
        unanswered_ago: None,
        caller_waits: false,
        defer_delay: Duration::from_secs(10),
        is_paused: false,
        event_id: Uuid::now_v7(),
    }
}

pub fn applied() -> Finish {
    let outcome = Outcome {
        refusal: None,
        upstream_status: Some(200),
        guest_connection: JsonText::object(r#"{"archived":true,  "new_field":{"a":1.50}}"#),
        incomplete: false,
    };
    end(Verdict::Applied { outcome })
}

pub fn rejected() -> Finish {
    end(Verdict::Rejected(Outcome::refused(Some(404), Reason::UpstreamNotFound, "not known")))
}

pub fn refused() -> Finish {
    end(Verdict::Refused(Outcome::refused(Some(403), Reason::UpstreamForbidden, "forbidden")))
}

/// Nobody was reached: certainly not applied.
pub fn unreachable() -> Finish {
    end(Verdict::Transient {
        outcome: Outcome::refused(None, Reason::UpstreamUnreachable, "no connection"),
        maybe_applied: false,
        unanswered: false,
        token_refused: false,
    })
}

/// A 500: may have been applied, but it was answered.
pub fn broken() -> Finish {
    let outcome = Outcome::refused(Some(500), Reason::UpstreamUnavailable, "broken");
    let verdict =
        Verdict::Transient { outcome, maybe_applied: true, unanswered: false, token_refused: false };
    Finish { maybe_applied: true, ..end(verdict) }
}

/// Sent `ago` and never answered.
pub fn unanswered(ago: Duration) -> Finish {
    let outcome = Outcome::refused(None, Reason::UpstreamUnanswered, "no answer");
    let verdict = Verdict::Transient { outcome, maybe_applied: true, unanswered: true, token_refused: false };
    Finish { maybe_applied: true, unanswered_ago: Some(ago), ..end(verdict) }
}

/// A store under test. After every change the books are checked.
pub struct World<H> {
    pub harness: H,
}

impl<H: Harness> World<H> {
    pub fn new(harness: H) -> Self {
        Self { harness }
    }

    pub fn now(&self) -> Timestamp {
        self.harness.now()
    }

    pub fn advance(&self, span: TimeDelta) {
        self.harness.advance(span);
    }

    pub fn store(&self) -> Arc<dyn Store> {
        self.harness.store()
    }

    pub async fn accept(&self, wish: Wish) -> Accepted {
        let answer = self.store().accept(wish.acceptance(), None).await.unwrap();
        self.check_books().await;
        answer
    }

    pub async fn accept_and_claim(&self, wish: Wish) -> Accepted {
        let answer = self.store().accept(wish.acceptance(), Some(Uuid::now_v7())).await.unwrap();
        self.check_books().await;
        answer
    }

    /// Accepts a new command without a claim.
    pub async fn fresh(&self, wish: Wish) -> CommandRecord {
        match self.accept(wish).await {
            Accepted::Fresh(record, None) => record,
            other => panic!("not new: {other:?}"),
        }
    }

    /// Accepts a new command and claims it.
    pub async fn claimed(&self, wish: Wish) -> CommandRecord {
        match self.accept_and_claim(wish).await {
            Accepted::Fresh(_, Some(Begun::Claimed(record))) => record,
            other => panic!("not claimed: {other:?}"),
        }
    }

    /// Accepts a new command that has to wait.
    pub async fn waiting(&self, wish: Wish) -> CommandRecord {
        match self.accept_and_claim(wish).await {
            Accepted::Fresh(_, Some(Begun::Waiting(record))) => record,
            other => panic!("does not wait: {other:?}"),
        }
    }

    pub async fn begin(&self, record: &CommandRecord) -> Begun {
        let answer = self.store().begin(record.id, Uuid::now_v7(), true).await.unwrap();
        self.check_books().await;
        answer
    }

    pub async fn claim(&self, record: &CommandRecord) -> CommandRecord {
        match self.begin(record).await {
            Begun::Claimed(record) => record,
            other => panic!("not claimed: {other:?}"),
        }
    }

    /// Ends the claim that `record` holds.
    pub async fn finish(&self, record: &CommandRecord, finish: Finish) -> Finished {
        let finish = Finish { id: record.id, epoch: record.epoch, ..finish };
        let answer = self.store().finish(finish).await.unwrap();
        self.check_books().await;
        answer
    }

    pub async fn settle(&self, record: &CommandRecord, finish: Finish) -> CommandRecord {
        match self.finish(record, finish).await {
            Finished::Settled(record) => record,
            Finished::Stale => panic!("the claim was stale"),
        }
    }

    /// Accepts, claims and ends a command.
    pub async fn done(&self, wish: Wish, finish: Finish) -> CommandRecord {
        let record = self.claimed(wish).await;
        self.settle(&record, finish).await
    }

    pub async fn command(&self, record: &CommandRecord) -> CommandRecord {
        self.store().command(record.id).await.unwrap().expect("the command is known")
    }

    pub async fn messages(&self) -> Vec<Message> {
        let rows = self.store().outbox(0, 10_000, Slots::ALL).await.unwrap();
        rows.into_iter().map(|row| Arc::unwrap_or_clone(row.message)).collect()
    }

    pub async fn events(&self) -> Vec<Event> {
        let messages = self.messages().await.into_iter();
        messages
            .filter_map(|message| if let Message::Event(event) = message { Some(*event) } else { None })
            .collect()
    }

    pub async fn letters(&self) -> Vec<DeadLetter> {
        let messages = self.messages().await.into_iter();
        messages
            .filter_map(
                |message| if let Message::DeadLetter(letter) = message { Some(*letter) } else { None },
            )
            .collect()
    }

    pub async fn replies(&self) -> Vec<Reply> {
        let messages = self.messages().await.into_iter();
        messages
            .filter_map(|message| if let Message::Reply(reply) = message { Some(*reply) } else { None })
            .collect()
    }

    pub async fn confirm_all(&self) {
        let rows = self.store().outbox(0, 10_000, Slots::ALL).await.unwrap();
        self.store().confirm(rows.iter().map(|row| row.number).collect()).await.unwrap();
        self.check_books().await;
    }

    pub async fn check_books(&self) -> Books {
        let books = self.store().books().await.unwrap();
        assert_eq!(books.registered, books.by_state.iter().sum::<u64>(), "{books:?}");
        assert_eq!(books.outbox_written, books.outbox_confirmed + books.outbox_pending, "{books:?}");
        books
    }
}

/// How many of `state` the books count.
pub fn count(books: &Books, state: State) -> u64 {
    books.by_state[State::ALL.iter().position(|other| *other == state).unwrap()]
}
