//! The work on one claim: attempts, waits between them, and the end.

use std::panic::AssertUnwindSafe;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::Shared;
use super::attempt::{Attempts, hint, panicked, unsent};
use super::board::Notice;
use super::gate::{Closed, Pass, Patience};
use super::lanes::Ticket;
use super::ports::{Begun, Finished, PutOffAnswer, StoreFuture};
use super::records;
use super::tally;
use crate::domain::command::{CommandId, OrganizationId};
use crate::domain::error::{Reason, Refusal};
use crate::domain::lifecycle::{Finish, PutOff};
use crate::domain::record::{CommandRecord, Door, State};
use crate::domain::reply::{self, Reply, Verdict};
use crate::domain::trace::TraceContext;
use crate::telemetry::instruments::instruments;
use crate::telemetry::span::{Description, Origin, Span};
use crate::telemetry::step::{self, Name, Step};

/// The pause between tries while the store is away.
pub(super) const STORE_RETRY_DELAY: Duration = Duration::from_millis(200);

/// What it may take to store an end and tell it. A caller whose deadline is nearer may be told before that its command goes
/// on, so it does not count as one that hears of the end.
const HEARING_MARGIN: Duration = Duration::from_millis(100);

/// A caller that waits for the outcome, and what is left of its patience.
#[derive(Debug, Clone)]
pub struct Caller {
    /// When it must have its answer.
    pub answer_by: Instant,
    /// Dead once the caller has gone.
    pub alive: std::sync::Weak<()>,
}

impl Caller {
    /// Whether it will hear of an end that is stored from now on.
    pub(super) fn waits(&self) -> bool {
        self.alive.strong_count() > 0 && Instant::now() + HEARING_MARGIN < self.answer_by
    }
}

/// One command at work.
pub struct Job {
    /// Which.
    pub id: CommandId,
    /// On whose behalf.
    pub requester: OrganizationId,
    /// By which door it came; what recovery takes up stands with the messages.
    pub door: Door,
    /// The trace that its span joins.
    pub trace: TraceContext,
    /// Its place in the lane.
    pub ticket: Ticket,
    /// The claim, if it came with the acceptance.
    pub claim: Option<Claim>,
    /// Who waits for it.
    pub caller: Option<Caller>,
    /// Since when it was due, if recovery has taken it up.
    pub due: Option<SystemTime>,
}

/// The answer to the wish for a claim.
pub struct Claim {
    /// The answer.
    pub begun: Begun,
    /// When it was asked for.
    pub asked: Instant,
    /// The right to send its first request, which was there before it was asked for.
    pub pass: Option<Pass>,
}

impl Job {
    /// How long it waits for a requester that may not send, while it has no claim.
    pub(super) fn patience(&self) -> Patience {
        match self.caller.as_ref().filter(|caller| caller.waits()) {
            Some(caller) => Patience::Call(caller.answer_by),
            None => Patience::Message,
        }
    }
}

/// A requester may not send.
pub(super) struct Turned {
    closed: Closed,
    /// What its command is told.
    refusal: Refusal,
}

impl Shared {
    /// Sets `job` to work in a task of its own.
    pub(super) fn spawn_work(self: &Arc<Self>, job: Job, hold: impl Send + 'static) {
        let shared = Arc::clone(self);
        self.tasks.spawn(async move { shared.work_alone(job, hold).await });
    }

    /// Works on `job`; `hold` is let go at its end. A panic ends this job alone: its claim, if it has one, is recovery's
    /// once the lease is over.
    pub(super) async fn work_alone(&self, job: Job, hold: impl Send + 'static) {
        let _hold = hold;
        let id = job.id;
        if AssertUnwindSafe(self.work(job)).catch_unwind().await.is_err() {
            records::WorkerLost { command_id: id }.log();
            self.board.tell(id, Notice::Left(Reason::Internal));
        }
    }

    /// Works on `job` until it is final, deferred or waiting, and tells the board.
    pub(super) async fn work(&self, mut job: Job) {
        let Some(_running) = self.board.run(job.id) else { return };
        let span = command_span(&job);
        span.around(self.work_on(&mut job)).await;
    }

    async fn work_on(&self, job: &mut Job) {
        let Some(Claim { begun, asked, pass }) = self.claim(job).await else { return };
        match begun {
            Begun::Claimed(record) => {
                note_claim(&record);
                self.execute(job, &record, asked, pass).await;
            }
            other => {
                drop(pass);
                self.not_begun(job.id, other);
            }
        }
    }

    /// Tells what became of a command that could not be begun.
    fn not_begun(&self, id: CommandId, begun: Begun) {
        if let Begun::Waiting(record) | Begun::Ended(record) = &begun {
            Span::present().set("command.state", record.state.as_str());
            if record.state.is_final() || !record.waiting {
                note_end(record);
            }
        }
        match begun {
            Begun::Waiting(record) => {
                self.recovery.notify_one();
                self.board.tell(id, waiting(record));
            }
            Begun::Ended(record) => {
                self.outbox.send_replace(());
                self.recovery.notify_one();
                self.board.tell(id, Notice::Final(record));
            }
            Begun::Unavailable(record) if record.state.is_final() => {
                self.board.tell(id, Notice::Final(record));
            }
            Begun::Claimed(_) | Begun::Unavailable(_) => {}
        }
    }

    /// The claim, as it came with the acceptance or as it is given at the head of the lane. It is asked for when it can be
    /// made use of: a command that waits for the upstream has none.
    async fn claim(&self, job: &mut Job) -> Option<Claim> {
        if let Some(claim) = job.claim.take() {
            return Some(claim);
        }
        let entered = tokio::select! {
            biased;
            () = self.draining.cancelled() => {
                self.left.lock().unwrap_or_else(PoisonError::into_inner).push(job.id);
                self.board.tell(job.id, Notice::Left(Reason::Draining));
                return None;
            }
            pass = async {
                let step = Step::begin(Name::LaneWait);
                job.ticket.turn().await;
                step.end();
                self.pass(job.requester, job.door, job.patience()).await
            } => pass,
        };
        match entered {
            Ok(pass) => {
                let (begun, asked) = self.ask(job).await?;
                Some(Claim { begun, asked, pass: Some(pass) })
            }
            Err(turned) => {
                self.turn_away(job, turned).await;
                None
            }
        }
    }

    /// The right to send one request. The token comes first, so that nobody holds a place who waits for one.
    pub(super) async fn pass(
        &self,
        requester: OrganizationId,
        door: Door,
        patience: Patience,
    ) -> Result<Pass, Turned> {
        let _step = Step::begin(Name::GateWait);
        let mut told = None;
        if self.gate.closed(requester).is_none()
            // The one that tries gets its token once it has its pass: one at a time.
            && !self.gate.is_trying(requester)
            && !self.upstream.is_ready(requester)
            && let Err(why) = self.upstream.authorize(requester, self.gate.asks_anew(requester)).await
        {
            self.gate.refuse(requester, &why);
            told = reply::refusal(&Reply::Unauthorized(why));
        }
        self.gate.enter(requester, door, patience).await.map_err(|closed| {
            let refusal = told.unwrap_or_else(|| closed.refusal());
            Turned { closed, refusal: refusal.retry_after(closed.remaining()) }
        })
    }

    /// Its requester may not send now: a caller that waits is told so, everything else is put off.
    async fn turn_away(&self, job: &Job, turned: Turned) {
        let (id, Turned { closed, refusal }) = (job.id, turned);
        if job.caller.as_ref().is_some_and(Caller::waits) {
            let Some((begun, asked)) = self.ask(job).await else { return };
            let Begun::Claimed(record) = begun else { return self.not_begun(id, begun) };
            note_claim(&record);
            let verdict = unsent(refusal);
            return self.end(job, &record, asked, (verdict, Attempts::default())).await;
        }
        let put_off = PutOff { delay: self.put_off_delay(&closed), keeps_place: closed.is_everyone, refusal };
        match self.store.put_off(id, Uuid::now_v7(), false, put_off).await {
            Ok(PutOffAnswer::Waiting(record)) => self.not_begun(id, Begun::Waiting(record)),
            Ok(PutOffAnswer::Ended(record)) => self.not_begun(id, Begun::Ended(record)),
            Ok(PutOffAnswer::Unavailable(record)) => self.not_begun(id, Begun::Unavailable(record)),
            Err(error) => {
                records::NotPutOff { command_id: id, error: &error }.log();
                self.board.tell(id, Notice::Left(Reason::StoreUnavailable));
            }
        }
    }

    /// A little later than the requester may send again, so that not everything comes at once.
    fn put_off_delay(&self, closed: &Closed) -> Duration {
        closed.remaining() + self.settings.retry.delay_base.mul_f64(rand::random())
    }

    /// Asks for the claim, again and again while the store is away, and for no longer than until recovery does so too.
    async fn ask(&self, job: &Job) -> Option<(Begun, Instant)> {
        let _step = Step::begin(Name::Claim);
        let id = job.id;
        let give_up_at = Instant::now() + self.settings.lease;
        let mut told = false;
        loop {
            let asked = Instant::now();
            let caller_waits = job.caller.as_ref().is_some_and(Caller::waits);
            let error = match self.store.begin(id, Uuid::now_v7(), caller_waits).await {
                Ok(begun) => return Some((begun, asked)),
                Err(error) => error,
            };
            if !std::mem::replace(&mut told, true) {
                records::Unclaimed { command_id: id, error: &error }.log();
                self.board.tell(id, Notice::Left(Reason::StoreUnavailable));
            }
            if Instant::now() >= give_up_at || self.pause(STORE_RETRY_DELAY).await.is_err() {
                return None;
            }
        }
    }

    async fn execute(&self, job: &Job, record: &CommandRecord, asked: Instant, pass: Option<Pass>) {
        let lease_end = asked + self.settings.lease;
        let attempting = self.attempt(job, record, asked, lease_end, pass);
        let attempted = AssertUnwindSafe(attempting).catch_unwind().await;
        let ended = attempted.unwrap_or_else(|_| panicked(record));
        self.end(job, record, asked, ended).await;
    }

    /// Ends a claim with what is known.
    async fn end(&self, job: &Job, record: &CommandRecord, asked: Instant, ended: (Verdict, Attempts)) {
        let (verdict, attempts) = ended;
        // What was not sent was not asked to wait; how long there will be no token the gate knows, and when that changes.
        let hint = hint(&verdict).filter(|_| attempts.sent > 0);
        let closed = self.gate.closed(job.requester);
        let defer_delay = match &closed {
            // When it may go on is known, and what was told of it is no guess.
            Some(closed) => self.put_off_delay(closed).max(hint.unwrap_or_default()),
            None => self.settings.deferral.deferral(record.attempts + attempts.sent, hint, rand::random()),
        };
        let finish = Finish {
            id: record.id,
            epoch: record.epoch,
            attempts: attempts.sent,
            maybe_applied: attempts.maybe_applied,
            unanswered_ago: attempts.unanswered_at.map(|at| at.elapsed()),
            caller_waits: job.caller.as_ref().is_some_and(Caller::waits),
            defer_delay,
            // Who was asked to wait longer is not called back before.
            is_paused: closed.is_some_and(|closed| hint.is_none_or(|hint| hint <= closed.remaining())),
            event_id: Uuid::now_v7(),
            verdict,
        };
        self.finish(finish, &job.ticket, asked + self.settings.lease).await;
    }

    /// Writes the end of a claim, again and again: what was sent must not be forgotten for a store that is away. When the lease is
    /// over, others may have taken the claim over and sent something newer. Then nobody else knows that this PATCH may have come
    /// after theirs, so it is said whenever the store is back.
    async fn finish(&self, mut finish: Finish, ticket: &Ticket, lease_end: Instant) {
        let id = finish.id;
        let step = Step::begin(Name::Finish);
        let started = Instant::now();
        let unanswered_ago = finish.unanswered_ago;
        let mut told = false;
        loop {
            finish.unanswered_ago = unanswered_ago.map(|ago| ago + started.elapsed());
            match self.hand_over(&finish, ticket).await {
                Ok(Finished::Settled(record)) => {
                    step.end();
                    return self.settled(record);
                }
                Ok(Finished::Stale) => {
                    instruments().finishes_refused.add(1, &[]);
                    records::ClaimStale { command_id: id }.log();
                    return;
                }
                Err(error) if Instant::now() + STORE_RETRY_DELAY < lease_end => {
                    records::OutcomeDelayed { command_id: id, error: &error }.log();
                    sleep(STORE_RETRY_DELAY).await;
                }
                Err(error) => {
                    if !std::mem::replace(&mut told, true) {
                        records::OutcomeLate { command_id: id, error: &error }.log();
                        self.board.tell(id, Notice::Left(Reason::StoreUnavailable));
                    }
                    // What sent nothing leaves nothing in doubt; recovery takes it up.
                    if finish.attempts == 0 || self.pause(STORE_RETRY_DELAY).await.is_err() {
                        return;
                    }
                }
            }
        }
    }

    /// Hands an end to the store. The next one in the lane need not wait until that is durable, if the store does it before what
    /// the next one asks for: should it fail, the next one finds its connection claimed.
    fn hand_over(&self, finish: &Finish, ticket: &Ticket) -> StoreFuture<Finished> {
        if ticket.is_followed()
            && let Some(finishing) = self.store.finish_followed(finish)
        {
            ticket.leave();
            return finishing;
        }
        self.store.finish(finish.clone())
    }

    fn settled(&self, record: CommandRecord) {
        note_end(&record);
        self.outbox.send_replace(());
        self.recovery.notify_one();
        let id = record.id;
        let deferred = record.state == State::Deferred;
        self.board.tell(id, if deferred { Notice::Deferred(record) } else { Notice::Final(record) });
    }

    /// Waits, unless the adapter is draining: what is not settled then is the next process's.
    pub(super) async fn pause(&self, delay: Duration) -> Result<(), ()> {
        tokio::select! {
            () = self.draining.cancelled() => Err(()),
            () = sleep(delay) => Ok(()),
        }
    }
}

/// How a command is told of that waits: one that left its line is deferred.
fn waiting(record: CommandRecord) -> Notice {
    if record.state == State::Deferred && !record.waiting {
        Notice::Deferred(record)
    } else {
        Notice::Waiting(record)
    }
}

/// The span of a command at work, in the trace that it came with. One that is taken up again is linked to it besides, since
/// what it goes on from may have ended long ago.
fn command_span(job: &Job) -> Span {
    let origin = match job.due {
        Some(due) => {
            step::past(Name::RecoveryWait, due, Vec::new, &job.trace);
            Origin::Resumed(&job.trace)
        }
        None => Origin::Below(&job.trace),
    };
    let describe = || Description {
        name: "command".into(),
        attributes: vec![
            KeyValue::new("command.door", job.door.as_str()),
            KeyValue::new("command.requester", job.requester.to_string()),
            KeyValue::new("command.recovered", job.due.is_some()),
        ],
    };
    Span::begin(SpanKind::Internal, origin, describe).about(Some(job.id))
}

/// Tells of a command that has come to rest: to metrics, its span and the log.
fn note_end(record: &CommandRecord) {
    tally::settled(record);
    let outcome = record.outcome.as_ref();
    let reason = outcome.and_then(|outcome| outcome.refusal.as_ref()).map(|refusal| refusal.reason);
    let span = Span::present();
    span.set("command.state", record.state.as_str());
    if let Some(due) = record.due_time.filter(|_| span.is_recorded()) {
        span.set("command.due_time", due.to_rfc3339());
    }
    match reason {
        // That a newer one came first is no failure.
        Some(reason) if record.state == State::Superseded => span.set("error.type", reason.as_str()),
        Some(reason) => span.fail(reason.as_str()),
        None => {}
    }
    records::Settled {
        command_id: record.id,
        state: record.state.as_str(),
        reason: reason.map(Reason::as_str),
        attempts: record.attempts,
        status: outcome.and_then(|outcome| outcome.upstream_status),
    }
    .log();
}

/// Writes into the span what is known with the claim.
fn note_claim(record: &CommandRecord) {
    let span = Span::present();
    if span.is_recorded() {
        span.set("command.epoch", record.epoch);
        span.set("command.archived", record.command.archived);
        span.set("command.target", record.command.connection.target.to_string());
    }
}
