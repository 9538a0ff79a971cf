//! What is measured, as a process of its own: its processor time and its memory are the operating system's.

use std::fs;
use std::process::Stdio;

use harness::{Adapter, Broker, Collector, Database, Names, Setup, Upstream};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::Outcome;
use crate::scenario::{Queue, Scenario, Store, Telemetry, Who};

/// Everything around the subject of one measurement.
pub struct Place {
    pub upstream: Upstream,
    pub broker: Broker,
    pub names: Names,
    collector: Option<Collector>,
    database: Option<Database>,
}

/// A subject at work.
pub enum Subject {
    Adapter(Box<Adapter>),
    /// A floor, and its address if it has one.
    Process {
        child: Child,
        address: Option<String>,
    },
    /// The broker itself.
    Broker,
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
        Ok(Self { upstream, broker, names, collector, database })
    }

    /// How the adapter of a scenario is started.
    fn setup(&self, scenario: &Scenario) -> Outcome<Setup> {
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
                let adapter = self.setup(scenario)?.start().await;
                return Ok(Subject::Adapter(Box::new(adapter)));
            }
            Who::Shovel => return Ok(Subject::Broker),
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
        Ok(Subject::Process { child, address: Some(address).filter(|address| !address.is_empty()) })
    }
}

impl Subject {
    /// Its process.
    fn pid(&self) -> Outcome<u32> {
        match self {
            Self::Adapter(adapter) => Ok(adapter.pid()),
            Self::Process { child, .. } => Ok(child.id().ok_or("the floor has ended")?),
            Self::Broker => Ok(std::env::var("AMQP_PID")?.parse()?),
        }
    }

    /// What it has taken so far.
    pub async fn spent(&self) -> Outcome<Spent> {
        let pid = self.pid()?.to_string();
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.split_whitespace().next());
        let commits = match self {
            Self::Adapter(adapter) => {
                let text = adapter.metrics().await;
                let counts = text
                    .lines()
                    .filter(|line| line.starts_with("adapter_store_commit_duration_seconds_count"));
                counts.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
            }
            _ => 0,
        };
        let memory = peak.and_then(|text| text.parse().ok()).unwrap_or_default();
        Ok(Spent { cpu: harness::measure::ticks_of(&pid) * 10_000, memory, commits })
    }

    /// Ends it.
    pub async fn end(self) -> Outcome {
        match self {
            Self::Adapter(adapter) => {
                adapter.terminate().await;
            }
            Self::Process { mut child, .. } => child.kill().await?,
            Self::Broker => {}
        }
        Ok(())
    }
}
