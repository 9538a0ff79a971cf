//! A small run as it should be, made by hand, for the tests to break.

use chrono::TimeDelta;
use simulator::{Endpoint, Entry};
use uuid::Uuid;

use crate::history::{
    Answer, BooksSeen, CommandSeen, Door, EventSeen, FaultSeen, History, LetterSeen, ReplySeen, Sending,
    State, Time, What,
};
use crate::instance;
use crate::plan::{Garbage, Wish};

/// The first connection.
pub const FIRST: Uuid = Uuid::from_u128(1);

/// The second one.
pub const SECOND: Uuid = Uuid::from_u128(2);

/// The organisation of both.
pub const REQUESTER: Uuid = Uuid::from_u128(3);

/// An organisation that fares badly.
pub const OTHER: Uuid = Uuid::from_u128(4);

pub fn at(ms: i64) -> Time {
    Time::UNIX_EPOCH + TimeDelta::milliseconds(ms)
}

/// Two effects on the first connection, an older command after them and a conflict; on the second one a refusal and a
/// command whose fate was never learnt; a garbage message.
pub fn sound() -> History {
    let mut story = Story::default();
    let archive = story.wish("archive", FIRST, true);
    story.call(
        archive,
        Answer::Done { command_id: "id-archive".into(), key: "archive".into(), replayed: false },
    );
    story.patch(archive, 100, 120, Some(200), true);
    story.command(archive, State::Succeeded, Door::Grpc, 90, Some(1));

    let unarchive = story.wish("unarchive", FIRST, false);
    story.message(What::Wish(unarchive), "succeeded");
    story.patch(unarchive, 150, 170, Some(200), true);
    story.command(unarchive, State::Succeeded, Door::Amqp, 140, Some(2));

    let older = story.wish("older", FIRST, true);
    story.message(What::Wish(older), "superseded");
    story.command(older, State::Superseded, Door::Amqp, 10, None);

    let conflict = story.wish("archive", FIRST, false);
    let number = story.message(What::Wish(conflict), "refused");
    story.copy(number, "IDEMPOTENCY_KEY_REUSED");

    let refused = story.wish("refused", SECOND, true);
    story.message(What::Wish(refused), "rejected");
    story.patch(refused, 200, 210, Some(404), false);
    story.command(refused, State::Rejected, Door::Amqp, 190, None);
    story.letter(refused);

    let unknown = story.wish("unknown", SECOND, true);
    story.message(What::Wish(unknown), "rejected");
    story.patch(unknown, 300, 320, None, true);
    story.patch(unknown, 330, 340, Some(404), false);
    story.command(unknown, State::Rejected, Door::Amqp, 290, Some(1)).maybe_applied = true;
    story.history.events.last_mut().unwrap().kind = "indeterminate".into();
    story.letter(unknown);

    story.garbage();
    story.history.faults.push(FaultSeen {
        kind: "one organisation: Errors".into(),
        text: String::new(),
        from: at(0),
        until: at(10_000),
        organization: Some(OTHER),
        instance: None,
        is_freeze: false,
    });
    story.history.upstream = [(FIRST, false), (SECOND, true)].into();
    let commands = i64::try_from(story.history.commands.len()).unwrap();
    story.history.books = Some(BooksSeen {
        registered: commands,
        commands,
        unfinished: 0,
        outbox_written: 9,
        outbox_confirmed: 9,
        outbox_pending: 0,
        suspect: 0,
        instances: 0,
    });
    story.history
}

struct Story {
    history: History,
    applied: u64,
}

impl Default for Story {
    fn default() -> Self {
        let history = History {
            seed: 0,
            started_at: at(0),
            wishes: Vec::new(),
            garbage: Vec::new(),
            sendings: Vec::new(),
            faults: Vec::new(),
            journal: Vec::new(),
            events: Vec::new(),
            letters: Vec::new(),
            replies: Vec::new(),
            commands: <_>::default(),
            upstream: <_>::default(),
            left_in_queue: 0,
            instances: 3,
            books: None,
            ended_well: true,
            kills: Vec::new(),
            published: Vec::new(),
        };
        Self { history, applied: 0 }
    }
}

impl Story {
    fn wish(&mut self, key: &str, guest: Uuid, archived: bool) -> usize {
        let number = self.history.wishes.len();
        self.history.wishes.push(Wish {
            kind: "plain".into(),
            key: key.into(),
            requester: REQUESTER,
            guest,
            archived,
            trace: format!("trace-of-{number}").replace('-', "_"),
            issued_ms: None,
            expires_ms: None,
        });
        number
    }

    fn send(&mut self, what: What, door: Door, answer: Answer) -> usize {
        let wants_reply = door == Door::Amqp;
        let sending = Sending { what, door, at: at(0), answered_at: None, wants_reply, answer };
        self.history.sendings.push(sending);
        self.history.sendings.len() - 1
    }

    fn call(&mut self, wish: usize, answer: Answer) {
        self.send(What::Wish(wish), Door::Grpc, answer);
    }

    fn message(&mut self, what: What, status: &str) -> usize {
        let sending = self.send(what, Door::Amqp, Answer::Confirmed);
        let reply = ReplySeen { sending, status: status.into(), reason: None, command_id: None };
        self.history.replies.push(reply);
        sending
    }

    fn patch(&mut self, wish: usize, from: i64, until: i64, status: Option<u16>, applied: bool) {
        let Wish { guest, archived, trace, .. } = self.history.wishes[wish].clone();
        self.applied += u64::from(applied);
        self.history.journal.push(Entry {
            seq: self.history.journal.len() as u64 + 1,
            endpoint: Endpoint::Patch,
            received_at: at(from),
            status_at: status.map(|_| at(until)),
            answered_at: status.map(|_| at(until)),
            ended_at: Some(at(until)),
            requester: Some(REQUESTER),
            target: Some(REQUESTER),
            guest: Some(guest),
            archived: Some(archived),
            client_organization: Some(REQUESTER),
            traceparent: Some(format!("00-{trace}-span-01")),
            status,
            applied,
            applied_seq: applied.then_some(self.applied),
            applied_at: applied.then_some(at(from)),
            fault: None,
            violations: Vec::new(),
            peer: Some(instance::source(0).into()),
        });
    }

    fn command(
        &mut self,
        wish: usize,
        state: State,
        door: Door,
        effective: i64,
        sequence: Option<u64>,
    ) -> &mut CommandSeen {
        let Wish { key, guest, archived, trace, .. } = self.history.wishes[wish].clone();
        let (id, event_id) = (format!("id-{key}"), format!("event-of-{key}"));
        if let Some(sequence) = sequence {
            self.history.events.push(EventSeen {
                id: event_id.clone(),
                kind: if archived { "archived" } else { "unarchived" }.into(),
                guest,
                sequence,
                command_id: id.clone(),
                key: key.clone(),
                trace,
                body: "{}".into(),
            });
        }
        let command = CommandSeen {
            id,
            key: key.clone(),
            guest,
            archived,
            door,
            state,
            attempts: 1,
            maybe_applied: false,
            effective_time: at(effective),
            accept_time: at(effective),
            due_time: None,
            finish_time: Some(at(effective + 50)),
            reason: String::new(),
            event: sequence.map(|sequence| (event_id, sequence, true)),
        };
        self.history.commands.entry(key).or_insert(command)
    }

    fn letter(&mut self, wish: usize) {
        let key = &self.history.wishes[wish].key;
        let command = &self.history.commands[key];
        self.history.letters.push(LetterSeen {
            reason: "UPSTREAM_NOT_FOUND".into(),
            sending: None,
            command: Some((command.id.clone(), command.state)),
            trace: String::new(),
            text: String::new(),
        });
    }

    fn copy(&mut self, sending: usize, reason: &str) {
        self.history.letters.push(LetterSeen {
            reason: reason.into(),
            sending: Some(sending),
            command: None,
            trace: String::new(),
            text: String::new(),
        });
    }

    fn garbage(&mut self) {
        self.history.garbage.push(Garbage {
            kind: "empty".into(),
            body: Vec::new(),
            content_type: "application/json".into(),
            reason: "UNDECODABLE".into(),
        });
        let number = self.message(What::Garbage(0), "refused");
        self.copy(number, "UNDECODABLE");
    }
}
