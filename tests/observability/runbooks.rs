//! The pages for whoever is on call.

use std::collections::BTreeSet;

use crate::{files, rules};

/// Where they lie.
const FOLDER: &str = "docs/runbooks";

/// The headings that each page has.
const HEADINGS: [&str; 4] = ["## What it means", "## How to confirm", "## What to do", "## What not to do"];

/// The pages but for the index.
fn pages() -> Vec<(String, String)> {
    let pages = files::of(FOLDER, "md");
    pages.into_iter().filter(|(name, _)| !name.ends_with("/README.md")).collect()
}

/// Every expression on a page: the blocks that are marked `promql`, one expression each.
pub fn expressions() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for (name, text) in files::of(FOLDER, "md") {
        for block in text.split("```promql\n").skip(1) {
            let (block, _) = block.split_once("```").expect("a block ends");
            found.extend(
                block.lines().filter(|line| !line.is_empty()).map(|line| (name.clone(), line.to_owned())),
            );
        }
    }
    found
}

#[test]
fn every_page_belongs_to_an_alert_and_has_its_parts() {
    let wanted: BTreeSet<_> = rules::alerts().iter().map(|alert| alert.runbook().to_owned()).collect();
    for (name, text) in pages() {
        assert!(wanted.contains(&name), "no alert leads to {name}");
        let at: Vec<_> = HEADINGS.iter().filter_map(|heading| text.find(heading)).collect();
        assert!(at.len() == HEADINGS.len() && at.is_sorted(), "{name} lacks one of {HEADINGS:?}");
    }
    let asking: BTreeSet<_> = expressions().into_iter().map(|(name, _)| name).collect();
    let silent: Vec<_> = wanted.difference(&asking).collect();
    assert!(silent.is_empty(), "no query to confirm it by: {silent:?}");
}

#[test]
fn pages_name_only_commands_that_the_program_has() {
    let mut named = BTreeSet::new();
    for (_, text) in files::of(FOLDER, "md") {
        let uses = text.split("guest-connection-adapter ").skip(1);
        let words = uses.filter_map(|rest| rest.split(|c: char| !c.is_ascii_lowercase() && c != '-').next());
        named.extend(words.filter(|word| !word.is_empty()).map(str::to_owned));
    }
    let output = std::process::Command::new(crate::PROGRAM).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let commands: Vec<_> =
        help.lines().filter_map(|line| line.strip_prefix("  ")?.split(' ').next()).collect();
    let unknown: Vec<_> = named.iter().filter(|word| !commands.contains(&word.as_str())).collect();
    assert!(unknown.is_empty(), "{unknown:?} of {commands:?}");
    assert!(named.contains("check"), "{named:?}");
}
