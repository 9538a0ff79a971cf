//! A PostgreSQL server of one's own, to be stopped, frozen and looked into, by `scripts/database`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::process::Command;
use tokio_postgres::{Client, NoTls};

/// A server. Dropping it stops it and removes its files.
pub struct Server {
    name: String,
    folder: PathBuf,
    url: String,
    address: SocketAddr,
    pid: u32,
}

impl Server {
    /// Starts a new server, which takes a second or two.
    pub async fn start() -> Self {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        // Held from the first moment on, so that a start that fails leaves nothing behind either.
        let mut server = Self {
            name: format!("run-{}-{number}", std::process::id()),
            folder: PathBuf::new(),
            url: String::new(),
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            pid: 0,
        };
        server.up().await;
        server
    }

    /// Where clients find it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where clients find it by way of a proxy at `address`.
    #[must_use]
    pub fn url_at(&self, address: SocketAddr) -> String {
        self.url.replace(&self.address.to_string(), &address.to_string())
    }

    /// Where it listens. It stays the same for the server's life.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// A client of it.
    ///
    /// # Errors
    /// It is not there.
    pub async fn connect(&self) -> Result<Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::connect(&self.url, NoTls).await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// Starts it again.
    pub async fn up(&mut self) {
        self.script(&["start"]).await;
        let variables = self.script(&["env"]).await;
        let variable = |name: &str| {
            let line = variables.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_else(|| panic!("no {name} in {variables}")).to_owned()
        };
        self.folder = PathBuf::from(variable("DATABASE_DIR"));
        self.url = variable("DATABASE_URL");
        self.address.set_port(variable("DATABASE_PORT").parse().expect("a port"));
        self.pid = variable("DATABASE_PID").parse().expect("a process id");
    }

    /// Stops it in order, without waiting for its clients ("fast"). Its data stay.
    pub async fn down(&self) {
        self.script(&["stop"]).await;
    }

    /// Stops it at once, as a crash does ("immediate"): at the next start it recovers from its log.
    pub async fn down_at_once(&self) {
        signal("QUIT", &[self.pid]).await;
        self.script(&["stop"]).await;
    }

    /// Halts all its processes: connections stay, and nothing moves on them.
    pub async fn freeze(&self) {
        // First the one that starts the others.
        signal("STOP", &[self.pid]).await;
        signal("STOP", &self.backends()).await;
    }

    /// Lets them go on.
    pub async fn thaw(&self) {
        signal("CONT", &self.backends()).await;
        signal("CONT", &[self.pid]).await;
    }

    fn backends(&self) -> Vec<u32> {
        let path = format!("/proc/{0}/task/{0}/children", self.pid);
        let children = std::fs::read_to_string(path).unwrap_or_default();
        children.split_whitespace().map(|pid| pid.parse().expect("a process id")).collect()
    }

    async fn script(&self, arguments: &[&str]) -> String {
        let mut command = Command::new(script());
        command.args(arguments).stdin(Stdio::null());
        // The server ends with this process, even if that is killed.
        command.env("DATABASE_NAME", &self.name).env("DATABASE_OWNER", std::process::id().to_string());
        let output = command.output().await.expect("scripts/database runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let faults = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "scripts/database {arguments:?}: {}\n{text}\n{faults}",
            output.status
        );
        text
    }
}

/// Some of them may be gone: backends end with their clients.
async fn signal(name: &str, pids: &[u32]) {
    let pids = pids.iter().map(ToString::to_string);
    let killed = Command::new("kill").arg(format!("-{name}")).args(pids).stderr(Stdio::null()).status().await;
    killed.expect("kill runs");
}

impl Drop for Server {
    fn drop(&mut self) {
        // Frozen ones would outlive it.
        let backends = self.backends().into_iter().map(|pid| pid.to_string());
        let _ = std::process::Command::new("kill").arg("-CONT").args(backends).stderr(Stdio::null()).status();
        let mut command = std::process::Command::new(script());
        command.arg("stop").env("DATABASE_NAME", &self.name).stdin(Stdio::null());
        let stopped = command.status().is_ok_and(|status| status.success());
        if stopped && !std::thread::panicking() && !self.folder.as_os_str().is_empty() {
            // What is left is removed by a later run.
            let _ = std::fs::remove_dir_all(&self.folder);
        }
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/database")
}
