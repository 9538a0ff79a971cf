//! The table, the ratios that matter, and the same as JSON.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::run::Figure;

/// A target: how two figures are to stand to one another.
struct Target {
    what: &'static str,
    of: fn(&Figure) -> f64,
    over: &'static str,
    under: &'static str,
    /// The least, or if it is negative the greatest, that is wanted.
    wanted: f64,
}

const fn rate(figure: &Figure) -> f64 {
    figure.rate
}

const fn cpu(figure: &Figure) -> f64 {
    figure.cpu
}

const TARGETS: [Target; 7] = [
    Target {
        what: "drain: rate to the bare loop's",
        of: rate,
        over: "drain",
        under: "drain: bare loop",
        wanted: 1.0,
    },
    Target {
        what: "drain: rate to the best loop's",
        of: rate,
        over: "drain",
        under: "drain: best loop",
        wanted: 0.85,
    },
    Target {
        what: "drain: processor time to the bare loop's",
        of: cpu,
        over: "drain",
        under: "drain: bare loop",
        wanted: -1.25,
    },
    Target {
        what: "drain: rate to the Python loop's",
        of: rate,
        over: "drain",
        under: "drain: Python loop",
        wanted: 5.0,
    },
    Target {
        what: "drain: processor time to the Python loop's",
        of: cpu,
        over: "drain",
        under: "drain: Python loop",
        wanted: -0.167,
    },
    Target {
        what: "64 calls: rate to the bare service's",
        of: rate,
        over: "64 calls",
        under: "64 calls: bare service",
        wanted: 0.8,
    },
    Target {
        what: "repeats: rate to first executions",
        of: rate,
        over: "64 repeats",
        under: "64 calls",
        wanted: 5.0,
    },
];

/// Prints the table and the ratios.
pub fn print(figures: &[Figure]) {
    println!(
        "{:<36} {:>9} {:>8} {:>9} {:>9} {:>9} {:>8} {:>8}",
        "", "rate/s", "CPU us", "p50 us", "p99 us", "p99.9 us", "MiB", "commits"
    );
    for figure in figures {
        let Figure { name, rate, cpu, p50, p99, p999, memory, commits } = figure;
        println!(
            "{name:<36} {rate:>9.0} {cpu:>8.0} {p50:>9} {p99:>9} {p999:>9} {memory:>8.1} {commits:>8.3}"
        );
    }
    println!();
    for Target { what, of, over, under, wanted } in TARGETS {
        let find = |name: &str| figures.iter().find(|figure| figure.name == name).map(of);
        let (Some(over), Some(under)) = (find(over), find(under)) else { continue };
        let ratio = over / under;
        let is_met = if wanted < 0.0 { ratio <= -wanted } else { ratio >= wanted };
        let (bound, verdict) =
            (if wanted < 0.0 { "at most" } else { "at least" }, if is_met { "met" } else { "MISSED" });
        println!("{what:<46} {ratio:>6.2}  ({bound} {:.2}: {verdict})", wanted.abs());
    }
}

/// A run, for later ones to be compared with.
#[derive(Serialize, Deserialize)]
struct Run {
    time: String,
    machine: String,
    versions: String,
    figures: Vec<Figure>,
}

/// Writes a run.
pub fn write(figures: &[Figure], path: &Path) -> Outcome {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("?", |(_, name)| name);
    let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let run = Run {
        time: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        machine: format!("{cores} x {model}, Linux {}", kernel.trim()),
        versions: format!(
            "adapter {}, {} build",
            env!("CARGO_PKG_VERSION"),
            if cfg!(debug_assertions) { "debug" } else { "release" }
        ),
        figures: figures.to_vec(),
    };
    fs::write(path, serde_json::to_string_pretty(&run)? + "\n")?;
    Ok(())
}

/// Prints how figures stand to those of a former run. Absolute ones of another day say little; ratios in a run say more.
pub fn compare(figures: &[Figure], path: &Path) -> Outcome {
    let former: Run = serde_json::from_str(&fs::read_to_string(path)?)?;
    println!("\ncompared with {} ({}, {})", former.time, former.machine, former.versions);
    println!("{:<36} {:>12} {:>12} {:>12}", "", "rate", "CPU", "p99");
    for figure in figures {
        let Some(then) = former.figures.iter().find(|then| then.name == figure.name) else { continue };
        let change = |now: f64, then: f64| format!("{:+.1} %", (now / then - 1.0) * 100.0);
        println!(
            "{:<36} {:>12} {:>12} {:>12}",
            figure.name,
            change(figure.rate, then.rate),
            change(figure.cpu, then.cpu),
            change(figure.p99 as f64, then.p99 as f64)
        );
    }
    Ok(())
}
