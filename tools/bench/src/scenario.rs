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
    /// The same, half as many as the adapter answers with 64 under way.
    Half,
    /// A backlog in the queue, of messages for so many connections.
    Drain { guests: usize },
    /// A backlog, and so many calls at once.
    Both(usize),
    /// A backlog that is filled up while it is drained.
    Long,
    /// Nothing: it is started and ended, with a store that keeps as many commands as are planned, or with a new one.
    Life { is_full: bool },
}

/// How often it is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// In every round, and by `bench-quick` too.
    Main,
    /// In every round.
    Often,
    /// In the first round.
    Once,
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
    /// How long the stand-in of the API waits with every answer, in milliseconds.
    pub delay: u64,
    /// Messages of a backlog, if not as many as usual.
    pub messages: Option<usize>,
    /// Whether one more connection has more to do than the API lets it: only the work of the others is counted.
    pub is_beside_hot: bool,
    pub turn: Turn,
}

const ADAPTER: Who = Who::Adapter { store: Store::Sqlite, telemetry: Telemetry::Off };
const TRACED: Who = Who::Adapter { store: Store::Sqlite, telemetry: Telemetry::On };
const POSTGRES: Who = Who::Adapter { store: Store::Postgres, telemetry: Telemetry::Off };
const SPREAD: Load = Load::Drain { guests: 4_000 };
const HOT: Load = Load::Drain { guests: 1 };

/// How many calls in a second half a load is half of.
pub const WHOLE: Scenario = main(new("64 calls", ADAPTER, Load::Calls(64)));

const fn new(name: &'static str, who: Who, load: Load) -> Scenario {
    Scenario {
        name,
        who,
        load,
        queue: Queue::Quorum,
        fails: None,
        delay: 0,
        messages: None,
        is_beside_hot: false,
        turn: Turn::Once,
    }
}

const fn main(scenario: Scenario) -> Scenario {
    Scenario { turn: Turn::Main, ..scenario }
}

const fn classic(scenario: Scenario) -> Scenario {
    Scenario { queue: Queue::Classic, ..scenario }
}

/// With fewer messages, since they take longer.
const fn failing(scenario: Scenario, fails: u64) -> Scenario {
    Scenario { fails: Some(fails), messages: Some(6_000), ..scenario }
}

/// With an API that takes so many milliseconds, and as few messages as go one after another in a few seconds.
const fn slow(scenario: Scenario, delay: u64, messages: usize) -> Scenario {
    Scenario { delay, messages: Some(messages), ..scenario }
}

const fn beside_hot(scenario: Scenario) -> Scenario {
    Scenario { is_beside_hot: true, turn: Turn::Often, ..scenario }
}

/// Every scenario. Those that are compared stand beside one another, since they are measured in this order.
pub const ALL: &[Scenario] = &[
    main(new("drain", ADAPTER, SPREAD)),
    main(new("drain: bare loop", Who::BareLoop, SPREAD)),
    main(new("drain: best loop", Who::BestLoop, SPREAD)),
    main(new("drain: Python loop", Who::PythonLoop, SPREAD)),
    beside_hot(new("drain beside a hot connection", ADAPTER, SPREAD)),
    new("drain: shovel", Who::Shovel, SPREAD),
    new("drain, PostgreSQL", POSTGRES, SPREAD),
    new("drain, telemetry on", TRACED, SPREAD),
    classic(new("drain, classic queue", ADAPTER, SPREAD)),
    classic(new("drain, classic queue: bare loop", Who::BareLoop, SPREAD)),
    failing(new("drain, 1 % fail", ADAPTER, SPREAD), 100),
    failing(new("drain, 10 % fail", ADAPTER, SPREAD), 10),
    failing(new("drain, 50 % fail", ADAPTER, SPREAD), 2),
    slow(new("one hot connection", ADAPTER, HOT), 0, 2_000),
    slow(new("one hot connection, API of 5 ms", ADAPTER, HOT), 5, 1_000),
    slow(new("one hot connection, API of 20 ms", ADAPTER, HOT), 20, 400),
    new("1 call", ADAPTER, Load::Calls(1)),
    new("1 call: bare service", Who::BareService, Load::Calls(1)),
    WHOLE,
    main(new("64 calls: bare service", Who::BareService, Load::Calls(64))),
    beside_hot(new("64 calls beside a hot connection", ADAPTER, Load::Calls(64))),
    new("64 calls, PostgreSQL", POSTGRES, Load::Calls(64)),
    new("64 calls, telemetry on", TRACED, Load::Calls(64)),
    new("256 calls", ADAPTER, Load::Calls(256)),
    new("256 calls: bare service", Who::BareService, Load::Calls(256)),
    main(new("half load", ADAPTER, Load::Half)),
    main(new("half load: bare service", Who::BareService, Load::Half)),
    new("1,000 calls/s", ADAPTER, Load::Rate(1_000)),
    new("1,000 calls/s: bare service", Who::BareService, Load::Rate(1_000)),
    main(new("64 repeats", ADAPTER, Load::Repeats(64))),
    new("drain and 64 calls", ADAPTER, Load::Both(64)),
    new("drain and 512 calls", ADAPTER, Load::Both(512)),
    new("a million", ADAPTER, Load::Long),
    new("start and exit, new store", ADAPTER, Load::Life { is_full: false }),
    new("start and exit, full store", ADAPTER, Load::Life { is_full: true }),
];
