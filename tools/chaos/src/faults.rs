//! Makes the faults of a plan happen, each track one after another.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use harness::FaultProxy;
use tokio::time::{Instant, sleep, sleep_until};

use crate::history::FaultSeen;
use crate::outages;
use crate::plan::{Disturbance, Fault, Leg, Tracks};
use crate::stage::{self, Stage};

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
    let Tracks { adapter, broker, network, upstream, outages, organization } = tracks;
    let track = |faults: &'_ [Fault]| {
        let faults = faults.to_vec();
        async move {
            for fault in &faults {
                sleep_until(started + fault.at).await;
                let from = Utc::now();
                make(stage, fault).await;
                let (kind, text) = (kind(&fault.disturbance), format!("{:?}", fault.disturbance));
                let organization = match fault.disturbance {
                    Disturbance::Organization(one, _) => Some(one),
                    _ => None,
                };
                happened.add(FaultSeen { kind, text, from, until: Utc::now(), organization });
            }
        }
    };
    tokio::join!(
        track(adapter),
        track(broker),
        track(network),
        track(upstream),
        track(outages),
        track(organization)
    );
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
        Disturbance::KillLocked => "adapter killed with its store locked".to_owned(),
        Disturbance::BrokerKill => "broker killed".to_owned(),
        Disturbance::BrokerRestart => "broker restarted".to_owned(),
        Disturbance::BrokerFreeze => "broker frozen".to_owned(),
        Disturbance::Cut(to, _) => format!("connections to the {} cut", leg(to)),
        Disturbance::BrokerAlarm => "broker's memory alarm".to_owned(),
        Disturbance::EventsUnbound => "events unroutable".to_owned(),
        Disturbance::Stall(to, _) => format!("connections to the {} stalled", leg(to)),
        Disturbance::Strand(to) => format!("connections to the {} stranded", leg(to)),
        Disturbance::Unattended(to) => format!("connections to the {} unattended", leg(to)),
        Disturbance::Slow(to, _) => format!("connections to the {} slow", leg(to)),
        Disturbance::Refuse(to) => format!("connections to the {} refused", leg(to)),
        Disturbance::Upstream(rule) => format!("upstream: {}", rule.action.kind()),
        Disturbance::RevokeTokens => "upstream: tokens revoked".to_owned(),
        Disturbance::UpstreamReset => "upstream: connections reset".to_owned(),
        Disturbance::Away(how) => format!("upstream away: {how:?}"),
        Disturbance::Limit(limit) => format!("upstream: limit, Retry-After {:?}", limit.retry_after),
        Disturbance::Tokens(trouble, None) => format!("tokens: {trouble:?}"),
        Disturbance::Tokens(trouble, Some(_)) => format!("tokens of one: {trouble:?}"),
        Disturbance::Organization(_, trouble) => format!("one organisation: {trouble:?}"),
    }
}

async fn make(stage: &Stage, fault: &Fault) {
    match &fault.disturbance {
        Disturbance::Kill
        | Disturbance::Restart
        | Disturbance::Freeze
        | Disturbance::StoreLock
        | Disturbance::KillLocked
        | Disturbance::BrokerKill
        | Disturbance::BrokerRestart
        | Disturbance::BrokerFreeze => process(stage, fault).await,
        Disturbance::BrokerAlarm | Disturbance::EventsUnbound => inside_broker(stage, fault).await,
        Disturbance::Cut(leg, _)
        | Disturbance::Stall(leg, _)
        | Disturbance::Strand(leg)
        | Disturbance::Unattended(leg)
        | Disturbance::Slow(leg, _)
        | Disturbance::Refuse(leg) => network(proxy(stage, *leg), fault).await,
        Disturbance::Upstream(rule) => drop(stage.simulator.script(rule.clone())),
        Disturbance::RevokeTokens => stage.simulator.revoke_tokens(),
        Disturbance::UpstreamReset => stage.simulator.reset_connections(),
        Disturbance::Away(_)
        | Disturbance::Limit(_)
        | Disturbance::Tokens(..)
        | Disturbance::Organization(..) => outages::make(stage, fault).await,
    }
}

/// What happens to the adapter, its store or the broker.
async fn process(stage: &Stage, fault: &Fault) {
    match &fault.disturbance {
        Disturbance::StoreLock => unlock(lock_store(stage, fault.lasts).await).await,
        Disturbance::KillLocked => {
            let lock = lock_store(stage, fault.lasts).await;
            stage.kill().await;
            unlock(lock).await;
            stage.start().await;
        }
        Disturbance::Freeze => {
            let place = stage.adapter.lock().await;
            let adapter = place.as_ref().expect("this track alone ends it");
            adapter.signal("STOP").await;
            sleep(fault.lasts).await;
            adapter.signal("CONT").await;
        }
        Disturbance::Kill | Disturbance::Restart => {
            if fault.disturbance == Disturbance::Kill {
                stage.kill().await;
            } else {
                // A drain that a fault beside it makes too long is no failure here.
                stage.terminate().await;
            }
            sleep(fault.lasts).await;
            stage.start().await;
        }
        Disturbance::BrokerFreeze => {
            let node = stage.node.lock().await;
            node.freeze().await;
            sleep(fault.lasts).await;
            node.thaw().await;
        }
        killed_or_stopped => {
            let mut node = stage.node.lock().await;
            if *killed_or_stopped == Disturbance::BrokerKill {
                node.kill().await;
            } else {
                node.down().await;
            }
            sleep(fault.lasts).await;
            node.up().await;
        }
    }
}

/// What happens within the broker.
async fn inside_broker(stage: &Stage, fault: &Fault) {
    if fault.disturbance == Disturbance::EventsUnbound {
        let broker = stage.broker().await;
        stage::unbind_events(broker.channel()).await;
        sleep(fault.lasts).await;
        return stage::bind_events(broker.channel()).await;
    }
    let node = stage.node.lock().await;
    node.ctl(&["set_vm_memory_high_watermark", "0"]).await;
    sleep(fault.lasts).await;
    node.ctl(&["set_vm_memory_high_watermark", "absolute", "1GB"]).await;
}

/// What happens to connections.
async fn network(proxy: &FaultProxy, fault: &Fault) {
    match &fault.disturbance {
        Disturbance::Cut(_, true) => proxy.reset(),
        Disturbance::Stall(_, direction) => {
            proxy.freeze(*direction);
            sleep(fault.lasts).await;
            proxy.thaw();
        }
        Disturbance::Strand(_) => {
            proxy.strand();
            sleep(fault.lasts).await;
            proxy.cut();
            proxy.thaw();
        }
        Disturbance::Unattended(_) => {
            proxy.leave_unattended();
            proxy.cut();
            sleep(fault.lasts).await;
            proxy.accept();
        }
        Disturbance::Slow(_, delay) => {
            proxy.delay(*delay);
            sleep(fault.lasts).await;
            proxy.delay(Duration::ZERO);
        }
        Disturbance::Refuse(_) => {
            proxy.refuse();
            proxy.cut();
            sleep(fault.lasts).await;
            proxy.accept();
        }
        _ => proxy.cut(),
    }
}

fn proxy(stage: &Stage, leg: Leg) -> &FaultProxy {
    match leg {
        Leg::Broker => &stage.broker_proxy,
        Leg::Upstream => &stage.upstream_proxy,
    }
}

/// Another program has the store's write lock for a while, as a backup or a curious operator may.
async fn lock_store(stage: &Stage, lasts: Duration) -> rusqlite::Connection {
    let path = stage.store();
    let connection = tokio::task::spawn_blocking(move || {
        let connection = rusqlite::Connection::open(path).expect("the store is there");
        connection.busy_timeout(Duration::from_secs(5)).expect("a time-out");
        connection.execute_batch("BEGIN IMMEDIATE").expect("the lock");
        connection
    });
    let connection = connection.await.expect("no panic");
    sleep(lasts).await;
    connection
}

/// Lets go of the lock, and closes the connection, which takes its time if it is the last one.
async fn unlock(connection: rusqlite::Connection) {
    let unlocked = tokio::task::spawn_blocking(move || {
        connection.execute_batch("ROLLBACK").expect("the end of the lock");
    });
    unlocked.await.expect("no panic");
}
