//! The part of a plan that tells what befalls several instances and their database.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use simulator::Rule;
use uuid::Uuid;

use crate::history::{Door, What};
use crate::plan::{Disturbance, Fault, Form, Leg, Step, Stop, Tracks, Wish};
use crate::plan_faults::{self, Parties, RESTART, between, whole_ms};
use crate::plan_load::{self, Load};
use crate::plan_outages;
use crate::terms::{HOLD, INSTANCE_LEASE, LEASE, OVERSLEEP_LONG_MAX, OVERSLEEP_MAX, SETTLE};

/// What an instance needs after a fault to say what it still has to say, at least.
const BREATH: Duration = Duration::from_secs(2);

/// What a restart of the database's server takes besides its pause, at most, on a busy machine.
const DATABASE_RESTART: Duration = Duration::from_secs(3);

/// How long it takes to restart all instances one after another, and what each is given of it.
const ROLL_EACH: Duration = Duration::from_millis(2_500);

/// When the finale begins after everything else, and what is left of it once others may begin something newer.
const FINALE_PAUSE: Duration = Duration::from_secs(4);
const FINALE_REST: Duration = Duration::from_secs(3);

/// On how many connections.
const FINALE_COUNT: usize = 12;

/// How many PATCHes are slow when an instance is killed, how slow, and from when on before that.
const SLOW_COUNT: u64 = 12;
const SLOW: Duration = Duration::from_millis(450);
const SLOW_BEFORE: Duration = Duration::from_millis(300);

/// Makes of the tracks for one instance those for `count`, which share a database.
pub fn spread(
    rng: &mut StdRng,
    duration: Duration,
    count: usize,
    parties: &Parties<'_>,
    tracks: &mut Tracks,
) {
    let calm = plan_outages::calm(duration);
    // In the middle all are restarted, one after another, as for a new version.
    let roll = calm / 2..calm / 2 + ROLL_EACH * u32::try_from(count).unwrap_or(u32::MAX);
    tracks.adapters.clear();
    for instance in 0..count {
        let mut track = instance_track(rng, calm, instance);
        track.retain(|fault| fault.at + fault.lasts + BREATH < roll.start || fault.at > roll.end);
        let at = roll.start + ROLL_EACH * u32::try_from(instance).unwrap_or(u32::MAX);
        track
            .push(Fault { instance: Some(instance), ..Fault::new(at, Duration::ZERO, Disturbance::Restart) });
        track.sort_by_key(|fault| fault.at);
        for fault in &track {
            match fault.disturbance {
                // So that it meets PATCHes under way.
                Disturbance::Kill => {
                    let slow = Disturbance::Upstream(Rule::patch().times(SLOW_COUNT).delay(SLOW));
                    tracks.upstream.push(Fault::new(
                        fault.at.saturating_sub(SLOW_BEFORE),
                        Duration::ZERO,
                        slow,
                    ));
                    tracks.upstream.extend(plan_faults::misfortunes(rng, fault, parties.hot));
                }
                Disturbance::Freeze => {
                    tracks.upstream.extend(plan_faults::misfortunes(rng, fault, parties.hot));
                }
                // What hangs at the upstream is not held before it.
                _ => {}
            }
        }
        tracks.adapters.push(track);
    }
    tracks.upstream.sort_by_key(|fault| fault.at);
    tracks.database = database(rng, calm);
    tracks.network = network(rng, calm, count);
}

/// After all else an instance is asked for something on connections of their own and stops with that on its way; others are asked for
/// the contrary when that may be begun. What comes late then comes last, so that the end shows whether it was healed.
pub fn finale(
    rng: &mut StdRng,
    duration: Duration,
    organizations: &[Uuid],
    load: &mut Load,
    tracks: &mut Tracks,
) {
    let count = tracks.adapters.len();
    let (instance, at) = (rng.random_range(0..count), duration + FINALE_PAUSE);
    let lasts = LEASE + SETTLE + FINALE_REST;
    tracks.adapters[instance]
        .push(Fault { instance: Some(instance), ..Fault::new(at, lasts, Disturbance::FreezeHolding) });
    for number in 0..FINALE_COUNT {
        // On the busy ones much may still be waiting.
        let guest = plan_load::id(rng);
        let archived: bool = rng.random();
        let newer = at + HOLD + LEASE + SETTLE + FINALE_REST / 5;
        for (kind, at, archived, instance) in
            [("late", at + HOLD / 4, archived, instance), ("newer", newer, !archived, (instance + 1) % count)]
        {
            let what = What::Wish(load.wishes.len());
            load.wishes.push(Wish {
                kind: kind.to_owned(),
                requester: plan_load::organization_of(guest, organizations),
                key: format!("{kind}-{number}"),
                guest,
                archived,
                trace: plan_load::id(rng).simple().to_string(),
                issued_ms: None,
                expires_ms: None,
            });
            let (door, form) = (Door::Grpc, Form::Json);
            let step = Step { at, what, door, instance, timeout: None, tries: 2, form, wants_reply: false };
            load.steps.push(step);
        }
    }
    load.steps.sort_by_key(|step| step.at);
}

/// Each of several instances has its faults; that two or all have some at once happens.
fn instance_track(rng: &mut StdRng, duration: Duration, instance: usize) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    let mut at = between(rng, 1_500, 4_000);
    while at < duration {
        // So that a short run has each, the first ones are not left to chance.
        let kind = if faults.is_empty() { instance % 3 * 4 } else { rng.random_range(0..12) };
        let (disturbance, lasts) = match kind {
            0..4 => (Disturbance::Kill, between(rng, 0, 3_000)),
            4..6 => {
                (Disturbance::FreezeHolding, LEASE + SETTLE + between(rng, 300, whole_ms(OVERSLEEP_LONG_MAX)))
            }
            6..9 => (Disturbance::Freeze, sleep(rng)),
            _ => (Disturbance::Restart, between(rng, 0, 1_500)),
        };
        faults.push(Fault { instance: Some(instance), ..Fault::new(at, lasts, disturbance) });
        at += lasts + RESTART + BREATH + between(rng, 0, 5_000);
    }
    faults
}

/// Long enough that others publish for it, that they take over its claims, or that they are beyond those.
fn sleep(rng: &mut StdRng) -> Duration {
    match rng.random_range(0..3) {
        0 => between(rng, whole_ms(INSTANCE_LEASE) + 100, whole_ms(LEASE)),
        1 => LEASE + between(rng, 100, whole_ms(OVERSLEEP_MAX)),
        _ => LEASE + SETTLE + between(rng, 300, whole_ms(OVERSLEEP_LONG_MAX)),
    }
}

fn database(rng: &mut StdRng, duration: Duration) -> Vec<Fault> {
    let mut faults: Vec<Fault> = Vec::new();
    let mut at = between(rng, 3_000, 6_000);
    while at < duration {
        let kind = if faults.len() < 3 { faults.len() } else { rng.random_range(0..4) };
        let (disturbance, lasts, pause) = match kind {
            0 => (Disturbance::DatabaseStop(Stop::AtOnce), between(rng, 0, 1_500), DATABASE_RESTART),
            1 => (Disturbance::DatabaseFreeze, between(rng, 300, 4_000), Duration::ZERO),
            2 => (Disturbance::DatabaseStop(Stop::InOrder), between(rng, 0, 1_500), DATABASE_RESTART),
            _ => (Disturbance::DatabaseLock, between(rng, 300, 4_000), Duration::ZERO),
        };
        faults.push(Fault::new(at, lasts, disturbance));
        at += lasts + pause + between(rng, 3_000, 8_000);
    }
    faults
}

/// What befalls the connections of one instance, or of all.
fn network(rng: &mut StdRng, duration: Duration, count: usize) -> Vec<Fault> {
    let mut faults = Vec::new();
    let mut at = between(rng, 500, 2_000);
    while at < duration {
        let leg = [Leg::Broker, Leg::Upstream, Leg::Database][rng.random_range(0..3)];
        let instance = rng.random_bool(0.7).then(|| rng.random_range(0..count));
        let (disturbance, lasts) = plan_faults::trouble(rng, leg);
        faults.push(Fault { instance, ..Fault::new(at, lasts, disturbance) });
        at += lasts + between(rng, 500, 3_000);
    }
    faults
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;
    use crate::plan::{Cluster, Plan};

    const MINUTE: Duration = Duration::from_secs(60);

    const THREE: Cluster = Cluster { instances: 3, partitions: 0 };

    #[test]
    fn a_minute_has_every_fault_of_several_instances() {
        for seed in 0..20 {
            let plan = Plan::new(seed, MINUTE, THREE);
            let Tracks { adapters, database, network, .. } = &plan.tracks;
            let kinds: HashSet<String> = adapters
                .iter()
                .flatten()
                .chain(database)
                .map(|fault| format!("{:?}", fault.disturbance))
                .collect();
            for kind in [
                "Kill",
                "Freeze",
                "FreezeHolding",
                "Restart",
                "DatabaseStop(AtOnce)",
                "DatabaseStop(InOrder)",
                "DatabaseFreeze",
            ] {
                assert!(kinds.contains(kind), "no {kind} in seed {seed}: {kinds:?}");
            }
            let befallen: HashSet<_> = network.iter().map(|fault| fault.instance).collect();
            assert!(befallen.len() > 2, "{befallen:?}");
            let far = LEASE + SETTLE;
            assert!(adapters.iter().flatten().any(|fault| fault.lasts > far), "seed {seed}");
        }
    }

    #[test]
    fn an_instance_has_its_breath_between_two_faults_and_all_are_restarted_in_turn() {
        for seed in 0..50 {
            let Tracks { adapters, database, .. } = Plan::new(seed, MINUTE, THREE).tracks;
            for (instance, track) in adapters.iter().enumerate() {
                assert!(track.iter().all(|fault| fault.instance == Some(instance)));
                for pair in track.windows(2) {
                    assert!(pair[0].at + pair[0].lasts + BREATH <= pair[1].at, "seed {seed}: {pair:?}");
                }
            }
            for pair in database.windows(2) {
                assert!(pair[0].at + pair[0].lasts < pair[1].at, "seed {seed}: {pair:?}");
            }
            let middle = plan_outages::calm(MINUTE) / 2;
            let (last, others): (Vec<&Fault>, Vec<&Fault>) =
                adapters.iter().flatten().partition(|fault| fault.at > MINUTE);
            assert!(
                matches!(last.as_slice(), [Fault { disturbance: Disturbance::FreezeHolding, .. }]),
                "{last:?}"
            );
            assert!(others.iter().all(|fault| fault.at < plan_outages::calm(MINUTE)));
            let rolled: Vec<_> = adapters
                .iter()
                .filter_map(|track| track.iter().find(|fault| fault.at >= middle))
                .map(|fault| (fault.at, fault.disturbance == Disturbance::Restart))
                .collect();
            assert_eq!(rolled, [0, 1, 2].map(|place| (middle + ROLL_EACH * place, true)), "seed {seed}");
        }
    }

    #[test]
    fn in_the_end_something_newer_comes_while_an_instance_is_frozen() {
        for seed in 0..20 {
            let plan = Plan::new(seed, MINUTE, THREE);
            let (frozen, freeze) = (0..3)
                .filter_map(|instance| Some((instance, plan.tracks.adapters[instance].last()?)))
                .find(|(_, fault)| fault.at > MINUTE)
                .unwrap();
            let steps = |kind: &str| -> Vec<_> {
                let is_one =
                    |step: &&Step| matches!(step.what, What::Wish(wish) if plan.wishes[wish].kind == kind);
                plan.steps
                    .iter()
                    .filter(is_one)
                    .map(|step| (step.at.saturating_sub(freeze.at), step.instance))
                    .collect()
            };
            let (late, newer) = (steps("late"), steps("newer"));
            assert_eq!((late.len(), newer.len()), (FINALE_COUNT, FINALE_COUNT));
            assert!(late.iter().all(|(after, instance)| *instance == frozen && *after < HOLD), "{late:?}");
            let (from, until) = (HOLD + LEASE + SETTLE, HOLD + freeze.lasts);
            let is_between = |(after, instance): &(Duration, usize)| {
                *instance != frozen && from < *after && *after < until
            };
            assert!(newer.iter().all(is_between), "{newer:?}");
        }
    }

    #[test]
    fn two_instances_are_called_for_the_same_thing_at_once() {
        let plan = Plan::new(4, MINUTE, THREE);
        let mut called: HashMap<(Duration, What), HashSet<usize>> = HashMap::new();
        for step in &plan.steps {
            called.entry((step.at, step.what)).or_default().insert(step.instance);
        }
        assert!(called.values().filter(|instances| instances.len() > 1).count() > 50);
        assert!((0..3).all(|instance| plan.steps.iter().any(|step| step.instance == instance)));
    }

    #[test]
    fn the_partitions_stand_in_the_configuration() {
        let line = |partitions| {
            let plan = Plan::new(4, MINUTE, Cluster { instances: 3, partitions });
            plan.configuration
                .lines()
                .filter(|line| line.starts_with("amqp.partitions"))
                .map(str::to_owned)
                .collect()
        };
        let lines: [Vec<String>; 2] = [line(0), line(6)];
        assert_eq!(lines, [vec![], vec!["amqp.partitions = 6".to_owned()]]);
    }
}
