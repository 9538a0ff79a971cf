//! Sends a suspect connection's newest applied value once more, through its lane (rule 7).

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use opentelemetry::KeyValue;
use opentelemetry::trace::SpanKind;
use tokio::time::{Instant, sleep};

use super::Shared;
use super::attempt::{Attempts, hint, judge};
use super::gate::Patience;
use super::lanes::Ticket;
use super::ports::Patch;
use super::records;
use super::worker::STORE_RETRY_DELAY;
use crate::domain::connection::Connection;
use crate::domain::heal::{Finish, Heal, Healed};
use crate::domain::obstacle::Obstacle;
use crate::domain::record::Door;
use crate::domain::reply::{Reply, Verdict};
use crate::domain::trace::TraceContext;
use crate::telemetry::span::{Description, Origin, Span};

/// The connections that this process heals now. Cloning shares it.
#[derive(Clone, Default)]
pub(super) struct UnderWay(Arc<Mutex<HashSet<Connection>>>);

impl UnderWay {
    /// Registers a connection, or yields nothing if it is there already.
    pub(super) fn begin(&self, connection: Connection) -> Option<Healing> {
        let mut healing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        healing.insert(connection).then(|| Healing { under_way: self.clone(), connection })
    }
}

/// A connection is being healed, until this is dropped.
pub(super) struct Healing {
    under_way: UnderWay,
    connection: Connection,
}

impl Drop for Healing {
    fn drop(&mut self) {
        self.under_way.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.connection);
    }
}

/// Heals `connection`, or leaves it for another time.
pub(super) async fn heal(shared: &Shared, connection: Connection, mut ticket: Ticket) {
    tokio::select! {
        biased;
        () = shared.draining.cancelled() => return,
        () = ticket.turn() => {}
    }
    let asked = Instant::now();
    match shared.store.begin_heal(connection).await {
        Ok(Some((heal, trace))) => {
            let span = heal_span(&heal, &trace);
            span.around(attempt(shared, heal, asked)).await;
        }
        Ok(None) => {}
        Err(error) => records::HealUnclaimed { error: &error }.log(),
    }
}

async fn attempt(shared: &Shared, heal: Heal, asked: Instant) {
    let lease_end = asked + shared.settings.lease;
    let deadline = asked + shared.settings.command_timeout;
    let mut attempts = Attempts::default();
    let (reply, authorization) =
        match shared.pass(heal.requester, Door::Amqp, Patience::Claim(deadline)).await {
            Ok(pass) => {
                let patch = Patch {
                    requester: heal.requester,
                    connection: heal.connection,
                    archived: heal.archived,
                    resend_count: 0,
                    retry_wait: None,
                    gate_wait: pass.waited,
                };
                shared.send(patch, pass, &mut attempts, deadline, lease_end).await
            }
            // Nothing was sent.
            Err(_) => (Reply::Unreachable(Obstacle::Unsent), None),
        };
    let verdict = judge(&reply, heal.archived);
    if let Verdict::Transient { token_refused: true, .. } = verdict
        && let Some(authorization) = &authorization
    {
        shared.upstream.refuse(heal.requester, authorization);
    }
    let unanswered = matches!(verdict, Verdict::Transient { unanswered: true, .. });
    let unanswered_at = unanswered.then(Instant::now);
    let retry_delay = shared.settings.deferral.deferral(1, hint(&verdict), rand::random());
    let mut finish = Finish { heal, verdict, sent: attempts.sent > 0, unanswered_ago: None, retry_delay };
    let mut told = false;
    loop {
        finish.unanswered_ago = unanswered_at.map(|at| at.elapsed());
        match shared.store.finish_heal(finish.clone()).await {
            Ok(healed) => return tell(shared, healed),
            Err(_) if Instant::now() + STORE_RETRY_DELAY < lease_end => sleep(STORE_RETRY_DELAY).await,
            // Without an end the connection is due again when the lease is over. What was sent may have come after something newer
            // by then, which nobody else knows.
            Err(error) => {
                if !std::mem::replace(&mut told, true) {
                    records::HealLate { error: &error }.log();
                }
                if !finish.sent || shared.pause(STORE_RETRY_DELAY).await.is_err() {
                    return;
                }
            }
        }
    }
}

fn tell(shared: &Shared, healed: Healed) {
    let name = match healed {
        Healed::Yes => "healed",
        Healed::Later => "later",
        Healed::GivenUp => "given_up",
        Healed::Stale => "stale",
    };
    Span::present().set("heal.result", name);
    match healed {
        Healed::Yes => records::Healed.log(),
        Healed::Later | Healed::Stale => records::HealPutOff { result: name }.log(),
        Healed::GivenUp => records::HealGivenUp.log(),
    }
    shared.recovery.notify_one();
}

fn heal_span(heal: &Heal, trace: &TraceContext) -> Span {
    let describe = || Description {
        name: "heal".into(),
        attributes: vec![KeyValue::new("command.archived", heal.archived)],
    };
    Span::begin(SpanKind::Internal, Origin::Below(trace), describe).about(Some(heal.command_id))
}
