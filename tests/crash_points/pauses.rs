//! A process stops past its lease and goes on, while another one on the same store has taken over. As both are in one
//! test, the store is one that both may have open.

use std::sync::atomic::{AtomicUsize, Ordering};

use guest_connection_adapter::domain::heal::Healed;
use guest_connection_adapter::domain::record::Door;
use tokio::time::timeout;

use crate::gate::{Blow, Gate};
use crate::history::{Entry, History};
use crate::incarnation::Process;
use crate::point::{Effect, Moment, Point};
use crate::scenario;
use crate::story::{BOTH, REST_DEADLINE, Story};
use crate::{Findings, for_each};

/// What becomes of the two processes once the paused one has gone on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// Both bring everything to rest.
    Rest,
    /// Both die as soon as a late result was refused.
    Die,
}

impl Story {
    /// The first process pauses at the point until the second one has brought everything to rest, and then goes on.
    /// Yields nothing if it does not come by the point.
    fn pause(&self, point: Point, then: Then) -> Option<History> {
        self.with_store(async |store| {
            let gate = Gate::new(Some((point, Blow::Pause)));
            let first = Process::start(&self.outside, &store, &gate);
            tokio::spawn(first.clone().serve(self.wishes.clone(), BOTH));
            tokio::select! {
                rest = self.at_rest(&store, BOTH) => {
                    rest.unwrap();
                    return None;
                }
                () = gate.struck() => {}
            }
            // The broker hands the messages out again, and recovery does the rest.
            let second = Process::start(&self.outside, &store, &Gate::new(None));
            tokio::spawn(second.serve(self.wishes.clone(), &[Door::Amqp]));
            let taken_over = self.at_rest(&store, &[Door::Amqp]).await;
            self.outside.note(Entry::Woken);
            gate.wake();
            if then == Then::Die {
                self.outside.seen(&Entry::Stale).await;
                return Some(History::default());
            }
            let answered = self.at_rest(&store, BOTH).await;
            let ended = timeout(REST_DEADLINE, first.finish()).await;
            let rest = self.at_rest(&store, BOTH).await;
            let mut history = self.witness(&store).await;
            let ended = ended.map_err(|_| "the first process goes on".to_owned());
            history.unrest = taken_over.and(answered).and(ended).and(rest).err();
            Some(history)
        })
    }
}

/// A claim was held when the process stopped, and its end not written: it comes to it late.
fn is_late(point: Point) -> bool {
    match point.effect {
        // The first command is claimed with its acceptance.
        Effect::Accept => point.moment == Moment::After,
        Effect::Token | Effect::Patch => true,
        Effect::Finish => point.moment == Moment::Before,
        _ => false,
    }
}

fn count(history: &History, entry: &Entry) -> usize {
    history.entries.iter().filter(|other| *other == entry).count()
}

#[test]
fn a_pause_past_the_lease_at_any_point_breaks_no_promise() {
    let findings = Findings::default();
    let (refused, healed) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let scenarios = scenario::all();
    let points = scenarios.iter().flat_map(|scenario| Effect::points(1).map(move |point| (scenario, point)));
    for_each(points.collect(), |(scenario, first)| {
        for nth in 1.. {
            let point = Point { nth, ..first };
            let Some(history) = Story::new(scenario).pause(point, Then::Rest) else { break };
            let stale = count(&history, &Entry::Stale);
            if is_late(point) && scenario.steps.len() == 1 && nth == 1 {
                assert_eq!(stale, 1, "{} [{point}]: {:#?}", scenario.name, history.entries);
            }
            refused.fetch_add(stale, Ordering::Relaxed);
            healed.fetch_add(count(&history, &Entry::Healed(Healed::Yes)), Ordering::Relaxed);
            findings.add(scenario, &[point], 1, &history);
        }
    });
    println!(
        "{} late results were refused, {} connections healed",
        refused.into_inner(),
        healed.into_inner()
    );
    findings.conclude("one pause");
}

/// The late PATCH of an older command overwrites the value of a newer one. While that is healed, processes crash, and a
/// third command comes.
#[test]
fn a_crash_while_a_suspect_connection_is_healed_breaks_no_promise() {
    let findings = Findings::default();
    let scenario = scenario::overwritten();
    let late = Point { effect: Effect::Patch, moment: Moment::Before, nth: 1 };
    // The healing itself, and the third command's own effects.
    let healing = || Effect::points(1).filter(|at| at.effect.heals() || at.effect.sends());
    let pairs = healing().flat_map(|first| healing().map(move |second| vec![first, second]));
    let other = Effect::points(1).filter(|at| !at.effect.heals() && !at.effect.sends()).map(|at| vec![at]);
    for_each(pairs.chain(other).collect(), |points| {
        let mut story = Story::new(&scenario);
        story.pause(late, Then::Die).expect("the PATCH is late");
        story.go_on_with(&scenario::one_more());
        let (history, struck) = story.play(&points);
        findings.add(&scenario, &points, struck, &history);
    });
    findings.covers(Effect::heals);
    findings.conclude("crashes while healing");
}
