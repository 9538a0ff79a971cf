//! Prometheus, asked by its own API: the targets, the rules, and what the adapter's series say.

use std::fs;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;

use crate::backends::{Places, ask};
use crate::{Outcome, by};

/// How long until two scrapes and an evaluation have been, and some more.
const PATIENCE: Duration = Duration::from_secs(40);

/// The longest time between two evaluations of a rule that is waited for.
const EVALUATION_MAX: Duration = Duration::from_secs(15);

/// What is asked: what it tells, the query, and what the answer must exceed.
const QUERIES: [(&str, &str, f64); 13] = [
    ("instances", "count(adapter_build_info)", 0.0),
    ("calls per second", "sum(rate(rpc_server_call_duration_seconds_count[30s]))", 0.0),
    ("messages per second", "sum(rate(messaging_process_duration_seconds_count[30s]))", 0.0),
    (
        "commands per second that succeeded",
        "sum(rate(adapter_commands_total{state=\"succeeded\"}[30s]))",
        0.0,
    ),
    ("events per second", "sum(rate(adapter_outbox_delay_seconds_count{kind=\"event\"}[30s]))", 0.0),
    (
        "95 % of the API's answers came within (s)",
        "histogram_quantile(0.95, sum by (le) (rate(http_client_request_duration_seconds_bucket[30s])))",
        0.0,
    ),
    (
        "share of commands final within 10 s",
        "sum(adapter_command_duration_seconds_bucket{le=\"10\"}) / sum(adapter_command_duration_seconds_count)",
        0.9,
    ),
    ("retries", "sum(adapter_retries_total)", 0.0),
    ("deferrals", "sum(adapter_commands_total{state=\"deferred\"})", 0.0),
    ("the books balance (1 is yes)", "max(abs(adapter_books_balance)) == bool 0", 0.0),
    ("spans that the collector sent to Jaeger", "sum(otelcol_exporter_sent_spans_total)", 0.0),
    ("log records that it took", "sum(otelcol_exporter_sent_log_records_total)", 0.0),
    ("the collector lost no span (1 is yes)", "sum(otelcol_exporter_send_failed_spans_total) == bool 0", 0.0),
];

/// Every target is up, soon, and there are as many as there should be.
pub async fn targets_are_up(places: &Places, count: usize) -> Outcome {
    by(PATIENCE, async || {
        let targets = targets(places).await?;
        let down = down(&targets);
        if !down.is_empty() {
            return Err(format!("down: {}", down.join(", ")).into());
        }
        if targets.len() != count {
            return Err(format!("{} targets in the place of {count}", targets.len()).into());
        }
        Ok(())
    })
    .await?;
    println!("  {count} targets, all up");
    Ok(())
}

/// One target is down, soon, and no other.
pub async fn one_target_is_down(places: &Places) -> Outcome {
    let fault = by(PATIENCE, async || match &down(&targets(places).await?)[..] {
        [fault] => Ok(fault.clone()),
        faults => Err(format!("{} targets are down in the place of one", faults.len()).into()),
    });
    println!("  Prometheus: {} is down", fault.await?);
    Ok(())
}

async fn targets(places: &Places) -> Outcome<Vec<Value>> {
    let answer = ask(&format!("{}/api/v1/targets", places.prometheus), &[("state", "active")]).await?;
    Ok(answer["data"]["activeTargets"].as_array().ok_or("no list of targets")?.clone())
}

/// Those that are not up, with what is wrong.
fn down(targets: &[Value]) -> Vec<String> {
    let down = targets.iter().filter(|target| target["health"] != "up");
    down.map(|target| format!("{} ({})", target["scrapeUrl"], target["lastError"])).collect()
}

/// Every query of the table is answered as it should be.
pub async fn queries_are_answered(places: &Places) -> Outcome {
    for (what, query, least) in QUERIES {
        let value = by(PATIENCE, async || {
            let value = value_of(places, query).await?;
            if value > least { Ok(value) } else { Err(format!("{what}: {value}, of {query}").into()) }
        });
        println!("  {what:<42} {:.3}", value.await?);
    }
    Ok(())
}

async fn value_of(places: &Places, query: &str) -> Outcome<f64> {
    let answer = ask(&format!("{}/api/v1/query", places.prometheus), &[("query", query)]).await?;
    let value = answer["data"]["result"][0]["value"][1].as_str();
    Ok(value.ok_or_else(|| format!("no answer to {query}"))?.parse()?)
}

/// Every rule that is shipped was loaded, and evaluated without a fault unless its turn comes later. Alerts that fire are told.
pub async fn rules_are_loaded(places: &Places, folder: &Path) -> Outcome {
    let count = rules_in(folder)?;
    let rules = by(PATIENCE, async || {
        let rules = rules(places).await?;
        if rules.len() != count {
            return Err(format!("{} rules in the place of {count}", rules.len()).into());
        }
        let is_well = |rule: &Rule| rule.health == "ok" || (rule.health == "unknown" && rule.is_slow);
        let faults: Vec<_> =
            rules.iter().filter(|rule| !is_well(rule)).map(|rule| rule.fault.clone()).collect();
        if faults.is_empty() { Ok(rules) } else { Err(faults.join(", ").into()) }
    });
    let rules = rules.await?;
    let later = rules.iter().filter(|rule| rule.health == "unknown").count();
    let firing: Vec<_> = rules.iter().filter(|rule| rule.is_firing).map(|rule| rule.name.as_str()).collect();
    let firing = if firing.is_empty() { "none".to_owned() } else { firing.join(", ") };
    println!("  {count} rules, all loaded; evaluated: {}, later: {later}", rules.len() - later);
    println!("  alerts that fire: {firing}");
    Ok(())
}

/// A rule as Prometheus tells of it.
struct Rule {
    name: String,
    health: String,
    fault: String,
    is_firing: bool,
    /// It is evaluated so seldom that it is not waited for.
    is_slow: bool,
}

async fn rules(places: &Places) -> Outcome<Vec<Rule>> {
    let answer = ask(&format!("{}/api/v1/rules", places.prometheus), &[]).await?;
    let groups = answer["data"]["groups"].as_array().ok_or("no list of rules")?;
    let rules = groups.iter().flat_map(|group| {
        let is_slow = group["interval"].as_f64().unwrap_or_default() > EVALUATION_MAX.as_secs_f64();
        let rules = group["rules"].as_array().into_iter().flatten();
        rules.map(move |rule| Rule {
            name: rule["name"].as_str().unwrap_or_default().to_owned(),
            health: rule["health"].as_str().unwrap_or_default().to_owned(),
            fault: format!("{}: {} {}", rule["name"], rule["health"], rule["lastError"]),
            is_firing: rule["state"] == "firing",
            is_slow,
        })
    });
    Ok(rules.collect())
}

/// Rules in the shipped files.
fn rules_in(folder: &Path) -> Outcome<usize> {
    let mut count = 0;
    for file in
        fs::read_dir(folder)?.flatten().filter(|file| file.path().extension().is_some_and(|it| it == "yaml"))
    {
        let text = fs::read_to_string(file.path())?;
        let starts = |line: &&str| {
            let line = line.trim_start().trim_start_matches("- ");
            line.starts_with("alert:") || line.starts_with("record:")
        };
        count += text.lines().filter(starts).count();
    }
    Ok(count)
}
