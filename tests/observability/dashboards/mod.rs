//! The dashboards of Grafana. They are written here, and the files are made from it, so that all panels are alike:
//! `UPDATE_DOCS=1 cargo test --test observability the_dashboards`.

mod broker;
mod organization;
mod overview;
mod parts;
mod runtime;
mod upstream;

use std::collections::BTreeSet;

use serde_json::Value;

use crate::files;
use parts::Dashboard;

/// Where the files lie.
const FOLDER: &str = "deploy/observability/grafana/dashboards";

fn all() -> Vec<Dashboard> {
    vec![
        overview::dashboard(),
        upstream::dashboard(),
        broker::dashboard(),
        organization::dashboard(),
        runtime::dashboard(),
    ]
}

/// The files with their names.
pub fn read() -> Vec<(String, Value)> {
    let files = files::of(FOLDER, "json");
    let parsed = files.into_iter().map(|(name, text)| {
        let value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        (name, value)
    });
    parsed.collect()
}

/// The panels of a dashboard, but for the titles of rows.
pub fn panels(dashboard: &Value) -> impl Iterator<Item = &Value> {
    dashboard["panels"].as_array().into_iter().flatten().filter(|panel| panel["type"] != "row")
}

/// Every expression for Prometheus in a dashboard, the queries of its variables included.
pub fn expressions(dashboard: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let list = |value: &'static str, of: &Value| of[value].as_array().cloned().unwrap_or_default();
    let targets = panels(dashboard).flat_map(|panel| list("targets", panel));
    let mut found: Vec<String> = targets.filter_map(|target| text(&target["expr"])).collect();
    let variables = list("list", &dashboard["templating"]);
    found.extend(variables.iter().filter_map(|variable| text(&variable["query"]["query"])));
    let annotations = list("list", &dashboard["annotations"]);
    found.extend(annotations.iter().filter_map(|annotation| text(&annotation["expr"])));
    found
}

/// What Jaeger is asked for by panels and links.
pub fn searches() -> Vec<Value> {
    let dashboards = all();
    let panels = dashboards.iter().flat_map(|dashboard| &dashboard.rows).flat_map(|(_, panels)| panels);
    let searches = panels.map(parts::Panel::search).chain(parts::HEAD);
    searches.map(|search| search.query()).collect()
}

/// The stable names of all dashboards.
pub fn uids() -> BTreeSet<String> {
    read().iter().map(|(_, dashboard)| dashboard["uid"].as_str().expect("a uid").to_owned()).collect()
}

#[test]
fn the_dashboards_are_as_they_are_written_here() {
    let names: BTreeSet<_> = all().iter().map(|dashboard| format!("{FOLDER}/{}", dashboard.file)).collect();
    for dashboard in all() {
        let path = files::root().join(FOLDER).join(dashboard.file);
        if std::env::var_os("UPDATE_DOCS").is_some() {
            std::fs::write(&path, dashboard.text()).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let advice = "is not as tests/observability/dashboards has it; run it with UPDATE_DOCS=1";
        assert!(text == dashboard.text(), "{} {advice}", path.display());
    }
    assert_eq!(read().into_iter().map(|(name, _)| name).collect::<BTreeSet<_>>(), names);
}

#[test]
fn every_panel_has_what_a_reader_needs() {
    let mut faults = Vec::new();
    for (name, dashboard) in read() {
        let ids: BTreeSet<_> = panels(&dashboard).map(|panel| panel["id"].as_u64()).collect();
        assert_eq!(ids.len(), panels(&dashboard).count(), "{name}: two panels have one id");
        for panel in panels(&dashboard) {
            faults.extend(
                missing(panel).into_iter().map(|fault| format!("{name}: {}: {fault}", panel["title"])),
            );
        }
        let variables = dashboard["templating"]["list"].as_array().unwrap();
        assert!(variables.iter().any(|variable| variable["name"] == "instance"), "{name}");
    }
    assert_eq!(faults, [""; 0]);
    assert_eq!(uids().len(), read().len(), "two dashboards have one uid");
    assert_eq!(missing(&serde_json::json!({"type": "timeseries"})).len(), 5);
}

/// What a panel lacks.
fn missing(panel: &Value) -> Vec<&'static str> {
    let has = |pointer: &str| match panel.pointer(pointer) {
        Some(Value::String(text)) => !text.is_empty(),
        Some(Value::Array(list)) => !list.is_empty(),
        _ => false,
    };
    let links = panel.pointer("/fieldConfig/defaults/links").and_then(Value::as_array);
    let leads = links.is_some_and(|links| {
        links.iter().any(|link| link["url"].as_str().is_some_and(|url| url.contains("%22jaeger%22")))
    });
    let known = [parts::PROMETHEUS, parts::JAEGER];
    let source = panel["datasource"]["uid"].as_str().is_some_and(|uid| known.contains(&uid));
    let checks = [
        ("no description", has("/description")),
        ("no data source of ours", source),
        ("no queries", has("/targets")),
        ("no unit", has("/fieldConfig/defaults/unit") || panel["type"] == "table"),
        ("no way to traces", leads),
    ];
    checks.into_iter().filter(|(_, fulfilled)| !fulfilled).map(|(fault, _)| fault).collect()
}
