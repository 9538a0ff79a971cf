//! Recording rules and alerts, and their tests by promtool.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::{Value, json};

use crate::{dashboards, files, runbooks};

/// Where the rules lie.
const FOLDER: &str = "deploy/observability/rules";

/// The index of runbooks.
const INDEX: &str = "docs/runbooks/README.md";

/// A recording rule or an alert.
pub struct Rule {
    value: Value,
}

impl Rule {
    fn text(&self, pointer: &str) -> &str {
        self.value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
    }

    /// What an alert is called.
    pub fn alert(&self) -> Option<&str> {
        self.value["alert"].as_str()
    }

    /// The metric that a recording rule makes.
    pub fn record(&self) -> Option<&str> {
        self.value["record"].as_str()
    }

    /// The expression.
    pub fn expression(&self) -> &str {
        self.text("/expr")
    }

    /// The page on what to do.
    pub fn runbook(&self) -> &str {
        self.text("/annotations/runbook_url")
    }
}

/// All rules.
pub fn read() -> Vec<Rule> {
    let mut rules = Vec::new();
    for (name, text) in files::of(FOLDER, "yaml") {
        let file: Value = serde_saphyr::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let groups = file["groups"].as_array().expect("groups");
        let found = groups.iter().flat_map(|group| group["rules"].as_array().expect("rules"));
        rules.extend(found.map(|value| Rule { value: value.clone() }));
    }
    rules
}

/// Those that alert.
pub fn alerts() -> Vec<Rule> {
    let alerts: Vec<_> = read().into_iter().filter(|rule| rule.alert().is_some()).collect();
    assert!(!alerts.is_empty(), "there are alerts");
    alerts
}

/// How often each alert is shown to fire, and not to.
fn tested(files: &[(String, String)]) -> BTreeMap<String, (usize, usize)> {
    let mut counts: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    for (name, text) in files {
        let file: Value = serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        let tests = file["tests"].as_array().into_iter().flatten();
        for test in tests.flat_map(|test| test["alert_rule_test"].as_array().into_iter().flatten()) {
            let alert = test["alertname"].as_str().expect("the name of an alert").to_owned();
            let count = counts.entry(alert).or_default();
            if test["exp_alerts"].as_array().is_some_and(|expected| !expected.is_empty()) {
                count.0 += 1;
            } else {
                count.1 += 1;
            }
        }
    }
    counts
}

#[test]
fn every_alert_is_tested_both_ways() {
    let tested = tested(&files::of(&format!("{FOLDER}/tests"), "yaml"));
    let names: Vec<_> = alerts().iter().map(|rule| rule.alert().unwrap().to_owned()).collect();
    let shown = |name: &String| tested.get(name).copied().unwrap_or_default();
    let untested: Vec<_> = names.iter().filter(|name| shown(name).0 == 0 || shown(name).1 == 0).collect();
    assert!(untested.is_empty(), "neither fires nor stays quiet in a test: {untested:?}");
    let unknown: Vec<_> = tested.keys().filter(|name| !names.contains(name)).collect();
    assert!(unknown.is_empty(), "tests of alerts that are not there: {unknown:?}");
}

#[test]
fn every_alert_says_what_it_needs_to_say() {
    let (index, uids) = (files::text(INDEX), dashboards::uids());
    let mut names = Vec::new();
    for alert in alerts() {
        let name = alert.alert().unwrap();
        assert!(["page", "ticket"].contains(&alert.text("/labels/severity")), "{name}: its severity");
        for pointer in ["/for", "/annotations/summary", "/annotations/description"] {
            assert!(!alert.text(pointer).is_empty(), "{name} lacks {pointer}");
        }
        let uid = alert.text("/annotations/dashboard").strip_prefix("/d/").unwrap_or_default();
        assert!(uids.contains(uid), "{name} names a dashboard that is not there: {uid:?}");
        let page = alert.runbook();
        assert!(
            page.starts_with("docs/runbooks/") && files::root().join(page).is_file(),
            "{name} has no page: {page}"
        );
        assert!(files::text(page).contains(&format!("`{name}`")), "{page} does not name {name}");
        let file = page.rsplit('/').next().unwrap();
        let row = index.lines().find(|line| line.contains(&format!("`{name}`")));
        assert!(row.is_some_and(|row| row.contains(&format!("]({file})"))), "{INDEX} does not list {name}");
        names.push(name.to_owned());
    }
    let count = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), count, "two alerts have one name");
}

#[test]
fn promtool_finds_the_rules_good_and_their_tests_pass() {
    let script = files::root().join("scripts/lint-alerts");
    let output = Command::new(script).output().expect("scripts/lint-alerts runs");
    let said =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{said}");
    assert!(said.contains("SUCCESS"), "promtool has looked at nothing: {said}");
}

#[test]
fn prometheus_can_read_every_expression_of_dashboards_and_runbooks() {
    let mut expressions: Vec<_> =
        runbooks::expressions().into_iter().map(|(_, expression)| expression).collect();
    expressions
        .extend(dashboards::read().iter().flat_map(|(_, dashboard)| dashboards::expressions(dashboard)));
    // Grafana's own function is none of Prometheus'.
    expressions.retain(|expression| !expression.starts_with("label_values("));
    assert!(expressions.len() > 100, "they are found: {}", expressions.len());
    assert_eq!(unreadable(&expressions), None);
    assert!(unreadable(&["sum by (a) (rate(b[5m])".to_owned()]).is_some(), "it can tell");
}

/// What promtool has to say against expressions.
fn unreadable(expressions: &[String]) -> Option<String> {
    let rule =
        |expression: &String| json!({"record": "a", "expr": expression.replace("$__rate_interval", "5m")});
    let rules: Vec<_> = expressions.iter().map(rule).collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json!({"groups": [{"name": "all", "rules": rules}]}).to_string()).unwrap();
    let output =
        Command::new("promtool").args(["check", "rules", "--lint=none"]).arg(file.path()).output().unwrap();
    (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned())
}
