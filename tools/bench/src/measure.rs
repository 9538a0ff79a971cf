//! One measurement: everything is made anew, the load is put on, and what it took is read from outside.

use std::process::Stdio;
use std::time::{Duration, Instant};

use harness::measure;
use simulator::Rule;
use tokio::process::Command;
use tokio::sync::watch;

use crate::calls::{self, Whom};
use crate::figure::Figure;
use crate::messages::{self, Drained};
use crate::run::Plan;
use crate::scenario::{Load, Queue, Scenario, Who};
use crate::subject::{Place, memory};
use crate::{Outcome, hot, life};

/// How long is called before anything counts.
const WARMING: Duration = Duration::from_millis(500);

/// Messages that are published at once where a backlog is filled up while it is drained, and how many of them lie there.
const PART: usize = 5_000;
const BACKLOG: usize = 15_000;

/// Connections of usual backlogs.
const GUESTS: usize = 4_000;

/// Measures a scenario once.
pub async fn once(scenario: &Scenario, plan: &Plan) -> Outcome<Figure> {
    let place = Place::new(scenario).await?;
    if plan.delay > 0 {
        place.upstream.simulator.script(Rule::patch().delay(Duration::from_millis(plan.delay)));
    }
    let count = plan.messages(scenario);
    let figure = match scenario.load {
        Load::Drain { guests } => drain(scenario, &place, count, guests).await,
        Load::Both(callers) => both(scenario, &place, count, (callers, plan.length())).await,
        Load::Long => long(scenario, &place, count).await,
        Load::Life { is_full } => life::measure(scenario, &place, is_full, plan).await,
        Load::Calls(_) | Load::Repeats(_) | Load::Rate(_) => call(scenario, &place, plan.length()).await,
        Load::Half => Err("half of what is not known".into()),
    };
    Ok(Figure { name: scenario.name.to_owned(), ..figure? })
}

/// Makes exchanges and queues while nobody consumes from them.
async fn declare(scenario: &Scenario, place: &Place) -> Outcome {
    let is_adapter = matches!(scenario.who, Who::Adapter { .. });
    if is_adapter && scenario.queue == Queue::Quorum {
        // The queue is there once an instance has been.
        let subject = place.start(scenario).await?;
        subject.address().await?;
        subject.end().await?;
        Ok(())
    } else {
        messages::declare(&place.broker, &place.names, scenario.queue).await
    }
}

async fn drain(scenario: &Scenario, place: &Place, count: usize, guests: usize) -> Outcome<Figure> {
    declare(scenario, place).await?;
    let mut backlog = measure::backlog(&place.upstream, count, guests);
    if scenario.is_beside_hot {
        backlog = hot::mixed(&place.upstream, backlog);
    }
    place.broker.publish_all(&place.names, backlog).await;
    let (queue, mut events) = messages::events(&place.broker, &place.names).await?;
    let mut subject = place.start(scenario).await?;
    let (counting, shovel) = (subject.count_from_start(), async {
        match scenario.who {
            Who::Shovel => self::shovel("start", &[&place.names.commands, &queue]).await,
            _ => Ok(()),
        }
    });
    // Events come before whoever sends them is known to run.
    let draining = messages::drained(&mut events, count, |_| ());
    let (counting, shovel, drained) = tokio::join!(counting, shovel, draining);
    counting?;
    shovel?;
    let Drained { rate, times } = drained?;
    let api = place.api();
    let cost = subject.end().await?;
    let figure = cost.shared(Figure { rate: Some(rate), ..Figure::default() }, count as u64);
    if scenario.who == Who::Shovel {
        self::shovel("stop", &[]).await?;
        return Ok(figure);
    }
    Ok(Figure { api: Some(api.0), ..figure }.timed(&times))
}

async fn shovel(act: &str, queues: &[&str]) -> Outcome {
    let mut command = Command::new("tools/bench/shovel");
    let ended = command.arg(act).args(queues).stdout(Stdio::null()).status().await?;
    if ended.success() { Ok(()) } else { Err(format!("tools/bench/shovel {act} failed").into()) }
}

async fn call(scenario: &Scenario, place: &Place, length: Duration) -> Outcome<Figure> {
    let mut subject = place.start(scenario).await?;
    let clients = calls::clients(&subject.address().await?).await?;
    if matches!(scenario.who, Who::Adapter { .. }) {
        messages::take_events(&place.broker, &place.names).await?;
    }
    let organization = &place.upstream.organizations[0];
    let warm = calls::at_once(&clients, organization, 16, Whom::Anew, WARMING).await?;
    subject.count_from_now(warm.len()).await?;
    let began = Instant::now();
    let beside = async {
        match scenario.is_beside_hot {
            true => {
                calls::at_once(&clients, organization, hot::CALLERS, Whom::Only(hot::GUEST), length).await
            }
            false => calls::times(),
        }
    };
    let calling = async {
        let times = match scenario.load {
            Load::Repeats(count) => calls::at_once(&clients, organization, count, Whom::Same, length).await?,
            Load::Rate(rate) => calls::at_rate(&clients, organization, rate, length).await?,
            Load::Calls(count) => calls::at_once(&clients, organization, count, Whom::Anew, length).await?,
            _ => return Err("no calls".into()),
        };
        Outcome::Ok((times.len() as f64 / began.elapsed().as_secs_f64(), times))
    };
    let (called, beside) = tokio::join!(calling, beside);
    let ((rate, times), beside) = (called?, beside?);
    let cost = subject.end().await?;
    let figure = Figure { rate: Some(rate), ..Figure::default() }.timed(&times);
    let figure = cost.shared(figure, times.len() + beside.len());
    match scenario.load {
        // They leave nothing behind.
        Load::Repeats(_) => Ok(Figure { growth: None, ..figure }),
        _ => Ok(figure),
    }
}

/// Calls beside a backlog: the times are the calls', the rate is of both.
async fn both(
    scenario: &Scenario,
    place: &Place,
    count: usize,
    (callers, length): (usize, Duration),
) -> Outcome<Figure> {
    declare(scenario, place).await?;
    place.broker.publish_all(&place.names, measure::backlog(&place.upstream, count, GUESTS)).await;
    let (_, mut events) = messages::events(&place.broker, &place.names).await?;
    let mut subject = place.start(scenario).await?;
    subject.count_from_start().await?;
    let began = Instant::now();
    let clients = calls::clients(&subject.address().await?).await?;
    let organization = &place.upstream.organizations[0];
    let calling = calls::at_once(&clients, organization, callers, Whom::Anew, length);
    let draining = messages::drained(&mut events, count, |_| ());
    let (times, drained) = tokio::join!(calling, draining);
    drained?;
    // Calls have events too.
    let times = times?;
    let all = count + times.len() as usize;
    messages::drained(&mut events, all - count, |_| ()).await?;
    let rate = all as f64 / began.elapsed().as_secs_f64();
    let cost = subject.end().await?;
    Ok(cost.shared(Figure { rate: Some(rate), ..Figure::default() }.timed(&times), all as u64))
}

/// A backlog that is filled up while it is drained, and the memory on the way.
async fn long(scenario: &Scenario, place: &Place, count: usize) -> Outcome<Figure> {
    declare(scenario, place).await?;
    let (_, mut events) = messages::events(&place.broker, &place.names).await?;
    let mut subject = place.start(scenario).await?;
    subject.count_from_start().await?;
    let (pid, (came, seen)) = (subject.pid()?, watch::channel(0));
    let mut resident = [0.0; 11];
    let draining = messages::drained(&mut events, count, |number| {
        came.send_replace(number);
        if number % (count / 10).max(1) == 0 {
            resident[(number / (count / 10).max(1)).min(10)] = memory(pid, "VmRSS:") as f64 / 1024.0;
        }
    });
    let (filled, drained) = tokio::join!(fill_up(place, count, seen), draining);
    filled?;
    let Drained { rate, .. } = drained?;
    let cost = subject.end().await?;
    let [_, early, .., late] = resident;
    let figure = Figure { rate: Some(rate), early: Some(early), late: Some(late), ..Figure::default() };
    Ok(cost.shared(figure, count as u64))
}

/// Publishes `count` messages, no more of them ahead of their events than make a backlog.
async fn fill_up(place: &Place, count: usize, mut seen: watch::Receiver<usize>) -> Outcome {
    let mut published = 0;
    while published < count {
        seen.wait_for(|seen| published < seen + BACKLOG).await?;
        let part = PART.min(count - published);
        place.broker.publish_all(&place.names, measure::backlog(&place.upstream, part, part / 2 + 1)).await;
        published += part;
    }
    Ok(())
}
