//! The work on one claim: attempts, waits between them, and the end.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{Instrument as _, Span, error, info_span, warn};
use uuid::Uuid;

use super::Shared;
use super::board::Notice;
use super::lanes::Ticket;
use super::ports::{Authorization, Begun, Finished, Patch};
use crate::domain::command::CommandId;
use crate::domain::error::Reason;
use crate::domain::lifecycle::Finish;
use crate::domain::obstacle::Obstacle;
use crate::domain::record::{CommandRecord, Outcome, State};
use crate::domain::reply::{self, Reply, Unauthorized, Verdict};
use crate::domain::trace::TraceContext;
use crate::telemetry;

/// The pause between tries while the store is away.
pub(super) const STORE_RETRY_DELAY: Duration = Duration::from_millis(200);

/// What it may take to store an end and tell it. A caller whose deadline is nearer may be told before that its command goes
/// on, so it does not count as one that hears of the end.
const HEARING_MARGIN: Duration = Duration::from_millis(100);

/// A retry is only worth waiting for if this much time is left for it.
const ATTEMPT_TIME_MIN: Duration = Duration::from_millis(100);

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
    fn waits(&self) -> bool {
        self.alive.strong_count() > 0 && Instant::now() + HEARING_MARGIN < self.answer_by
    }
}

/// One command at work.
pub struct Job {
    /// Which.
    pub id: CommandId,
    /// The trace that its span joins.
    pub trace: TraceContext,
    /// Its place in the lane.
    pub ticket: Ticket,
    /// The claim, if it came with the acceptance, and when it was asked for.
    pub claim: Option<(Begun, Instant)>,
    /// Who waits for it.
    pub caller: Option<Caller>,
}

/// The attempts of a claim.
#[derive(Default)]
pub(super) struct Attempts {
    pub(super) sent: u32,
    pub(super) maybe_applied: bool,
    pub(super) unanswered_at: Option<Instant>,
}

impl Shared {
    /// Sets `job` to work; `hold` is let go at its end. A panic ends this job alone: its claim, if it has one, is recovery's
    /// once the lease is over.
    pub(super) fn spawn_work(self: &Arc<Self>, job: Job, hold: impl Send + 'static) {
        let shared = Arc::clone(self);
        self.tasks.spawn(async move {
            let _hold = hold;
            let id = job.id;
            if AssertUnwindSafe(shared.work(job)).catch_unwind().await.is_err() {
                error!(command.id = %id, "the work on a command panicked; recovery takes it up");
                shared.board.tell(id, Notice::Left(Reason::Internal));
            }
        });
    }

    /// Works on `job` until it is final, deferred or waiting, and tells the board.
    pub(super) async fn work(&self, mut job: Job) {
        let Some(_running) = self.board.run(job.id) else { return };
        let Some((begun, asked)) = self.claim(&mut job).await else { return };
        match begun {
            Begun::Claimed(record) => {
                let span = command_span(&record, &job.trace);
                self.execute(&job, &record, asked).instrument(span).await;
            }
            Begun::Waiting(record) => {
                self.recovery.notify_one();
                self.board.tell(job.id, Notice::Waiting(record));
            }
            Begun::Ended(record) => {
                self.outbox.send_replace(());
                self.recovery.notify_one();
                self.board.tell(job.id, Notice::Final(record));
            }
            Begun::Unavailable(record) if record.state.is_final() => {
                self.board.tell(job.id, Notice::Final(record));
            }
            Begun::Unavailable(_) => {}
        }
    }

    /// The claim, as it came with the acceptance or as it is given at the head of the lane.
    async fn claim(&self, job: &mut Job) -> Option<(Begun, Instant)> {
        if let Some(claim) = job.claim.take() {
            return Some(claim);
        }
        tokio::select! {
            biased;
            () = self.draining.cancelled() => {
                self.board.tell(job.id, Notice::Left(Reason::Draining));
                return None;
            }
            () = job.ticket.turn() => {}
        }
        self.ask(job).await
    }

    /// Asks for the claim, again and again while the store is away, and for no longer than until recovery does so too.
    async fn ask(&self, job: &Job) -> Option<(Begun, Instant)> {
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
                warn!(command.id = %id, %error, "the claim could not be asked for");
                self.board.tell(id, Notice::Left(Reason::StoreUnavailable));
            }
            if Instant::now() >= give_up_at || self.pause(STORE_RETRY_DELAY).await.is_err() {
                return None;
            }
        }
    }

    async fn execute(&self, job: &Job, record: &CommandRecord, asked: Instant) {
        let lease_end = asked + self.settings.lease;
        let attempted = AssertUnwindSafe(self.attempt(job, record, asked, lease_end)).catch_unwind().await;
        let (verdict, attempts) = attempted.unwrap_or_else(|_| panicked(record));
        let finish = Finish {
            id: record.id,
            epoch: record.epoch,
            attempts: attempts.sent,
            maybe_applied: attempts.maybe_applied,
            unanswered_ago: attempts.unanswered_at.map(|at| at.elapsed()),
            caller_waits: job.caller.as_ref().is_some_and(Caller::waits),
            defer_delay: self.settings.deferral.deferral(
                record.attempts + attempts.sent,
                hint(&verdict),
                rand::random(),
            ),
            event_id: Uuid::now_v7(),
            verdict,
        };
        self.finish(finish, lease_end).await;
    }

    /// Writes the end of a claim, again and again until the lease is over: what was sent must not be forgotten for a store
    /// that is away for a moment.
    async fn finish(&self, mut finish: Finish, lease_end: Instant) {
        let id = finish.id;
        let started = Instant::now();
        let unanswered_ago = finish.unanswered_ago;
        loop {
            finish.unanswered_ago = unanswered_ago.map(|ago| ago + started.elapsed());
            match self.store.finish(finish.clone()).await {
                Ok(Finished::Settled(record)) => return self.settled(record),
                Ok(Finished::Stale) => {
                    warn!(command.id = %id, "the claim had passed to someone else; its late result is refused");
                    return;
                }
                Err(error) if Instant::now() + STORE_RETRY_DELAY < lease_end => {
                    warn!(command.id = %id, %error, "the outcome could not be stored yet");
                    sleep(STORE_RETRY_DELAY).await;
                }
                Err(error) => {
                    warn!(command.id = %id, %error, "the outcome could not be stored; recovery repeats the command");
                    return self.board.tell(id, Notice::Left(Reason::StoreUnavailable));
                }
            }
        }
    }

    fn settled(&self, record: CommandRecord) {
        let outcome = record.outcome.as_ref();
        let span = Span::current();
        span.record("command.state", record.state.as_str());
        if let Some(refusal) = outcome.and_then(|outcome| outcome.refusal.as_ref()) {
            span.record("error.type", refusal.reason.as_str());
        }
        tracing::info!(
            command.id = %record.id,
            command.state = record.state.as_str(),
            attempts = record.attempts,
            upstream.status = outcome.and_then(|outcome| outcome.upstream_status),
            "command settled"
        );
        self.outbox.send_replace(());
        self.recovery.notify_one();
        let id = record.id;
        let deferred = record.state == State::Deferred;
        self.board.tell(id, if deferred { Notice::Deferred(record) } else { Notice::Final(record) });
    }

    /// Tries until something definite is known, or the time is over.
    async fn attempt(
        &self,
        job: &Job,
        record: &CommandRecord,
        asked: Instant,
        lease_end: Instant,
    ) -> (Verdict, Attempts) {
        let deadline = self.attempts_end(job, record, asked);
        let mut attempts = Attempts::default();
        let mut tries = 0;
        let mut token_renewed = false;
        let verdict = loop {
            tries += 1;
            let patch = Patch {
                requester: record.command.requester,
                connection: record.command.connection,
                archived: record.command.archived,
                resend_count: record.attempts + attempts.sent,
            };
            let (reply, authorization) = self.send(patch, &mut attempts, deadline, lease_end).await;
            let verdict = reply::classify(&reply, record.command.archived);
            let Verdict::Transient { maybe_applied, unanswered, token_refused, .. } = verdict else {
                break verdict;
            };
            attempts.maybe_applied |= maybe_applied;
            if unanswered {
                attempts.unanswered_at = Some(Instant::now());
            }
            if token_refused && let Some(authorization) = authorization {
                self.upstream.refuse(record.command.requester, &authorization);
                if token_renewed || self.draining.is_cancelled() || Instant::now() > deadline {
                    break verdict;
                }
                token_renewed = true;
                continue;
            }
            if matches!(reply, Reply::Unauthorized(Unauthorized::NotConfigured | Unauthorized::Refused)) {
                break verdict;
            }
            let delay = self.settings.retry.delay(tries, hint(&verdict), rand::random());
            if Instant::now() + delay + ATTEMPT_TIME_MIN > deadline || self.pause(delay).await.is_err() {
                break verdict;
            }
        };
        (verdict, attempts)
    }

    /// When the last attempt of a claim is to have begun. What certainly was not applied is not sent past its expiry; it is
    /// then for `begin` to end it.
    fn attempts_end(&self, job: &Job, record: &CommandRecord, asked: Instant) -> Instant {
        let mut end = asked + self.settings.command_timeout;
        if let Some(caller) = job.caller.as_ref().filter(|caller| caller.waits()) {
            end = end.min(caller.answer_by);
        }
        match record.command.expire_time {
            Some(expires) if !record.maybe_applied => {
                let left = (expires - self.clock.now()).to_std().unwrap_or_default();
                end.min(Instant::now() + left)
            }
            _ => end,
        }
    }

    /// Waits, unless the adapter is draining: what is not settled then is the next process's.
    async fn pause(&self, delay: Duration) -> Result<(), ()> {
        tokio::select! {
            () = self.draining.cancelled() => Err(()),
            () = sleep(delay) => Ok(()),
        }
    }

    /// One attempt. The token is fetched first; between the check of the lease and the write nothing waits (rule 4).
    pub(super) async fn send(
        &self,
        patch: Patch,
        attempts: &mut Attempts,
        deadline: Instant,
        lease_end: Instant,
    ) -> (Reply, Option<Authorization>) {
        let authorization = match timeout_at(deadline, self.upstream.authorize(patch.requester)).await {
            Ok(Ok(authorization)) => authorization,
            Ok(Err(why)) => return (Reply::Unauthorized(why), None),
            Err(_) => return (Reply::Unauthorized(Unauthorized::Unavailable { retry_after: None }), None),
        };
        let request: BoxFuture<'_, Reply> = self.upstream.patch(patch, authorization.clone());
        if Instant::now() + self.settings.attempt_timeout >= lease_end {
            // Not sent, so certainly not applied by this attempt.
            return (Reply::Unreachable(Obstacle::Unsent), None);
        }
        attempts.sent += 1;
        (request.await, Some(authorization))
    }
}

pub(super) fn hint(verdict: &Verdict) -> Option<Duration> {
    match verdict {
        Verdict::Transient { outcome, .. } => {
            outcome.refusal.as_ref().and_then(|refusal| refusal.retry_after)
        }
        _ => None,
    }
}

/// What is known after a panic in the midst of the attempts: nothing. The command is tried again like any other of unknown
/// fate, and given up in the end if it panics each time.
fn panicked(record: &CommandRecord) -> (Verdict, Attempts) {
    error!(command.id = %record.id, "the work on a command panicked");
    let outcome =
        Outcome::refused(None, Reason::Internal, "the adapter failed while it worked on the command");
    let verdict = Verdict::Transient { outcome, maybe_applied: true, unanswered: true, token_refused: false };
    (verdict, Attempts { sent: 1, maybe_applied: true, unanswered_at: Some(Instant::now()) })
}

fn command_span(record: &CommandRecord, trace: &TraceContext) -> Span {
    let span = info_span!(
        parent: None,
        "command",
        otel.kind = "internal",
        command.id = %record.id,
        command.archived = record.command.archived,
        command.door = record.door.as_str(),
        command.epoch = record.epoch,
        command.state = tracing::field::Empty,
        error.type = tracing::field::Empty,
    );
    telemetry::context::adopt(&span, trace);
    span
}
