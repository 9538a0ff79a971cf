//! A backlog of hundreds of thousands of messages drains while the adapter's memory stays flat (fault case 7).

use std::collections::VecDeque;
use std::time::Duration;

use harness::Names;
use lapin::options::{BasicPublishOptions, ConfirmSelectOptions};
use lapin::{BasicProperties, Confirmation, Connection, ConnectionProperties};
use serde_json::json;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::counter::Counter;
use super::memory::{self, Sample};
use super::{Outcome, ensure, say};
use crate::stage::Stage;

/// The most resident memory that the adapter may have had. The prefetch, the lanes and the outbox bound what it holds
/// of the backlog; most of the rest is the store's cache.
const PEAK_MIB_MAX: u64 = 192;

/// Messages under way to the broker while the backlog is made.
const WINDOW: usize = 2_000;

/// Connections with one message in ten.
const HOT: usize = 4;

/// Connections with the others.
const COLD: usize = 50_000;

/// The default of `amqp.prefetch`, which no reconnection may lose.
const PREFETCH: &str = "256";

/// A drain that does not get on by [`PROGRESS_MIN`] in so long has failed.
const PATIENCE: Duration = Duration::from_secs(120);

/// What has to be done within [`PATIENCE`]: a line that grows slower with its length would never be drained.
const PROGRESS_MIN: usize = 2_000;

/// How often the memory is looked at.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(1);

/// Samples that are shown.
const SAMPLES_SHOWN: usize = 40;

/// Drains a backlog of `messages`.
///
/// # Errors
/// What is not as it should be.
pub async fn drain(messages: usize) -> Outcome {
    let stage =
        Stage::set(&[Uuid::new_v4()], "telemetry.log_filter = \"warn,guest_connection_adapter::app=info\"")
            .await;
    stage.terminate().await;
    let started = Instant::now();
    publish(&stage, messages).await.map_err(|error| error.to_string())?;
    say(format!("{messages} messages published in {:.0?}", started.elapsed()));
    let counter = Counter::start(&stage.broker_uri);
    let started = Instant::now();
    stage.start().await;
    stage.ready().await;
    let samples = watch(&stage, &counter, messages).await?;
    let took = started.elapsed();
    finish(&stage, &counter, messages, &samples, took).await
}

async fn publish(stage: &Stage, messages: usize) -> lapin::Result<()> {
    let connection = Connection::connect(&stage.broker_uri, ConnectionProperties::default()).await?;
    let channel = connection.create_channel().await?;
    channel.confirm_select(ConfirmSelectOptions::default()).await?;
    let exchange = Names::usual().commands;
    let guests: Vec<Uuid> = (0..HOT + COLD).map(|_| Uuid::new_v4()).collect();
    let mut confirms = VecDeque::with_capacity(WINDOW);
    for number in 0..messages {
        let guest = if number % 10 == 0 { guests[number / 10 % HOT] } else { guests[HOT + number % COLD] };
        let body = json!({
            "requester_organization_id": stage.requester(),
            "guest_organization_id": guest,
            "archived": number % 3 == 0,
            "idempotency_key": format!("soak-{number}"),
        });
        let options = BasicPublishOptions { mandatory: true, ..<_>::default() };
        let properties =
            BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(2);
        let (body, key) = (body.to_string().into_bytes(), guest.to_string());
        let publish =
            channel.basic_publish(exchange.as_str().into(), key.as_str().into(), options, &body, properties);
        confirms.push_back(publish.await?);
        if confirms.len() >= WINDOW {
            confirmed(confirms.pop_front()).await?;
        }
    }
    while !confirms.is_empty() {
        confirmed(confirms.pop_front()).await?;
    }
    Ok(())
}

async fn confirmed(confirm: Option<impl Future<Output = lapin::Result<Confirmation>>>) -> lapin::Result<()> {
    if let Some(confirm) = confirm {
        let confirmation = confirm.await?;
        assert!(matches!(confirmation, Confirmation::Ack(None)), "not taken: {confirmation:?}");
    }
    Ok(())
}

/// Samples the memory until every command has its event. Closes all connections once on the way.
async fn watch(stage: &Stage, counter: &Counter, messages: usize) -> Result<Vec<(usize, Sample)>, String> {
    let pid =
        stage.instances[0].adapter.lock().await.as_ref().map(harness::Adapter::pid).ok_or("no adapter")?;
    let mut samples = Vec::new();
    let (mut done, mut closed) = (0, false);
    let mut progress = (0, Instant::now());
    while done < messages {
        sleep(SAMPLE_INTERVAL).await;
        let sample = memory::sample(pid).ok_or("the adapter is gone")?;
        let now_done = counter.look(super::counter::Counted::commands);
        if now_done / 50_000 > done / 50_000 {
            say(format!("{now_done} events, resident {} MiB, peak {} MiB", sample.resident, sample.peak));
        }
        done = now_done;
        samples.push((done, sample));
        if done >= progress.0 + PROGRESS_MIN {
            progress = (done, Instant::now());
        }
        ensure(progress.1.elapsed() < PATIENCE, || format!("too little moves after {done} events"))?;
        if !closed && done >= messages / 2 {
            closed = true;
            close_connections(stage).await?;
        }
    }
    Ok(samples)
}

/// Closes every connection, and waits until there is exactly one consumer with the usual bound again.
async fn close_connections(stage: &Stage) -> Result<(), String> {
    let closed_at = Instant::now();
    let node = stage.node.lock().await;
    node.ctl(&["close_all_connections", "soak"]).await;
    loop {
        let consumers = node.ctl(&["-q", "list_consumers", "queue_name", "prefetch_count"]).await;
        let queue = Names::usual().commands;
        let bounds = consumers.lines().filter_map(|line| line.split_once('\t'));
        let bounds: Vec<&str> = bounds.filter(|(name, _)| *name == queue).map(|(_, bound)| bound).collect();
        if bounds == [PREFETCH] {
            say(format!("all connections were closed; one consumer again after {:.1?}", closed_at.elapsed()));
            return Ok(());
        }
        ensure(closed_at.elapsed() < PATIENCE, || format!("the consumers are {bounds:?}"))?;
        sleep(Duration::from_millis(100)).await;
    }
}

async fn finish(
    stage: &Stage,
    counter: &Counter,
    messages: usize,
    samples: &[(usize, Sample)],
    took: Duration,
) -> Outcome {
    let patches = stage.simulator.stats();
    ensure(stage.terminate().await, || "the adapter did not end well".to_owned())?;
    let names = Names::usual();
    let broker = stage.broker().await;
    let (left, letters) = (broker.depth(&names.commands).await, broker.depth(&names.dead_letters).await);
    ensure(left == 0 && letters == 0, || format!("left are {left} messages and {letters} dead letters"))?;
    let faults = counter.look(|counted| counted.faults.clone());
    ensure(faults.is_empty(), || format!("{} faults, such as {}", faults.len(), faults[0]))?;
    let overlapping = patches.max_outstanding_per_connection;
    ensure(overlapping == 1, || format!("{overlapping} PATCHes of a connection at once"))?;
    let peak = samples.iter().map(|(_, sample)| sample.peak).max().unwrap_or_default();
    let step = samples.len().div_ceil(SAMPLES_SHOWN).max(1);
    let shown: Vec<_> = samples.iter().copied().step_by(step).collect();
    say(format!("resident MiB by events:{}", memory::series(&shown)));
    let figures = format!(
        "{messages} messages in {took:.0?}, {:.0} a second, {} PATCHes, {} deliveries of events; peak {peak} MiB (bound \
         {PEAK_MIB_MAX})",
        f64::from(u32::try_from(messages).unwrap_or(u32::MAX)) / took.as_secs_f64(),
        patches.patches,
        counter.look(|counted| counted.deliveries),
    );
    ensure(peak <= PEAK_MIB_MAX, || figures.clone())?;
    Ok(figures)
}
