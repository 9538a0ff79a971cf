//! A PostgreSQL server of one's own, to be stopped, started again, frozen and locked, by `scripts/database`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;
use uuid::Uuid;

use crate::adapter::secret_file;
use crate::database::Database;
use crate::tls::Issued;

/// A server. Dropping it stops it and removes its files.
pub struct Server {
    name: String,
    url: String,
    folder: PathBuf,
    pid: u32,
}

impl Server {
    /// Starts a new one, which takes some seconds.
    pub async fn start() -> Self {
        let name = format!("own-{}", Uuid::new_v4().simple());
        // Held from the first moment on, so that a start that fails leaves nothing behind either.
        let mut server = Self { name, url: String::new(), folder: PathBuf::new(), pid: 0 };
        server.up().await;
        server
    }

    /// Starts it again, at the same port.
    pub async fn up(&mut self) {
        self.script(&["start"]).await;
        let variables = self.script(&["env"]).await;
        let variable = |name: &str| {
            let line = variables.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.unwrap_or_else(|| panic!("no {name} in {variables}")).to_owned()
        };
        let url = variable("DATABASE_URL");
        assert!(self.url.is_empty() || self.url == url, "somebody has taken its port meanwhile");
        self.url = url;
        self.folder = PathBuf::from(variable("DATABASE_DIR"));
        self.pid = variable("DATABASE_PID").parse().expect("a process id");
    }

    /// Ends it as a crash does, without a last word to clients or disk (`pg_ctl stop -m immediate`).
    pub async fn crash(&self) {
        let status = Command::new("kill").arg("-QUIT").arg(self.pid.to_string()).status().await;
        assert!(status.expect("kill runs").success());
        self.script(&["stop"]).await;
    }

    /// Where clients find it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Where it listens. It stays the same for the server's life.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        let (_, place) = self.url.rsplit_once('@').expect("a URL with a user");
        place.split('/').next().and_then(|address| address.parse().ok()).expect("a URL with an address")
    }

    /// Where clients find it by way of a proxy at `address`.
    #[must_use]
    pub fn url_at(&self, address: SocketAddr) -> String {
        self.url.replace(&self.address().to_string(), &address.to_string())
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

    /// Ends it in order, and its clients' connections with it (`pg_ctl stop -m fast`).
    pub async fn down(&self) {
        self.script(&["stop"]).await;
    }

    /// A new database on it.
    pub async fn database(&self) -> Database {
        Database::create_at(&self.url).await
    }

    /// Lets it speak TLS with new connections that want it.
    pub async fn encrypt(&self, issued: &Issued) {
        let certificate = secret_file(&self.folder, "server.crt", &issued.certificate_pem);
        let key = secret_file(&self.folder, "server.key", &issued.key_pem);
        self.give(&[&certificate, &key]);
        let settings = [
            format!("ALTER SYSTEM SET ssl_cert_file = '{}'", certificate.display()),
            format!("ALTER SYSTEM SET ssl_key_file = '{}'", key.display()),
            "ALTER SYSTEM SET ssl = on".to_owned(),
            "SELECT pg_reload_conf()".to_owned(),
        ];
        let database = self.database().await;
        let client = database.connect().await;
        for sql in settings {
            client.batch_execute(&sql).await.expect("it is set");
        }
        // The server takes it up by itself, soon.
        let shows = async {
            loop {
                let client = database.connect().await;
                let row = client.query_one("SHOW ssl", &[]).await.expect("it is told");
                if row.get::<_, &str>(0) == "on" {
                    return;
                }
                crate::look_again().await;
            }
        };
        tokio::time::timeout(crate::DEADLINE, shows).await.expect("it speaks TLS");
    }

    /// Where the server runs as another user, it has to own its key.
    fn give(&self, files: &[&Path]) {
        use std::os::unix::fs::MetadataExt as _;
        let owner = std::fs::metadata(self.folder.join("data")).expect("its data");
        for file in files {
            std::os::unix::fs::chown(file, Some(owner.uid()), Some(owner.gid())).expect("it is given");
        }
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
        // What is left is removed when this process has ended.
        let _ = command.arg("remove").env("DATABASE_NAME", &self.name).stdin(Stdio::null()).status();
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/database")
}
