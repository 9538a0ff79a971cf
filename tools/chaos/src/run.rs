//! One run: set the stage, load and faults, settle, check.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use crate::checks::{self, Checked, Finding, Index};
use crate::faults::{self, Happened};
use crate::history::History;
use crate::load::{self, Sent};
use crate::plan::Plan;
use crate::stage::Stage;
use crate::{collect, messages};

/// How long everything may take to become quiet after the last fault.
const SETTLE_DEADLINE: Duration = Duration::from_secs(180);

/// How long the watch for stalls sleeps at once.
const STALL_GRAIN: Duration = Duration::from_millis(20);

/// The pause between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(200);

/// A run that was made.
pub struct Run {
    /// What is known of it.
    pub history: History,
    /// What the checks say.
    pub checked: Vec<Checked>,
    /// How long it took until nothing was owed any more, or what still was when the time for it was over.
    pub settled: Result<Duration, Vec<Finding>>,
    /// How long this process itself was once kept from running. What the faults may do to a request has a bound, and a
    /// machine that stalls for longer than the bound has room for adds to it.
    pub longest_stall: Duration,
    /// What each instance of the adapter has logged.
    pub logs: Vec<Vec<String>>,
    /// The adapter's configuration.
    pub configuration: String,
}

impl Run {
    /// Whether every promise was kept.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.settled.is_ok() && self.checked.iter().all(|checked| checked.findings.is_empty())
    }
}

/// Makes the run of a plan.
pub async fn run(plan: Plan) -> Run {
    let cluster = plan.cluster;
    let stage = Arc::new(Stage::with(&plan.organizations, &plan.configuration, cluster).await);
    let (started, started_at) = (Instant::now(), Utc::now());
    let (sent, happened) = (Sent::default(), Happened::default());
    let longest_stall = watch::Sender::new(Duration::ZERO);
    let watching = tokio::spawn(watch_stalls(longest_stall.clone()));
    tokio::join!(
        load::send_all(&stage, &plan, started, started_at, &sent),
        faults::make_all(&stage, &plan.tracks, started, &happened)
    );
    watching.abort();
    let longest_stall = *longest_stall.borrow();
    let mut history = History {
        seed: plan.seed,
        started_at,
        wishes: plan.wishes,
        garbage: plan.garbage,
        sendings: sent.all(),
        faults: happened.all(),
        journal: Vec::new(),
        events: Vec::new(),
        letters: Vec::new(),
        replies: Vec::new(),
        commands: BTreeMap::new(),
        upstream: BTreeMap::new(),
        left_in_queue: 0,
        instances: cluster.instances,
        books: None,
        ended_well: false,
        kills: stage.kills(),
        published: Vec::new(),
    };
    let settled = settle(&stage, &mut history).await;
    let checked = checks::all(&history);
    let mut logs = Vec::new();
    for instance in &stage.instances {
        logs.push(instance.log().await);
    }
    let configuration = stage.instances[0].configuration().to_owned();
    Run { history, checked, settled, longest_stall, logs, configuration }
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

/// Waits until nothing is owed any more, ends the adapter, and fetches what that has brought.
async fn settle(stage: &Arc<Stage>, history: &mut History) -> Result<Duration, Vec<Finding>> {
    let since = Instant::now();
    stage.takes_calls().await;
    let broker = stage.broker().await;
    let settled = loop {
        collect::drain(&broker, stage, history).await;
        collect::books(stage, history).await;
        collect::learn_keys(history);
        collect::look_up(stage, history, false).await;
        let owed = checks::owed(history, &Index::new(history));
        let owed: Vec<Finding> = owed.into_iter().flat_map(|checked| checked.findings).collect();
        if owed.is_empty() {
            break Ok(since.elapsed());
        }
        if since.elapsed() > SETTLE_DEADLINE {
            break Err(owed);
        }
        sleep(LOOK_INTERVAL).await;
    };
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
    collect::drain(&broker, stage, history).await;
    collect::books(stage, history).await;
    if let Some(ledger) = &stage.ledger {
        history.published = ledger.published().await;
    }
    collect::upstream(stage, history);
    settled
}

/// The name of the header that carries the number of a sending.
pub const NUMBER_HEADER: &str = messages::NUMBER_HEADER;
