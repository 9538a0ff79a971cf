//! The rules of the code base that no compiler checks. Each rule is a function of a text, and is shown to be able to fail.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

use std::path::{Path, PathBuf};

/// What each module may use of ours. `app`, `cli` and `main` see everything.
const MAY_USE: &[(&str, &[&str])] = &[
    ("domain", &[]),
    ("telemetry", &["domain"]),
    ("wire", &["domain"]),
    ("proto", &[]),
    ("tls", &[]),
    ("service", &["domain", "telemetry"]),
    ("admin", &["domain", "service", "telemetry"]),
    ("store", &["domain", "service", "telemetry"]),
    ("mycreditapp", &["domain", "service", "telemetry"]),
    ("stdout", &["domain", "service", "wire"]),
    ("jwt", &["service", "mycreditapp", "telemetry"]),
    ("grpc", &["domain", "service", "telemetry", "tls", "proto", "jwt"]),
    ("amqp", &["domain", "service", "telemetry", "proto", "wire"]),
    ("config", &["domain", "mycreditapp", "store", "telemetry", "tls", "jwt"]),
];

const FREE: &[&str] = &["app", "cli", "main", "lib"];

const LINES_MAX: usize = 450;

/// Files under `src` that only tests are built with, though their name does not say so.
const TEST_MODULES: &[&str] = &["src/grpc/fixture.rs", "src/telemetry/recorded.rs", "src/wire/samples.rs"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &str, extension: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|found| found == extension) {
                let name = path.strip_prefix(root()).unwrap().display().to_string();
                found.push((name, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(!found.is_empty(), "no .{extension} files in {folder}");
    found
}

fn sources() -> Vec<(String, String)> {
    let mut all = files("src", "rs");
    all.extend(files("tests", "rs"));
    all.extend(files("tools", "rs"));
    all.extend(files("benches", "rs"));
    all.extend(files("fuzz/fuzz_targets", "rs"));
    all
}

/// The top-level module of a file under `src`.
fn module(name: &str) -> &str {
    let rest = name.strip_prefix("src/").unwrap_or(name);
    rest.split('/').next().unwrap().trim_end_matches(".rs")
}

/// The modules of ours that a text names after `crate::`, in lists too.
fn used(text: &str) -> Vec<String> {
    let code: String =
        text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
    let mut modules = Vec::new();
    for (_, rest) in code.match_indices("crate::").map(|(at, found)| (at, &code[at + found.len()..])) {
        let list = match rest.strip_prefix('{') {
            Some(list) => top_level_items(list),
            None => vec![rest.to_owned()],
        };
        for item in list {
            let name: String =
                item.trim_start().chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            if !name.is_empty() {
                modules.push(name);
            }
        }
    }
    modules
}

/// The items of a `use` list, up to its closing brace.
fn top_level_items(list: &str) -> Vec<String> {
    let (mut depth, mut items, mut item) = (0, Vec::new(), String::new());
    for c in list.chars() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                items.push(std::mem::take(&mut item));
                continue;
            }
            _ => {}
        }
        item.push(c);
    }
    items.push(item);
    items
}

fn dependency_breaks(name: &str, text: &str) -> Vec<String> {
    let module = module(name);
    if FREE.contains(&module) {
        return Vec::new();
    }
    let allowed = MAY_USE.iter().find(|(known, _)| *known == module);
    let Some((_, allowed)) = allowed else { return vec![format!("{name}: {module} is not in the table")] };
    let breaks = used(text).into_iter().filter(|other| other != module && !allowed.contains(&other.as_str()));
    let mut found: Vec<_> = breaks.map(|other| format!("{name}: {module} must not use {other}")).collect();
    if climbs_out(name, text) {
        found.push(format!("{name}: what is outside {module} is named from `crate::` on"));
    }
    found
}

/// Whether a path climbs by `super::` to the root of the crate, past the table. A module of tests lies one deeper than
/// its file, whether it stands in it or in a `_tests.rs` beside it.
fn climbs_out(name: &str, text: &str) -> bool {
    let parts = name.trim_start_matches("src/").trim_end_matches("mod.rs").trim_end_matches(".rs");
    let depth = parts.split('/').filter(|part| !part.is_empty()).count();
    let climbs = |code: &str, depth: usize| code.contains(&"super::".repeat(depth));
    let (code, tests) = split_tests(name, text);
    climbs(code, depth) || climbs(tests, depth + 1)
}

/// The part of a file that is built into the program, and its tests, which come last.
fn split_tests<'a>(name: &str, text: &'a str) -> (&'a str, &'a str) {
    if name.ends_with("_tests.rs") || TEST_MODULES.contains(&name) {
        return ("", text);
    }
    text.split_at(text.find("#[cfg(test)]\nmod tests").unwrap_or(text.len()))
}

/// Places that can panic and do not say why they never will, on their line or on the one above. Clippy knows `unwrap`
/// and its like by their types, but lets `unreachable!` and `assert!` pass.
fn unexplained_panics(name: &str, text: &str) -> Vec<String> {
    let (code, _) = split_tests(name, text);
    let panics = |line: &str| {
        // A method of ours may be called `expect` too; it takes more than a text.
        let expects = line.split(".expect(\"").skip(1).any(|rest| rest.contains("\")"));
        let macros = ["panic!(", "unreachable!(", "assert!(", "assert_eq!(", "assert_ne!("];
        expects || line.contains(".unwrap()") || macros.iter().any(|word| line.contains(word))
    };
    let is_comment = |line: &str| line.trim_start().starts_with("//");
    let mut found = Vec::new();
    let mut before = "";
    for line in code.lines() {
        if !is_comment(line) && panics(line) && !is_comment(before) && !line.contains("// ") {
            found.push(format!("{name}: {}", line.trim()));
        }
        before = line;
    }
    found
}

/// Words that stand for work undone, or tests that do not test. Written in two parts, so that this file passes.
fn bad_words(name: &str, text: &str) -> Vec<String> {
    let mut words =
        vec![["TO", "DO"], ["FIX", "ME"], ["#[ig", "nore"], ["todo", "!("], ["unimplemented", "!("]];
    if name.starts_with("tests/") || name.contains("/tests/") {
        words.push(["thread::", "sleep"]);
    }
    let words = words.iter().map(|parts| parts.concat());
    words.filter(|word| text.contains(word.as_str())).map(|word| format!("{name}: {word}")).collect()
}

fn too_long(name: &str, text: &str) -> Option<String> {
    let lines = text.lines().count();
    (lines > LINES_MAX).then(|| format!("{name}: {lines} lines, at most {LINES_MAX}"))
}

fn has_no_heading(name: &str, text: &str) -> Option<String> {
    (!text.starts_with("//!")).then(|| format!("{name} does not say what it is for"))
}

/// Links of a Markdown page to files that are not there.
fn broken_links(folder: &Path, text: &str) -> Vec<String> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let local = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    let paths = local.map(|target| target.split('#').next().unwrap().to_owned());
    paths.filter(|path| !folder.join(path).exists()).collect()
}

/// Settings of a lint that give no reason.
fn unexplained_allows(name: &str, text: &str) -> Vec<String> {
    let settings = ["allow(", "expect("].into_iter().flat_map(|word| text.match_indices(word));
    let attributes = settings.filter(|(at, _)| {
        let before = &text[..*at];
        before.ends_with("#[") || before.ends_with("#![")
    });
    let bodies = attributes.map(|(at, _)| text[at..].split(")]").next().unwrap());
    bodies.filter(|body| !body.contains("reason")).map(|body| format!("{name}: {body}")).collect()
}

/// Log records that are written by a macro of `tracing` where they have no type. Spans are no records.
fn untyped_records(name: &str, text: &str) -> Vec<String> {
    if name.starts_with("src/telemetry/") {
        return Vec::new();
    }
    let is_record = |line: &str| {
        let macros = ["error!(", "warn!(", "info!(", "debug!(", "trace!(", "event!("];
        let found = macros.iter().flat_map(|word| line.match_indices(word));
        let is_part = |before: &str| before.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        found.into_iter().any(|(at, _)| !is_part(&line[..at]))
    };
    let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    code.filter(|line| is_record(line)).map(|line| format!("{name}: {}", line.trim())).collect()
}

#[track_caller]
#[allow(clippy::needless_pass_by_value, reason = "reads better where it is called")]
fn none(found: Vec<String>) {
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn modules_use_only_what_they_may() {
    none(files("src", "rs").iter().flat_map(|(name, text)| dependency_breaks(name, text)).collect());
    let bad =
        "use crate::{\n    domain::error,\n    amqp::{self, consume},\n};\nfn f() { crate::store::x() }";
    let breaks = dependency_breaks("src/grpc/service.rs", bad);
    assert_eq!(breaks.len(), 2, "{breaks:?}");
    assert_eq!(dependency_breaks("src/domain/x.rs", "use crate::service::y;").len(), 1);
    assert_eq!(dependency_breaks("src/novel/x.rs", "").len(), 1);
    assert_eq!(dependency_breaks("src/grpc/x.rs", "use super::super::amqp::y;").len(), 1);
    assert_eq!(dependency_breaks("src/grpc/mod.rs", "use super::amqp;").len(), 1);
    let tests = "use super::y;\n#[cfg(test)]\nmod tests {\n    use super::super::z;\n}";
    assert_eq!(dependency_breaks("src/grpc/x.rs", tests), [""; 0]);
    assert_eq!(dependency_breaks("src/store/sqlite/x.rs", "use super::super::z;"), [""; 0]);
}

#[test]
fn nothing_panics_without_a_reason() {
    none(files("src", "rs").iter().flat_map(|(name, text)| unexplained_panics(name, text)).collect());
    for name in TEST_MODULES {
        assert!(root().join(name).exists(), "{name} is gone");
    }
    let bad = "x.unwrap();\ny.expect(\"z\");\nunreachable!();\n// Never empty.\nx.unwrap();\nreader.expect(\"a\", b);";
    assert_eq!(unexplained_panics("src/x.rs", bad).len(), 3);
    assert_eq!(unexplained_panics("src/x.rs", "#[cfg(test)]\nmod tests { x.unwrap() }"), [""; 0]);
}

#[test]
fn nothing_is_left_undone_or_untested() {
    none(sources().iter().flat_map(|(name, text)| bad_words(name, text)).collect());
    assert_eq!(bad_words("src/x.rs", &["// TO", "DO: later"].concat()).len(), 1);
    assert_eq!(bad_words("tests/x.rs", &["std::thread::", "sleep(x)"].concat()).len(), 1);
}

#[test]
fn files_fit_in_the_head() {
    none(sources().iter().filter_map(|(name, text)| too_long(name, text)).collect());
    assert!(too_long("x", &"\n".repeat(LINES_MAX + 1)).is_some());
}

#[test]
fn files_say_what_they_are_for() {
    let own = files("src", "rs").into_iter().filter(|(name, _)| !name.ends_with("_tests.rs"));
    none(own.filter_map(|(name, text)| has_no_heading(&name, &text)).collect());
    assert!(has_no_heading("x", "use y;").is_some());
}

#[test]
fn lints_are_set_aside_for_a_reason() {
    none(sources().iter().flat_map(|(name, text)| unexplained_allows(name, text)).collect());
    assert_eq!(unexplained_allows("x", &["#[all", "ow(dead_code)]"].concat()).len(), 1);
    assert_eq!(unexplained_allows("x", &["#[exp", "ect(dead_code)]"].concat()).len(), 1);
}

#[test]
fn log_records_have_types() {
    none(files("src", "rs").iter().flat_map(|(name, text)| untyped_records(name, text)).collect());
    let bad =
        "warn!(reason);\ntracing::info!(\n\"x\");\nlet span = info_span!(\"x\");\n// warn!(x)\nmy_event!(x);";
    assert_eq!(untyped_records("src/grpc/x.rs", bad).len(), 2);
    assert_eq!(untyped_records("src/telemetry/x.rs", bad), [""; 0]);
}

#[test]
fn links_lead_somewhere() {
    let mut pages = files("docs", "md");
    for name in [
        "README.md",
        "CONTRIBUTING.md",
        "CHANGELOG.md",
        "deploy/README.md",
        "deploy/observability/README.md",
        "tools/chaos/README.md",
        "tools/simulator/README.md",
    ] {
        pages.push((name.to_owned(), std::fs::read_to_string(root().join(name)).unwrap()));
    }
    for (name, text) in pages {
        let page = root().join(&name);
        let broken = broken_links(page.parent().unwrap(), &text);
        assert!(broken.is_empty(), "{name}: {broken:?}");
    }
    assert_eq!(
        broken_links(&root(), "[a](README.md) [b](nowhere.md) [c](https://example.com)"),
        ["nowhere.md"]
    );
}

#[test]
fn every_decision_is_listed() {
    let list = std::fs::read_to_string(root().join("docs/adr/README.md")).unwrap();
    none(files("docs/adr", "md").iter().filter_map(|(name, _)| is_unlisted(name, &list)).collect());
    assert!(is_unlisted("docs/adr/9999-unknown.md", &list).is_some());
}

/// A decision to which the list has no link.
fn is_unlisted(name: &str, list: &str) -> Option<String> {
    let file = name.rsplit('/').next().unwrap();
    let missing = file != "README.md" && !list.contains(&format!("]({file})"));
    missing.then(|| format!("{file} is not in docs/adr/README.md"))
}

/// How many rows `docs/fault-cases.md` has.
const FAULT_CASES: usize = 36;

#[test]
fn every_fault_case_has_its_tests() {
    let page = std::fs::read_to_string(root().join("docs/fault-cases.md")).unwrap();
    // The samples below are no tests.
    let sources = files("tests", "rs").into_iter().filter(|(name, _)| name != "tests/tidy.rs");
    let tests: String = sources.map(|(_, text)| text).collect();
    none(unproven_cases(&page, &tests));
    let row = "| 36 | symptom | promise | `case_36_a`<br>`case_36_b` |";
    let found = unproven_cases(row, "async fn case_36_a() {}\nfn case_36_c() {}");
    assert_eq!(found.len(), 35 + 2, "{found:#?}");
}

/// Rows without a test, tests that are not there, and tests that no row names.
fn unproven_cases(page: &str, tests: &str) -> Vec<String> {
    let written = tests.split("fn case_").skip(1).filter_map(|rest| rest.split('(').next());
    let written: Vec<String> = written.map(|rest| format!("case_{rest}")).collect();
    let mut found = Vec::new();
    let mut named = Vec::new();
    for number in 1..=FAULT_CASES {
        let row = page.lines().find(|line| line.starts_with(&format!("| {number} |"))).unwrap_or_default();
        let names = row.split('`').filter(|text| text.starts_with(&format!("case_{number:02}_")));
        let before = named.len();
        named.extend(names.map(str::to_owned));
        if named.len() == before {
            found.push(format!("case {number} has no test"));
        }
    }
    found.extend(named.iter().filter(|name| !written.contains(name)).map(|name| format!("no test {name}")));
    found
        .extend(written.iter().filter(|name| !named.contains(name)).map(|name| format!("no row for {name}")));
    found
}
