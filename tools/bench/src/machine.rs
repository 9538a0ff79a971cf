//! Where and with what was measured.

use std::fs;
use std::process::Command;

use serde::{Deserialize, Serialize};

/// A machine and the versions on it. What is not there is told by a question mark, and what was not used by nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Machine {
    pub processor: String,
    pub cores: usize,
    /// Memory in MiB.
    pub memory: u64,
    pub kernel: String,
    /// The commit that was measured, and whether there were changes besides.
    pub commit: String,
    pub adapter: String,
    pub build: String,
    pub rustc: String,
    pub rabbitmq: String,
    pub postgresql: Option<String>,
    pub sqlite: String,
    pub lapin: String,
    pub tonic: String,
}

impl Machine {
    /// This one.
    pub fn here() -> Self {
        let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
        let memory = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let memory =
            memory.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
        let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        let changes = if told("git", &["status", "--porcelain"]).is_empty() { "" } else { ", with changes" };
        let postgresql = std::env::var_os("DATABASE_URL").map(|_| postgresql());
        Self {
            processor: model.map_or("?", |(_, name)| name).to_owned(),
            cores: cpu.lines().filter(|line| line.starts_with("processor")).count(),
            memory: memory.and_then(|text| text.parse::<u64>().ok()).unwrap_or_default() / 1024,
            kernel: kernel.trim().to_owned(),
            commit: or_unknown(told("git", &["rev-parse", "--short=12", "HEAD"])) + changes,
            adapter: env!("CARGO_PKG_VERSION").to_owned(),
            build: if cfg!(debug_assertions) { "debug" } else { "release" }.to_owned(),
            rustc: or_unknown(told("rustc", &["--version"]).trim_start_matches("rustc ").to_owned()),
            rabbitmq: or_unknown(
                told("scripts/broker", &["eval", "rabbit_misc:version()."]).replace('"', ""),
            ),
            postgresql,
            sqlite: rusqlite::version().to_owned(),
            lapin: locked("lapin"),
            tonic: locked("tonic"),
        }
    }
}

fn or_unknown(text: String) -> String {
    if text.is_empty() { "?".to_owned() } else { text }
}

/// What a program says, or nothing if it fails.
fn told(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().ok().filter(|output| output.status.success());
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

/// The version of the server that is installed; its programs are in no search path.
fn postgresql() -> String {
    let folders = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest =
        folders.max_by_key(|folder| folder.file_name().to_string_lossy().parse::<u32>().unwrap_or(0));
    let program = newest.map(|folder| folder.path().join("bin/postgres").display().to_string());
    let text = program.map(|program| told(&program, &["--version"])).unwrap_or_default();
    or_unknown(text.split_whitespace().nth(2).unwrap_or_default().to_owned())
}

/// The version of a library that this was built with.
fn locked(library: &str) -> String {
    let lines = include_str!("../../../Cargo.lock").lines();
    let mut lines = lines.skip_while(|line| *line != format!("name = \"{library}\"")).skip(1);
    let version = lines.next().and_then(|line| line.strip_prefix("version = "));
    or_unknown(version.unwrap_or_default().replace('"', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_libraries_are_those_of_the_lock_file() {
        assert!(locked("lapin").starts_with("4."), "{}", locked("lapin"));
        assert_eq!(locked("no such library"), "?");
    }
}
