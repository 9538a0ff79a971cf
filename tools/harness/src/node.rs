//! A RabbitMQ node of one's own, to be stopped, frozen and looked into, by `scripts/broker`.

use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::process::Command;
use tokio::sync::{Mutex, MutexGuard};

use crate::broker::Broker;

static SHARED: Mutex<Option<Node>> = Mutex::const_new(None);

/// A node. Dropping it stops it and removes its files, but for those of a test that failed, whose logs are kept for a
/// while.
pub struct Node {
    name: String,
    folder: PathBuf,
    uri: String,
    address: SocketAddr,
    pid: u32,
    /// The folder with its certificates, and the port at which it speaks TLS.
    tls: Option<(PathBuf, u16)>,
}

impl Node {
    /// Starts a new node, which takes some seconds.
    pub async fn start() -> Self {
        Self::start_new(None).await
    }

    /// The same, listening with TLS too. `folder` holds ca.pem, certificate.pem and key.pem; clients need a certificate of
    /// that authority.
    pub async fn start_with_tls(folder: &Path) -> Self {
        Self::start_new(Some((folder.to_owned(), 0))).await
    }

    async fn start_new(tls: Option<(PathBuf, u16)>) -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("run-{}-{number}", std::process::id());
        // Held from the first moment on, so that a start that fails leaves nothing behind either.
        let mut node = Self {
            name,
            folder: PathBuf::new(),
            uri: String::new(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            pid: 0,
            tls,
        };
        node.up().await;
        node
    }

    /// The node that the tests of one process use in turn, since a start takes time. A test that fails takes it down.
    pub async fn shared() -> SharedNode {
        let mut node = SHARED.lock().await;
        if node.is_none() {
            *node = Some(Self::start().await);
        }
        SharedNode(node)
    }

    /// Where clients find it, credentials included.
    #[must_use]
    pub fn uri(&self) -> &str {
        &self.uri
    }

    /// Where it listens. It stays the same for the node's life.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The port at which it speaks TLS.
    #[must_use]
    pub fn tls_port(&self) -> u16 {
        self.tls.as_ref().expect("a node that was started with TLS").1
    }

    /// A client of it.
    pub async fn connect(&self) -> Broker {
        Broker::connect_to(&self.uri).await
    }

    /// Starts it again.
    pub async fn up(&mut self) {
        self.script(&["start"]).await;
        let variables = self.script(&["env"]).await;
        let variable = |name: &str| {
            let line = variables.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_else(|| panic!("no {name} in {variables}")).to_owned()
        };
        self.folder = PathBuf::from(variable("BROKER_DIR"));
        self.uri = variable("AMQP_URI");
        let port: u16 = variable("AMQP_PORT").parse().expect("a port");
        self.address.set_port(port);
        if let Some((_, port)) = &mut self.tls {
            *port = variable("AMQPS_PORT").parse().expect("a port");
        }
        self.pid = variable("AMQP_PID").parse().expect("a process id");
    }

    /// Stops it, as an operator does. Its data stay.
    pub async fn down(&self) {
        self.script(&["stop"]).await;
    }

    /// Stops it and starts it again.
    pub async fn restart(&mut self) {
        self.down().await;
        self.up().await;
    }

    /// Kills it, as a power cut does. [`Self::up`] starts it again.
    pub async fn kill(&self) {
        self.signal("KILL").await;
        self.script(&["stop"]).await;
    }

    /// Halts its process: connections stay, and nothing moves on them.
    pub async fn freeze(&self) {
        self.signal("STOP").await;
    }

    /// Lets it go on.
    pub async fn thaw(&self) {
        self.signal("CONT").await;
    }

    /// `rabbitmqctl` against it. Yields what it prints.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        let arguments: Vec<_> = std::iter::once("ctl").chain(arguments.iter().copied()).collect();
        self.script(&arguments).await
    }

    /// Evaluates an Erlang expression on it, which is much quicker than [`Self::ctl`]. Yields the result as Erlang writes it.
    pub async fn eval(&self, expression: &str) -> String {
        self.script(&["eval", expression]).await.trim().to_owned()
    }

    /// What it has logged.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.join("log/rabbitmq.log")).expect("the node's log")
    }

    async fn signal(&self, name: &str) {
        let status = Command::new("kill").arg(format!("-{name}")).arg(self.pid.to_string()).status().await;
        assert!(status.expect("kill runs").success());
    }

    async fn script(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(script());
        command.args(arguments).stdin(Stdio::null());
        // The node ends with this process, even if that is killed.
        command.env("BROKER_NAME", &self.name).env("BROKER_OWNER", std::process::id().to_string());
        if let Some((folder, _)) = &self.tls {
            command.env("BROKER_TLS", folder);
        }
        let output = command.output().await.expect("scripts/broker runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let faults = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "scripts/broker {arguments:?}: {}\n{text}\n{faults}", output.status);
        text
    }
}

/// A turn with the shared node. It ends with the test process.
pub struct SharedNode(MutexGuard<'static, Option<Node>>);

impl Deref for SharedNode {
    type Target = Node;

    fn deref(&self) -> &Node {
        self.0.as_ref().expect("started")
    }
}

impl DerefMut for SharedNode {
    fn deref_mut(&mut self) -> &mut Node {
        self.0.as_mut().expect("started")
    }
}

impl Drop for SharedNode {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Frozen, blocked or stopped: it is of no use to the next one.
            self.0.take();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let mut command = std::process::Command::new(script());
        command.arg("stop").env("BROKER_NAME", &self.name).stdin(Stdio::null());
        let stopped = command.status().is_ok_and(|status| status.success());
        if stopped && !std::thread::panicking() && !self.folder.as_os_str().is_empty() {
            // What is left is removed by a later run.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/broker")
}
