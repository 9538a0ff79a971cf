//! The adapter as a process of its own, as users run it.

use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use guest_connection_adapter::proto::guest_connection_service_client::GuestConnectionServiceClient;
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};
use tokio::time::{sleep, timeout};
use tonic::transport::Channel;
use uuid::Uuid;

use crate::broker::{Broker, Names};
use crate::lines::Lines;
use crate::organization::Organization;
use crate::{CLIENT_ID, DEADLINE};

/// The database file, below the directory of its adapter.
const STORE: &str = "var/adapter.db";

/// The configuration file, below the directory of its adapter.
const CONFIG: &str = "adapter.toml";

/// How an adapter is to be started.
#[derive(Clone)]
pub struct Setup {
    program: PathBuf,
    directory: Arc<TempDir>,
    config: String,
    environment: Vec<(String, String)>,
}

impl Setup {
    /// An adapter for `requester`, against the upstream at `base_url`. `program` is `env!("CARGO_BIN_EXE_...")`.
    #[must_use]
    pub fn new(program: impl Into<PathBuf>, base_url: &str, requester: Uuid) -> Self {
        Self::with_organizations(program, base_url, &[Organization::numbered(0, requester)])
    }

    /// The same for several organisations.
    #[must_use]
    pub fn with_organizations(
        program: impl Into<PathBuf>,
        base_url: &str,
        organizations: &[Organization],
    ) -> Self {
        let directory = Arc::new(crate::private_folder());
        let store = directory.path().join(STORE);
        let config = format!(
            r#"
grpc.listen = "127.0.0.1:0"
admin.listen = "127.0.0.1:0"
upstream.base_url = "{base_url}"
store.path = "{}"
telemetry.log_format = "json"
"#,
            store.display(),
        );
        let setup = Self { program: program.into(), directory, config, environment: Vec::new() };
        organizations.iter().fold(setup, Self::organization)
    }

    /// Adds an organisation with its secret in a file; one of the same name is replaced.
    #[must_use]
    pub fn organization(self, organization: &Organization) -> Self {
        let Organization { name, id, client_id, client_secret } = organization;
        // The first one's file has a name that tests know.
        let file = if client_id == CLIENT_ID { "client_secret".to_owned() } else { format!("{name}_secret") };
        let secret = secret_file(self.directory.path(), &file, client_secret);
        self.config(&format!(
            "organizations.{name} = {{ id = \"{id}\", client_id = \"{client_id}\", client_secret_file = \"{}\" }}",
            secret.display()
        ))
    }

    /// Adds lines of configuration, in dotted keys. They take the place of earlier ones with the same keys.
    #[must_use]
    pub fn config(mut self, lines: &str) -> Self {
        let key = |line: &str| line.split_once(" = ").map(|(key, _)| key.to_owned());
        let new: Vec<_> = lines.lines().filter_map(key).collect();
        let kept = self.config.lines().filter(|line| key(line).is_none_or(|key| !new.contains(&key)));
        self.config = kept.flat_map(|line| [line, "\n"]).collect();
        self.config.push_str(lines);
        self.config.push('\n');
        self
    }

    /// Takes the lines with this key out.
    #[must_use]
    pub fn without(mut self, key: &str) -> Self {
        let start = format!("{key} = ");
        self.config = self
            .config
            .lines()
            .filter(|line| !line.starts_with(&start))
            .flat_map(|line| [line, "\n"])
            .collect();
        self
    }

    /// Writes the configuration to its file, which the running adapter may then read again.
    pub fn write(&self) {
        replace_file(&self.directory.path().join(CONFIG), &self.config);
    }

    /// Adds a variable to the environment of the process.
    #[must_use]
    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Adds the broker, under names of the test's own.
    #[must_use]
    pub fn broker(self, broker: &Broker, names: &Names) -> Self {
        self.broker_at(&broker.address(), names)
    }

    /// Adds the broker at an address without credentials, which may be a proxy's.
    #[must_use]
    pub fn broker_at(self, address: &str, names: &Names) -> Self {
        let lines = format!(
            r#"
amqp.uri = "{address}"
amqp.commands_exchange = "{}"
amqp.commands_queue = "{}"
amqp.dead_letters_exchange = "{}"
amqp.dead_letters_queue = "{}"
amqp.events_exchange = "{}"
amqp.reconnect_delay_base = "100ms"
amqp.reconnect_delay_max = "1s"
relay.retry_delay_base = "100ms"
relay.retry_delay_max = "1s"
"#,
            names.commands, names.commands, names.dead_letters, names.dead_letters, names.events
        );
        self.config(&lines)
    }

    /// The configuration as it is written to the file.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.config
    }

    /// Where the store, the secrets and the configuration lie.
    #[must_use]
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &Path {
        &self.program
    }

    /// The database file of the store. It is there once the adapter has been started.
    #[must_use]
    pub fn store(&self) -> PathBuf {
        self.directory.path().join(STORE)
    }

    /// The process, about to be started.
    fn command(&self) -> Command {
        let file = self.directory.path().join(CONFIG);
        self.write();
        let mut command = Command::new(&self.program);
        command
            .args(["serve", "--config"])
            .arg(&file)
            .current_dir(self.directory.path())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Starts a process that is not expected to stay, and yields its exit status and its log.
    pub async fn start_in_vain(&self) -> (ExitStatus, String) {
        let output = timeout(DEADLINE, self.command().output()).await.expect("it ends by itself");
        let output = output.expect("the adapter starts");
        (output.status, String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// Starts the process and waits until it listens. Not necessarily ready.
    pub async fn start(&self) -> Adapter {
        let started = self.try_start().await;
        started.unwrap_or_else(|lines| panic!("the adapter did not start:\n{}", lines.join("\n")))
    }

    /// The same for a process that may end instead, as it does without its database.
    ///
    /// # Errors
    /// Its log, if it has not started.
    pub async fn try_start(&self) -> Result<Adapter, Vec<String>> {
        let mut child = self.command().spawn().expect("the adapter starts");
        let log = Lines::follow(child.stderr.take().expect("a pipe"));
        let output = Lines::follow(child.stdout.take().expect("a pipe"));
        let started = log.wait_for(DEADLINE, |line| line.contains("the adapter is started")).await?;
        let directory = self.directory.clone();
        Ok(Adapter {
            grpc: address(&started, "grpc.listen"),
            admin: address(&started, "admin.listen"),
            child,
            log,
            output,
            _directory: directory,
        })
    }

    /// Starts the process and waits until it is ready.
    pub async fn start_ready(&self) -> Adapter {
        let adapter = self.start().await;
        adapter.ready().await;
        adapter
    }
}

/// Puts a file that only its owner can read in the place of another, as a whole.
pub fn replace_file(path: &Path, text: &str) {
    let name = format!("{}.new", path.file_name().expect("a name").to_string_lossy());
    let new = secret_file(path.parent().expect("a directory"), &name, text);
    std::fs::rename(new, path).expect("the file is replaced");
}

/// Writes a file that only its owner can read.
pub fn secret_file(directory: &Path, name: &str, secret: &str) -> PathBuf {
    use std::io::Write as _;
    let path = directory.join(name);
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(&path);
    file.and_then(|mut file| file.write_all(secret.as_bytes())).expect("the secret is written");
    path
}

/// A running adapter. Dropping it kills it.
pub struct Adapter {
    /// Where the gRPC door listens.
    pub grpc: SocketAddr,
    /// Where the admin port listens.
    pub admin: SocketAddr,
    child: Child,
    log: Lines,
    output: Lines,
    /// Where the store lies; kept for as long as the process runs.
    _directory: Arc<TempDir>,
}

impl Adapter {
    /// Waits until `/readyz` says yes.
    pub async fn ready(&self) {
        self.readiness(|status, _| status == 200).await;
    }

    /// Waits until `/readyz/calls` says yes: calls are served, whether messages are taken in or not.
    pub async fn takes_calls(&self) {
        let taking = async {
            while !matches!(crate::http::get(self.admin, "/readyz/calls").await, Some((200, _))) {
                crate::look_again().await;
            }
        };
        let in_time = timeout(DEADLINE, taking).await;
        assert!(in_time.is_ok(), "it takes no calls:\n{}", self.log.all().join("\n"));
    }

    /// Waits until `/readyz` answers as wanted, and yields the body.
    pub async fn readiness(&self, wanted: impl Fn(u16, &Value) -> bool) -> Value {
        let mut last = String::new();
        let answer = async {
            loop {
                if let Some((status, body)) = crate::http::get(self.admin, "/readyz").await {
                    let value = serde_json::from_str(&body).unwrap_or(Value::Null);
                    if wanted(status, &value) {
                        return value;
                    }
                    last = format!("{status} {body}");
                }
                sleep(Duration::from_millis(20)).await;
            }
        };
        match timeout(DEADLINE, answer).await {
            Ok(value) => value,
            Err(_elapsed) => {
                panic!("readiness did not become as wanted: {last}\n{}", self.log.all().join("\n"))
            }
        }
    }

    /// Every series as `/metrics` shows it.
    pub async fn metrics(&self) -> String {
        let (status, text) = crate::http::get(self.admin, "/metrics").await.expect("the admin port answers");
        assert_eq!(status, 200, "{text}");
        text
    }

    /// The value of the series that a line of metrics begins with, once it is as wanted.
    ///
    /// # Panics
    /// It does not become so.
    pub async fn metric(&self, series: &str, wanted: impl Fn(f64) -> bool) -> f64 {
        let found = async {
            loop {
                let text = self.metrics().await;
                let value =
                    text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok());
                if let Some(value) = value.filter(|value| wanted(*value)) {
                    return value;
                }
                crate::look_again().await;
            }
        };
        match timeout(DEADLINE, found).await {
            Ok(value) => value,
            Err(_elapsed) => panic!("{series} did not become as wanted:\n{}", self.metrics().await),
        }
    }

    /// A client on a connection of its own.
    pub async fn client(&self) -> GuestConnectionServiceClient<Channel> {
        let endpoint = Channel::from_shared(format!("http://{}", self.grpc)).expect("an address");
        GuestConnectionServiceClient::new(endpoint.connect().await.expect("the gRPC door answers"))
    }

    /// Where the gRPC door is, as clients want it.
    #[must_use]
    pub fn grpc_address(&self) -> String {
        format!("http://{}", self.grpc)
    }

    /// The process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id().expect("the adapter runs")
    }

    /// The log so far.
    #[must_use]
    pub fn log(&self) -> &Lines {
        &self.log
    }

    /// Standard output so far: events, where there is no broker.
    #[must_use]
    pub fn output(&self) -> &Lines {
        &self.output
    }

    /// SIGKILL.
    pub async fn kill(mut self) -> Vec<String> {
        self.child.kill().await.expect("the adapter is killed");
        self.log.all()
    }

    /// SIGTERM, and the exit status.
    pub async fn terminate(mut self) -> (ExitStatus, Vec<String>) {
        self.signal("TERM").await;
        let status = timeout(DEADLINE, self.child.wait()).await;
        let status = status.unwrap_or_else(|_| panic!("no exit:\n{}", self.log.all().join("\n")));
        (status.expect("an exit status"), self.log.all())
    }

    /// Sends a signal by its name.
    pub async fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid().to_string()).status().await;
        assert!(status.expect("kill runs").success());
    }
}

/// A log line as a record.
#[must_use]
pub fn record(line: &str) -> Option<Value> {
    serde_json::from_str(line).ok()
}

/// The address in the field `name` of a log line, whatever its form.
fn address(line: &str, name: &str) -> SocketAddr {
    let rest = line.split(name).nth(1).unwrap_or_else(|| panic!("no {name} in {line}"));
    let value = rest.trim_start_matches(['"', ':', '=']).split(['"', ' ']).next();
    value.unwrap_or_default().parse().unwrap_or_else(|_| panic!("no {name} in {line}"))
}

/// A field of a log record, wherever the format puts it.
#[must_use]
pub fn field<'a>(record: &'a Value, name: &str) -> Option<&'a str> {
    record.get(name).or_else(|| record.get("fields")?.get(name))?.as_str()
}
