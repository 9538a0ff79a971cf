//! Counts how often a process has the disk write through, by `perf` and the kernel's tracepoints. Both are not everywhere, and
//! seldom for others than root: then nothing is counted.

use std::process::Stdio;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe::{OpenOptions, Receiver, Sender};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use crate::Outcome;

const EVENTS: &str = "syscalls:sys_enter_fsync,syscalls:sys_enter_fdatasync";

/// How long `perf` may take with an order.
const PATIENCE: Duration = Duration::from_secs(5);

/// What perf answers to an order. It ends each answer with a NUL as well, which then stands before the next one.
const DONE: &str = "ack\n";

/// A count under way.
pub struct Syncs {
    perf: Child,
    orders: Sender,
    answers: Receiver,
    folder: TempDir,
}

impl Syncs {
    /// Counts from now on, if that can be done here.
    pub async fn begin(pid: u32) -> Option<Self> {
        match timeout(PATIENCE, Self::try_begin(pid)).await {
            Ok(Ok(syncs)) => Some(syncs),
            Ok(Err(_)) | Err(_) => None,
        }
    }

    async fn try_begin(pid: u32) -> Outcome<Self> {
        let folder = harness::private_folder();
        let [orders, answers] = ["orders", "answers"].map(|name| folder.path().join(name));
        if !Command::new("mkfifo").args([&orders, &answers]).status().await?.success() {
            return Err("no mkfifo".into());
        }
        let open = |path| OpenOptions::new().read_write(true).open_sender(path);
        let (sender, receiver) =
            (open(&orders)?, OpenOptions::new().read_write(true).open_receiver(&answers)?);
        let control = format!("fifo:{},{}", orders.display(), answers.display());
        let perf = Command::new("perf")
            .args(["stat", "--field-separator", ",", "--event", EVENTS, "--delay=-1"])
            .args(["--control", &control, "--pid", &pid.to_string(), "--output"])
            .arg(folder.path().join("counts"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()?;
        let mut syncs = Self { perf, orders: sender, answers: receiver, folder };
        syncs.order("enable\n").await?;
        Ok(syncs)
    }

    /// Has perf do something, and waits until it is done or perf has ended.
    async fn order(&mut self, order: &str) -> Outcome {
        self.orders.write_all(order.as_bytes()).await?;
        let mut answer = String::new();
        while !answer.ends_with('\n') {
            tokio::select! {
                byte = self.answers.read_u8() => answer.push(byte?.into()),
                _ = self.perf.wait() => return Err("perf has ended".into()),
            }
        }
        if answer.trim_start_matches('\0') == DONE { Ok(()) } else { Err("perf did not understand".into()) }
    }

    /// How many there were since the beginning.
    pub async fn end(self) -> Option<u64> {
        timeout(PATIENCE, self.try_end()).await.ok()?.ok()
    }

    async fn try_end(mut self) -> Outcome<u64> {
        self.order("disable\n").await?;
        let pid = self.perf.id().ok_or("perf has ended")?.to_string();
        Command::new("kill").args(["-INT", &pid]).status().await?;
        self.perf.wait().await?;
        let text = tokio::fs::read_to_string(self.folder.path().join("counts")).await?;
        let counts = text.lines().filter(|line| line.contains("sys_enter_"));
        let counts: Result<Vec<u64>, _> =
            counts.map(|line| line.split(',').next().unwrap_or_default().parse()).collect();
        match counts? {
            counts if counts.len() == EVENTS.split(',').count() => Ok(counts.iter().sum()),
            _ => Err("perf did not count".into()),
        }
    }
}
