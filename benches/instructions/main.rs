//! How many instructions and allocations each stage of the pure core takes, counted by valgrind and compared with the numbers that
//! are kept: `make bench-instructions`. Unlike a time, such a number is the same in every run.
//!
//! The program runs itself twice for each stage. What the stage takes is prepared equally often in both runs and worked on more
//! often in the second: the difference is what the work costs, and nothing else.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "it fails by panicking and tells on standard output"
)]

mod kept;
#[path = "../path/mod.rs"]
mod path;

use std::hint::black_box;
use std::process::{Command, ExitCode, Stdio};
use std::thread;

use kept::{Cost, Kept, Toolchain};
use path::Visitor;

/// How often what a stage takes is prepared, and how often it is worked on in the second run.
const OFTEN: u64 = 1_200;

/// How often in the first: enough for whatever is done once only.
const SELDOM: u64 = 200;

struct Listed(Vec<&'static str>);

impl Visitor for Listed {
    fn stage<I, O>(&mut self, name: &'static str, _: impl Fn() -> I, _: impl Fn(I) -> O) {
        self.0.push(name);
    }
}

struct Repeated<'a> {
    name: &'a str,
    times: usize,
    is_known: bool,
}

impl Visitor for Repeated<'_> {
    fn stage<I, O>(&mut self, name: &'static str, prepare: impl Fn() -> I, work: impl Fn(I) -> O) {
        if name != self.name {
            return;
        }
        self.is_known = true;
        let inputs: Vec<I> = (0..OFTEN).map(|_| prepare()).collect();
        for input in inputs.into_iter().take(self.times) {
            black_box(work(black_box(input)));
        }
    }
}

/// What valgrind says of this program while it works on a stage so often.
fn told(options: &[&str], name: &str, times: u64) -> String {
    let program = std::env::current_exe().expect("this program");
    let file = program.file_name().expect("a name").display().to_string();
    let output = Command::new("valgrind")
        .args(options)
        // Paths and variables lie in memory, and what is copied costs by where it lies.
        .arg(format!("./{file}"))
        .args(["repeat", name, &format!("{times:04}")])
        .current_dir(program.parent().expect("a folder"))
        .env_clear()
        .env("PATH", "/usr/local/bin:/usr/bin:/bin")
        .stdin(Stdio::null())
        .output()
        .expect("valgrind runs");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{name}: {told}");
    told
}

/// The number between two words.
fn number(told: &str, before: &str, after: &str) -> u64 {
    let found = told.lines().find_map(|line| line.split_once(before)?.1.split(after).next());
    let digits = found.map(|text| text.trim().replace(',', ""));
    digits
        .and_then(|digits| digits.parse().ok())
        .unwrap_or_else(|| panic!("no number after {before}: {told}"))
}

/// How much a second run counts more than a first, for each time.
fn difference(count: impl Fn(u64) -> u64 + Sync) -> u64 {
    thread::scope(|scope| {
        let seldom = scope.spawn(|| count(SELDOM));
        let often = count(OFTEN);
        (often - seldom.join().expect("it was counted")) / (OFTEN - SELDOM)
    })
}

/// What a stage costs, once.
fn cost(name: &str) -> Cost {
    // What the allocator does depends on where free memory happens to lie, so it is left out, and allocations are counted.
    let callgrind = [
        "--tool=callgrind",
        "--callgrind-out-file=/dev/null",
        "--toggle-collect=malloc",
        "--toggle-collect=calloc",
        "--toggle-collect=realloc",
        "--toggle-collect=free",
        // After those, which set it.
        "--collect-atstart=yes",
    ];
    let dhat = ["--tool=dhat", "--dhat-out-file=/dev/null"];
    Cost {
        instructions: difference(|times| number(&told(&callgrind, name, times), "Collected :", "\n")),
        allocations: difference(|times| number(&told(&dhat, name, times), "bytes in", "blocks")),
    }
}

fn measure(is_update: bool) -> ExitCode {
    let mut stages = Listed(Vec::new());
    path::visit(&mut stages);
    let stages = stages.0.into_iter().map(|name| (name.to_owned(), cost(name))).collect();
    let found = Kept { profile: "bench".to_owned(), toolchain: Toolchain::here(), stages };
    let kept = Kept::read();
    println!("{}", found.table(kept.as_ref()));
    if is_update {
        found.write();
        return ExitCode::SUCCESS;
    }
    match found.compared(kept.as_ref()) {
        Ok(remark) => {
            println!("{remark}");
            ExitCode::SUCCESS
        }
        Err(faults) => {
            println!("{faults}");
            ExitCode::FAILURE
        }
    }
}

fn repeat(name: &str, times: usize) -> ExitCode {
    let mut repeated = Repeated { name, times, is_known: false };
    path::visit(&mut repeated);
    assert!(repeated.is_known, "there is no stage {name}");
    ExitCode::SUCCESS
}

fn main() -> ExitCode {
    let arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    match arguments.collect::<Vec<_>>().as_slice() {
        [] => {
            println!("instructions: run scripts/instructions");
            ExitCode::SUCCESS
        }
        [word] if word == "compare" => measure(false),
        [word] if word == "update" => measure(true),
        [word, name, times] if word == "repeat" => repeat(name, times.parse().expect("a number")),
        other => panic!("these say nothing: {other:?}"),
    }
}
