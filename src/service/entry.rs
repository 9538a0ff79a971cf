//! How a submission gets in: refused, put off, left to the store, or with a place among the commands under way.
//!
//! All of it happens before [`submit`](super::archiver::Archiver::submit) returns, in the order of calls.

use std::sync::Arc;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::Instant;
use uuid::Uuid;

use super::Shared;
use super::archiver::{Submission, draining, overloaded, store_unavailable};
use super::gate::{Closed, Pass, Patience};
use super::lanes::Ticket;
use super::load::Hold;
use super::ports::Accepted;
use crate::domain::command::{Command, CommandId};
use crate::domain::connection::Connection;
use crate::domain::error::{Reason, Refusal};
use crate::domain::lifecycle::{Acceptance, PutOff};
use crate::domain::record::{Door, State};
use crate::domain::trace::TraceContext;
use crate::telemetry::span::Span;
use crate::telemetry::step::{Name, Step};

/// A submission with its acceptance on the way to the store.
pub(super) struct Entry {
    pub(super) door: Door,
    pub(super) connection: Connection,
    pub(super) trace: TraceContext,
    /// Absent if there was no room for it: then the store keeps the command until there is.
    pub(super) place: Option<Place>,
    pub(super) accepted: Accepting,
    pub(super) asked: Instant,
    /// Until it is durable.
    pub(super) step: Step,
    /// The door's.
    pub(super) span: Span,
}

/// A place among the commands under way.
pub(super) struct Place {
    pub(super) ticket: Ticket,
    pub(super) hold: Hold,
    /// Given to the head of a lane, if the gate was open: then the claim is asked for with the acceptance.
    pub(super) pass: Option<Pass>,
}

/// A command on its way into the store.
type Accepting = BoxFuture<'static, Result<Accepted, Refusal>>;

/// How long a door waits for a requester that may not send.
const fn patience(door: Door, answer_by: Instant) -> Patience {
    match door {
        Door::Grpc => Patience::Call(answer_by),
        Door::Amqp => Patience::Message,
    }
}

impl Shared {
    /// The part of a submission that must happen in the order of calls.
    pub(super) fn enter(&self, submission: Submission) -> Result<Entry, Refusal> {
        self.check(&submission.command)?;
        let Submission { command, door, asked_by, trace, correlation_id, reply, message_length, answer_by } =
            submission;
        let requester = command.requester;
        let connection = command.connection;
        let id = CommandId(Uuid::now_v7());
        let trace_of = trace.clone();
        let acceptance = Acceptance {
            command,
            id,
            door,
            asked_by,
            trace: trace_of,
            correlation_id,
            reply,
            is_owned: true,
            put_off: None,
        };
        let (asked, step) = (Instant::now(), Step::begin(Name::Accept));
        let entry = |place, accepted| {
            let span = Span::present();
            Entry { door, connection, trace, place, accepted, asked, step, span }
        };
        let patience = patience(door, answer_by);
        if let Some(closed) = self.gate.closed(requester).filter(|closed| !patience.bears(closed, asked)) {
            return self.enter_closed(acceptance, closed).map(|accepted| entry(None, accepted));
        }
        let is_constrained = self.gate.is_constrained(requester);
        if is_constrained && self.load.is_beyond_share(requester, door.into()) {
            return self.enter_beyond_share(acceptance).map(|accepted| entry(None, accepted));
        }
        // What the store holds for this lane came first.
        let hold = if door == Door::Amqp && self.lanes.has_more(connection) {
            None
        } else {
            self.load.hold(requester, door, message_length, is_constrained)
        };
        let Some(hold) = hold else {
            return self
                .enter_store(acceptance, "too much is under way")
                .map(|accepted| entry(None, accepted));
        };
        let arrive = |is_head: bool| {
            let is_ready = is_head && self.upstream.is_ready(requester);
            let pass = if is_ready { self.gate.try_enter(requester) } else { None };
            let claim = pass.is_some().then(Uuid::now_v7);
            (self.store.accept(acceptance.clone(), claim), pass)
        };
        if let Ok((ticket, (accepted, pass))) = self.lanes.enter(connection, arrive) {
            let accepted =
                accepted.map(|accepted| accepted.map_err(|error| store_unavailable(&error))).boxed();
            return Ok(entry(Some(Place { ticket, hold, pass }), accepted));
        }
        let text = "too many commands of this connection wait";
        self.enter_store(acceptance, text).map(|accepted| entry(None, accepted))
    }

    /// Refuses what cannot be taken in whoever asks and however busy it is.
    fn check(&self, command: &Command) -> Result<(), Refusal> {
        if self.draining.is_cancelled() {
            return Err(draining());
        }
        if !self.upstream.knows(command.requester) {
            let text = "the requester organisation has no credentials here";
            return Err(Refusal::new(Reason::RequesterNotConfigured, text));
        }
        if self.load.backlog_is_full() {
            return Err(overloaded("too many commands are not final yet"));
        }
        Ok(())
    }

    /// A message without a place goes to the store all the same, and is out of the broker's hands: it would hold up those
    /// of other connections. A call is refused; its caller can come again.
    fn enter_store(&self, acceptance: Acceptance, text: &str) -> Result<Accepting, Refusal> {
        match acceptance.door {
            Door::Amqp => Ok(self.accept_unowned(acceptance)),
            Door::Grpc => Err(overloaded(text)),
        }
    }

    /// Its requester is not served now. A call is refused, but hears what is known of its key. A message is put off, unless
    /// nobody is served: then it is left in the queue.
    fn enter_closed(&self, acceptance: Acceptance, closed: Closed) -> Result<Accepting, Refusal> {
        let refusal = closed.refusal();
        match acceptance.door {
            Door::Grpc => Ok(self.accept_known(acceptance, refusal)),
            Door::Amqp if closed.is_everyone => Err(Refusal { reason: Reason::UpstreamPaused, ..refusal }),
            Door::Amqp => {
                let put_off = PutOff { delay: closed.remaining(), keeps_place: false, refusal };
                Ok(self.accept_unowned(Acceptance { put_off: Some(put_off), ..acceptance }))
            }
        }
    }

    /// Its requester has as much under way as it may while it has reached a limit of its own, or fails.
    fn enter_beyond_share(&self, acceptance: Acceptance) -> Result<Accepting, Refusal> {
        let text = "too many commands of this requester organisation are under way";
        if acceptance.door == Door::Amqp
            && let Some(closed) = self.gate.closed(acceptance.command.requester)
        {
            let put_off = PutOff { delay: closed.remaining(), keeps_place: false, refusal: closed.refusal() };
            return Ok(self.accept_unowned(Acceptance { put_off: Some(put_off), ..acceptance }));
        }
        if acceptance.door == Door::Amqp && self.gate.is_strained(acceptance.command.requester) {
            let delay = self.settings.deferral.deferral(1, None, rand::random());
            let refusal = Refusal::new(Reason::RequesterPaused, text).retry_after(delay);
            let put_off = PutOff { delay, keeps_place: false, refusal };
            return Ok(self.accept_unowned(Acceptance { put_off: Some(put_off), ..acceptance }));
        }
        self.enter_store(acceptance, text)
    }

    fn accept_unowned(&self, acceptance: Acceptance) -> Accepting {
        let accepted = self.store.accept(Acceptance { is_owned: false, ..acceptance }, None);
        accepted.map(|accepted| accepted.map_err(|error| store_unavailable(&error))).boxed()
    }

    /// Refuses what is new with `refusal`.
    fn accept_known(&self, acceptance: Acceptance, refusal: Refusal) -> Accepting {
        let store = Arc::clone(&self.store);
        async move {
            let (requester, key) = (acceptance.command.requester, acceptance.command.key.clone());
            let known =
                store.command_by_key(requester, key).await.map_err(|error| store_unavailable(&error))?;
            if known.is_none_or(|record| record.state == State::Failed) {
                return Err(refusal);
            }
            let put_off =
                PutOff { delay: refusal.retry_after.unwrap_or_default(), keeps_place: false, refusal };
            let acceptance = Acceptance { is_owned: false, put_off: Some(put_off), ..acceptance };
            store.accept(acceptance, None).await.map_err(|error| store_unavailable(&error))
        }
        .boxed()
    }
}
