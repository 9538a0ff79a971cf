//! What is measured: one table.

/// Where commands are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Store {
    Sqlite,
    Postgres,
}

/// The kind of the queue of commands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queue {
    Quorum,
    Classic,
}

/// Where telemetry goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Telemetry {
    Off,
    /// Every trace, to a collector.
    On,
}

/// Who does the work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Who {
    Adapter {
        store: Store,
        telemetry: Telemetry,
    },
    /// Consume, PATCH, confirmed publish, ack; each awaited. No tracking.
    BareLoop,
    /// The same with batches of acks and confirms.
    BestLoop,
    /// The same in Python.
    PythonLoop,
    /// RabbitMQ's own, from queue to queue.
    Shovel,
    /// A tonic service that does the PATCH and nothing else.
    BareService,
}

/// What is asked of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Load {
    /// So many calls at once, each for a connection of its own.
    Calls(usize),
    /// The same call again and again.
    Repeats(usize),
    /// Calls in a second, whether or not those before are answered.
    Rate(u32),
    /// A backlog in the queue, of messages for so many connections.
    Drain { guests: usize },
    /// A backlog, and so many calls at once.
    Both(usize),
}

/// A measurement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Scenario {
    pub name: &'static str,
    pub who: Who,
    pub load: Load,
    pub queue: Queue,
    /// One in so many PATCHes fails once with a 503.
    pub fails: Option<u64>,
    /// Whether `bench-quick` measures it too.
    pub is_main: bool,
}

const ADAPTER: Who = Who::Adapter { store: Store::Sqlite, telemetry: Telemetry::Off };
const TRACED: Who = Who::Adapter { store: Store::Sqlite, telemetry: Telemetry::On };
const POSTGRES: Who = Who::Adapter { store: Store::Postgres, telemetry: Telemetry::Off };
const SPREAD: Load = Load::Drain { guests: 4_000 };

const fn new(name: &'static str, who: Who, load: Load) -> Scenario {
    Scenario { name, who, load, queue: Queue::Quorum, fails: None, is_main: false }
}

const fn main(scenario: Scenario) -> Scenario {
    Scenario { is_main: true, ..scenario }
}

const fn classic(scenario: Scenario) -> Scenario {
    Scenario { queue: Queue::Classic, ..scenario }
}

const fn failing(scenario: Scenario, fails: u64) -> Scenario {
    Scenario { fails: Some(fails), ..scenario }
}

/// Every scenario. Those that are compared stand beside one another, since they are measured in this order.
pub const ALL: &[Scenario] = &[
    main(new("drain", ADAPTER, SPREAD)),
    main(new("drain: bare loop", Who::BareLoop, SPREAD)),
    main(new("drain: best loop", Who::BestLoop, SPREAD)),
    main(new("drain: Python loop", Who::PythonLoop, SPREAD)),
    new("drain: shovel", Who::Shovel, SPREAD),
    new("drain, PostgreSQL", POSTGRES, SPREAD),
    new("drain, telemetry on", TRACED, SPREAD),
    classic(new("drain, classic queue", ADAPTER, SPREAD)),
    classic(new("drain, classic queue: bare loop", Who::BareLoop, SPREAD)),
    new("drain, one hot connection", ADAPTER, Load::Drain { guests: 1 }),
    failing(new("drain, 1 % fail", ADAPTER, SPREAD), 100),
    failing(new("drain, 10 % fail", ADAPTER, SPREAD), 10),
    failing(new("drain, 50 % fail", ADAPTER, SPREAD), 2),
    new("1 call", ADAPTER, Load::Calls(1)),
    new("1 call: bare service", Who::BareService, Load::Calls(1)),
    main(new("64 calls", ADAPTER, Load::Calls(64))),
    main(new("64 calls: bare service", Who::BareService, Load::Calls(64))),
    new("64 calls, PostgreSQL", POSTGRES, Load::Calls(64)),
    new("64 calls, telemetry on", TRACED, Load::Calls(64)),
    new("256 calls", ADAPTER, Load::Calls(256)),
    new("256 calls: bare service", Who::BareService, Load::Calls(256)),
    new("1,000 calls/s", ADAPTER, Load::Rate(1_000)),
    new("1,000 calls/s: bare service", Who::BareService, Load::Rate(1_000)),
    main(new("64 repeats", ADAPTER, Load::Repeats(64))),
    new("drain and 64 calls", ADAPTER, Load::Both(64)),
];
