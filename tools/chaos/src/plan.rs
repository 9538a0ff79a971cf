//! What is sent and which faults happen, and when. The same seed is the same plan.

use std::time::Duration;

use harness::Direction;
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};
use simulator::{Limit, Rule};
use uuid::Uuid;

use crate::history::{Door, What};
use crate::{plan_cluster, plan_faults, plan_load, terms};

/// Organisations that ask for something.
const ORGANIZATIONS: usize = 5;

/// How many instances there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cluster {
    /// Instances. A single one keeps its commands in a file, several in one database.
    pub instances: usize,
    /// `amqp.partitions`; 0 is one queue for all.
    pub partitions: u16,
}

impl Cluster {
    /// One instance.
    pub const ALONE: Self = Self { instances: 1, partitions: 0 };

    /// Whether there is more than one.
    #[must_use]
    pub const fn is_shared(self) -> bool {
        self.instances > 1
    }
}

/// A command that someone wants carried out. The same wish sent twice is a duplicate; another wish with the same key is
/// a conflict.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wish {
    /// What is special about it, in a word.
    pub kind: String,
    /// The idempotency key. Empty: the adapter makes one up, which is entered here when it is learnt.
    pub key: String,
    /// The organisation in whose name it is asked for.
    pub requester: Uuid,
    /// The guest of the connection, which is of that organisation alone.
    pub guest: Uuid,
    /// The value.
    pub archived: bool,
    /// The trace in which every call for it is made, in hexadecimal digits.
    pub trace: String,
    /// `issue_time`, in milliseconds from the start of the run.
    pub issued_ms: Option<i64>,
    /// `expire_time`, likewise.
    pub expires_ms: Option<i64>,
}

/// A message that cannot become a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Garbage {
    /// What is wrong with it, in a word.
    pub kind: String,
    /// The body.
    pub body: Vec<u8>,
    /// Its content type.
    pub content_type: String,
    /// The reason that its dead letter must have.
    pub reason: String,
}

/// How a command is written down for the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The JSON command.
    Json,
    /// The request of the gRPC contract.
    Protobuf,
    /// The JSON command as the data of a CloudEvent.
    CloudEvent,
}

/// Something to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// When, from the start of the run.
    pub at: Duration,
    /// What.
    pub what: What,
    /// Where.
    pub door: Door,
    /// The instance that is called first. While nothing is known of the outcome, the next one is called.
    pub instance: usize,
    /// The deadline of a call; none means none.
    pub timeout: Option<Duration>,
    /// How often a call is made at most, while nothing is known of its outcome.
    pub tries: u32,
    /// The form of a message.
    pub form: Form,
    /// Whether a message asks for a reply.
    pub wants_reply: bool,
}

/// A connection through a proxy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Leg {
    /// From the adapter to the broker.
    Broker,
    /// From the adapter to the upstream.
    Upstream,
    /// From the adapter to its database.
    Database,
}

/// A disturbance.
#[derive(Debug, Clone, PartialEq)]
pub enum Disturbance {
    /// SIGKILL to the adapter, and a start after a while.
    Kill,
    /// SIGTERM to the adapter, and a start after its end.
    Restart,
    /// SIGSTOP to the adapter, and SIGCONT after a while.
    Freeze,
    /// The same, with the requests to the upstream that it has just written not yet gone out.
    FreezeHolding,
    /// Another connection holds the write lock of the store for a while.
    StoreLock,
    /// The same, and SIGKILL to the adapter before the lock is let go.
    KillLocked,
    /// The database's server is stopped, in order or at once, and started again.
    DatabaseStop(Stop),
    /// The database's server is frozen for a while.
    DatabaseFreeze,
    /// Another client holds a lock on all commands for a while.
    DatabaseLock,
    /// The broker's node is killed and started again.
    BrokerKill,
    /// The broker's node is stopped and started again.
    BrokerRestart,
    /// The broker's node is frozen for a while.
    BrokerFreeze,
    /// The broker has a memory alarm for a while.
    BrokerAlarm,
    /// No queue takes events for a while.
    EventsUnbound,
    /// Connections are closed, or reset.
    Cut(Leg, bool),
    /// Nothing gets through in one or both directions for a while; connections stay.
    Stall(Leg, Direction),
    /// The connections there are hear nothing any more, new ones work; after a while the old ones are closed.
    Strand(Leg),
    /// Everything takes longer for a while.
    Slow(Leg, Duration),
    /// Connections are closed, and new ones refused for a while.
    Refuse(Leg),
    /// Connections are closed, and new ones come to be and hear nothing for a while.
    Unattended(Leg),
    /// The upstream misbehaves towards some requests.
    Upstream(Rule),
    /// All tokens are taken back.
    RevokeTokens,
    /// The upstream's connections are reset.
    UpstreamReset,
    /// The whole upstream is away for a while.
    Away(Away),
    /// The upstream has a limit for a while.
    Limit(Limit),
    /// Tokens cannot be had or do not last for a while, those of one organisation or of all.
    Tokens(TokenTrouble, Option<Uuid>),
    /// The upstream fails one organisation for a while.
    Organization(Uuid, Trouble),
}

/// How a database's server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// As an operator does ("fast").
    InOrder,
    /// As a crash does ("immediate").
    AtOnce,
}

/// How the whole upstream is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Away {
    /// Everything is answered with 503.
    Answers503,
    /// Nothing is answered.
    Hangs,
    /// Connections are closed, and new ones refused.
    Refuses,
}

/// What is the matter with tokens. Those there are are taken back when it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenTrouble {
    /// The token endpoint answers with 500.
    Errors,
    /// It does not answer.
    Hangs,
    /// It refuses the credentials.
    Refuses,
    /// Its tokens last for a second.
    ShortLived,
}

/// How one organisation is failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// Its PATCHes get 500.
    Errors,
    /// They get no answer.
    Hangs,
    /// They get 401.
    Unauthorized,
}

/// A fault to come.
#[derive(Debug, Clone, PartialEq)]
pub struct Fault {
    /// When, from the start of the run.
    pub at: Duration,
    /// For how long.
    pub lasts: Duration,
    /// The instance that it befalls, if it is not all of them.
    pub instance: Option<usize>,
    /// What.
    pub disturbance: Disturbance,
}

impl Fault {
    /// One that befalls all.
    #[must_use]
    pub const fn new(at: Duration, lasts: Duration, disturbance: Disturbance) -> Self {
        Self { at, lasts, instance: None, disturbance }
    }
}

/// Faults that happen one after another; tracks run beside one another.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tracks {
    /// Of the adapter's process and store: a track for each instance.
    pub adapters: Vec<Vec<Fault>>,
    /// Of the database's process.
    pub database: Vec<Fault>,
    /// Of the broker's process.
    pub broker: Vec<Fault>,
    /// Of the connections.
    pub network: Vec<Fault>,
    /// Of the upstream, towards some requests.
    pub upstream: Vec<Fault>,
    /// Of the upstream as a whole and of its tokens.
    pub outages: Vec<Fault>,
    /// Of one organisation.
    pub organization: Vec<Fault>,
}

/// A track, by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Track {
    /// Of the adapter's process and store.
    Adapters,
    /// Of the database's process.
    Database,
    /// Of the broker's process.
    Broker,
    /// Of the connections.
    Network,
    /// Of the upstream, in each way.
    Upstream,
}

impl Tracks {
    /// The faults of `wanted` tracks alone.
    #[must_use]
    pub fn only(self, wanted: &[Track]) -> Self {
        let has = |track| wanted.contains(&track);
        let some = |track, faults| if has(track) { faults } else { Vec::new() };
        Self {
            adapters: if has(Track::Adapters) { self.adapters } else { Vec::new() },
            database: some(Track::Database, self.database),
            broker: some(Track::Broker, self.broker),
            network: some(Track::Network, self.network),
            upstream: some(Track::Upstream, self.upstream),
            outages: some(Track::Upstream, self.outages),
            organization: some(Track::Upstream, self.organization),
        }
    }
}

/// A run to be made.
#[derive(Debug, Clone, PartialEq)]
pub struct Plan {
    /// What it was made of.
    pub seed: u64,
    /// For how long commands are sent and faults happen.
    pub duration: Duration,
    /// The instances.
    pub cluster: Cluster,
    /// The organisations in whose names everything is asked.
    pub organizations: Vec<Uuid>,
    /// Lines of the adapter's configuration.
    pub configuration: String,
    /// The commands.
    pub wishes: Vec<Wish>,
    /// The other messages.
    pub garbage: Vec<Garbage>,
    /// The sendings, in order of time.
    pub steps: Vec<Step>,
    /// The faults.
    pub tracks: Tracks,
}

impl Plan {
    /// The plan of a seed.
    #[must_use]
    pub fn new(seed: u64, duration: Duration, cluster: Cluster) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let organizations: Vec<Uuid> = (0..ORGANIZATIONS).map(|_| plan_load::id(&mut rng)).collect();
        let mut load = plan_load::load(&mut rng, duration, &organizations, cluster.instances);
        let parties = plan_faults::Parties { hot: &load.hot, organizations: &organizations };
        let mut tracks = plan_faults::tracks(&mut rng, duration, &parties);
        let mut configuration = format!("{}{}", terms::durations(), terms::bounds(&mut rng));
        if cluster.is_shared() {
            plan_cluster::spread(&mut rng, duration, cluster.instances, &parties, &mut tracks);
            plan_cluster::finale(&mut rng, duration, &organizations, &mut load, &mut tracks);
            configuration.push_str(&terms::cluster(cluster));
        }
        let plan_load::Load { wishes, garbage, steps, .. } = load;
        Self { seed, duration, cluster, organizations, configuration, wishes, garbage, steps, tracks }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, HashSet};

    use super::*;

    const MINUTE: Duration = Duration::from_secs(60);

    fn alone(seed: u64) -> Plan {
        Plan::new(seed, MINUTE, Cluster::ALONE)
    }

    #[test]
    fn a_seed_is_a_plan() {
        assert_eq!(alone(7), alone(7));
        assert_ne!(alone(7), alone(8));
    }

    #[test]
    fn a_minute_has_some_of_everything() {
        for seed in 0..20 {
            let plan = alone(seed);
            let kinds: HashSet<&str> = plan.wishes.iter().map(|wish| wish.kind.as_str()).collect();
            for kind in ["plain", "stale", "equal", "future", "expiring", "keyless", "conflict"] {
                assert!(kinds.contains(kind), "no {kind} in seed {seed}");
            }
            assert!(plan.garbage.len() > 5 && plan.steps.len() > plan.wishes.len());
            let Tracks { adapters, broker, network, upstream, outages, organization, .. } = &plan.tracks;
            let adapter = &adapters[0];
            let adapters = |wanted: &Disturbance| adapter.iter().any(|fault| fault.disturbance == *wanted);
            assert!(adapters(&Disturbance::Kill) && adapters(&Disturbance::Freeze), "seed {seed}");
            assert!(broker.len() > 1 && network.len() > 5 && upstream.len() > 20, "seed {seed}");
            let askers: HashSet<Uuid> = plan.wishes.iter().map(|wish| wish.requester).collect();
            assert_eq!(askers.len(), ORGANIZATIONS, "seed {seed}");
            for kind in ["Away", "Limit", "Tokens"] {
                let some = outages.iter().any(|fault| format!("{:?}", fault.disturbance).starts_with(kind));
                assert!(some, "no {kind} in seed {seed}");
            }
            let [broken] = organization.as_slice() else { panic!("{organization:?} in seed {seed}") };
            assert!(broken.lasts > MINUTE / 2, "seed {seed}");
        }
    }

    #[test]
    fn a_few_seconds_have_a_kill_and_other_faults() {
        for seed in 0..20 {
            let plan = Plan::new(seed, Duration::from_secs(6), Cluster::ALONE);
            let Tracks { adapters, broker, network, upstream, .. } = plan.tracks;
            assert_eq!(adapters[0][0].disturbance, Disturbance::Kill, "seed {seed}");
            assert!(!broker.is_empty() && !network.is_empty() && upstream.len() > 3, "seed {seed}");
        }
    }

    #[test]
    fn every_fault_is_over_when_the_next_one_of_its_track_comes() {
        for seed in 0..50 {
            let Tracks { mut adapters, broker, network, outages, .. } = alone(seed).tracks;
            for track in [adapters.remove(0), broker, network, outages] {
                for pair in track.windows(2) {
                    assert!(pair[0].at + pair[0].lasts < pair[1].at, "seed {seed}: {pair:?}");
                }
            }
        }
    }

    #[test]
    fn a_connection_is_of_one_organization_and_so_is_a_key() {
        let plan = alone(5);
        let (mut guests, mut keys) = (HashMap::new(), HashMap::new());
        for wish in plan.wishes.iter().filter(|wish| wish.kind != "keyless") {
            assert_eq!(*guests.entry(wish.guest).or_insert(wish.requester), wish.requester);
            assert_eq!(*keys.entry(&wish.key).or_insert(wish.requester), wish.requester);
        }
    }

    #[test]
    fn at_the_end_of_a_minute_nothing_is_wrong_but_with_one_organization() {
        for seed in 0..20 {
            let Tracks { mut adapters, broker, network, upstream, outages, organization, .. } =
                alone(seed).tracks;
            let adapter = adapters.remove(0);
            let last = |track: &[Fault]| track.iter().map(|fault| fault.at).max().unwrap();
            let others = [adapter, broker, network, upstream, outages];
            let last = others.iter().map(|track| last(track)).max().unwrap();
            assert!(
                last < MINUTE * 5 / 6 && organization[0].at + organization[0].lasts == MINUTE,
                "seed {seed}"
            );
        }
    }

    #[test]
    fn traces_are_those_of_wishes_and_keys_are_shared_by_conflicts_alone() {
        let plan = alone(3);
        let traces: HashSet<&str> = plan.wishes.iter().map(|wish| wish.trace.as_str()).collect();
        assert_eq!(traces.len(), plan.wishes.len());
        let mut keys = HashSet::new();
        for wish in plan.wishes.iter().filter(|wish| wish.kind != "conflict" && wish.kind != "keyless") {
            assert!(keys.insert(&wish.key), "{} is not a wish's own", wish.key);
        }
        let conflicts = plan.wishes.iter().filter(|wish| wish.kind == "conflict");
        assert!(conflicts.into_iter().all(|wish| keys.contains(&wish.key)));
    }
}
