//! The numbers that are kept in `benches/instructions.json`, and what becomes of them.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/instructions.json");

/// A stage may grow by this many hundredths.
const GROWTH_MAX: f64 = 3.0;

/// What a stage costs, once.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Cost {
    /// Without those of the allocator.
    pub instructions: u64,
    pub allocations: u64,
}

/// What the numbers depend on besides our own code and that of our dependencies.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Toolchain {
    rustc: String,
    host: String,
    libc: String,
    valgrind: String,
    /// Some code looks for it when it runs.
    avx2: bool,
}

/// What is kept.
#[derive(Debug, Serialize, Deserialize)]
pub struct Kept {
    pub profile: String,
    pub toolchain: Toolchain,
    pub stages: BTreeMap<String, Cost>,
}

impl Toolchain {
    /// The one that this program was built with and runs on.
    pub fn here() -> Self {
        let rustc = told("rustc", &["--version", "--verbose"]);
        let (version, rest) = rustc.split_once('\n').unwrap_or_default();
        let host = rest.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        Self {
            rustc: version.to_owned(),
            host: host.to_owned(),
            libc: told("ldd", &["--version"]).lines().next().unwrap_or_default().to_owned(),
            valgrind: told("valgrind", &["--version"]).trim().to_owned(),
            avx2: cpu.split_ascii_whitespace().any(|flag| flag == "avx2"),
        }
    }
}

fn told(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().expect("it runs");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Kept {
    /// What is kept, if anything is.
    pub fn read() -> Option<Self> {
        let text = fs::read_to_string(FILE).ok()?;
        Some(serde_json::from_str(&text).expect("the kept numbers"))
    }

    /// Keeps these.
    pub fn write(&self) {
        let text = serde_json::to_string_pretty(self).expect("JSON");
        fs::write(FILE, text + "\n").expect("they are written");
    }

    /// These numbers, and how much more or less they are than those of `kept`.
    pub fn table(&self, kept: Option<&Self>) -> String {
        let mut text =
            format!("{:<28}{:>14}{:>9}{:>14}{:>9}", "stage", "instructions", "", "allocations", "");
        for (name, now) in &self.stages {
            let before = kept.and_then(|kept| kept.stages.get(name));
            let change = |now, before: Option<u64>| {
                before.map_or_else(|| "-".to_owned(), |before| format!("{:+.2}%", growth(now, before)))
            };
            let instructions = change(now.instructions, before.map(|before| before.instructions));
            let allocations = change(now.allocations, before.map(|before| before.allocations));
            let Cost { instructions: count, allocations: number } = now;
            let _ = write!(text, "\n{name:<28}{count:>14}{instructions:>9}{number:>14}{allocations:>9}");
        }
        text
    }

    /// Whether no stage costs more than in `kept`. Numbers for another toolchain prove nothing.
    ///
    /// # Errors
    /// What is wrong, line by line.
    pub fn compared(&self, kept: Option<&Self>) -> Result<String, String> {
        let Some(kept) = kept else { return Err(format!("{FILE} is not there; UPDATE=1 writes it")) };
        if (&kept.toolchain, &kept.profile) != (&self.toolchain, &self.profile) {
            return Ok(format!(
                "not judged: the kept numbers are for\n  {}, {:?}\nand these for\n  {}, {:?}",
                kept.profile, kept.toolchain, self.profile, self.toolchain
            ));
        }
        let mut faults = Vec::new();
        for (name, now) in &self.stages {
            let Some(before) = kept.stages.get(name) else {
                faults.push(format!("{name} is not kept"));
                continue;
            };
            let costs = [
                ("instructions", now.instructions, before.instructions),
                ("allocations", now.allocations, before.allocations),
            ];
            let grown = costs.into_iter().filter(|(_, now, before)| growth(*now, *before) > GROWTH_MAX);
            faults.extend(
                grown.map(|(what, _, _)| format!("{name}: {what} have grown by more than {GROWTH_MAX} %")),
            );
        }
        let gone = kept.stages.keys().filter(|name| !self.stages.contains_key(*name));
        faults.extend(gone.map(|name| format!("{name} is gone")));
        if faults.is_empty() {
            return Ok(format!("no stage has grown by more than {GROWTH_MAX} %"));
        }
        faults.push("if it has to be so, UPDATE=1 keeps the new numbers".to_owned());
        Err(faults.join("\n"))
    }
}

/// How much greater `now` is, in hundredths.
#[allow(clippy::cast_precision_loss, reason = "the numbers are small")]
fn growth(now: u64, before: u64) -> f64 {
    if now == before { 0.0 } else { (now as f64 / before as f64 - 1.0) * 100.0 }
}
