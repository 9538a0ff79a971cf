//! The attempts under one claim, and the waits between them.

use std::time::Duration;

use futures::future::BoxFuture;
use opentelemetry::KeyValue;
use tokio::time::{Instant, timeout_at};

use super::Shared;
use super::gate::{Pass, Patience};
use super::ports::{Authorization, Patch, Waited};
use super::records;
use super::worker::Job;
use crate::domain::command::OrganizationId;
use crate::domain::error::{Reason, Refusal};
use crate::domain::obstacle::Obstacle;
use crate::domain::record::{CommandRecord, Outcome};
use crate::domain::reply::{self, Reply, Unauthorized, Verdict};
use crate::domain::traffic::Heard;
use crate::telemetry::drift;
use crate::telemetry::instruments::instruments;
use crate::telemetry::step::{self, Name, Step};

/// A retry is only worth waiting for if this much time is left for it.
const ATTEMPT_TIME_MIN: Duration = Duration::from_millis(100);

/// The attempts of a claim.
#[derive(Default)]
pub(super) struct Attempts {
    /// Those for which there was no token included.
    pub(super) tries: u32,
    pub(super) sent: u32,
    pub(super) maybe_applied: bool,
    pub(super) unanswered_at: Option<Instant>,
    /// Whether a token was refused and another one got.
    pub(super) token_renewed: bool,
}

impl Shared {
    /// Tries until something definite is known, or the time is over.
    pub(super) async fn attempt(
        &self,
        job: &Job,
        record: &CommandRecord,
        asked: Instant,
        lease_end: Instant,
        mut pass: Option<Pass>,
    ) -> (Verdict, Attempts) {
        let deadline = self.attempts_end(job, record, asked);
        let mut attempts = Attempts::default();
        let mut last = None;
        let mut retry_wait = None;
        loop {
            let entered = match pass.take() {
                Some(pass) => Ok(pass),
                None => self.pass_again(job, deadline).await,
            };
            let pass = match entered {
                Ok(pass) => pass,
                Err(refusal) => break (last.unwrap_or_else(|| unsent(refusal)), attempts),
            };
            let patch = Patch {
                requester: record.command.requester,
                connection: record.command.connection,
                archived: record.command.archived,
                resend_count: record.attempts + attempts.sent,
                retry_wait: retry_wait.take(),
                gate_wait: pass.waited,
            };
            let (reply, authorization) = self.send(patch, pass, &mut attempts, deadline, lease_end).await;
            let verdict = judge(&reply, record.command.archived);
            attempts.note(&verdict);
            let Verdict::Transient { token_refused, .. } = verdict else { break (verdict, attempts) };
            if token_refused && let Some(authorization) = authorization {
                self.upstream.refuse(record.command.requester, &authorization);
                if attempts.token_renewed || self.draining.is_cancelled() || Instant::now() > deadline {
                    break (verdict, attempts);
                }
                attempts.token_renewed = true;
                retry_wait = Some(Waited { duration: Duration::ZERO, reason: "token_refused" });
                last = Some(verdict);
                continue;
            }
            match self.wait_for_retry(&reply, &verdict, attempts.tries, deadline, job.requester).await {
                Some(waited) => retry_wait = Some(waited),
                None => break (verdict, attempts),
            }
            last = Some(verdict);
        }
    }

    /// The right to send once more, within the time of the claim.
    async fn pass_again(&self, job: &Job, deadline: Instant) -> Result<Pass, Refusal> {
        let _step = Step::begin(Name::GateWait);
        let patience = match job.patience() {
            Patience::Call(answer_by) => Patience::Call(answer_by.min(deadline)),
            Patience::Message | Patience::Claim(_) => Patience::Claim(deadline),
        };
        let entering = timeout_at(deadline, self.gate.enter(job.requester, job.door, patience));
        let draining = || Refusal::new(Reason::Draining, "the adapter is shutting down");
        let late = || Refusal::new(Reason::UpstreamUnavailable, "the upstream could not be called in time");
        tokio::select! {
            () = self.draining.cancelled() => Err(draining()),
            entered = entering => match entered {
                Ok(entered) => entered.map_err(|closed| closed.refusal()),
                Err(_) => Err(late()),
            },
        }
    }

    /// Waits before a retry, if one is to be made under this claim.
    async fn wait_for_retry(
        &self,
        reply: &Reply,
        verdict: &Verdict,
        tries: u32,
        deadline: Instant,
        requester: OrganizationId,
    ) -> Option<Waited> {
        if matches!(reply, Reply::Unauthorized(Unauthorized::NotConfigured | Unauthorized::Refused)) {
            return None;
        }
        let hint = hint(verdict);
        let duration = self.settings.retry.delay(tries, hint, rand::random());
        let is_in_time = Instant::now() + duration + ATTEMPT_TIME_MIN <= deadline;
        if !is_in_time {
            return None;
        }
        if !self.gate.may_retry(requester) {
            instruments().retries_refused.add(1, &[]);
            return None;
        }
        let step = Step::begin(Name::RetryWait);
        self.pause(duration).await.ok()?;
        step.end();
        Some(Waited { duration, reason: if hint.is_some() { "retry_after" } else { "backoff" } })
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

    /// One attempt. The token is fetched first; between the check of the lease and the write nothing waits (rule 4).
    pub(super) async fn send(
        &self,
        patch: Patch,
        pass: Pass,
        attempts: &mut Attempts,
        deadline: Instant,
        lease_end: Instant,
    ) -> (Reply, Option<Authorization>) {
        attempts.tries += 1;
        let (requester, connection) = (patch.requester, patch.connection);
        let repeated = match patch.retry_wait {
            Some(waited) => Some(waited.reason),
            None => (patch.resend_count > 0).then_some("deferral"),
        };
        let anew = pass.is_try() || self.gate.asks_anew(requester);
        let authorization = match timeout_at(deadline, self.upstream.authorize(requester, anew)).await {
            Ok(Ok(authorization)) => authorization,
            Ok(Err(why)) => {
                pass.refuse(&why);
                return (Reply::Unauthorized(why), None);
            }
            Err(_) => return (Reply::Unauthorized(Unauthorized::Unavailable { retry_after: None }), None),
        };
        let request: BoxFuture<'_, Reply> = self.upstream.patch(patch, authorization.clone());
        let sent_at = Instant::now();
        if sent_at + self.settings.attempt_timeout >= lease_end {
            // Not sent, so certainly not applied by this attempt.
            return (Reply::Unreachable(Obstacle::Unsent), None);
        }
        attempts.sent += 1;
        if let Some(reason) = repeated {
            instruments().retries.add(1, &[KeyValue::new("reason", reason)]);
        }
        let reply = request.await;
        step::measure(Name::Attempt, sent_at.elapsed());
        if let Some(heard) = Heard::of(&reply, attempts.token_renewed) {
            pass.tell(connection, sent_at.elapsed(), heard);
        }
        (reply, Some(authorization))
    }
}

/// What a reply means. How it differs from the contract is counted.
pub(super) fn judge(reply: &Reply, archived: bool) -> Verdict {
    let (verdict, drifts) = reply::examine(reply, archived);
    drift::note(drifts);
    verdict
}

impl Attempts {
    fn note(&mut self, verdict: &Verdict) {
        if let Verdict::Transient { maybe_applied, unanswered, .. } = verdict {
            self.maybe_applied |= maybe_applied;
            if *unanswered {
                self.unanswered_at = Some(Instant::now());
            }
        }
    }
}

/// What is known of a command that was not sent.
pub(super) fn unsent(refusal: Refusal) -> Verdict {
    let outcome = Outcome { refusal: Some(refusal), ..Outcome::default() };
    Verdict::Transient { outcome, maybe_applied: false, unanswered: false, token_refused: false }
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
pub(super) fn panicked(record: &CommandRecord) -> (Verdict, Attempts) {
    records::AttemptLost { command_id: record.id }.log();
    let outcome =
        Outcome::refused(None, Reason::Internal, "the adapter failed while it worked on the command");
    let verdict = Verdict::Transient { outcome, maybe_applied: true, unanswered: true, token_refused: false };
    (
        verdict,
        Attempts { sent: 1, maybe_applied: true, unanswered_at: Some(Instant::now()), ..Attempts::default() },
    )
}
