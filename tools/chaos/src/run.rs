//! One run: set the stage, load and faults, settle, check.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::checks::{self, Checked, Finding, Index};
use crate::faults::{self, Happened};
use crate::history::{History, Time};
use crate::load::{self, Sent};
use crate::plan::Plan;
use crate::stage::Stage;
use crate::{collect, messages};

/// How long the parts may take to start.
const STAGE_DEADLINE: Duration = Duration::from_secs(180);

/// How long the last sending and the last fault may take, beyond the time for which they are made.
const DISTURB_MARGIN: Duration = Duration::from_secs(120);

/// How long everything may take to become quiet after the last fault.
const SETTLE_DEADLINE: Duration = Duration::from_secs(180);

/// How long the end of the adapter and the last fetching may take.
const FINISH_DEADLINE: Duration = Duration::from_secs(120);

/// How long an instance may take to say how it stands.
const STANDING_DEADLINE: Duration = Duration::from_secs(2);

/// How long the watch for stalls sleeps at once.
const STALL_GRAIN: Duration = Duration::from_millis(20);

/// The pause between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// A run that was made.
pub struct Run {
    /// What is known of it.
    pub history: History,
    /// What the checks say. None are made of a run that was given up before everything was sent.
    pub checked: Vec<Checked>,
    /// How long it took until nothing was owed any more, or why that did not come.
    pub settled: Result<Duration, Unsettled>,
    /// How long this process itself was once kept from running. What the faults may do to a request has a bound, and a
    /// machine that stalls for longer than the bound has room for adds to it.
    pub longest_stall: Duration,
    /// What each instance of the adapter has logged.
    pub logs: Vec<Vec<String>>,
    /// What each instance said of itself when something was owed for too long: its readiness and its metrics.
    pub standings: Vec<String>,
    /// What the broker has logged.
    pub broker_log: String,
    /// The adapter's configuration.
    pub configuration: String,
}

/// A run that did not become quiet.
#[derive(Debug)]
pub struct Unsettled {
    /// What was under way when it was given up.
    pub phase: Phase,
    /// Why it was given up.
    pub reason: &'static str,
    /// The faults that were not over, and since when.
    pub faults: Vec<String>,
    /// What was owed at the last look.
    pub owed: Vec<Finding>,
}

/// What a run is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Commands are sent and faults happen.
    Disturbing,
    /// What is owed is waited for.
    Settling,
    /// The adapter is ended, and the last is fetched.
    Finishing,
}

impl Run {
    /// Whether every promise was kept.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.settled.is_ok() && self.checked.iter().all(|checked| checked.findings.is_empty())
    }
}

/// Makes the run of a plan. A phase that takes too long is given up, as is the one under way when `told` to end, and what is
/// known until then is told.
///
/// # Errors
/// Why its parts were not even started.
pub async fn run(plan: Plan, told: impl AsyncFn()) -> Result<Run, &'static str> {
    let mut stage = None;
    let setting =
        async { stage = Some(Stage::with(&plan.organizations, &plan.configuration, plan.cluster).await) };
    within(STAGE_DEADLINE, &told, setting).await?;
    let stage = Arc::new(stage.expect("it was set"));
    let (started, started_at) = (Instant::now(), Utc::now());
    let (sent, happened) = (Sent::default(), Happened::default());
    let longest_stall = watch::Sender::new(Duration::ZERO);
    let watching = tokio::spawn(watch_stalls(longest_stall.clone()));
    let disturbing = async {
        tokio::join!(
            load::send_all(&stage, &plan, started, started_at, &sent),
            faults::make_all(&stage, &plan.tracks, started, &happened)
        );
    };
    let mut given_up = within(plan.duration + DISTURB_MARGIN, &told, disturbing)
        .await
        .map_err(|reason| (Phase::Disturbing, reason));
    watching.abort();
    let longest_stall = *longest_stall.borrow();
    let under_way = happened.under_way();
    let mut history = begun(&plan, started_at, &sent, &happened);
    history.kills = stage.kills();
    let (since, mut owed) = (Instant::now(), Vec::new());
    if given_up.is_ok() {
        let settling = settle(&stage, &mut history, &mut owed);
        let settled = within(SETTLE_DEADLINE, &told, settling).await;
        given_up = settled.map_err(|reason| (Phase::Settling, reason));
    }
    let time = since.elapsed();
    let standings = if given_up.is_ok() { Vec::new() } else { stand(&stage).await };
    let checked = if let Err((Phase::Disturbing, _)) = given_up {
        // Broker and adapter may be down in the middle of a fault, and nothing has to be true then.
        collect::upstream(&stage, &mut history);
        Vec::new()
    } else {
        let finished = within(FINISH_DEADLINE, &told, finish(&stage, &mut history)).await;
        given_up = given_up.and(finished.map_err(|reason| (Phase::Finishing, reason)));
        checks::all(&history)
    };
    let settled = match given_up {
        Ok(()) => Ok(time),
        Err((phase, reason)) => Err(Unsettled { phase, reason, faults: under_way, owed }),
    };
    let mut logs = Vec::new();
    for instance in &stage.instances {
        logs.push(instance.log().await);
    }
    let broker_log = stage.node.lock().await.log();
    let configuration = stage.instances[0].configuration().to_owned();
    Ok(Run { history, checked, settled, longest_stall, logs, standings, broker_log, configuration })
}

/// Waits for `work`, unless it takes too long or `told` comes before.
///
/// # Errors
/// Why it was given up.
async fn within(
    deadline: Duration,
    told: &impl AsyncFn(),
    work: impl Future<Output = ()>,
) -> Result<(), &'static str> {
    tokio::select! {
        biased;
        () = work => Ok(()),
        () = told() => Err("told to end"),
        () = sleep(deadline) => Err("not done in time"),
    }
}

/// What is known when everything was sent.
fn begun(plan: &Plan, started_at: Time, sent: &Sent, happened: &Happened) -> History {
    History {
        seed: plan.seed,
        started_at,
        wishes: plan.wishes.clone(),
        garbage: plan.garbage.clone(),
        sendings: sent.all(),
        faults: happened.all(),
        journal: Vec::new(),
        events: Vec::new(),
        letters: Vec::new(),
        replies: Vec::new(),
        commands: BTreeMap::new(),
        upstream: BTreeMap::new(),
        left_in_queue: 0,
        instances: plan.cluster.instances,
        books: None,
        ended_well: false,
        kills: Vec::new(),
        published: Vec::new(),
    }
}

/// Sleeps for ever, and measures how much too long.
pub async fn watch_stalls(longest: watch::Sender<Duration>) {
    loop {
        let before = Instant::now();
        sleep(STALL_GRAIN).await;
        let stall = before.elapsed().saturating_sub(STALL_GRAIN);
        longest.send_modify(|longest| *longest = stall.max(*longest));
    }
}

/// Waits until nothing is owed any more. `owed` is what still was at the last look.
async fn settle(stage: &Arc<Stage>, history: &mut History, owed: &mut Vec<Finding>) {
    stage.takes_calls().await;
    let broker = stage.broker().await;
    loop {
        collect::drain(&broker, stage, history).await;
        collect::books(stage, history).await;
        collect::learn_keys(stage, history).await;
        collect::look_up(stage, history, false).await;
        let checked = checks::owed(history, &Index::new(history));
        *owed = checked.into_iter().flat_map(|checked| checked.findings).collect();
        if owed.is_empty() {
            return;
        }
        sleep(LOOK_INTERVAL).await;
    }
}

/// What each instance says of itself.
async fn stand(stage: &Stage) -> Vec<String> {
    let each = stage.instances.iter().map(async |instance| {
        let standing = timeout(STANDING_DEADLINE, instance.standing()).await;
        standing.unwrap_or_else(|_| "it has not said in time".to_owned())
    });
    futures::future::join_all(each).await
}

/// Ends the adapter, and fetches what that has brought.
async fn finish(stage: &Arc<Stage>, history: &mut History) {
    collect::look_up(stage, history, true).await;
    let _ = stage.simulator.wait_until_idle(LOOK_INTERVAL * 10).await;
    history.ended_well = stage.terminate().await;
    if !history.ended_well {
        history.faults.push(crate::history::FaultSeen {
            kind: "the adapter did not end well".to_owned(),
            text: "its exit status was not success".to_owned(),
            from: Utc::now(),
            until: Utc::now(),
            organization: None,
            instance: None,
            is_freeze: false,
        });
    }
    collect::drain(&stage.broker().await, stage, history).await;
    collect::books(stage, history).await;
    if let Some(ledger) = &stage.ledger {
        history.published = ledger.published().await;
    }
    collect::upstream(stage, history);
}

/// The name of the header that carries the number of a sending.
pub const NUMBER_HEADER: &str = messages::NUMBER_HEADER;

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    #[tokio::test]
    async fn a_phase_ends_in_any_case() {
        let soon = Duration::from_millis(1);
        assert_eq!(within(soon, &pending, ready(())).await, Ok(()));
        assert_eq!(within(soon, &pending, pending()).await, Err("not done in time"));
        let told = || ready(());
        assert_eq!(within(SETTLE_DEADLINE, &told, pending()).await, Err("told to end"));
        assert_eq!(within(SETTLE_DEADLINE, &told, ready(())).await, Ok(()), "what is done is done");
    }
}
