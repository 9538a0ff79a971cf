//! `make observe`: the adapter with demo traffic, its traces in a real Jaeger by way of a real collector, its metrics in a real
//! Prometheus; and both asked, by their own APIs, whether they have what they should have.
//!
//! `scripts/observe` has the programs and a broker ready. The configurations are those of `deploy/observability`.
//!
//! - `backends`: the three as processes
//! - `traffic`: callers, producers, a consumer
//! - `traces`: what Jaeger has
//! - `series`: what Prometheus has

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is there to print")]

mod backends;
mod series;
mod traces;
mod traffic;

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use harness::{Adapter, Broker, Names, Upstream};
use simulator::Rule;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use uuid::Uuid;

use backends::{Backends, Means, Places};
use traffic::{Callers, Teller};

type Outcome<T = ()> = Result<T, Box<dyn Error + Send + Sync>>;

/// How long until spans are where they are looked for.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long is looked for spans that should not come.
const NOT_COMING: Duration = Duration::from_secs(5);

/// Targets of Prometheus: the adapter, the collector, Jaeger, itself.
const TARGETS: usize = 4;

/// A deferred command comes again soon.
const LINES: &str = r#"
upstream.connect_timeout = "1s"
upstream.attempt_timeout = "2s"
upstream.command_timeout = "3s"
upstream.retry_delay_base = "50ms"
upstream.retry_delay_max = "100ms"
upstream.settle = "1s"
"#;

/// Longer than a command may take at a time.
const RETRY_AFTER: &str = "4";

#[tokio::main]
async fn main() -> ExitCode {
    let is_once = std::env::args().nth(1).is_some_and(|argument| argument == "once");
    match run(is_once).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("observe: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(is_once: bool) -> Outcome {
    let mut signals = Signals::listen()?;
    // What is dropped on the way is killed.
    let stage = tokio::select! {
        stage = show(is_once) => stage?,
        () = signals.next() => return Err("stopped before the end".into()),
    };
    if !is_once {
        println!("\nIt goes on until Ctrl-C.");
        signals.next().await;
    }
    stage.end(is_once).await?;
    println!("Everything that was started is stopped.");
    Ok(())
}

/// The wish to end, from a terminal or from `scripts/broker`.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn listen() -> Outcome<Self> {
        let (interrupt, terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        Ok(Self { interrupt, terminate })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// Asks again until it is answered well, or tells the last fault when the time is over.
async fn by<T>(patience: Duration, ask: impl AsyncFn() -> Outcome<T>) -> Outcome<T> {
    let until = Instant::now() + patience;
    loop {
        match ask().await {
            Err(_) if Instant::now() < until => tokio::time::sleep(Duration::from_millis(200)).await,
            outcome => return outcome,
        }
    }
}

fn title(text: &str) {
    println!("\n{text}\n{}", "-".repeat(text.len()));
}

async fn show(is_once: bool) -> Outcome<Stage> {
    let mut stage = Stage::set().await?;
    let places = stage.backends.places.clone();

    title("1. The traces, as Jaeger has them");
    stage.call().await?;
    stage.messages().await?;

    title("2. The series, as Prometheus has them");
    series::targets_are_up(&places, TARGETS).await?;
    series::rules_are_loaded(&places, &stage.folder.join("prometheus/rules")).await?;
    series::queries_are_answered(&places).await?;

    if is_once {
        title("3. The same without the collector");
        stage.lose_collector().await?;
    } else {
        title("3. Look for yourself");
        stage.print_places().await;
    }
    Ok(stage)
}

/// Everything that takes part.
struct Stage {
    background: JoinHandle<()>,
    callers: Callers,
    adapter: Adapter,
    upstream: Upstream,
    backends: Backends,
    folder: PathBuf,
}

impl Stage {
    async fn set() -> Outcome<Self> {
        let program = std::env::current_exe()?.with_file_name("guest-connection-adapter");
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize()?;
        let folder = PathBuf::from(std::env::var("OBSERVE_DIR").map_err(|_| "run it by `make observe`")?);
        let jaeger = PathBuf::from(std::env::var("JAEGER").map_err(|_| "run it by `make observe`")?);
        let means = Means { jaeger, shipped: root.join("deploy/observability"), folder: folder.clone() };
        let token = Uuid::new_v4().simple().to_string();
        let backends = Backends::start(&means, &token).await?;
        let places = &backends.places;

        let (upstream, broker) = (Upstream::start().await, Broker::connect().await);
        let setup = upstream
            .setup(program)
            .broker(&broker, &Names::usual())
            .config(LINES)
            .config(&format!("telemetry.otlp_endpoint = \"{}\"\ntelemetry.otlp_logs = true", places.otlp))
            .env("GCA_ADMIN__TOKEN", &token);
        let adapter = setup.start_ready().await;
        backends.scrape(&adapter.admin.to_string());
        println!("The adapter runs as process {}, and beside it:", adapter.pid());
        println!("  Jaeger      {}", places.jaeger);
        println!("  collector   {} (OTLP/gRPC)", places.otlp);
        println!("  Prometheus  {}", places.prometheus);
        let background = traffic::background(&upstream, broker.again().await, &adapter);
        let callers = Callers::start(broker, &adapter, Teller::connect(&places.otlp).await?).await;
        Ok(Self { background, callers, adapter, upstream, backends, folder })
    }

    async fn print_places(&self) {
        let Places { jaeger, prometheus, .. } = &self.backends.places;
        // Debian's has the old pages only, and they are elsewhere.
        let old = format!("{prometheus}/classic");
        let pages = if backends::get(&format!("{old}/graph")).await.is_ok() { &old } else { prometheus };
        println!("  traces       {jaeger}/api/traces?service={}&limit=5", traffic::SERVICE);
        println!("  one of them  {jaeger}/api/traces/TRACE (Jaeger's Go module comes without pages)");
        for page in ["graph", "targets", "rules", "alerts"] {
            println!("  {page:<12} {pages}/{page}");
        }
        println!(
            "  adapter      http://{}/metrics, /readyz; gRPC on {}",
            self.adapter.admin, self.adapter.grpc
        );
        println!("  logs         {}", self.folder.display());
    }

    async fn call(&mut self) -> Outcome {
        println!("A call:");
        let traced = self.callers.call(&self.upstream, "called").await?;
        let places = &self.backends.places;
        traces::is_whole(places, &traced.trace, traces::CALL, None).await?;
        traces::is_found(places, &traced.trace, "command.id", &traced.command).await
    }

    async fn messages(&mut self) -> Outcome {
        let (guest, failure) = (Uuid::new_v4(), || Rule::patch().times(1));
        println!("\nA message whose first attempt meets a 503:");
        self.upstream.simulator.script(failure().guest(guest).status(503));
        let traced = self.callers.send(&self.upstream, guest, "retried").await?;
        traces::is_whole(&self.backends.places, &traced.trace, traces::RETRIED, Some(&traced.caller)).await?;

        let guest = Uuid::new_v4();
        println!(
            "A message whose first attempt meets a 503, and whose second is asked to come in {RETRY_AFTER} s:"
        );
        self.upstream.simulator.script(failure().guest(guest).status(503));
        self.upstream.simulator.script(failure().guest(guest).status(425).header("retry-after", RETRY_AFTER));
        let traced = self.callers.send(&self.upstream, guest, "deferred").await?;
        traces::is_whole(&self.backends.places, &traced.trace, traces::DEFERRED, Some(&traced.caller)).await
    }

    /// Shows that the checks can fail, and that the adapter needs no collector.
    async fn lose_collector(&mut self) -> Outcome {
        let collector = self.backends.collector.take().ok_or("there is no collector")?;
        collector.end().await?;
        let began = Instant::now();
        let traced = self.callers.call(&self.upstream, "called-without-a-collector").await?;
        println!("  A call took {} ms.", began.elapsed().as_millis());
        let places = &self.backends.places;
        let looked = traces::is_whole(places, &traced.trace, traces::CALL, None);
        match tokio::time::timeout(NOT_COMING, looked).await {
            Ok(Ok(())) => return Err("a trace came without a collector".into()),
            Ok(Err(_)) | Err(_) => println!("  Its trace is not in Jaeger."),
        }
        series::one_target_is_down(places).await
    }

    /// Ends everything, the adapter first. At Ctrl-C all may have been told to already: then nothing is made of how they end.
    async fn end(self, must_end_well: bool) -> Outcome {
        self.background.abort();
        let (status, log) = self.adapter.terminate().await;
        self.upstream.simulator.shutdown().await;
        let ended = self.backends.end().await;
        match must_end_well {
            true if !status.success() => {
                Err(format!("the adapter ended with {status}:\n{}", log.join("\n")).into())
            }
            true => ended,
            false => Ok(()),
        }
    }
}
