//! The table, the ratios that matter, and the same as JSON.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::Outcome;
use crate::figure::Figure;
use crate::machine::Machine;
use crate::run::{Measured, Scale};
use crate::targets::TARGETS;

/// A run, for later ones to be compared with.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Run {
    pub time: String,
    /// How it was started.
    pub command: String,
    /// What its figures depend on.
    pub scale: Option<Scale>,
    pub machine: Machine,
    pub figures: Vec<Figure>,
    /// What could not be measured.
    pub failures: Vec<String>,
}

impl Run {
    /// What was measured, now.
    pub fn new(machine: Machine, scale: Scale, measured: Measured) -> Self {
        let arguments: Vec<_> = std::env::args().skip(1).collect();
        Self {
            time: chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
            command: format!("bench {}", arguments.join(" ")),
            scale: Some(scale),
            machine,
            figures: measured.figures,
            failures: measured.failures,
        }
    }

    /// One that was kept.
    pub fn read(path: &Path) -> Outcome<Self> {
        let text = fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?)
    }

    pub fn write(&self, path: &Path) -> Outcome {
        fs::write(path, serde_json::to_string_pretty(self)? + "\n")?;
        Ok(())
    }

    /// Prints the table and the targets.
    pub fn print(&self) {
        println!(
            "{:<36} {:>9} {:>8} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
            "",
            "rate/s",
            "CPU us",
            "p50 us",
            "p99 us",
            "p99.9 us",
            "MiB",
            "commits",
            "fsyncs",
            "bytes",
            "start ms",
            "exit ms"
        );
        for figure in &self.figures {
            let whole = |value| shown(value, 0);
            println!(
                "{:<36} {:>9} {:>8} {:>9} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>8} {:>8}",
                figure.name,
                whole(figure.rate),
                whole(figure.cpu),
                whole(figure.p50),
                whole(figure.p99),
                whole(figure.p999),
                shown(figure.memory, 1),
                shown(figure.commits, 3),
                shown(figure.syncs, 3),
                whole(figure.growth),
                whole(figure.start),
                whole(figure.exit),
            );
        }
        println!();
        for target in TARGETS {
            let Some(value) = target.value(&self.figures) else { continue };
            let verdict = if target.bound.is_met(value) { "met" } else { "MISSED" };
            let (word, bound) = (target.bound.word(), target.bound.value());
            println!("{:<58} {value:>8.2} {:<3} ({word} {bound:.2}: {verdict})", target.what, target.unit);
        }
        for failure in &self.failures {
            println!("FAILED {failure}");
        }
    }

    /// Prints how it stands to a former run. Absolute figures of another day say little; ratios in a run say more.
    pub fn compare(&self, former: &Self) {
        println!("\ncompared with {} ({})", former.time, former.machine.commit);
        println!("{:<58} {:>12} {:>12} {:>12}", "", "rate", "CPU", "p99");
        let change = |now: Option<f64>, then: Option<f64>| match (now, then) {
            (Some(now), Some(then)) => format!("{:+.1} %", (now / then - 1.0) * 100.0),
            _ => String::new(),
        };
        for figure in &self.figures {
            let Some(then) = former.figures.iter().find(|then| then.name == figure.name) else { continue };
            println!(
                "{:<58} {:>12} {:>12} {:>12}",
                figure.name,
                change(figure.rate, then.rate),
                change(figure.cpu, then.cpu),
                change(figure.p99, then.p99)
            );
        }
        println!("\n{:<58} {:>12} {:>12}", "", "now", "then");
        for target in TARGETS {
            let (now, then) = (target.value(&self.figures), target.value(&former.figures));
            if now.is_some() && then.is_some() {
                println!("{:<58} {:>12} {:>12}", target.what, shown(now, 2), shown(then, 2));
            }
        }
    }
}

/// A value for people, or a dash.
pub fn shown(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"))
}
