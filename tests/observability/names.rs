//! Every metric, every label and every plain value of one that a dashboard, a rule or a runbook names is there in the scrape of an
//! adapter that has worked.

use std::collections::{BTreeMap, BTreeSet};

use harness::{DEADLINE, look_again};
use tokio::time::timeout;

use crate::promql::{self, Names};
use crate::scrape::Scrape;
use crate::{dashboards, rules, runbooks, traffic};

/// What Prometheus makes itself, with the labels that may be asked by.
const OF_PROMETHEUS: [(&str, &[&str]); 2] =
    [("up", &["job", "instance"]), ("ALERTS", &["alertname", "alertstate", "severity", "job", "instance"])];

/// Expressions with the places that they stand in.
fn expressions() -> Vec<(String, String)> {
    let mut all = runbooks::expressions();
    let name = |rule: &rules::Rule| rule.alert().or(rule.record()).unwrap_or_default().to_owned();
    all.extend(rules::read().iter().map(|rule| (name(rule), rule.expression().to_owned())));
    for (file, dashboard) in dashboards::read() {
        all.extend(
            dashboards::expressions(&dashboard).into_iter().map(|expression| (file.clone(), expression)),
        );
    }
    all
}

/// What is known, by metric, with its labels: a series of the scrape, or one that a rule makes.
struct Known<'a> {
    scrape: &'a Scrape,
    recorded: BTreeMap<String, BTreeSet<String>>,
}

impl<'a> Known<'a> {
    fn of(scrape: &'a Scrape) -> Self {
        let rules = rules::read();
        let made: BTreeMap<_, _> = rules
            .iter()
            .filter_map(|rule| Some((rule.record()?, promql::names(rule.expression()))))
            .collect();
        let labels = |name: &&str| (name.to_string(), made[*name].labels.clone());
        let mut recorded: BTreeMap<_, _> = made.keys().map(labels).collect();
        // A rule that is made of others has their labels; the longest such line has three of them.
        for _ in 0..3 {
            for (name, Names { metrics, .. }) in &made {
                let inner: Vec<_> =
                    metrics.keys().filter_map(|metric| recorded.get(metric).cloned()).collect();
                recorded.entry((*name).to_owned()).or_default().extend(inner.into_iter().flatten());
            }
        }
        Self { scrape, recorded }
    }

    fn labels(&self, metric: &str) -> Option<BTreeSet<String>> {
        let made = OF_PROMETHEUS.iter().find(|(name, _)| *name == metric);
        let made = made.map(|(_, labels)| labels.iter().map(|label| (*label).to_owned()).collect());
        made.or_else(|| self.recorded.get(metric).cloned())
            .or_else(|| Some(self.scrape.labels(metric)?.keys().cloned().collect()))
    }

    /// The values of a label that are asked for, and that the scrape does not have.
    fn other_values(&self, metric: &str, label: &str, asked: &BTreeSet<String>) -> Vec<String> {
        let has = self.scrape.labels(metric).and_then(|labels| labels.get(label));
        let other = has.into_iter().filter(|has| !has.is_empty()).flat_map(|has| asked.difference(has));
        other.map(|value| format!("{metric}{{{label}=\"{value}\"}}")).collect()
    }

    /// What an expression names and is not there.
    fn missing(&self, Names { metrics, labels }: &Names) -> Vec<String> {
        let mut missing = Vec::new();
        let mut offered = BTreeSet::new();
        for (metric, asked) in metrics {
            let Some(has) = self.labels(metric) else {
                missing.push(metric.clone());
                continue;
            };
            for (label, values) in asked {
                match has.contains(label) {
                    true => missing.extend(self.other_values(metric, label, values)),
                    false => missing.push(format!("{metric}{{{label}}}")),
                }
            }
            offered.extend(has);
        }
        // Of a metric that is missing the labels are not known.
        if missing.is_empty() {
            missing.extend(labels.difference(&offered).map(|label| format!("a label {label}")));
        }
        missing
    }
}

/// What is named and missing, with where it is named.
fn missing(scrape: &Scrape, expressions: &[(String, String)]) -> BTreeMap<String, BTreeSet<String>> {
    let known = Known::of(scrape);
    let mut missing: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (place, expression) in expressions {
        for name in known.missing(&promql::names(expression)) {
            missing.entry(name).or_default().insert(place.clone());
        }
    }
    missing
}

#[tokio::test]
async fn every_metric_that_is_named_is_in_a_scrape_after_real_traffic() {
    let expressions = expressions();
    assert!(expressions.len() > 100, "they are found: {}", expressions.len());
    let world = traffic::start("telemetry.organizations = [\"test\"]").await;
    traffic::run(&world).await;
    let mut left = BTreeMap::new();
    // Some are counted now and then.
    let complete = async {
        loop {
            left = missing(&Scrape::read(&world.adapter.metrics().await), &expressions);
            if left.is_empty() {
                return;
            }
            look_again().await;
        }
    };
    let in_time = timeout(DEADLINE, complete).await;
    let list: Vec<_> = left.iter().map(|(name, places)| format!("{name}, by {places:?}")).collect();
    assert!(in_time.is_ok(), "named, and not in the scrape ({}):\n{}", list.len(), list.join("\n"));
    world.end().await;
}

#[test]
fn what_is_missing_is_found() {
    let scrape = Scrape::read("a{x=\"1\"} 1\n");
    let ask = |expression: &str| {
        let expressions = [("here".to_owned(), expression.to_owned())];
        missing(&scrape, &expressions).into_keys().collect::<Vec<_>>()
    };
    assert_eq!(ask("sum by (job, x) (rate(a{instance=\"b\"}[5m]))"), [""; 0]);
    assert_eq!(ask("a{y=\"1\"} / b"), ["a{y}", "b"]);
    assert_eq!(ask("a{x=~\"1|2\"} / a{x=~\"3.*\"}"), ["a{x=\"2\"}"]);
    assert_eq!(ask("sum by (z) (a)"), ["a label z"]);
    assert_eq!(ask("slo:commands_late:burn5m{job=\"c\"} > slo:nothing:burn5m"), ["slo:nothing:burn5m"]);
    assert_eq!(ask("up{job=\"a\"} == 1 unless ALERTS{severity=\"page\"}"), [""; 0]);
}
