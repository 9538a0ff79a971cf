//! Small stories of commands, each of which is struck at every point.

use chrono::TimeDelta;
use guest_connection_adapter::domain::Timestamp;
use guest_connection_adapter::domain::command::{Command, IdempotencyKey, OrganizationId};
use guest_connection_adapter::domain::connection::Connection;
use guest_connection_adapter::domain::record::{Door, ReplyAddress};
use uuid::Uuid;

use crate::outside::Fate;

const GUEST: u128 = 77;

/// What a caller does who hears nothing, since its process was struck. A message always comes again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Patience {
    /// It asks again, with the same key.
    Repeats,
    GoesAway,
}

/// What one caller asks for.
#[derive(Debug, Clone)]
pub struct Step {
    /// The number of its requester, which stands for the command in everything that is seen.
    pub command: u128,
    pub archived: bool,
    pub door: Door,
    /// It was decided so long before it comes, and says so.
    pub issued_ago: Option<TimeDelta>,
    /// It wants a reply (messages only).
    pub reply: bool,
    /// It comes once everything before it was answered.
    pub after: bool,
    pub patience: Patience,
}

#[derive(Debug, Clone)]
pub struct Scenario {
    pub name: &'static str,
    pub steps: Vec<Step>,
    pub fates: Vec<(u128, Fate)>,
}

fn call(command: u128, archived: bool) -> Step {
    Step {
        command,
        archived,
        door: Door::Grpc,
        issued_ago: None,
        reply: false,
        after: false,
        patience: Patience::GoesAway,
    }
}

fn message(command: u128, archived: bool) -> Step {
    Step { door: Door::Amqp, ..call(command, archived) }
}

fn status(status: u16, applied: bool) -> Fate {
    Fate::Answered { status, applied }
}

impl Step {
    pub fn command_at(&self, now: Timestamp) -> Command {
        let (requester, guest) =
            (OrganizationId(Uuid::from_u128(self.command)), OrganizationId(Uuid::from_u128(GUEST)));
        Command {
            requester,
            connection: Connection { target: OrganizationId(Uuid::from_u128(99)), guest },
            archived: self.archived,
            key: self.key(),
            issue_time: self.issued_ago.map(|ago| now - ago),
            expire_time: None,
        }
    }

    pub fn key(&self) -> IdempotencyKey {
        IdempotencyKey::parse(&format!("key-{}", self.command)).unwrap()
    }

    pub fn reply_address(&self) -> Option<ReplyAddress> {
        let correlation_id = Some(self.command.to_string());
        self.reply.then(|| ReplyAddress { reply_to: "replies".to_owned(), correlation_id })
    }

    fn after(self) -> Self {
        Self { after: true, ..self }
    }

    fn repeats(self) -> Self {
        Self { patience: Patience::Repeats, ..self }
    }

    fn replies(self) -> Self {
        Self { reply: true, ..self }
    }

    fn issued_ago(self, seconds: i64) -> Self {
        Self { issued_ago: Some(TimeDelta::seconds(seconds)), ..self }
    }
}

/// The fate of the first one is unknown, and a call waits behind it.
pub fn unknown() -> Scenario {
    let steps = vec![message(1, true), call(2, false).repeats()];
    Scenario { name: "a call behind what has no answer", steps, fates: vec![(1, Fate::Unanswered)] }
}

/// Two commands, of which the older one is held up on its way.
pub fn overwritten() -> Scenario {
    let steps = vec![message(1, true), message(2, false)];
    Scenario { name: "an older value after a newer one", steps, fates: Vec::new() }
}

/// A command that comes later.
pub fn one_more() -> Vec<Step> {
    vec![message(3, true)]
}

/// Every story.
pub fn all() -> Vec<Scenario> {
    let plain = |name, steps| Scenario { name, steps, fates: Vec::new() };
    let fated = |name, steps, fates: &[(u128, Fate)]| Scenario { name, steps, fates: fates.to_vec() };
    vec![
        plain("a call whose caller goes away", vec![call(1, true)]),
        plain("a call that is repeated", vec![call(1, true).repeats()]),
        plain("a message", vec![message(1, true).replies()]),
        plain("two messages of a connection", vec![message(1, true), message(2, false)]),
        plain("a message and a call behind it", vec![message(1, true), call(2, false).repeats()]),
        plain("twins by both doors", vec![call(1, true).repeats(), message(1, true).replies()]),
        plain("a repeat of what is done", vec![message(1, true), message(1, true).replies().after()]),
        plain("the key of another wish", vec![message(1, true), message(1, false).after()]),
        plain(
            "an older one behind a newer one",
            vec![message(1, true), message(2, false).issued_ago(10).after()],
        ),
        plain(
            "an older one at the same time",
            vec![call(1, true).repeats(), message(2, false).issued_ago(10)],
        ),
        fated(
            "a failure that was applied",
            vec![message(1, true), message(2, false)],
            &[(1, status(503, true))],
        ),
        fated("a failure that was not", vec![call(1, true).repeats()], &[(1, status(503, false))]),
        fated(
            "no answer and a late effect",
            vec![message(1, true), message(2, false)],
            &[(1, Fate::Unanswered)],
        ),
        fated("a rejection", vec![message(1, true).replies(), message(2, false)], &[(1, status(404, false))]),
        fated("a rejection of a call", vec![call(1, true).repeats()], &[(1, status(404, false))]),
        fated(
            "a rejection of what may have been applied",
            vec![message(1, true)],
            &[(1, status(500, true)), (1, status(404, false))],
        ),
        fated(
            "a refusal, then the same key again",
            vec![call(1, true).repeats(), message(1, true).after()],
            &[(1, status(403, false))],
        ),
        fated("a refused token", vec![message(1, true)], &[(1, status(401, false))]),
    ]
}
