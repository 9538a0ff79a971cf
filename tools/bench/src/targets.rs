//! What the figures are to be, most of them as ratios within one run.

use crate::figure::Figure;

/// On which side of it a value is good.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// A target.
pub struct Target {
    pub what: &'static str,
    /// Of the value and its bound; nothing if it is a ratio.
    pub unit: &'static str,
    pub bound: Bound,
    value: fn(&[Figure]) -> Option<f64>,
}

impl Bound {
    /// Whether a value meets it.
    pub fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(least) => value >= least,
            Self::AtMost(most) => value <= most,
        }
    }

    /// The bound itself.
    pub const fn value(self) -> f64 {
        match self {
            Self::AtLeast(value) | Self::AtMost(value) => value,
        }
    }

    /// In words.
    pub const fn word(self) -> &'static str {
        match self {
            Self::AtLeast(_) => "at least",
            Self::AtMost(_) => "at most",
        }
    }
}

impl Target {
    /// What was measured, if it was.
    pub fn value(&self, figures: &[Figure]) -> Option<f64> {
        (self.value)(figures)
    }
}

type Of = fn(&Figure) -> Option<f64>;

const RATE: Of = |figure| figure.rate;
const CPU: Of = |figure| figure.cpu;

fn of(figures: &[Figure], of: Of, name: &str) -> Option<f64> {
    of(figures.iter().find(|figure| figure.name == name)?)
}

fn ratio(figures: &[Figure], value: Of, over: &str, under: &str) -> Option<f64> {
    Some(of(figures, value, over)? / of(figures, value, under)?)
}

/// How much of what the API lets through one after another a connection gets.
fn share(figures: &[Figure], name: &str) -> Option<f64> {
    Some(of(figures, RATE, name)? * of(figures, |figure| figure.api, name)? / 1e6)
}

fn growth(figures: &[Figure], name: &str) -> Option<f64> {
    Some(of(figures, |figure| figure.growth, name)? / 1024.0)
}

const fn target(
    what: &'static str,
    unit: &'static str,
    bound: Bound,
    value: fn(&[Figure]) -> Option<f64>,
) -> Target {
    Target { what, unit, bound, value }
}

use Bound::{AtLeast, AtMost};

/// All of them.
pub const TARGETS: &[Target] = &[
    target("drain: rate to the bare loop's", "", AtLeast(1.0), |all| {
        ratio(all, RATE, "drain", "drain: bare loop")
    }),
    target("drain: rate to the best loop's", "", AtLeast(0.85), |all| {
        ratio(all, RATE, "drain", "drain: best loop")
    }),
    target("drain: processor time to the bare loop's", "", AtMost(1.25), |all| {
        ratio(all, CPU, "drain", "drain: bare loop")
    }),
    target("drain: rate to the Python loop's", "", AtLeast(5.0), |all| {
        ratio(all, RATE, "drain", "drain: Python loop")
    }),
    target("drain: processor time to the Python loop's", "", AtMost(1.0 / 6.0), |all| {
        ratio(all, CPU, "drain", "drain: Python loop")
    }),
    target("64 calls: rate to the bare service's", "", AtLeast(0.8), |all| {
        ratio(all, RATE, "64 calls", "64 calls: bare service")
    }),
    target("half load: p99 above the bare service's", "ms", AtMost(2.0), |all| {
        let p99 = |name| of(all, |figure| figure.p99, name);
        Some((p99("half load")? - p99("half load: bare service")?) / 1e3)
    }),
    target("64 repeats: rate to first executions", "", AtLeast(5.0), |all| {
        ratio(all, RATE, "64 repeats", "64 calls")
    }),
    target("drain and 512 calls: most memory", "MiB", AtMost(64.0), |all| {
        of(all, |figure| figure.memory, "drain and 512 calls")
    }),
    target("a million: memory at the end to that at a tenth", "", AtMost(1.1), |all| {
        Some(of(all, |figure| figure.late, "a million")? / of(all, |figure| figure.early, "a million")?)
    }),
    target("drain: growth of the store for a command", "KiB", AtMost(1.5), |all| growth(all, "drain")),
    target("64 calls: growth of the store for a command", "KiB", AtMost(1.5), |all| growth(all, "64 calls")),
    target("one hot connection: share of what an API of 5 ms allows", "", AtLeast(0.9), |all| {
        share(all, "one hot connection, API of 5 ms")
    }),
    target("one hot connection: share of what an API of 20 ms allows", "", AtLeast(0.9), |all| {
        share(all, "one hot connection, API of 20 ms")
    }),
    target("drain beside a hot connection: rate of the others", "", AtLeast(0.95), |all| {
        ratio(all, RATE, "drain beside a hot connection", "drain")
    }),
    target("64 calls beside a hot connection: rate of the others", "", AtLeast(0.95), |all| {
        ratio(all, RATE, "64 calls beside a hot connection", "64 calls")
    }),
    target("start with a full store", "ms", AtMost(300.0), |all| {
        of(all, |figure| figure.start, "start and exit, full store")
    }),
    target("exit when idle, full store", "ms", AtMost(200.0), |all| {
        of(all, |figure| figure.exit, "start and exit, full store")
    }),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::ALL;

    /// Every scenario with every figure, so that a value is absent only where a name is wrong.
    fn figures() -> Vec<Figure> {
        let any = Some(2.0);
        let figure = |name: &str| Figure {
            name: name.to_owned(),
            rate: any,
            cpu: any,
            p99: any,
            memory: any,
            growth: any,
            api: any,
            early: any,
            late: any,
            start: any,
            exit: any,
            ..Figure::default()
        };
        ALL.iter().map(|scenario| figure(scenario.name)).collect()
    }

    #[test]
    fn every_target_is_of_scenarios_that_are_measured() {
        for target in TARGETS {
            assert!(target.value(&figures()).is_some(), "{}", target.what);
            assert_eq!(target.value(&[]), None, "{}", target.what);
        }
    }

    #[test]
    fn a_bound_is_met_on_its_own_side() {
        assert!(AtLeast(1.0).is_met(1.0) && !AtLeast(1.0).is_met(0.99));
        assert!(AtMost(1.0).is_met(1.0) && !AtMost(1.0).is_met(1.01));
    }
}
