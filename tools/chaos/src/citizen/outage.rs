//! The whole API is away for a while: how much is sent all the same, what callers hear, and how work comes back.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{TimeDelta, Utc};
use harness::collector::Span;
use harness::{Collector, Node};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use serde::Serialize;
use simulator::{Endpoint, Entry, Rule, RuleBuilder};
use tokio::time::sleep;

use super::figures::{Latency, Return, number, patches, share, tally};
use super::load::{Offer, Outcome, Rate, offer, seconds};
use super::rig::Rig;
use super::{Durations, Fault, say};
use crate::history::{Door, Time};

/// Organisations that send.
const ORGANIZATIONS: usize = 5;

/// Commands per second of each organisation by each door.
const PER_SECOND: f64 = 6.0;

/// How long the load goes on after the API's return.
const AFTERWARDS: Duration = Duration::from_secs(15);

/// How long everything may take to be applied after that.
const PATIENCE: Duration = Duration::from_secs(90);

/// Requests that may be sent for each command that was offered during an outage.
const SENT_PER_COMMAND_MAX: f64 = 1.2;

/// What "within seconds" is.
const FULL_PACE_AFTER_MAX: f64 = 10.0;

/// What "without a spike" is: the highest bucket after the return, in highest buckets before. The messages that have
/// waited may be done faster than new ones come, but not all at once.
const SPIKE_MAX: f64 = 3.0;

/// How soon a call has to be refused, in milliseconds.
const REFUSED_P99_MAX: f64 = 100.0;

/// How the API is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// Everything is answered with 503.
    Answers503,
    /// Nobody listens.
    RefusesConnections,
    /// Nothing is answered.
    Hangs,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Answers503, Self::RefusesConnections, Self::Hangs];

    /// When the adapter can know of it. Silence is none before an attempt's time is over; a call that is made until then
    /// may have taken effect, so its caller hears no refusal.
    fn known_after(self) -> TimeDelta {
        match self {
            Self::Hangs => TimeDelta::seconds(6),
            Self::Answers503 | Self::RefusesConnections => TimeDelta::zero(),
        }
    }
}

/// What an outage has shown.
#[derive(Debug, Serialize)]
pub struct Outage {
    kind: Kind,
    seconds: f64,
    offered: usize,
    /// PATCHes and requests for tokens.
    sent: usize,
    sent_per_command: f64,
    calls: Calls,
    messages: usize,
    messages_applied: usize,
    /// Seconds from the API's return until the last message was applied that had been sent before.
    drained_after_s: Option<f64>,
    dead_letters: u32,
    left_in_queue: u32,
    back: Return,
    violations: Vec<String>,
}

/// What the calls that were made during it have heard.
#[derive(Debug, Serialize)]
struct Calls {
    answers: BTreeMap<String, usize>,
    /// Once it could be known: refused with UNAVAILABLE and told when to come again, and refused at all.
    refused_well: usize,
    refused: usize,
    /// Of the refusals.
    latency: Latency,
}

/// Makes an outage of `kind`.
pub async fn outage(node: &Node, kind: Kind, durations: &Durations) -> Outage {
    let collector = Collector::start().await;
    // A connection that was never made leaves no trace but the adapter's own.
    let traced = format!("telemetry.otlp_endpoint = \"{}\"", collector.endpoint());
    let mut rig = Rig::set(node, ORGANIZATIONS, &traced).await;
    let rate = |organization| {
        [Door::Grpc, Door::Amqp].map(|door| Rate { organization, door, per_second: PER_SECOND })
    };
    let rates: Vec<Rate> = (0..ORGANIZATIONS).flat_map(rate).collect();
    let loader = rig.loader.clone();
    let whole = durations.warm_up + durations.outage + AFTERWARDS;
    let began = Utc::now();
    let (offers, (from, until)) =
        tokio::join!(offer(&loader, "outage", &rates, whole), disturb(&mut rig, kind, durations));
    let keys: Vec<&str> = of_queue(&offers).map(|offer| offer.key.as_str()).collect();
    rig.heard(PATIENCE, |events| keys.iter().all(|key| events.contains_key(*key))).await;

    let journal = rig.simulator.journal();
    let within = |at: Time| from <= at && at < until;
    let sent = match kind {
        Kind::Answers503 | Kind::Hangs => {
            let asked = |entry: &&Entry| entry.endpoint != Endpoint::Other && within(entry.received_at);
            journal.iter().filter(asked).count()
        }
        Kind::RefusesConnections => {
            collector.spans().iter().filter(|span| within_client(span, within)).count()
        }
    };
    let times = patches(&journal, began, Utc::now());
    let arrivals = rig.arrivals();
    let during: Vec<&Offer> = offers.iter().filter(|offer| within(offer.at)).collect();
    let waited = of_queue(&offers).filter(|offer| offer.at < until);
    let last = waited.map(|offer| arrivals.get(&offer.key).copied()).collect::<Option<Vec<Time>>>();
    Outage {
        kind,
        seconds: seconds(from, until),
        offered: during.len(),
        sent,
        sent_per_command: share(sent, during.len()),
        calls: Calls::of(&during, from + kind.known_after()),
        messages: keys.len(),
        messages_applied: keys.iter().filter(|key| arrivals.contains_key(**key)).count(),
        drained_after_s: last.and_then(|all| all.into_iter().max()).map(|last| seconds(until, last)),
        dead_letters: rig.dead_letters().await,
        left_in_queue: rig.waiting().await,
        back: Return::of(&times, from - durations.warm_up / 2, from, until),
        violations: rig.end().await,
    }
}

/// Whether it is the span of a request to the API, or of the attempt at one, that began within a time.
fn within_client(span: &Span, within: impl Fn(Time) -> bool) -> bool {
    let began = i64::try_from(span.start_time_unix_nano).unwrap_or_default();
    span.kind == i32::from(SpanKind::Client) && within(Time::from_timestamp_nanos(began))
}

impl Calls {
    fn of(offers: &[&Offer], known: Time) -> Self {
        let calls = || offers.iter().filter(|offer| offer.door == Door::Grpc);
        let refused: Vec<_> = calls().filter(|offer| offer.at >= known && !offer.is_done()).collect();
        Self {
            answers: tally(calls().map(|offer| match &offer.outcome {
                Outcome::Done => "Ok".to_owned(),
                Outcome::Refused { code, .. } => code.clone(),
            })),
            refused_well: refused.iter().filter(|offer| is_well(&offer.outcome)).count(),
            refused: refused.len(),
            latency: Latency::of(refused.iter().map(|offer| offer.seconds())),
        }
    }
}

/// Whether a refusal says that the API is away, and when to come again.
fn is_well(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Refused { code, retry_info: true } if code.starts_with("Unavailable"))
}

fn of_queue(offers: &[Offer]) -> impl Iterator<Item = &Offer> {
    offers.iter().filter(|offer| offer.door == Door::Amqp)
}

/// Makes the outage, and yields when it began and ended.
async fn disturb(rig: &mut Rig, kind: Kind, durations: &Durations) -> (Time, Time) {
    sleep(durations.warm_up).await;
    match kind {
        Kind::Answers503 | Kind::Hangs => {
            let from = Utc::now();
            let fault = |matching: RuleBuilder| match kind {
                Kind::Hangs => matching.hang(),
                _ => matching.status(503).into(),
            };
            let rules = [Rule::patch(), Rule::token()].map(|matching| rig.simulator.script(fault(matching)));
            sleep(durations.outage).await;
            let until = Utc::now();
            rules.into_iter().for_each(|rule| rig.simulator.remove_fault(rule));
            (from, until)
        }
        Kind::RefusesConnections => {
            rig.simulator.pause_listening().await.expect("the port is kept");
            rig.simulator.reset_connections();
            let from = Utc::now();
            sleep(durations.outage).await;
            let until = Utc::now();
            rig.simulator.resume_listening().await.expect("it listens again");
            (from, until)
        }
    }
}

impl Outage {
    /// What is not as it should be.
    pub fn faults(&self) -> Vec<Fault> {
        let mut faults = Vec::new();
        let mut expect = |holds: bool, text: String| {
            if !holds {
                faults.push(Fault(format!("outage ({:?}): {text}", self.kind)));
            }
        };
        let sent = self.sent_per_command;
        expect(sent < SENT_PER_COMMAND_MAX, format!("{sent:.2} requests sent per command"));
        let Self { dead_letters, left_in_queue, messages, messages_applied, .. } = self;
        expect(*dead_letters == 0, format!("{dead_letters} dead letters"));
        expect(*left_in_queue == 0, format!("{left_in_queue} messages left in the queue"));
        expect(
            messages == messages_applied,
            format!("{messages_applied} of {messages} messages were applied"),
        );
        let well = self.calls.refused_well == self.calls.refused && self.calls.refused > 0;
        expect(
            well,
            format!(
                "{} of {} refusals were UNAVAILABLE with RetryInfo",
                self.calls.refused_well, self.calls.refused
            ),
        );
        let p99 = self.calls.latency.p99_ms;
        expect(p99 <= REFUSED_P99_MAX, format!("refusals took {p99} ms (p99)"));
        let after = self.back.full_pace_after_s;
        expect(
            after.is_some_and(|after| after <= FULL_PACE_AFTER_MAX),
            format!("full pace after {after:?} s"),
        );
        let spike = self.spike();
        expect(
            spike <= SPIKE_MAX,
            format!("the highest 200 ms after the return are {spike:.1} of those before"),
        );
        expect(self.violations.is_empty(), format!("violations: {:?}", self.violations));
        faults
    }

    fn spike(&self) -> f64 {
        let whole = |count: u64| number(usize::try_from(count).unwrap_or(usize::MAX));
        whole(self.back.highest_after) / whole(self.back.highest_before.max(1))
    }

    /// For people.
    pub fn tell(&self) {
        say(format!(
            "  {:?}, {:.0} s: {} commands offered, {} requests sent: {:.3} per command",
            self.kind, self.seconds, self.offered, self.sent, self.sent_per_command
        ));
        say(format!("    calls heard {:?}", self.calls.answers));
        say(format!(
            "    refusals: {} of {} UNAVAILABLE with RetryInfo; p50 {} ms, p99 {} ms, max {} ms",
            self.calls.refused_well,
            self.calls.refused,
            self.calls.latency.p50_ms,
            self.calls.latency.p99_ms,
            self.calls.latency.max_ms
        ));
        say(format!(
            "    messages applied {} of {}, dead letters {}, left in the queue {}, drained {:?} s after the return",
            self.messages_applied, self.messages, self.dead_letters, self.left_in_queue, self.drained_after_s
        ));
        say(format!(
            "    pace before {:.1}/s; full pace after {:?} s; highest 200 ms: before {}, after {} ({:.1} times)",
            self.back.before_per_second,
            self.back.full_pace_after_s,
            self.back.highest_before,
            self.back.highest_after,
            self.spike()
        ));
        let shown = &self.back.buckets[..self.back.buckets.len().min(50)];
        say(format!("    PATCHes per 200 ms from the return on: {shown:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Outage {
        let latency = Latency { count: 10, p50_ms: 1.0, p99_ms: 2.0, max_ms: 2.0 };
        let calls = Calls { answers: BTreeMap::new(), refused_well: 10, refused: 10, latency };
        Outage {
            kind: Kind::Answers503,
            seconds: 60.0,
            offered: 20,
            sent: 20,
            sent_per_command: 1.0,
            calls,
            messages: 10,
            messages_applied: 10,
            drained_after_s: Some(1.0),
            dead_letters: 0,
            left_in_queue: 0,
            back: Return {
                full_pace_after_s: Some(1.0),
                highest_before: 10,
                highest_after: 20,
                ..<_>::default()
            },
            violations: Vec::new(),
        }
    }

    #[test]
    fn every_bound_of_an_outage_is_looked_at() {
        let faults = |change: fn(&mut Outage)| {
            let mut outage = well();
            change(&mut outage);
            outage.faults().len()
        };
        assert_eq!(faults(|_| {}), 0);
        assert_eq!(faults(|outage| outage.sent_per_command = 1.2), 1);
        assert_eq!(faults(|outage| outage.calls.refused_well = 9), 1);
        assert_eq!(faults(|outage| outage.calls.latency.p99_ms = 101.0), 1);
        assert_eq!(faults(|outage| outage.messages_applied = 9), 1);
        assert_eq!(faults(|outage| outage.dead_letters = 1), 1);
        assert_eq!(faults(|outage| outage.left_in_queue = 1), 1);
        assert_eq!(faults(|outage| outage.back.full_pace_after_s = None), 1);
        assert_eq!(faults(|outage| outage.back.highest_after = 31), 1);
        assert_eq!(faults(|outage| outage.violations.push("another's token".into())), 1);
    }
}
