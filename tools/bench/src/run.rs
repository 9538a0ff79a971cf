//! One measurement: everything is made anew, the load is put on, and what it took is read from outside.

use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::measure;
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use simulator::Rule;
use tokio::process::Command;

use crate::Outcome;
use crate::scenario::{ALL, Load, Queue, Scenario, Who};
use crate::subject::{Place, Spent, Subject};
use crate::{calls, messages};

/// Messages of a backlog.
const MESSAGES: usize = 20_000;
const MESSAGES_QUICK: usize = 8_000;

/// How long is called.
const CALLING: Duration = Duration::from_secs(6);
const CALLING_QUICK: Duration = Duration::from_secs(3);

/// How long is called before anything counts.
const WARMING: Duration = Duration::from_millis(500);

/// How often each scenario is measured, unless it is said otherwise.
const ROUNDS: usize = 3;

/// What is to be measured.
#[derive(Debug, Clone)]
pub struct Plan {
    pub is_quick: bool,
    pub only: Option<String>,
    pub rounds: Option<usize>,
    pub delay: u64,
}

/// What a measurement tells. Times are in microseconds.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Figure {
    pub name: String,
    /// Commands in a second.
    pub rate: f64,
    /// Processor time of the subject for each command, user and system.
    pub cpu: f64,
    pub p50: u64,
    pub p99: u64,
    pub p999: u64,
    /// The most memory that the subject had, in MiB.
    pub memory: f64,
    /// Transactions of the store for each command.
    pub commits: f64,
}

/// Measures all that is planned, in turn, and yields the median of each.
pub async fn all(plan: &Plan) -> Outcome<Vec<Figure>> {
    let is_wanted = |scenario: &&Scenario| {
        (scenario.is_main || !plan.is_quick)
            && plan.only.as_ref().is_none_or(|text| scenario.name.contains(text.as_str()))
    };
    let wanted: Vec<_> = ALL.iter().filter(is_wanted).collect();
    let rounds = plan.rounds.unwrap_or(if plan.is_quick { 1 } else { ROUNDS });
    let mut figures: Vec<Vec<Figure>> = wanted.iter().map(|_| Vec::new()).collect();
    for round in 1..=rounds {
        for (scenario, figures) in wanted.iter().zip(&mut figures) {
            eprintln!("round {round} of {rounds}: {}", scenario.name);
            let figure = once(scenario, plan).await.map_err(|error| format!("{}: {error}", scenario.name))?;
            eprintln!("  {:.0}/s, {:.0} us of processor time each", figure.rate, figure.cpu);
            figures.push(figure);
        }
    }
    Ok(figures.into_iter().filter_map(median).collect())
}

/// The round whose rate is in the middle.
fn median(mut figures: Vec<Figure>) -> Option<Figure> {
    figures.sort_by(|a, b| a.rate.total_cmp(&b.rate));
    let middle = figures.len() / 2;
    (middle < figures.len()).then(|| figures.swap_remove(middle))
}

async fn once(scenario: &Scenario, plan: &Plan) -> Outcome<Figure> {
    let place = Place::new(scenario).await?;
    if plan.delay > 0 {
        place.upstream.simulator.script(Rule::patch().delay(Duration::from_millis(plan.delay)));
    }
    if let Some(one_in) = scenario.fails {
        place.upstream.simulator.script(Rule::patch().one_in(one_in).status(503));
    }
    let count = if plan.is_quick { MESSAGES_QUICK } else { MESSAGES };
    let length = if plan.is_quick { CALLING_QUICK } else { CALLING };
    match scenario.load {
        Load::Drain { guests } => drain(scenario, &place, count, guests).await,
        Load::Both(callers) => both(scenario, &place, count, (callers, length)).await,
        Load::Calls(_) | Load::Repeats(_) | Load::Rate(_) => call(scenario, &place, length).await,
    }
}

fn figure(name: &str, rate: f64, times: &Histogram<u64>, spent: (Spent, Spent)) -> Figure {
    let (before, after) = spent;
    let count = times.len().max(1) as f64;
    Figure {
        name: name.to_owned(),
        rate,
        cpu: (after.cpu - before.cpu) as f64 / count,
        p50: times.value_at_quantile(0.5),
        p99: times.value_at_quantile(0.99),
        p999: times.value_at_quantile(0.999),
        memory: after.memory as f64 / 1024.0,
        commits: (after.commits - before.commits) as f64 / count,
    }
}

/// Fills the queue while nobody consumes from it.
async fn fill(scenario: &Scenario, place: &Place, count: usize, guests: usize) -> Outcome {
    let is_adapter = matches!(scenario.who, Who::Adapter { .. });
    if is_adapter && scenario.queue == Queue::Quorum {
        // The queue is there once an instance has been.
        let subject = place.start(scenario).await?;
        if let Subject::Adapter(adapter) = &subject {
            adapter.ready().await;
        }
        subject.end().await?;
    } else {
        messages::declare(&place.broker, &place.names, scenario.queue).await?;
    }
    place.broker.publish_all(&place.names, measure::backlog(&place.upstream, count, guests)).await;
    Ok(())
}

async fn drain(scenario: &Scenario, place: &Place, count: usize, guests: usize) -> Outcome<Figure> {
    fill(scenario, place, count, guests).await?;
    let (queue, mut events) = messages::events(&place.broker, &place.names).await?;
    let subject = place.start(scenario).await?;
    let before = match &subject {
        // What the broker took before was for others.
        Subject::Broker => subject.spent().await?,
        Subject::Adapter(_) | Subject::Process { .. } => Spent::default(),
    };
    if scenario.who == Who::Shovel {
        shovel("start", &[&place.names.commands, &queue]).await?;
    }
    let (rate, times) = messages::drained(&mut events, count, Instant::now()).await?;
    let after = subject.spent().await?;
    if scenario.who == Who::Shovel {
        shovel("stop", &[]).await?;
    }
    subject.end().await?;
    Ok(figure(scenario.name, rate, &times, (before, after)))
}

async fn shovel(act: &str, queues: &[&str]) -> Outcome {
    let mut command = Command::new("tools/bench/shovel");
    let ended = command.arg(act).args(queues).stdout(Stdio::null()).status().await?;
    if ended.success() { Ok(()) } else { Err(format!("tools/bench/shovel {act} failed").into()) }
}

/// Where a subject is called.
async fn address(subject: &Subject) -> Outcome<String> {
    match subject {
        Subject::Adapter(adapter) => {
            adapter.ready().await;
            Ok(adapter.grpc_address())
        }
        Subject::Process { address: Some(address), .. } => Ok(address.clone()),
        Subject::Process { .. } | Subject::Broker => Err("it takes no calls".into()),
    }
}

async fn call(scenario: &Scenario, place: &Place, length: Duration) -> Outcome<Figure> {
    let subject = place.start(scenario).await?;
    let clients = calls::clients(&address(&subject).await?).await?;
    let organization = &place.upstream.organizations[0];
    calls::at_once(&clients, organization, 16, false, WARMING).await?;
    let (before, began) = (subject.spent().await?, Instant::now());
    let times = match scenario.load {
        Load::Calls(count) => calls::at_once(&clients, organization, count, false, length).await?,
        Load::Repeats(count) => calls::at_once(&clients, organization, count, true, length).await?,
        Load::Rate(rate) => calls::at_rate(&clients, organization, rate, length).await?,
        Load::Drain { .. } | Load::Both(_) => return Err("no calls".into()),
    };
    let (rate, after) = (times.len() as f64 / began.elapsed().as_secs_f64(), subject.spent().await?);
    subject.end().await?;
    Ok(figure(scenario.name, rate, &times, (before, after)))
}

/// Calls beside a backlog: the times are the calls', the rate is of both.
async fn both(
    scenario: &Scenario,
    place: &Place,
    count: usize,
    (callers, length): (usize, Duration),
) -> Outcome<Figure> {
    fill(scenario, place, count, 4_000).await?;
    let (_, mut events) = messages::events(&place.broker, &place.names).await?;
    let subject = place.start(scenario).await?;
    let began = Instant::now();
    let clients = calls::clients(&address(&subject).await?).await?;
    let organization = &place.upstream.organizations[0];
    let calling = calls::at_once(&clients, organization, callers, false, length);
    let (times, drained) = tokio::join!(calling, messages::drained(&mut events, count, began));
    drained?;
    let times = times?;
    let after = subject.spent().await?;
    let patches = place.upstream.simulator.stats().patches;
    let rate = patches as f64 / began.elapsed().as_secs_f64();
    subject.end().await?;
    let mut figure = figure(scenario.name, rate, &times, (Spent::default(), after));
    figure.cpu = after.cpu as f64 / patches.max(1) as f64;
    figure.commits = after.commits as f64 / patches.max(1) as f64;
    Ok(figure)
}
