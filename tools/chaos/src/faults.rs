//! Makes the faults of a plan happen, each track one after another.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use chrono::Utc;
use futures::future::join_all;
use harness::{Direction, FaultProxy};
use tokio::time::{Instant, sleep, sleep_until};

use crate::history::FaultSeen;
use crate::outages;
use crate::plan::{Disturbance, Fault, Leg, Stop, Tracks};
use crate::stage::{self, Instance, Stage};
use crate::terms::HOLD;

/// What has happened so far.
#[derive(Debug, Default)]
pub struct Happened {
    faults: Mutex<Vec<FaultSeen>>,
    under_way: Mutex<Vec<String>>,
}

impl Happened {
    /// The faults that are not over, and since when.
    #[must_use]
    pub fn under_way(&self) -> Vec<String> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn begin(&self, fault: &str) {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).push(fault.to_owned());
    }

    fn end(&self, fault: &str) {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner).retain(|one| one != fault);
    }

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
    let Tracks { adapters, database, broker, network, upstream, outages, organization } = tracks;
    let track = |faults: &'_ [Fault]| {
        let faults = faults.to_vec();
        async move {
            for fault in &faults {
                sleep_until(started + fault.at).await;
                let from = Utc::now();
                let (kind, text) = (kind(&fault.disturbance), format!("{:?}", fault.disturbance));
                let begun = format!("{from} {kind}: {text}");
                happened.begin(&begun);
                make(stage, fault).await;
                happened.end(&begun);
                let organization = match fault.disturbance {
                    Disturbance::Organization(one, _) => Some(one),
                    _ => None,
                };
                let is_freeze = matches!(fault.disturbance, Disturbance::Freeze | Disturbance::FreezeHolding);
                let (until, instance) = (Utc::now(), fault.instance);
                happened.add(FaultSeen { kind, text, from, until, organization, instance, is_freeze });
            }
        }
    };
    tokio::join!(
        join_all(adapters.iter().map(|adapter| track(adapter))),
        track(database),
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
        Leg::Database => "database",
    };
    match disturbance {
        Disturbance::Kill => "adapter killed".to_owned(),
        Disturbance::Restart => "adapter restarted".to_owned(),
        Disturbance::Freeze => "adapter frozen past its lease".to_owned(),
        Disturbance::FreezeHolding => "adapter frozen with requests written".to_owned(),
        Disturbance::DatabaseStop(how) => format!("database stopped {how:?}"),
        Disturbance::DatabaseFreeze => "database frozen".to_owned(),
        Disturbance::DatabaseLock => "database locked".to_owned(),
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
        | Disturbance::FreezeHolding
        | Disturbance::StoreLock
        | Disturbance::KillLocked => process(stage, fault).await,
        Disturbance::DatabaseStop(_) | Disturbance::DatabaseFreeze | Disturbance::DatabaseLock => {
            database(stage, fault).await;
        }
        Disturbance::BrokerKill | Disturbance::BrokerRestart | Disturbance::BrokerFreeze => {
            broker(stage, fault).await;
        }
        Disturbance::BrokerAlarm | Disturbance::EventsUnbound => inside_broker(stage, fault).await,
        Disturbance::Cut(leg, _)
        | Disturbance::Stall(leg, _)
        | Disturbance::Strand(leg)
        | Disturbance::Unattended(leg)
        | Disturbance::Slow(leg, _)
        | Disturbance::Refuse(leg) => network(&proxies(stage, *leg, fault.instance), fault).await,
        Disturbance::Upstream(rule) => drop(stage.simulator.script(rule.clone())),
        Disturbance::RevokeTokens => stage.simulator.revoke_tokens(),
        Disturbance::UpstreamReset => stage.simulator.reset_connections(),
        Disturbance::Away(_)
        | Disturbance::Limit(_)
        | Disturbance::Tokens(..)
        | Disturbance::Organization(..) => outages::make(stage, fault).await,
    }
}

/// What happens to an instance or its store.
async fn process(stage: &Stage, fault: &Fault) {
    let number = fault.instance.unwrap_or_default();
    let instance = &stage.instances[number];
    match &fault.disturbance {
        Disturbance::StoreLock => unlock(lock_store(instance, fault.lasts).await).await,
        Disturbance::KillLocked => {
            let lock = lock_store(instance, fault.lasts).await;
            stage.kill(number).await;
            unlock(lock).await;
            stage.start_one(instance).await;
        }
        Disturbance::Kill => {
            stage.kill(number).await;
            sleep(fault.lasts).await;
            stage.start_one(instance).await;
        }
        Disturbance::Restart => {
            // A drain that a fault beside it makes too long is no failure here.
            instance.terminate().await;
            sleep(fault.lasts).await;
            stage.start_one(instance).await;
        }
        freeze => {
            let place = instance.adapter.lock().await;
            let adapter = place.as_ref().expect("this track alone ends it");
            let is_holding = *freeze == Disturbance::FreezeHolding;
            if is_holding {
                instance.upstream_proxy.freeze(Direction::ToTarget);
                sleep(HOLD).await;
            }
            adapter.signal("STOP").await;
            sleep(fault.lasts).await;
            if is_holding {
                instance.upstream_proxy.thaw();
            }
            adapter.signal("CONT").await;
        }
    }
}

/// What happens to the server of the database.
async fn database(stage: &Stage, fault: &Fault) {
    let (Some(server), Some(ledger)) = (&stage.database, &stage.ledger) else { return };
    let mut server = server.lock().await;
    match &fault.disturbance {
        Disturbance::DatabaseStop(how) => {
            match how {
                Stop::InOrder => server.down().await,
                Stop::AtOnce => server.crash().await,
            }
            sleep(fault.lasts).await;
            server.up().await;
        }
        Disturbance::DatabaseFreeze => {
            server.freeze().await;
            sleep(fault.lasts).await;
            server.thaw().await;
        }
        _ => ledger.lock(fault.lasts).await,
    }
}

/// What happens to the broker.
async fn broker(stage: &Stage, fault: &Fault) {
    let mut node = stage.node.lock().await;
    match &fault.disturbance {
        Disturbance::BrokerFreeze => {
            node.freeze().await;
            sleep(fault.lasts).await;
            node.thaw().await;
        }
        killed_or_stopped => {
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
async fn network(proxies: &[&FaultProxy], fault: &Fault) {
    let each = |act: &dyn Fn(&FaultProxy)| proxies.iter().for_each(|proxy| act(proxy));
    match &fault.disturbance {
        Disturbance::Cut(_, true) => each(&FaultProxy::reset),
        Disturbance::Stall(_, direction) => {
            each(&|proxy| proxy.freeze(*direction));
            sleep(fault.lasts).await;
            each(&FaultProxy::thaw);
        }
        Disturbance::Strand(_) => {
            each(&FaultProxy::strand);
            sleep(fault.lasts).await;
            each(&FaultProxy::cut);
            each(&FaultProxy::thaw);
        }
        Disturbance::Unattended(_) => {
            each(&FaultProxy::leave_unattended);
            each(&FaultProxy::cut);
            sleep(fault.lasts).await;
            each(&FaultProxy::accept);
        }
        Disturbance::Slow(_, delay) => {
            each(&|proxy| proxy.delay(*delay));
            sleep(fault.lasts).await;
            each(&|proxy| proxy.delay(Duration::ZERO));
        }
        Disturbance::Refuse(_) => {
            each(&FaultProxy::refuse);
            each(&FaultProxy::cut);
            sleep(fault.lasts).await;
            each(&FaultProxy::accept);
        }
        _ => each(&FaultProxy::cut),
    }
}

/// The proxies on this leg of one instance, or of all.
fn proxies(stage: &Stage, leg: Leg, instance: Option<usize>) -> Vec<&FaultProxy> {
    let mut proxies = Vec::new();
    for (number, befallen) in stage.instances.iter().enumerate() {
        if instance.is_none_or(|instance| instance == number) {
            proxies.extend(match leg {
                Leg::Broker => Some(&befallen.broker_proxy),
                Leg::Upstream => Some(&befallen.upstream_proxy),
                Leg::Database => befallen.database_proxy.as_ref(),
            });
        }
    }
    proxies
}

/// Another program has the store's write lock for a while, as a backup or a curious operator may.
async fn lock_store(instance: &Instance, lasts: Duration) -> rusqlite::Connection {
    let path = instance.store();
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
