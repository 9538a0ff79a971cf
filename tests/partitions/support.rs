//! Instances that share a database, a load whose order can be seen upstream, and the operator's command.

use std::process::{ExitStatus, Stdio};
use std::sync::Arc;

use harness::broker::Broker;
use harness::{DEADLINE, Database, Names, Setup, Upstream, look_again};
use lapin::BasicProperties;
use lapin::options::QueueDeclareOptions;
use lapin::types::FieldTable;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::PROGRAM;

/// The end of an instance, and what happens to queues, is noticed soon.
const LINES: &str = "store.instance_lease = \"2s\"\namqp.check_interval = \"1s\"";

/// What is left behind by a kill is taken up soon.
const KILL_LINES: &str = r#"
store.lease = "6s"
upstream.settle = "500ms"
upstream.attempt_timeout = "2s"
upstream.connect_timeout = "500ms"
upstream.command_timeout = "5s"
"#;

/// What instances have in common.
pub struct Stage {
    pub upstream: Upstream,
    pub broker: Broker,
    pub names: Names,
    database: Database,
}

impl Stage {
    pub async fn start() -> Arc<Self> {
        let (upstream, broker) = (Upstream::start().await, Broker::connect().await);
        Arc::new(Self { upstream, broker, names: Names::default(), database: Database::create().await })
    }

    /// An instance with these lines of configuration.
    pub fn instance(&self, lines: &str) -> Setup {
        let store = format!("store.url = \"{}\"", self.database.url());
        let setup = self.upstream.setup(PROGRAM).broker(&self.broker, &self.names);
        setup.config(LINES).config(&store).config(lines)
    }

    /// One that is to be killed, or is to go on with what one left behind that was.
    pub fn mortal(&self, lines: &str) -> Setup {
        self.instance(KILL_LINES).config(lines)
    }

    /// Messages that lie ready in the queues of so many partitions.
    pub async fn depth(&self, partitions: u16) -> u32 {
        let mut depth = 0;
        for queue in self.queues(partitions) {
            depth += self.broker.depth(&queue).await;
        }
        depth
    }

    pub fn queues(&self, partitions: u16) -> Vec<String> {
        let commands = &self.names.commands;
        match partitions {
            0 => vec![commands.clone()],
            _ => (0..partitions).map(|number| format!("{commands}.{partitions}.{number}")).collect(),
        }
    }

    /// Whether a queue is there.
    pub async fn is_there(&self, queue: &str) -> bool {
        let options = QueueDeclareOptions { passive: true, ..<_>::default() };
        let other = self.broker.again().await;
        other.channel().queue_declare(queue.into(), options, FieldTable::default()).await.is_ok()
    }

    /// Waits until so many PATCHes were applied from now on.
    pub async fn some(&self, count: u64) {
        let wanted = self.upstream.simulator.stats().applied + count;
        let reached = async {
            while self.upstream.simulator.stats().applied < wanted {
                look_again().await;
            }
        };
        if timeout(DEADLINE, reached).await.is_err() {
            let sql = "SELECT key, state, waiting, in_line, attempts, due_time - (extract(epoch FROM now()) * 1000000)::bigint
                FROM commands WHERE finished_time IS NULL OR state <> 'succeeded' ORDER BY arrival";
            let rows = self.database.connect().await.query(sql, &[]).await.unwrap();
            let line = |row: &tokio_postgres::Row| {
                let (key, state, due): (String, String, Option<i64>) = (row.get(0), row.get(1), row.get(5));
                let (waiting, in_line, attempts): (bool, bool, i64) = (row.get(2), row.get(3), row.get(4));
                format!(
                    "{key} {state} waiting {waiting} in line {in_line} attempts {attempts} due in {due:?} us"
                )
            };
            let open: Vec<_> = rows.iter().map(line).collect();
            panic!("commands are not worked on: {open:#?}");
        }
    }

    /// What the store says of a guest's commands, in order of arrival.
    async fn commands(&self, guest: Uuid) -> Vec<String> {
        let sql = "SELECT key, state, attempts, accepted_time, finished_time FROM commands
            WHERE starts_with(key, $1) ORDER BY arrival";
        let rows = self.database.connect().await.query(sql, &[&guest.to_string()]).await.unwrap();
        let line = |row: &tokio_postgres::Row| {
            let (key, state, attempts): (String, String, i64) = (row.get(0), row.get(1), row.get(2));
            let (accepted, finished): (i64, Option<i64>) = (row.get(3), row.get(4));
            format!("{key} {state} {attempts} {accepted} {finished:?}")
        };
        rows.iter().map(line).collect()
    }

    /// Waits until so many values of each guest were applied, in whatever order.
    pub async fn all(&self, guests: &[Uuid], count: usize) {
        for guest in guests {
            let all = async {
                while self.upstream.applied(*guest).len() < count {
                    look_again().await;
                }
            };
            let in_time = timeout(DEADLINE, all).await;
            let commands = if in_time.is_err() { self.commands(*guest).await } else { Vec::new() };
            assert!(in_time.is_ok(), "of {count}: {commands:#?}");
        }
    }

    /// Waits until the last value of each guest was applied, and asserts that every value was, in order: they alternate. One
    /// whose answer was lost by a kill may have been sent again.
    pub async fn finish(&self, guests: &[Uuid], count: usize) {
        let wanted: Vec<_> = (0..count).map(|number| number % 2 == 0).collect();
        for guest in guests {
            let mut applied = Vec::new();
            let reached = async {
                while applied != wanted {
                    applied = self.upstream.applied(*guest);
                    applied.dedup();
                    look_again().await;
                }
            };
            let in_time = timeout(DEADLINE, reached).await;
            let commands = if in_time.is_err() { self.commands(*guest).await } else { Vec::new() };
            assert!(in_time.is_ok(), "{} of {count}: {commands:#?}", applied.len());
        }
        assert_eq!(self.upstream.simulator.violations(), Vec::<String>::new());
        assert_eq!(self.broker.depth(&self.names.dead_letters).await, 0);
    }
}

/// So many commands of each guest are under way, at most: others would wait in the store for longer than they may be held.
const AHEAD: u64 = 4;

/// Publishes for some guests in turn, each time the other value, without an `issue_time`.
pub struct Load {
    pub guests: Vec<Uuid>,
    stop: CancellationToken,
    publishing: JoinHandle<usize>,
}

impl Load {
    pub async fn begin(stage: &Arc<Stage>, guests: usize) -> Self {
        let guests: Vec<_> = (0..guests).map(|_| Uuid::new_v4()).collect();
        let stop = CancellationToken::new();
        let broker = stage.broker.again().await;
        let names = stage.names.clone();
        let (stage, stopped, receivers) = (Arc::clone(stage), stop.clone(), guests.clone());
        let organization = stage.upstream.organizations[0].clone();
        let applied = move || stage.upstream.simulator.stats().applied;
        let publishing = tokio::spawn(async move {
            let (mut count, before) = (0, applied());
            while !stopped.is_cancelled() {
                if (count * receivers.len()) as u64 > applied() - before + AHEAD * receivers.len() as u64 {
                    look_again().await;
                    continue;
                }
                let messages = receivers.iter().map(|guest| {
                    let body = organization.message(*guest, count % 2 == 0, &format!("{guest}-{count}"));
                    (guest.to_string(), BasicProperties::default(), serde_json::to_vec(&body).unwrap())
                });
                // Each is confirmed, and none was returned.
                broker.publish_all(&names, messages.collect()).await;
                count += 1;
            }
            count
        });
        Self { guests, stop, publishing }
    }

    /// Stops it, and asserts that everything was applied in order.
    pub async fn end(self, stage: &Stage) {
        let (guests, count) = self.halt().await;
        stage.finish(&guests, count).await;
    }

    /// Stops it. Yields how many were published for each guest.
    pub async fn halt(self) -> (Vec<Uuid>, usize) {
        self.stop.cancel();
        (self.guests, self.publishing.await.unwrap())
    }
}

/// `partitions retire`, under way.
pub struct Retiring {
    child: Child,
    output: Lines<BufReader<ChildStdout>>,
    told: Vec<String>,
}

impl Retiring {
    pub fn begin(setup: &Setup) -> Self {
        setup.write();
        let mut command = Command::new(PROGRAM);
        command.args(["partitions", "retire", "--config", "adapter.toml"]).current_dir(setup.directory());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, output, told: Vec::new() }
    }

    /// Waits until it says something with this text in it.
    pub async fn says(mut self, text: &str) -> Self {
        loop {
            let line = timeout(2 * DEADLINE, self.output.next_line()).await.expect("it goes on").unwrap();
            let Some(line) = line else {
                let output = self.child.wait_with_output().await.unwrap();
                let faults = String::from_utf8_lossy(&output.stderr).into_owned();
                panic!("it does not say {text}: {:#?}\n{faults}", self.told)
            };
            self.told.push(line);
            if self.told.last().unwrap().contains(text) {
                return self;
            }
        }
    }

    /// Waits for its end. Yields how it ended, and all it said.
    pub async fn end(mut self) -> (ExitStatus, String) {
        let ended = async {
            while let Some(line) = self.output.next_line().await.unwrap() {
                self.told.push(line);
            }
            self.child.wait_with_output().await.unwrap()
        };
        let output = timeout(4 * DEADLINE, ended).await.expect("it ends");
        (output.status, format!("{}\n{}", self.told.join("\n"), String::from_utf8_lossy(&output.stderr)))
    }
}
