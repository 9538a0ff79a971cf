//! What is measured, as a process of its own: its processor time and its memory are the operating system's.

use std::fs;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use harness::{Adapter, Broker, Collector, Database, Names, Setup, Upstream};
use simulator::{Endpoint, Rule};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::Outcome;
use crate::figure::Figure;
use crate::hot;
use crate::scenario::{Queue, Scenario, Store, Telemetry, Who};
use crate::syncs::Syncs;

/// Everything around the subject of one measurement.
pub struct Place {
    pub upstream: Upstream,
    pub broker: Broker,
    pub names: Names,
    collector: Option<Collector>,
    database: Option<Database>,
}

/// A subject at work.
pub struct Subject {
    kind: Kind,
    syncs: Option<Syncs>,
    /// What it had taken when it began to count, and how many commands it had done.
    before: Spent,
    done: u64,
}

/// What it is.
enum Kind {
    Adapter {
        adapter: Box<Adapter>,
        setup: Box<Setup>,
        /// The length of the store before the first command.
        stored: u64,
    },
    /// A floor, and its address if it has one.
    Process { child: Child, address: Option<String> },
    /// The broker itself.
    Broker,
}

/// What a subject has taken since it began to count.
#[derive(Debug, Clone, Copy)]
pub struct Cost {
    spent: Spent,
    syncs: Option<u64>,
    /// By how much the store has grown since the first command, and how many were not counted.
    stored: Option<u64>,
    done: u64,
}

impl Cost {
    /// Adds what each of `count` commands took.
    pub fn shared(self, figure: Figure, count: u64) -> Figure {
        let each = |value: u64| value as f64 / count.max(1) as f64;
        let is_adapter = self.stored.is_some();
        Figure {
            cpu: Some(each(self.spent.cpu)),
            memory: Some(self.spent.memory as f64 / 1024.0),
            commits: is_adapter.then(|| each(self.spent.commits)),
            syncs: self.syncs.map(each),
            growth: self
                .stored
                .filter(|stored| *stored > 0)
                .map(|stored| stored as f64 / (count + self.done).max(1) as f64),
            ..figure
        }
    }
}

/// What a process has taken so far.
#[derive(Debug, Clone, Copy, Default)]
pub struct Spent {
    /// Processor time, user and system, in microseconds.
    pub cpu: u64,
    /// The most memory it has had, in KiB.
    pub memory: u64,
    /// Transactions of the store, each of which is written through to the disk.
    pub commits: u64,
}

impl Place {
    /// Everything but the subject.
    pub async fn new(scenario: &Scenario) -> Outcome<Self> {
        let (upstream, broker, names) = (Upstream::start().await, Broker::connect().await, Names::default());
        let (store, telemetry) = match scenario.who {
            Who::Adapter { store, telemetry } => (Some(store), Some(telemetry)),
            _ => (None, None),
        };
        let collector = if telemetry == Some(Telemetry::On) { Some(Collector::start().await) } else { None };
        let database = if store == Some(Store::Postgres) { Some(Database::create().await) } else { None };
        if scenario.delay > 0 {
            upstream.simulator.script(Rule::patch().delay(Duration::from_millis(scenario.delay)));
        }
        if let Some(one_in) = scenario.fails {
            upstream.simulator.script(Rule::patch().one_in(one_in).status(503));
        }
        if scenario.is_beside_hot {
            upstream.simulator.script(Rule::patch().guest(hot::GUEST).delay(hot::DELAY));
        }
        Ok(Self { upstream, broker, names, collector, database })
    }

    /// How long the API took with a PATCH on average, in microseconds, and how many it answered.
    pub fn api(&self) -> (f64, u64) {
        let journal = self.upstream.simulator.journal();
        let patches = journal.iter().filter(|entry| entry.endpoint == Endpoint::Patch);
        let times: Vec<_> =
            patches.filter_map(|entry| (entry.answered_at? - entry.received_at).num_microseconds()).collect();
        (times.iter().sum::<i64>() as f64 / times.len().max(1) as f64, times.len() as u64)
    }

    /// How the adapter of a scenario is started.
    pub fn setup(&self, scenario: &Scenario) -> Outcome<Setup> {
        let program = std::env::current_exe()?.with_file_name("guest-connection-adapter");
        let mut setup = self.upstream.setup(program).broker(&self.broker, &self.names);
        // As those whom it is measured against, it says nothing of what goes well.
        setup = setup.config("telemetry.log_filter = \"warn,guest_connection_adapter::app=info\"");
        if let Some(collector) = &self.collector {
            setup = setup.config(&format!("telemetry.otlp_endpoint = \"{}\"", collector.endpoint()));
        }
        if let Some(database) = &self.database {
            setup = setup.config(&format!("store.url = \"{}\"", database.url()));
        }
        if scenario.fails.is_some() {
            // What is measured is the work that failures make, not the rest that so many of them bring.
            setup = setup.config("upstream.breaker_failures = 1000\nupstream.breaker_failure_share = 1.0");
            setup = setup.config("upstream.retry_share = 1.0");
        }
        if scenario.queue == Queue::Classic {
            setup = setup.config("amqp.declare = false");
        }
        Ok(setup)
    }

    /// Starts the subject.
    pub async fn start(&self, scenario: &Scenario) -> Outcome<Subject> {
        let kind = match scenario.who {
            Who::Adapter { .. } => {
                let setup = self.setup(scenario)?;
                let adapter = setup.start().await;
                let stored = stored(&setup.store());
                let kind = Kind::Adapter { adapter: Box::new(adapter), setup: Box::new(setup), stored };
                return Ok(Subject::new(kind));
            }
            Who::Shovel => return Ok(Subject::new(Kind::Broker)),
            Who::PythonLoop => return self.python().await,
            Who::BareLoop => "bare-loop",
            Who::BestLoop => "best-loop",
            Who::BareService => "bare-service",
        };
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["floor", kind]);
        self.launch(command).await
    }

    async fn python(&self) -> Outcome<Subject> {
        let mut command = Command::new("target/bench/python/bin/python");
        command.arg("tools/bench/python/loop.py");
        self.launch(command).await
    }

    async fn launch(&self, mut command: Command) -> Outcome<Subject> {
        let organization = &self.upstream.organizations[0];
        command
            .args(["--amqp", self.broker.uri()])
            .args(["--queue", &self.names.commands, "--exchange", &self.names.events])
            .args(["--upstream", &self.upstream.simulator.base_url()])
            .args(["--client-id", &organization.client_id, "--client-secret", &organization.client_secret])
            .args(["--requester", &organization.id.to_string(), "--prefetch", "256"])
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut lines = BufReader::new(child.stdout.take().ok_or("no output")?).lines();
        let line = lines.next_line().await?.ok_or("the floor ended before it was ready")?;
        let address = line.strip_prefix("ready").ok_or(line.clone())?.trim().to_owned();
        let address = Some(address).filter(|address| !address.is_empty());
        Ok(Subject::new(Kind::Process { child, address }))
    }
}

impl Subject {
    fn new(kind: Kind) -> Self {
        Self { kind, syncs: None, before: Spent::default(), done: 0 }
    }

    /// Its process.
    pub fn pid(&self) -> Outcome<u32> {
        match &self.kind {
            Kind::Adapter { adapter, .. } => Ok(adapter.pid()),
            Kind::Process { child, .. } => Ok(child.id().ok_or("the floor has ended")?),
            Kind::Broker => Ok(std::env::var("AMQP_PID")?.parse()?),
        }
    }

    /// Where it is called, once it can be.
    pub async fn address(&self) -> Outcome<String> {
        match &self.kind {
            Kind::Adapter { adapter, .. } => {
                adapter.ready().await;
                Ok(adapter.grpc_address())
            }
            Kind::Process { address: Some(address), .. } => Ok(address.clone()),
            Kind::Process { .. } | Kind::Broker => Err("it takes no calls".into()),
        }
    }

    /// Counts from its start on.
    pub async fn count_from_start(&mut self) -> Outcome {
        match &self.kind {
            Kind::Adapter { .. } => self.count_syncs().await,
            Kind::Process { .. } => {}
            // What the broker took before was for others.
            Kind::Broker => self.before = self.spent().await?,
        }
        Ok(())
    }

    /// Counts from now on, when it has done so many commands.
    pub async fn count_from_now(&mut self, done: u64) -> Outcome {
        self.count_syncs().await;
        (self.before, self.done) = (self.spent().await?, done);
        Ok(())
    }

    /// Counts what it writes through to the disk itself; with a database that is done by another process.
    async fn count_syncs(&mut self) {
        if let Kind::Adapter { adapter, setup, .. } = &self.kind
            && setup.store().exists()
        {
            self.syncs = Syncs::begin(adapter.pid()).await;
        }
    }

    /// What it has taken so far.
    async fn spent(&self) -> Outcome<Spent> {
        let pid = self.pid()?;
        let commits = match &self.kind {
            Kind::Adapter { adapter, .. } => {
                let text = adapter.metrics().await;
                let counts = text
                    .lines()
                    .filter(|line| line.starts_with("adapter_store_commit_duration_seconds_count"));
                counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
            }
            Kind::Process { .. } | Kind::Broker => 0,
        };
        let cpu = harness::measure::ticks_of(&pid.to_string()) * 10_000;
        Ok(Spent { cpu, memory: memory(pid, "VmHWM:"), commits })
    }

    /// Ends the count and the subject.
    pub async fn end(mut self) -> Outcome<Cost> {
        let syncs = match self.syncs.take() {
            Some(syncs) => syncs.end().await,
            None => None,
        };
        let after = self.spent().await?;
        let spent = Spent {
            cpu: after.cpu - self.before.cpu,
            memory: after.memory,
            commits: after.commits - self.before.commits,
        };
        let stored = match self.kind {
            Kind::Adapter { adapter, setup, stored } => {
                let (status, log) = adapter.terminate().await;
                if !status.success() {
                    return Err(format!("it ended with {status}:\n{}", log.join("\n")).into());
                }
                Some(self::stored(&setup.store()).saturating_sub(stored))
            }
            Kind::Process { mut child, .. } => {
                child.kill().await?;
                None
            }
            Kind::Broker => None,
        };
        Ok(Cost { spent, syncs, stored, done: self.done })
    }
}

/// What the operating system says about the memory of a process, in KiB.
pub fn memory(pid: u32, what: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix(what)?.split_whitespace().next());
    value.and_then(|text| text.parse().ok()).unwrap_or_default()
}

/// The bytes of an SQLite store, its log included.
fn stored(store: &Path) -> u64 {
    let length = |path: &Path| fs::metadata(path).map_or(0, |file| file.len());
    length(store) + length(&store.with_extension("db-wal"))
}
