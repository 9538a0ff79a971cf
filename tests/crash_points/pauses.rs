//! A process stops past its lease and goes on, while another one on the same store has taken over. As both are in one
//! test, the store is one that both may have open.

use std::sync::Arc;
use std::sync::Mutex;

use guest_connection_adapter::domain::record::Door;
use guest_connection_adapter::service::ports::Store;
use tempfile::TempDir;
use tokio::time::timeout;

use crate::gate::{Blow, Gate};
use crate::history::{Entry, History};
use crate::incarnation::{Process, open_store, wishes};
use crate::outside::Outside;
use crate::point::{Effect, Moment, Point};
use crate::scenario::{self, Scenario};
use crate::story::{REST_DEADLINE, at_rest, witness};
use crate::{Findings, for_each};

/// Stories in which someone else can do everything that the paused process leaves.
const SCENARIOS: [&str; 3] = ["a message", "a call that is repeated", "a rejection of a call"];

/// Plays `scenario`. The first process pauses at the point until the second one has brought everything to rest, and
/// then goes on. Yields nothing if it does not come by the point.
fn play(scenario: &Scenario, point: Point) -> Option<History> {
    let folder = TempDir::new().unwrap();
    let outside = Outside::new(&scenario.fates);
    let store: Arc<dyn Store> = Arc::new(open_store(&folder.path().join("store.db"), &outside));
    let wishes = wishes(&scenario.steps);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let history = runtime.block_on(async {
        let both = [Door::Grpc, Door::Amqp];
        let gate = Gate::new(Some((point, Blow::Pause)));
        let first = Process::start(&outside, &store, &gate);
        tokio::spawn(first.clone().serve(wishes.clone(), &[Door::Grpc, Door::Amqp]));
        tokio::select! {
            rest = at_rest(&outside, &wishes, &store, &both) => {
                rest.unwrap();
                return None;
            }
            () = gate.struck() => {}
        }
        // The broker hands the messages out again, and recovery does the rest.
        let second = Process::start(&outside, &store, &Gate::new(None));
        tokio::spawn(second.serve(wishes.clone(), &[Door::Amqp]));
        let first_rest = at_rest(&outside, &wishes, &store, &[Door::Amqp]).await;
        outside.note(Entry::Woken);
        gate.wake();
        let rest = at_rest(&outside, &wishes, &store, &both).await;
        let ended =
            timeout(REST_DEADLINE, first.finish()).await.map_err(|_| "the first one goes on".to_owned());
        let mut history = witness(&outside, &wishes, &store).await;
        history.unrest = first_rest.and(rest).and(ended).err();
        Some(history)
    });
    drop(runtime);
    history
}

/// A claim was held when the process stopped, and its end not written: it comes to it late.
fn is_late(scenario: &Scenario, point: Point) -> bool {
    let holds = match point.effect {
        // The first command is claimed with its acceptance.
        Effect::Accept => point.moment == Moment::After,
        Effect::Token | Effect::Patch => true,
        Effect::Finish => point.moment == Moment::Before,
        _ => false,
    };
    holds && scenario.steps.len() == 1 && point.nth == 1
}

#[test]
fn a_pause_past_the_lease_at_any_point_breaks_no_promise() {
    let findings = Findings::default();
    let refused = Mutex::new(0);
    let scenarios = scenario::all();
    let scenarios = scenarios.iter().filter(|scenario| SCENARIOS.contains(&scenario.name));
    let points = scenarios.flat_map(|scenario| Effect::points(1).map(move |point| (scenario, point)));
    for_each(points.collect(), |(scenario, first)| {
        for nth in 1.. {
            let point = Point { nth, ..first };
            let Some(history) = play(scenario, point) else { break };
            let stale = history.entries.iter().filter(|entry| **entry == Entry::Stale).count();
            if is_late(scenario, point) {
                assert_eq!(stale, 1, "{} [{point}]: {:#?}", scenario.name, history.entries);
            }
            *refused.lock().unwrap() += stale;
            findings.add(scenario, &[point], 1, &history);
        }
    });
    println!("{} late results were refused", refused.into_inner().unwrap());
    findings.conclude("one pause");
}
