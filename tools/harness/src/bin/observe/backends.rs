//! Jaeger, the collector and Prometheus as processes of their own, on free ports, with the files of `deploy/observability`.

use std::fs::{self, File};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use harness::DEADLINE;
use reqwest::Url;
use serde_json::Value;
use tokio::process::{Child, Command};
use tokio::time::timeout;
use uuid::Uuid;

use crate::Outcome;

/// Ports are drawn anew when another process took one before it was bound.
const START_ATTEMPTS_MAX: usize = 5;

/// How long a process has to end by itself.
const END_DEADLINE: Duration = Duration::from_secs(10);

/// Lines of a log that are shown when its process did not start.
const LOG_LINES: usize = 15;

/// A process. Dropping it kills it.
pub struct Backend {
    name: &'static str,
    child: Child,
    log: PathBuf,
}

impl Backend {
    /// Starts it, with its output in a file, and waits until `health` answers.
    async fn start(name: &'static str, command: &mut Command, log: PathBuf, health: &str) -> Outcome<Self> {
        let output = File::create(&log)?;
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).kill_on_drop(true);
        let child = command.spawn().map_err(|error| format!("{name} cannot be started: {error}"))?;
        let mut backend = Self { name, child, log };
        let healthy = async {
            while get(health).await.is_err() {
                if let Some(status) = backend.child.try_wait()? {
                    return Err(format!("{name} ended with {status}:\n{}", backend.last_words()).into());
                }
                harness::look_again().await;
            }
            Ok(())
        };
        match timeout(DEADLINE, healthy).await {
            Ok(outcome) => outcome.map(|()| backend),
            Err(_elapsed) => Err(format!("{name} did not answer at {health}").into()),
        }
    }

    fn last_words(&self) -> String {
        let text = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
    }

    /// Ends it, by its process id. It is a fault if it has ended before.
    pub async fn end(mut self) -> Outcome {
        if let Some(status) = self.child.try_wait()? {
            return Err(format!("{} ended before its time, with {status}", self.name).into());
        }
        if let Some(pid) = self.child.id() {
            Command::new("kill").arg("-TERM").arg(pid.to_string()).stderr(Stdio::null()).status().await?;
        }
        if timeout(END_DEADLINE, self.child.wait()).await.is_err() {
            self.child.kill().await?;
            return Err(format!("{} had to be killed", self.name).into());
        }
        Ok(())
    }
}

/// Where the three can be reached.
#[derive(Debug, Clone)]
pub struct Places {
    /// The collector's receiver of OTLP/gRPC, as a URL.
    pub otlp: String,
    /// Jaeger's query API.
    pub jaeger: String,
    /// Prometheus.
    pub prometheus: String,
}

/// All three.
pub struct Backends {
    /// Where they are.
    pub places: Places,
    /// The collector, until it is stopped.
    pub collector: Option<Backend>,
    jaeger: Backend,
    prometheus: Backend,
    folder: PathBuf,
}

/// What there is to start them with.
pub struct Means {
    /// Jaeger's program, which can be a collector as well.
    pub jaeger: PathBuf,
    /// The folder `deploy/observability`.
    pub shipped: PathBuf,
    /// An empty folder for logs, data and configuration.
    pub folder: PathBuf,
}

impl Backends {
    /// Starts all three. Prometheus has to be told of the adapter later: [`Self::scrape`].
    pub async fn start(means: &Means, token: &str) -> Outcome<Self> {
        for attempt in 1.. {
            match Self::try_start(means, token).await {
                Err(error)
                    if attempt < START_ATTEMPTS_MAX
                        && error.to_string().contains("address already in use") => {}
                outcome => return outcome,
            }
        }
        unreachable!("the last attempt returns")
    }

    async fn try_start(means: &Means, token: &str) -> Outcome<Self> {
        let [received, queried, called, health, metrics] = free_ports();
        let [otlp, collected, scraped, _] = free_ports();
        let Means { jaeger: program, shipped, folder } = means;
        let place = |port: u16| format!("127.0.0.1:{port}");
        let url = |port: u16, path: &str| format!("http://127.0.0.1:{port}{path}");

        let mut command = Command::new(program);
        command.arg("--config").arg(shipped.join("jaeger.yaml")).envs([
            ("JAEGER_OTLP", place(received)),
            ("JAEGER_QUERY_HTTP", place(queried)),
            ("JAEGER_QUERY_GRPC", place(called)),
            ("JAEGER_HEALTH", place(health)),
            ("JAEGER_METRICS_HOST", "127.0.0.1".to_owned()),
            ("JAEGER_METRICS_PORT", metrics.to_string()),
        ]);
        let jaeger =
            Backend::start("jaeger", &mut command, folder.join("jaeger.log"), &url(health, "/status"))
                .await?;

        let mut command = Command::new(program);
        command.arg("--config").arg(shipped.join("otel-collector.yaml")).envs([
            ("COLLECTOR_OTLP", place(otlp)),
            ("JAEGER_OTLP", place(received)),
            ("COLLECTOR_METRICS_HOST", "127.0.0.1".to_owned()),
            ("COLLECTOR_METRICS_PORT", collected.to_string()),
        ]);
        let (log, health) = (folder.join("collector.log"), url(collected, "/metrics"));
        let collector = Backend::start("the collector", &mut command, log, &health).await?;

        configure_prometheus(shipped, folder, token)?;
        write_targets(folder, "adapter", &[]);
        write_targets(folder, "telemetry", &[place(collected), place(metrics), place(scraped)]);
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", folder.join("prometheus/prometheus.yml").display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("prometheus/data").display()))
            .arg(format!("--web.listen-address={}", place(scraped)))
            .arg("--enable-feature=exemplar-storage");
        let (log, health) = (folder.join("prometheus.log"), url(scraped, "/-/ready"));
        let prometheus = Backend::start("prometheus", &mut command, log, &health).await?;

        let places = Places { otlp: url(otlp, ""), jaeger: url(queried, ""), prometheus: url(scraped, "") };
        Ok(Self { places, collector: Some(collector), jaeger, prometheus, folder: folder.clone() })
    }

    /// Tells Prometheus where the adapter's admin port is. It follows the file.
    pub fn scrape(&self, adapter: &str) {
        write_targets(&self.folder, "adapter", &[adapter.to_owned()]);
    }

    /// Ends what still runs.
    pub async fn end(self) -> Outcome {
        if let Some(collector) = self.collector {
            collector.end().await?;
        }
        self.prometheus.end().await?;
        self.jaeger.end().await
    }
}

/// Puts the shipped configuration and rules where Prometheus finds targets and token of this run beside them.
fn configure_prometheus(shipped: &Path, folder: &Path, token: &str) -> Outcome {
    let place = folder.join("prometheus");
    for part in ["rules", "targets", "secrets"] {
        fs::create_dir_all(place.join(part))?;
    }
    fs::copy(shipped.join("prometheus.yml"), place.join("prometheus.yml"))?;
    if let Ok(rules) = fs::read_dir(shipped.join("rules")) {
        for rule in rules.flatten().filter(|rule| rule.path().extension().is_some_and(|it| it == "yaml")) {
            fs::copy(rule.path(), place.join("rules").join(rule.file_name()))?;
        }
    }
    harness::adapter::secret_file(&place.join("secrets"), "admin_token", token);
    Ok(())
}

/// Writes a file of targets, which is JSON and so YAML too.
fn write_targets(folder: &Path, job: &str, addresses: &[String]) {
    let text = serde_json::json!([{ "targets": addresses }]).to_string();
    harness::adapter::replace_file(&folder.join(format!("prometheus/targets/{job}.yaml")), &text);
}

/// Ports on which nothing listens now, below the range from which the kernel takes those of outgoing connections.
fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    // Held until all are drawn, so that no two are the same.
    let mut held = Vec::new();
    [(); COUNT].map(|()| {
        loop {
            let (_, drawn, _, _) = Uuid::new_v4().as_fields();
            let port = 20_000 + drawn % 12_000;
            if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
                held.push(listener);
                return port;
            }
        }
    })
}

/// The body of a GET that was answered well.
pub async fn get(url: &str) -> Outcome<String> {
    Ok(reqwest::get(url).await?.error_for_status()?.text().await?)
}

/// The same with a query, as JSON.
pub async fn ask(url: &str, query: &[(&str, &str)]) -> Outcome<Value> {
    let url = Url::parse_with_params(url, query)?;
    Ok(serde_json::from_str(&get(url.as_str()).await?)?)
}
