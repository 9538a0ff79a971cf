//! The pipeline is struck before and after each of its effects, over the real store; the promises are checked each time.
//!
//! - `point`, `gate`, `ports`: the effects, and how a process is struck at one
//! - `outside`: upstream, broker and clock, which outlive the processes, and the book of what was seen
//! - `scenario`, `incarnation`, `story`: what is asked for, a process, and one after another
//! - `history`, `checker`: what was seen, and the promises

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test fails by panicking; what was tried is worth a line"
)]

mod bad;
mod checker;
mod gate;
mod history;
mod incarnation;
mod outside;
mod pauses;
mod point;
mod ports;
mod scenario;
mod story;

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use history::History;
use point::{Effect, Moment, Point};
use scenario::Scenario;
use story::Story;

/// Stories played at once: most of their time is waiting for leases and quiet times.
const WORKERS: usize = 24;

/// No process has this many effects of a kind.
const NTH_MAX: usize = 40;

/// What was tried, and what was found.
#[derive(Default)]
struct Findings {
    tried: AtomicUsize,
    blows: AtomicUsize,
    reached: Mutex<BTreeSet<(Effect, Moment)>>,
    faults: Mutex<Vec<String>>,
}

impl Findings {
    /// Plays `scenario` with these crashes. Yields whether each point was come by.
    fn play(&self, scenario: &Scenario, points: &[Point]) -> bool {
        let (history, struck) = Story::new(scenario).play(points);
        self.add(scenario, points, struck, &history);
        struck == points.len()
    }

    /// Checks what was seen in a story whose first `struck` points were come by.
    fn add(&self, scenario: &Scenario, points: &[Point], struck: usize, history: &History) {
        self.tried.fetch_add(1, Ordering::Relaxed);
        self.blows.fetch_add(struck, Ordering::Relaxed);
        let reached = points[..struck].iter().map(|point| (point.effect, point.moment));
        self.reached.lock().unwrap().extend(reached);
        let broken = checker::broken(history);
        if !broken.is_empty() {
            let at: Vec<_> = points.iter().map(ToString::to_string).collect();
            let (at, list) = (at.join(", "), broken.join("\n  "));
            let text = format!("{} [{at}]\n  {list}\n{history:#?}", scenario.name);
            self.faults.lock().unwrap().push(text);
        }
    }

    /// Every point of these effects was come by.
    #[track_caller]
    fn covers(&self, these: impl Fn(Effect) -> bool) {
        let all = Effect::points(1).filter(|point| these(point.effect));
        let reached = self.reached.lock().unwrap();
        let missed: Vec<_> = all.filter(|point| !reached.contains(&(point.effect, point.moment))).collect();
        assert!(missed.is_empty(), "no story comes by {missed:?}");
    }

    #[track_caller]
    fn conclude(self, what: &str) {
        let (tried, blows) = (self.tried.into_inner(), self.blows.into_inner());
        println!("{what}: {tried} stories, struck {blows} times");
        let faults = self.faults.into_inner().unwrap();
        let heads = faults.iter().filter_map(|fault| fault.lines().next());
        let heads: Vec<_> = heads.collect();
        assert!(faults.is_empty(), "broken: {heads:#?}, the first of them:\n{}", faults[0]);
    }
}

/// Does `work` for every item, some at once.
fn for_each<T: Send>(items: Vec<T>, work: impl Fn(T) + Sync) {
    let items = Mutex::new(items.into_iter());
    thread::scope(|scope| {
        for _ in 0..WORKERS {
            scope.spawn(|| {
                loop {
                    let item = items.lock().unwrap().next();
                    let Some(item) = item else { return };
                    work(item);
                }
            });
        }
    });
}

#[test]
fn a_crash_at_any_point_breaks_no_promise() {
    let findings = Findings::default();
    let scenarios = scenario::all();
    let undisturbed = scenarios.iter().map(|scenario| (scenario, None));
    let struck = scenarios.iter().flat_map(|scenario| {
        Effect::points(1).filter(|at| !at.effect.heals()).map(move |point| (scenario, Some(point)))
    });
    for_each(undisturbed.chain(struck).collect(), |(scenario, point)| {
        let Some(first) = point else {
            findings.play(scenario, &[]);
            return;
        };
        // Each time that the effect is had, until it is not had so often.
        for nth in 1.. {
            assert!(nth < NTH_MAX, "{}: {first} without end", scenario.name);
            if !findings.play(scenario, &[Point { nth, ..first }]) {
                break;
            }
        }
    });
    findings.covers(|effect| !effect.heals());
    findings.conclude("one crash");
}

#[test]
fn a_crash_during_recovery_breaks_no_promise() {
    let findings = Findings::default();
    let scenario = scenario::unknown();
    let points = || Effect::points(1).filter(|at| !at.effect.heals() && at.effect != Effect::Refuse);
    let pairs = points().flat_map(|first| points().map(move |second| [first, second]));
    for_each(pairs.collect(), |points| {
        findings.play(&scenario, &points);
    });
    findings.conclude("two crashes");
}
