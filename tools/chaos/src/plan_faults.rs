//! The part of a plan that tells what goes wrong.

use std::time::Duration;

use harness::Direction;
use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use simulator::{Rule, RuleBuilder};
use uuid::Uuid;

use crate::plan::{Disturbance, Fault, Leg, Tracks};
use crate::plan_outages;
use crate::terms::{LATE_MAX, LEASE, OVERSLEEP_MAX, SLOW_MAX, STALL_MAX};

/// What a restart of a process takes besides its pause, at most, on a busy machine.
pub const RESTART: Duration = Duration::from_secs(1);

/// The same of a broker.
const BROKER_RESTART: Duration = Duration::from_secs(12);

/// What it takes to set a broker's alarm and to end it.
const BROKER_CONTROL: Duration = Duration::from_secs(4);

/// A run that is shorter has no time for a broker's restart.
const BROKER_RESTART_WORTH: Duration = Duration::from_secs(20);

/// Connections on which an end of the adapter meets a PATCH under way.
const MISFORTUNES: usize = 4;

/// A duration by chance, in milliseconds.
pub fn between(rng: &mut StdRng, min: u64, max: u64) -> Duration {
    Duration::from_millis(rng.random_range(min..=max))
}

pub fn whole_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Whom faults can be aimed at.
pub struct Parties<'a> {
    /// The busy guests.
    pub hot: &'a [Uuid],
    /// The organisations.
    pub organizations: &'a [Uuid],
}

/// Draws up the faults for a single instance.
pub fn tracks(rng: &mut StdRng, duration: Duration, parties: &Parties<'_>) -> Tracks {
    let Parties { hot, organizations } = *parties;
    let calm = plan_outages::calm(duration);
    let adapter = adapter(rng, calm);
    let mut upstream = upstream(rng, calm, hot);
    for fault in adapter.iter().filter(|fault| fault.disturbance != Disturbance::Restart) {
        upstream.extend(misfortunes(rng, fault, hot));
    }
    upstream.sort_by_key(|fault| fault.at);
    Tracks {
        adapters: vec![adapter],
        database: Vec::new(),
        broker: broker(rng, calm),
        network: network(rng, calm),
        upstream,
        outages: plan_outages::outages(rng, calm, organizations),
        organization: plan_outages::organization(rng, duration, organizations),
    }
}

/// An end of the adapter that meets PATCHes under way whose fate is unknown, and an upstream that refuses their repeats.
pub fn misfortunes(rng: &mut StdRng, fault: &Fault, hot: &[Uuid]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut add = |at, rule| {
        faults.push(Fault::new(at, Duration::ZERO, Disturbance::Upstream(rule)));
    };
    for guest in hot.sample(rng, MISFORTUNES) {
        let matching = Rule::patch().guest(*guest).times(1);
        let hang =
            if rng.random_bool(0.7) { matching.clone().hang_after_apply() } else { matching.clone().hang() };
        add(fault.at.saturating_sub(Duration::from_millis(400)), hang);
        let refusal = match rng.random_range(0..5) {
            0 => matching.status(403),
            1 => matching.status(404),
            2 => matching.status(422),
            3 => matching.status(429).header("retry-after", "2"),
            _ => matching.status(401),
        };
        add(fault.at + fault.lasts, refusal.into());
    }
    faults
}

fn adapter(rng: &mut StdRng, duration: Duration) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    let mut at = between(rng, 1_000, 2_500);
    // Every kind comes in its turn, so that a minute has each; a short run has the first ones.
    let mut kinds = [
        Disturbance::Kill,
        Disturbance::Freeze,
        Disturbance::KillLocked,
        Disturbance::Kill,
        Disturbance::StoreLock,
    ];
    while at < duration {
        let index = faults.len() % kinds.len();
        if index == 0 && !faults.is_empty() {
            let last = kinds.len() - 1;
            kinds.swap(rng.random_range(0..last), last);
        }
        let mut disturbance = kinds[index].clone();
        if disturbance == Disturbance::Kill && !faults.is_empty() && rng.random_bool(0.2) {
            disturbance = Disturbance::Restart;
        }
        let (lasts, ends_after) = match disturbance {
            Disturbance::Freeze => {
                let lasts = LEASE + between(rng, 100, whole_ms(OVERSLEEP_MAX));
                (lasts, lasts)
            }
            Disturbance::StoreLock => {
                let lasts = between(rng, 200, 6_000);
                (lasts, lasts)
            }
            Disturbance::KillLocked => {
                let lasts = between(rng, 200, 5_000);
                (lasts, lasts + RESTART)
            }
            _ => {
                let lasts = between(rng, 0, 800);
                (lasts, lasts + RESTART)
            }
        };
        faults.push(Fault::new(at, lasts, disturbance));
        at += ends_after + between(rng, 500, 3_500);
    }
    faults
}

fn broker(rng: &mut StdRng, duration: Duration) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut at = between(rng, 1_500, 3_500);
    while at < duration {
        let restarts = duration >= BROKER_RESTART_WORTH && at + BROKER_RESTART < duration;
        let disturbance = match rng.random_range(0..7) {
            0 | 1 if restarts => Disturbance::BrokerKill,
            2 if restarts => Disturbance::BrokerRestart,
            3 if restarts => Disturbance::BrokerAlarm,
            4 => Disturbance::EventsUnbound,
            _ => Disturbance::BrokerFreeze,
        };
        let lasts = between(rng, 300, 3_000);
        let pause = match disturbance {
            Disturbance::BrokerKill | Disturbance::BrokerRestart => BROKER_RESTART,
            Disturbance::BrokerAlarm => BROKER_CONTROL,
            _ => Duration::ZERO,
        };
        faults.push(Fault::new(at, lasts, disturbance));
        at += lasts + pause + between(rng, 2_000, 7_000);
    }
    faults
}

fn network(rng: &mut StdRng, duration: Duration) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut at = between(rng, 500, 2_000);
    while at < duration {
        let leg = if rng.random() { Leg::Broker } else { Leg::Upstream };
        let (disturbance, lasts) = trouble(rng, leg);
        faults.push(Fault::new(at, lasts, disturbance));
        at += lasts + between(rng, 500, 3_000);
    }
    faults
}

/// What may happen on a leg, and for how long.
pub fn trouble(rng: &mut StdRng, leg: Leg) -> (Disturbance, Duration) {
    let patience = if leg == Leg::Upstream { whole_ms(STALL_MAX) } else { 3_000 };
    match rng.random_range(0..8) {
        0 | 1 => (Disturbance::Cut(leg, rng.random()), Duration::ZERO),
        2 | 3 => {
            let direction = [Direction::Both, Direction::ToTarget, Direction::ToClient];
            let direction = direction[rng.random_range(0..direction.len())];
            (Disturbance::Stall(leg, direction), between(rng, 50, patience))
        }
        4 => (Disturbance::Strand(leg), between(rng, 50, patience)),
        // What was sent meanwhile is passed on afterwards, so this is a stall too.
        5 => (Disturbance::Unattended(leg), between(rng, 50, patience)),
        6 => {
            let delay = between(rng, 5, whole_ms(SLOW_MAX));
            (Disturbance::Slow(leg, delay), between(rng, 200, 2_000))
        }
        _ => (Disturbance::Refuse(leg), between(rng, 200, 1_500)),
    }
}

fn upstream(rng: &mut StdRng, duration: Duration, hot: &[Uuid]) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut at = between(rng, 200, 800);
    while at < duration {
        let disturbance = match rng.random_range(0..20) {
            0 => Disturbance::RevokeTokens,
            1 => Disturbance::UpstreamReset,
            2 => {
                let rule = Rule::token().times(rng.random_range(1..3)).status(503);
                Disturbance::Upstream(rule.into())
            }
            _ => {
                let mut matching = Rule::patch().times(rng.random_range(1..4));
                if rng.random_bool(0.4) {
                    matching = matching.guest(*hot.choose(rng).expect("some are hot"));
                }
                Disturbance::Upstream(misbehaviour(rng, matching))
            }
        };
        faults.push(Fault::new(at, Duration::ZERO, disturbance));
        at += between(rng, 100, 800);
    }
    faults
}

/// None of them lies: what says that nothing was applied has applied nothing.
fn misbehaviour(rng: &mut StdRng, matching: RuleBuilder) -> Rule {
    let late = between(rng, 50, whole_ms(LATE_MAX));
    match rng.random_range(0..26) {
        0..2 => matching.status(503).into(),
        2..4 => matching.status(500).applied().into(),
        4 => matching.status(502).into(),
        5 => matching.status(504).applied().into(),
        6 => matching.status(408).into(),
        7 => matching.status(425).into(),
        8 => matching.maintenance(),
        9..11 => matching.status(429).header("retry-after", "1").into(),
        11 => matching.status(401).into(),
        12 => matching.status(403).into(),
        13 => match rng.random_range(0..3) {
            0 => matching.status(404).into(),
            1 => matching.status(409).into(),
            _ => matching.status(422).into(),
        },
        14 => matching.reset_before_apply(),
        15..17 => matching.reset_after_apply(),
        17..19 => matching.apply_late(late),
        19 => matching.hang_and_apply_late(late),
        20 => matching.hang(),
        21 => matching.hang_after_apply(),
        22 => matching.delay(late),
        23 => matching.delay_after_apply(late),
        24 => match rng.random_range(0..4) {
            0 => matching.empty_body(204),
            1 => matching.malformed_json(),
            2 => matching.truncate_body(),
            _ => matching.drip(Duration::from_millis(3)),
        },
        _ => match rng.random_range(0..3) {
            0 => matching.wrong_archived(),
            1 => matching.extra_fields(),
            _ => matching.endless_body(),
        },
    }
}
