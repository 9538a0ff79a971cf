//! How long the start takes until the adapter is ready, and how long the exit of one that is idle takes.

use std::time::{Duration, Instant};

use harness::{Adapter, Setup, http};
use tokio::time::{sleep, timeout};

use crate::figure::Figure;
use crate::run::Plan;
use crate::scenario::Scenario;
use crate::subject::Place;
use crate::{Outcome, kept, messages};

/// Lives of one measurement; the median is told.
const LIVES: usize = 9;

/// How often it is asked whether it is ready: so much later it may be seen.
const LOOK: Duration = Duration::from_millis(1);

/// Starts and ends the adapter again and again.
pub async fn measure(scenario: &Scenario, place: &Place, is_full: bool, plan: &Plan) -> Outcome<Figure> {
    let setup = place.setup(scenario)?;
    // The first start makes the store.
    let adapter = setup.start_ready().await;
    messages::take_events(&place.broker, &place.names).await?;
    if is_full {
        kept::call(&adapter.grpc_address(), &place.upstream).await?;
    }
    adapter.terminate().await;
    if is_full {
        let (store, count) = (setup.store(), plan.kept);
        tokio::task::spawn_blocking(move || kept::fill(&store, count)).await??;
    }
    let mut lives = Vec::new();
    for _ in 0..LIVES {
        lives.push(once(scenario, &setup).await?);
    }
    Ok(Figure::median(&lives))
}

async fn once(scenario: &Scenario, setup: &Setup) -> Outcome<Figure> {
    let began = Instant::now();
    let adapter = setup.start().await;
    timeout(harness::DEADLINE, ready(&adapter)).await?;
    let start = began.elapsed();
    let memory = crate::subject::memory(adapter.pid(), "VmHWM:") as f64 / 1024.0;
    let began = Instant::now();
    let (status, log) = adapter.terminate().await;
    let exit = began.elapsed();
    if !status.success() {
        return Err(format!("it ended with {status}:\n{}", log.join("\n")).into());
    }
    let ms = |length: Duration| Some(length.as_secs_f64() * 1e3);
    let name = scenario.name.to_owned();
    Ok(Figure { name, start: ms(start), exit: ms(exit), memory: Some(memory), ..Figure::default() })
}

async fn ready(adapter: &Adapter) {
    while !matches!(http::get(adapter.admin, "/readyz").await, Some((200, _))) {
        sleep(LOOK).await;
    }
}
