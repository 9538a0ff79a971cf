//! What a scrape shows, by metric and label.

use std::collections::BTreeMap;

use crate::promql::Labels;

/// The metrics of a scrape with the labels that their series have, and what Prometheus adds to each.
pub struct Scrape {
    metrics: BTreeMap<String, Labels>,
}

/// Labels that the scraper gives.
const OF_THE_SCRAPER: [&str; 2] = ["job", "instance"];

impl Scrape {
    /// Reads Prometheus' text form.
    pub fn read(text: &str) -> Self {
        let mut metrics: BTreeMap<String, Labels> = BTreeMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
            let end = line.find(['{', ' ']).unwrap_or(line.len());
            let labels = metrics.entry(line[..end].to_owned()).or_default();
            for (label, value) in labels_of(&line[end..]) {
                labels.entry(label).or_default().insert(value);
            }
            for label in OF_THE_SCRAPER {
                labels.entry(label.to_owned()).or_default();
            }
        }
        Self { metrics }
    }

    /// The labels of a metric and their values, if it is there.
    pub fn labels(&self, metric: &str) -> Option<&Labels> {
        self.metrics.get(metric)
    }
}

/// The labels in `{a="b",c="d"} 1`.
fn labels_of(text: &str) -> Vec<(String, String)> {
    let Some(mut rest) = text.strip_prefix('{') else { return Vec::new() };
    let mut found = Vec::new();
    while let Some((name, value)) = rest.split_once("=\"") {
        let mut escaped = false;
        let end = value.find(|c| {
            let ends = c == '"' && !escaped;
            escaped = c == '\\' && !escaped;
            ends
        });
        let end = end.unwrap_or_else(|| panic!("a text without an end: {text}"));
        found.push((name.trim_start_matches(',').to_owned(), value[..end].to_owned()));
        rest = &value[end + 1..];
        if rest.starts_with('}') {
            break;
        }
    }
    found
}

#[test]
fn a_scrape_is_read() {
    let text =
        "# HELP a b\n# TYPE a counter\na{x=\"}\\\"=\\\"\",y=\"\"} 1\na{z=\"1\"} 2\na{z=\"2\"} 2\n\nb 3\n";
    let scrape = Scrape::read(text);
    let labels = scrape.labels("a").unwrap();
    assert_eq!(labels.keys().collect::<Vec<_>>(), ["instance", "job", "x", "y", "z"]);
    assert_eq!(labels["z"].iter().collect::<Vec<_>>(), ["1", "2"]);
    assert!(scrape.labels("b").is_some() && scrape.labels("c").is_none());
}
