//! `make citizen`: how good a client of somebody else's API the adapter is, in numbers. A real adapter, a real broker, the
//! simulator.
//!
//! - [`outage`]: requests sent per command while the API is away, and how work comes back
//! - [`isolation`]: what four organisations see of a fifth in trouble
//! - [`pace`]: goodput and refusals below a limit
//! - [`doors`]: calls beside a backlog of messages
//! - [`rig`], [`load`], [`figures`]: the parts, what is sent, and what is made of it

pub mod doors;
pub mod figures;
pub mod isolation;
pub mod load;
pub mod outage;
pub mod pace;
pub mod rig;

use std::fmt::{self, Display};
use std::time::Duration;

use harness::Node;
use serde::Serialize;

/// A part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// The whole API is away.
    Outage,
    /// One of five organisations is in trouble.
    Isolation,
    /// The API has a limit.
    Pace,
    /// Calls beside a backlog.
    Doors,
}

impl Part {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Outage, Self::Isolation, Self::Pace, Self::Doors];
}

/// How long each measurement takes.
#[derive(Debug, Clone)]
pub struct Durations {
    /// Load before an outage.
    pub warm_up: Duration,
    /// An outage.
    pub outage: Duration,
    /// Each kind of a fifth organisation.
    pub scenario: Duration,
    /// Each kind of a limit, from the first request on.
    pub pace: Duration,
    /// Each case of calls.
    pub doors: Duration,
    /// Messages in the backlog beside calls.
    pub waiting: usize,
}

/// A bound that was missed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault(pub String);

impl Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// All that was measured.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    outages: Vec<outage::Outage>,
    isolation: Vec<isolation::Seen>,
    paces: Vec<pace::Pace>,
    doors: Vec<doors::Beside>,
    /// The bounds that were missed.
    pub faults: Vec<Fault>,
}

/// Measures `parts`, and tells each as soon as it is known.
pub async fn citizen(parts: &[Part], durations: &Durations) -> Report {
    let node = Node::start().await;
    let mut report = Report::default();
    if parts.contains(&Part::Outage) {
        say("outage: the whole API is away");
        for kind in outage::Kind::ALL {
            let outage = outage::outage(&node, kind, durations).await;
            outage.tell();
            report.faults.extend(outage.faults());
            report.outages.push(outage);
        }
    }
    if parts.contains(&Part::Isolation) {
        say("isolation: four healthy organisations beside a fifth");
        report.isolation = isolation::isolation(&node, durations).await;
        report.faults.extend(isolation::faults(&report.isolation));
    }
    if parts.contains(&Part::Pace) {
        say("pace: an API that allows 50 requests a second");
        report.paces = pace::paces(&node, durations).await;
        report.faults.extend(report.paces.iter().flat_map(pace::Pace::faults));
    }
    if parts.contains(&Part::Doors) {
        say("doors: calls beside a backlog of messages of the same organisation");
        report.doors = doors::doors(&node, durations).await;
        report.faults.extend(report.doors.iter().flat_map(doors::Beside::faults));
    }
    report
}

#[allow(clippy::print_stdout, reason = "it is there to tell")]
fn say(text: impl Display) {
    println!("{text}");
}
