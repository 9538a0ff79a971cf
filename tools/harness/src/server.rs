//! A PostgreSQL server of one's own, to be stopped, started again and locked, by `scripts/database`.

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

impl Drop for Server {
    fn drop(&mut self) {
        let mut command = std::process::Command::new(script());
        // What is left is removed when this process has ended.
        let _ = command.arg("remove").env("DATABASE_NAME", &self.name).stdin(Stdio::null()).status();
    }
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../scripts/database")
}
