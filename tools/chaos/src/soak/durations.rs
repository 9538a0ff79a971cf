//! The long times of the fault cases, as they are: `make test` tries the same with small ones.

use std::time::Duration;

use harness::Names;
use simulator::Rule;
use tokio::time::{Instant, sleep};
use uuid::Uuid;

use super::counter::{Counted, Counter};
use super::{Outcome, ensure, say};
use crate::calls;
use crate::history::{Answer, CommandSeen, State};
use crate::messages::{Message, Publisher};
use crate::plan::{Form, Wish};
use crate::stage::Stage;

/// How long anything may take once nothing stands in its way.
const PATIENCE: Duration = Duration::from_secs(90);

/// The pause between two looks.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// The pause between two commands while the broker is disturbed.
const COMMAND_INTERVAL: Duration = Duration::from_secs(2);

async fn stage() -> Stage {
    Stage::set(&[Uuid::new_v4()], "").await
}

fn wish(stage: &Stage, number: usize) -> Wish {
    Wish {
        requester: stage.requester(),
        kind: "soak".to_owned(),
        key: format!("soak-{number}"),
        guest: Uuid::new_v4(),
        archived: true,
        trace: Uuid::new_v4().simple().to_string(),
        issued_ms: None,
        expires_ms: None,
    }
}

async fn call(stage: &Stage, number: usize) -> Result<(), String> {
    let client = stage.client().ok_or("no adapter")?;
    let answer = calls::call(client, &wish(stage, number), (None, None), None).await;
    ensure(matches!(answer, Answer::Done { .. }), || format!("call {number}: {answer:?}"))
}

async fn publish(stage: &Stage, wish: &Wish) -> Result<(), String> {
    let message = Message::of_wish(wish, (None, None), Form::Json, 0);
    let answer = Publisher::new(&stage.broker_uri).publish(&message).await;
    ensure(answer == Answer::Confirmed, || format!("the message of {}: {answer:?}", wish.key))
}

/// Waits until `wanted` commands have their event, and yields how long that took.
async fn events(counter: &Counter, wanted: usize) -> Result<Duration, String> {
    let since = Instant::now();
    while counter.look(Counted::commands) < wanted {
        let counted = counter.look(Counted::commands);
        ensure(since.elapsed() < PATIENCE, || format!("{counted} of {wanted} commands have their event"))?;
        sleep(LOOK_INTERVAL).await;
    }
    let faults = counter.look(|counted| counted.faults.clone());
    ensure(faults.is_empty(), || format!("{faults:?}"))?;
    Ok(since.elapsed())
}

async fn command(stage: &Stage, wish: &Wish) -> Result<Option<CommandSeen>, String> {
    let client = stage.client().ok_or("no adapter")?;
    let found = calls::look_up(client, calls::by_key(wish.requester, &wish.key)).await;
    found.map_err(|status| status.to_string())
}

/// Waits until the command of `wish` is in `state`.
async fn reaches(stage: &Stage, wish: &Wish, state: State, patience: Duration) -> Result<Duration, String> {
    let since = Instant::now();
    loop {
        let found = command(stage, wish).await?;
        if found.as_ref().is_some_and(|command| command.state == state) {
            return Ok(since.elapsed());
        }
        ensure(since.elapsed() < patience, || format!("{} is not {state} but {found:?}", wish.key))?;
        sleep(LOOK_INTERVAL).await;
    }
}

/// Waits until `/readyz` says yes or no.
async fn readiness(stage: &Stage, ready: bool) {
    let place = stage.instances[0].adapter.lock().await;
    let adapter = place.as_ref().expect("the adapter runs");
    adapter.readiness(|status, _| (status == 200) == ready).await;
}

async fn end(stage: &Stage) -> Result<(), String> {
    ensure(stage.terminate().await, || "the adapter did not end well".to_owned())?;
    let left = stage.broker().await.depth(&Names::usual().commands).await;
    ensure(left == 0, || format!("{left} messages are left"))
}

/// Calls go on while the broker is away for `time`; their events come when it is back, and messages are taken again
/// (fault case 3).
///
/// # Errors
/// What is not as it should be.
pub async fn absence(time: Duration) -> Outcome {
    let stage = stage().await;
    let mut node = stage.node.lock().await;
    node.down().await;
    let away_since = Instant::now();
    readiness(&stage, false).await;
    let mut calls = 0;
    while away_since.elapsed() < time {
        call(&stage, calls).await?;
        calls += 1;
        sleep(COMMAND_INTERVAL).await;
    }
    node.up().await;
    let (away, back) = (away_since.elapsed(), Instant::now());
    let counter = Counter::start(&stage.broker_uri);
    let late = wish(&stage, calls);
    publish(&stage, &late).await?;
    readiness(&stage, true).await;
    let ready_after = back.elapsed();
    reaches(&stage, &late, State::Succeeded, PATIENCE).await?;
    let (consumed_after, told_after) = (back.elapsed(), events(&counter, calls + 1).await?);
    end(&stage).await?;
    Ok(format!(
        "away {away:.0?}; ready again {ready_after:.1?} and consuming {consumed_after:.1?} after the start of the broker; \
         {calls} events of meanwhile {told_after:.1?} later"
    ))
}

/// A memory alarm of the broker for `time`: calls go on, events come afterwards (fault case 8).
///
/// # Errors
/// What is not as it should be.
pub async fn alarm(time: Duration) -> Outcome {
    let stage = stage().await;
    let counter = Counter::start(&stage.broker_uri);
    call(&stage, 0).await?;
    events(&counter, 1).await?;
    let node = stage.node.lock().await;
    node.ctl(&["set_vm_memory_high_watermark", "0"]).await;
    let since = Instant::now();
    let mut calls = 1;
    while since.elapsed() < time {
        call(&stage, calls).await?;
        calls += 1;
        sleep(COMMAND_INTERVAL).await;
    }
    readiness(&stage, false).await;
    let during = counter.look(Counted::commands);
    ensure(during < calls, || "nothing was held back: there was no alarm".to_owned())?;
    let over = Instant::now();
    node.ctl(&["set_vm_memory_high_watermark", "absolute", "1GB"]).await;
    events(&counter, calls).await?;
    let told_after = over.elapsed();
    readiness(&stage, true).await;
    end(&stage).await?;
    Ok(format!(
        "alarm for {time:.0?}: {calls} calls answered, {during} events before its end, all {told_after:.1?} after it"
    ))
}

/// A command that is deferred for `time` does not hold up one that is deferred for a second (fault case 17).
///
/// # Errors
/// What is not as it should be.
pub async fn deferral(time: Duration) -> Outcome {
    let stage = stage().await;
    let (long, short) = (wish(&stage, 0), wish(&stage, 1));
    let rule = |wish: &Wish, seconds: u64| {
        Rule::patch().guest(wish.guest).times(1).status(429).header("retry-after", &seconds.to_string())
    };
    stage.simulator.script(rule(&long, time.as_secs()));
    stage.simulator.script(rule(&short, 1));
    let since = Instant::now();
    publish(&stage, &long).await?;
    reaches(&stage, &long, State::Deferred, PATIENCE).await?;
    publish(&stage, &short).await?;
    let short_after = reaches(&stage, &short, State::Succeeded, PATIENCE).await?;
    let still = command(&stage, &long).await?.map(|command| command.state);
    ensure(still == Some(State::Deferred), || format!("the long one is {still:?}"))?;
    say("the short one has run; now for the long one");
    reaches(&stage, &long, State::Succeeded, time + PATIENCE).await?;
    let long_after = since.elapsed();
    ensure(long_after >= time, || format!("the long one ran after {long_after:?}"))?;
    end(&stage).await?;
    Ok(format!("the short one succeeded after {short_after:.1?}, the long one after {long_after:.0?}"))
}

/// The broker closes channels that do not acknowledge within `time`, and the upstream hangs for longer: every message is
/// settled before, no channel is closed, and the command ends well when the upstream answers (fault case 5).
///
/// # Errors
/// What is not as it should be.
pub async fn hang(time: Duration) -> Outcome {
    let stage = stage().await;
    let node = stage.node.lock().await;
    // Channels that are open keep what they began with.
    stage.terminate().await;
    let milliseconds = time.as_millis();
    let set = |name: &str, value: u128| format!("application:set_env(rabbit, {name}, {value}).");
    node.ctl(&["eval", &set("consumer_timeout", milliseconds)]).await;
    node.ctl(&["eval", &set("channel_tick_interval", 1_000)]).await;
    stage.start().await;
    stage.ready().await;
    let wish = wish(&stage, 0);
    stage.simulator.script(Rule::patch().guest(wish.guest).hang());
    let since = Instant::now();
    publish(&stage, &wish).await?;
    let settled_after = loop {
        let lists = node.ctl(&["-q", "list_queues", "name", "messages"]).await;
        let commands = Names::usual().commands;
        let lengths = lists.lines().filter_map(|line| line.split_once('\t'));
        let length = lengths.filter(|(name, _)| *name == commands).map(|(_, length)| length).next();
        // It has been sent to the upstream by then, so it is not merely not there yet.
        if length == Some("0") && !stage.simulator.journal().is_empty() {
            break since.elapsed();
        }
        ensure(since.elapsed() < time, || format!("it is not acknowledged after {time:?}"))?;
        sleep(LOOK_INTERVAL * 10).await;
    };
    // Beyond the broker's time, and the look that it takes once in a while.
    sleep((time + PATIENCE).saturating_sub(since.elapsed())).await;
    let complaint =
        node.log().lines().find(|line| line.contains("delivery acknowledgement")).map(str::to_owned);
    ensure(complaint.is_none(), || complaint.unwrap_or_default())?;
    stage.simulator.clear_faults();
    reaches(&stage, &wish, State::Succeeded, PATIENCE * 5).await?;
    let ended_after = since.elapsed();
    end(&stage).await?;
    Ok(format!(
        "acknowledged after {settled_after:.0?} of at most {time:.0?}, no channel closed; succeeded after {ended_after:.0?}"
    ))
}
