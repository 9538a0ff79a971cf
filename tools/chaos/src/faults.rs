//! Makes the faults of a plan happen, each track one after another.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use harness::{Direction, FaultProxy};
use tokio::time::{Instant, sleep, sleep_until};

use crate::history::FaultSeen;
use crate::plan::{Disturbance, Fault, Leg, Tracks};
use crate::stage::Stage;

/// What has happened so far.
#[derive(Debug, Default)]
pub struct Happened {
    faults: Mutex<Vec<FaultSeen>>,
}

impl Happened {
    fn add(&self, fault: FaultSeen) {
        self.faults.lock().unwrap_or_else(PoisonError::into_inner).push(fault);
    }

    /// All of it, in order of time.
    #[must_use]
    pub fn all(&self) -> Vec<FaultSeen> {
        let mut faults = self.faults.lock().unwrap_or_else(PoisonError::into_inner).clone();
        faults.sort_by_key(|fault| fault.from);
        faults
    }
}

/// Makes everything happen at its time, and returns when it is over. Then the stage is whole again.
pub async fn make_all(stage: &Arc<Stage>, tracks: &Tracks, started: Instant, happened: &Happened) {
    let Tracks { adapter, broker, network, upstream } = tracks;
    let track = |faults: &'_ [Fault]| {
        let faults = faults.to_vec();
        async move {
            for fault in &faults {
                sleep_until(started + fault.at).await;
                let from = Utc::now();
                make(stage, fault).await;
                let (kind, text) = (kind(&fault.disturbance), format!("{:?}", fault.disturbance));
                happened.add(FaultSeen { kind, text, from, until: Utc::now() });
            }
        }
    };
    tokio::join!(track(adapter), track(broker), track(network), track(upstream));
    stage.simulator.clear_faults();
}

fn kind(disturbance: &Disturbance) -> String {
    let leg = |leg: &Leg| match leg {
        Leg::Broker => "broker",
        Leg::Upstream => "upstream",
    };
    match disturbance {
        Disturbance::Kill => "adapter killed".to_owned(),
        Disturbance::Restart => "adapter restarted".to_owned(),
        Disturbance::Freeze => "adapter frozen past its lease".to_owned(),
        Disturbance::StoreLock => "store locked".to_owned(),
        Disturbance::BrokerKill => "broker killed".to_owned(),
        Disturbance::BrokerRestart => "broker restarted".to_owned(),
        Disturbance::BrokerFreeze => "broker frozen".to_owned(),
        Disturbance::Cut(to, _) => format!("connections to the {} cut", leg(to)),
        Disturbance::Stall(to) => format!("connections to the {} stalled", leg(to)),
        Disturbance::Slow(to, _) => format!("connections to the {} slow", leg(to)),
        Disturbance::Refuse(to) => format!("connections to the {} refused", leg(to)),
        Disturbance::Upstream(rule) => format!("upstream: {}", rule.action.kind()),
        Disturbance::RevokeTokens => "upstream: tokens revoked".to_owned(),
        Disturbance::UpstreamReset => "upstream: connections reset".to_owned(),
    }
}

async fn make(stage: &Stage, fault: &Fault) {
    let lasts = fault.lasts;
    match &fault.disturbance {
        Disturbance::Kill => {
            stage.kill().await;
            sleep(lasts).await;
            stage.start().await;
        }
        Disturbance::Restart => {
            // A drain that a fault beside it makes too long is no failure here.
            stage.terminate().await;
            sleep(lasts).await;
            stage.start().await;
        }
        Disturbance::Freeze => {
            let place = stage.adapter.lock().await;
            let adapter = place.as_ref().expect("this track alone ends it");
            adapter.signal("STOP").await;
            sleep(lasts).await;
            adapter.signal("CONT").await;
        }
        Disturbance::StoreLock => lock_store(stage, lasts).await,
        Disturbance::BrokerKill => {
            let mut node = stage.node.lock().await;
            node.kill().await;
            sleep(lasts).await;
            node.up().await;
        }
        Disturbance::BrokerRestart => {
            let mut node = stage.node.lock().await;
            node.down().await;
            sleep(lasts).await;
            node.up().await;
        }
        Disturbance::BrokerFreeze => {
            let node = stage.node.lock().await;
            node.freeze().await;
            sleep(lasts).await;
            node.thaw().await;
        }
        Disturbance::Cut(leg, by_reset) => {
            let proxy = proxy(stage, *leg);
            if *by_reset { proxy.reset() } else { proxy.cut() }
        }
        Disturbance::Stall(leg) => {
            proxy(stage, *leg).freeze(Direction::Both);
            sleep(lasts).await;
            proxy(stage, *leg).thaw();
        }
        Disturbance::Slow(leg, delay) => {
            proxy(stage, *leg).delay(*delay);
            sleep(lasts).await;
            proxy(stage, *leg).delay(Duration::ZERO);
        }
        Disturbance::Refuse(leg) => {
            proxy(stage, *leg).refuse();
            proxy(stage, *leg).cut();
            sleep(lasts).await;
            proxy(stage, *leg).accept();
        }
        Disturbance::Upstream(rule) => stage.simulator.script(rule.clone()),
        Disturbance::RevokeTokens => stage.simulator.revoke_tokens(),
        Disturbance::UpstreamReset => stage.simulator.reset_connections(),
    }
}

fn proxy(stage: &Stage, leg: Leg) -> &FaultProxy {
    match leg {
        Leg::Broker => &stage.broker_proxy,
        Leg::Upstream => &stage.upstream_proxy,
    }
}

/// Another program has the store's write lock, as a backup or a curious operator may.
async fn lock_store(stage: &Stage, lasts: Duration) {
    let path = stage.store();
    let connection = tokio::task::spawn_blocking(move || {
        let connection = rusqlite::Connection::open(path).expect("the store is there");
        connection.busy_timeout(Duration::from_secs(5)).expect("a time-out");
        connection.execute_batch("BEGIN IMMEDIATE").expect("the lock");
        connection
    });
    let connection = connection.await.expect("no panic");
    sleep(lasts).await;
    connection.execute_batch("ROLLBACK").expect("the end of the lock");
}
