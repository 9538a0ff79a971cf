//! What dashboards are made of: panels of few kinds, all alike, each with a way to the traces behind it.

use serde_json::{Value, json};

/// The data source of metrics, by its uid.
pub const PROMETHEUS: &str = "prometheus";

/// The data source of traces, by its uid.
pub const JAEGER: &str = "jaeger";

/// The variable that narrows panels down to instances.
pub const INSTANCES: &str = "instance=~\"$instance\"";

/// Units of the grid that a row is wide.
const WIDTH: u64 = 24;

/// The operation of the span of one PATCH.
pub const PATCH: &str = "PATCH /v1-beta/guest-connections/{guest_org_id}";

/// A search for traces.
#[derive(Debug, Clone, Copy)]
pub struct Search {
    title: &'static str,
    operation: Option<&'static str>,
    tags: &'static str,
    longer_than: Option<&'static str>,
}

impl Search {
    /// All traces of the time that is shown.
    pub const ALL: Self = Self { title: "Traces", operation: None, tags: "", longer_than: None };

    /// Those with a fault.
    pub const FAULTY: Self = Self { title: "Traces with errors", tags: "error=true", ..Self::ALL };

    /// Those of commands that were late.
    pub const LATE: Self = Self {
        title: "Traces longer than 10 s",
        operation: Some("command"),
        longer_than: Some("10s"),
        ..Self::ALL
    };

    /// Those with a span of this name.
    pub const fn of(title: &'static str, operation: &'static str) -> Self {
        Self { title, operation: Some(operation), ..Self::ALL }
    }

    /// Those with these tags, in the form `name=value`.
    pub const fn tagged(title: &'static str, tags: &'static str) -> Self {
        Self { title, tags, ..Self::ALL }
    }

    /// The same, with these tags.
    pub const fn with(self, tags: &'static str) -> Self {
        Self { tags, ..self }
    }

    /// The question to Jaeger: a span with this name and these tags.
    pub fn query(&self) -> Value {
        let mut query = json!({
            "refId": "A", "datasource": source(JAEGER), "queryType": "search", "limit": 50,
            "service": "guest-connection-adapter",
        });
        if let Some(operation) = self.operation {
            query["operation"] = operation.into();
        }
        if !self.tags.is_empty() {
            query["tags"] = self.tags.into();
        }
        if let Some(duration) = self.longer_than {
            query["minDuration"] = duration.into();
        }
        query
    }

    /// The way to the search in Grafana's Explore, for the time that is shown.
    pub fn link(&self) -> Value {
        let panes = json!({"traces": {
            "datasource": JAEGER, "queries": [self.query()],
            "range": {"from": "${__from}", "to": "${__to}"},
        }});
        let url = format!("/explore?schemaVersion=1&orgId=1&panes={}", encoded(&panes.to_string()));
        json!({"title": self.title, "url": url, "targetBlank": true})
    }
}

/// What the links at the head of each dashboard ask for.
pub const HEAD: [Search; 3] = [Search::ALL, Search::FAULTY, Search::LATE];

/// Percent-encoded, but for Grafana's variables: it puts their values in before the address is read.
fn encoded(text: &str) -> String {
    let mut result = String::new();
    let mut rest = text;
    while let Some(byte) = rest.bytes().next() {
        let variable = rest.starts_with("${").then(|| rest.find('}')).flatten();
        let length = match variable {
            Some(end) => {
                result.push_str(&rest[..=end]);
                end + 1
            }
            None if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                result.push(byte.into());
                1
            }
            None => {
                let length = rest.chars().next().map_or(1, char::len_utf8);
                result.extend(rest[..length].bytes().map(|byte| format!("%{byte:02X}")));
                length
            }
        };
        rest = &rest[length..];
    }
    result
}

/// The address of a data source.
fn source(uid: &str) -> Value {
    json!({"type": uid, "uid": uid})
}

/// How a panel shows what it has asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// The course of a few series.
    Graph,
    /// The last value.
    Number,
    /// A list of traces.
    Traces,
}

/// One panel.
pub struct Panel {
    kind: Kind,
    title: &'static str,
    unit: &'static str,
    description: &'static str,
    queries: Vec<(String, String)>,
    steps: Vec<(&'static str, f64)>,
    search: Search,
}

impl Panel {
    fn new(kind: Kind, title: &'static str, unit: &'static str, description: &'static str) -> Self {
        let (queries, steps, search) = (Vec::new(), Vec::new(), Search::ALL);
        Self { kind, title, unit, description, queries, steps, search }
    }

    /// The course of a few series, a third of the width.
    pub fn graph(title: &'static str, unit: &'static str, description: &'static str) -> Self {
        Self::new(Kind::Graph, title, unit, description)
    }

    /// The last value, a sixth of the width.
    pub fn number(title: &'static str, unit: &'static str, description: &'static str) -> Self {
        Self::new(Kind::Number, title, unit, description)
    }

    /// A list of traces over the whole width.
    pub fn list(title: &'static str, description: &'static str, search: Search) -> Self {
        Self::new(Kind::Traces, title, "", description).traces(search)
    }

    /// Adds a query with the legend of its series. `INSTANCES` in it stands for the matcher of instances.
    pub fn query(mut self, expression: &str, legend: &str) -> Self {
        self.queries.push((expression.replace("INSTANCES", INSTANCES), legend.to_owned()));
        self
    }

    /// Adds the 50th, 95th and 99th percentile of a histogram by a label.
    pub fn percentiles(self, buckets: &str, label: &str) -> Self {
        [("0.5", "p50"), ("0.95", "p95"), ("0.99", "p99")].into_iter().fold(self, |panel, (share, name)| {
            let rate = format!("sum by ({label}, le) (rate({buckets}[$__rate_interval]))");
            panel.query(&format!("histogram_quantile({share}, {rate})"), &format!("{name} {{{{{label}}}}}"))
        })
    }

    /// From which value on it has which colour; below the first it is green.
    pub fn steps(mut self, steps: &[(&'static str, f64)]) -> Self {
        self.steps = steps.to_vec();
        self
    }

    /// The traces that it leads to, in the place of all.
    pub fn traces(mut self, search: Search) -> Self {
        self.search = search;
        self
    }

    /// The traces that it leads to.
    pub const fn search(&self) -> Search {
        self.search
    }

    const fn size(&self) -> (u64, u64) {
        match self.kind {
            Kind::Graph => (8, 8),
            Kind::Number => (4, 4),
            Kind::Traces => (WIDTH, 10),
        }
    }

    fn value(&self, id: usize, x: u64, y: u64) -> Value {
        let (width, height) = self.size();
        let mut panel = json!({
            "id": id, "title": self.title, "description": self.description,
            "gridPos": {"h": height, "w": width, "x": x, "y": y},
        });
        match self.kind {
            Kind::Traces => {
                panel["type"] = "table".into();
                panel["datasource"] = source(JAEGER);
                panel["targets"] = json!([self.search.query()]);
                panel["fieldConfig"] = json!({"defaults": {"links": [self.search.link()]}, "overrides": []});
                panel["options"] = json!({"showHeader": true, "cellHeight": "sm"});
            }
            Kind::Graph => {
                panel["type"] = "timeseries".into();
                panel["options"] = json!({
                    "legend": {"displayMode": "list", "placement": "bottom", "showLegend": true, "calcs": []},
                    "tooltip": {"mode": "multi", "sort": "desc"},
                });
                self.metrics(&mut panel);
                let shown = if self.steps.is_empty() { "off" } else { "line" };
                panel["fieldConfig"]["defaults"]["custom"] = json!({
                    "drawStyle": "line", "lineWidth": 1, "fillOpacity": 10, "showPoints": "never",
                    "spanNulls": false, "thresholdsStyle": {"mode": shown},
                });
            }
            Kind::Number => {
                panel["type"] = "stat".into();
                panel["options"] = json!({
                    "colorMode": "value", "graphMode": "area", "justifyMode": "auto", "orientation": "auto",
                    "textMode": "auto", "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": false},
                });
                self.metrics(&mut panel);
            }
        }
        panel
    }

    /// What panels of metrics have.
    fn metrics(&self, panel: &mut Value) {
        let first = json!({"color": "green", "value": null});
        let steps = self.steps.iter().map(|(color, value)| json!({"color": color, "value": value}));
        panel["datasource"] = source(PROMETHEUS);
        panel["fieldConfig"] = json!({
            "defaults": {
                "unit": self.unit, "color": {"mode": if self.kind == Kind::Number { "thresholds" } else { "palette-classic" }},
                "links": [self.search.link()],
                "thresholds": {"mode": "absolute", "steps": std::iter::once(first).chain(steps).collect::<Vec<_>>()},
            },
            "overrides": [],
        });
        let targets = self.queries.iter().zip('A'..).map(|((expression, legend), letter)| {
            json!({
                "refId": letter.to_string(), "datasource": source(PROMETHEUS), "editorMode": "code", "range": true,
                "expr": expression, "legendFormat": legend,
            })
        });
        panel["targets"] = targets.collect();
    }
}

/// A dashboard: rows of panels below their titles.
pub struct Dashboard {
    /// Its file, below the folder of dashboards.
    pub file: &'static str,
    /// Its stable name in addresses.
    pub uid: &'static str,
    /// What it is called.
    pub title: &'static str,
    /// What it is for.
    pub description: &'static str,
    /// A variable besides the instance: its name, what it is called, and the query for its values.
    pub variable: Option<(&'static str, &'static str, &'static str)>,
    /// A variable that is put in by hand: its name, and what it is called.
    pub text: Option<(&'static str, &'static str)>,
    /// The rows.
    pub rows: Vec<(&'static str, Vec<Panel>)>,
}

impl Dashboard {
    /// The file's text.
    pub fn text(&self) -> String {
        let mut text = serde_json::to_string_pretty(&self.value()).expect("JSON");
        text.push('\n');
        text
    }

    fn value(&self) -> Value {
        let instance =
            ("instance", "Instance", "label_values(up{job=~\"guest-connection-adapter.*\"}, instance)");
        let variables = self.variable.map(|variable| variable_of(variable, false));
        let variables =
            variables.into_iter().chain(self.text.map(by_hand)).chain([variable_of(instance, true)]);
        json!({
            "uid": self.uid, "title": self.title, "description": self.description,
            "tags": ["guest-connection-adapter"], "schemaVersion": 39, "version": 1, "editable": true,
            "graphTooltip": 1, "refresh": "30s", "timezone": "browser", "time": {"from": "now-3h", "to": "now"},
            "templating": {"list": variables.collect::<Vec<_>>()},
            "annotations": {"list": [{
                "name": "Alerts", "enable": true, "iconColor": "red", "datasource": source(PROMETHEUS),
                "expr": "ALERTS{alertstate=\"firing\"}", "titleFormat": "{{alertname}}", "textFormat": "{{severity}}",
            }]},
            "links": std::iter::once(json!({
                "title": "Dashboards", "type": "dashboards", "tags": ["guest-connection-adapter"],
                "asDropdown": true, "includeVars": true, "keepTime": true, "targetBlank": false,
            })).chain(HEAD.map(link)).collect::<Vec<_>>(),
            "panels": self.panels(),
        })
    }

    fn panels(&self) -> Vec<Value> {
        let (mut panels, mut y) = (Vec::new(), 0);
        for (title, row) in &self.rows {
            let id = panels.len() + 1;
            panels.push(json!({
                "id": id, "type": "row", "title": title, "collapsed": false, "panels": [],
                "gridPos": {"h": 1, "w": WIDTH, "x": 0, "y": y},
            }));
            y += 1;
            let (mut x, mut line) = (0, 0);
            for panel in row {
                let (width, height) = panel.size();
                if x + width > WIDTH || (line != 0 && line != height) {
                    y += line;
                    x = 0;
                }
                panels.push(panel.value(panels.len() + 1, x, y));
                line = height;
                x += width;
            }
            y += line;
        }
        panels
    }
}

/// A link at the head of a dashboard.
fn link(search: Search) -> Value {
    let mut link = search.link();
    link["type"] = "link".into();
    link["icon"] = "external link".into();
    link
}

fn by_hand((name, label): (&str, &str)) -> Value {
    json!({
        "name": name, "label": label, "type": "textbox", "query": "", "current": {"text": "", "value": ""},
        "options": [{"selected": true, "text": "", "value": ""}],
    })
}

fn variable_of((name, label, query): (&str, &str, &str), several: bool) -> Value {
    let mut variable = json!({
        "name": name, "label": label, "type": "query", "datasource": source(PROMETHEUS), "definition": query,
        "query": {"query": query, "refId": name}, "refresh": 2, "sort": 1, "multi": several, "includeAll": several,
        "options": [],
    });
    if several {
        variable["allValue"] = ".*".into();
        variable["current"] = json!({"text": ["All"], "value": ["$__all"]});
    }
    variable
}

#[test]
fn variables_stay_as_they_are_and_all_else_is_encoded() {
    assert_eq!(encoded("{\"a b\": \"${x}\"}ü"), "%7B%22a%20b%22%3A%20%22${x}%22%7D%C3%BC");
}
