//! Four healthy organisations, while the fifth is idle, well, broken, hanging, limited or slow: side by side.

use std::collections::HashMap;
use std::time::Duration;

use harness::Node;
use serde::Serialize;
use simulator::{Endpoint, Limit, RetryAfter, Rule, Scope};

use super::figures::{Latency, Stall, share};
use super::load::{Offer, Rate, offer, seconds};
use super::rig::Rig;
use super::{Durations, Fault, say};
use crate::history::{Door, Time};

/// The healthy ones.
const HEALTHY: usize = 4;

/// The number of the fifth.
const FIFTH: usize = HEALTHY;

/// Commands per second of each healthy organisation by each door.
const HEALTHY_PER_SECOND: f64 = 8.0;

/// The same of the fifth.
const FIFTH_PER_SECOND: f64 = 30.0;

/// How long events are waited for after the load.
const PATIENCE: Duration = Duration::from_secs(5);

/// What "as they were" is: the p99 may be this many times what it is at best, and [`P99_ROOM`] besides.
const P99_TIMES_MAX: f64 = 1.5;

/// Room for the noise of a machine, in milliseconds.
const P99_ROOM: f64 = 50.0;

/// The least share of the healthy commands that are done in time.
const DONE_MIN: f64 = 0.99;

/// What the fifth is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fifth {
    /// It sends nothing.
    Idle,
    /// It sends as in the others, and is answered well.
    Well,
    /// Its PATCHes get 503.
    Broken,
    /// Its PATCHes get no answer.
    Hanging,
    /// It has a limit of 2 a second, beyond which it gets 429 with Retry-After.
    Limited,
    /// Its PATCHes take 2 s.
    Slow,
    /// Its token requests get 401.
    Refused,
}

impl Fifth {
    const ALL: [Self; 7] =
        [Self::Idle, Self::Well, Self::Broken, Self::Hanging, Self::Limited, Self::Slow, Self::Refused];
}

/// What the healthy ones have seen.
#[derive(Debug, Serialize)]
pub struct Seen {
    fifth: Fifth,
    calls: Latency,
    calls_done: f64,
    /// From the queue to the event.
    messages: Latency,
    messages_done: f64,
    /// Commands done per second, of the four together.
    throughput: f64,
    fifth_offered: usize,
    fifth_done: usize,
    fifth_patches: usize,
    dead_letters: u32,
    /// How long this process itself was once kept from running: what a busy machine adds to latencies.
    longest_stall_ms: f64,
    violations: Vec<String>,
}

/// Every kind of a fifth in its turn.
pub async fn isolation(node: &Node, durations: &Durations) -> Vec<Seen> {
    let mut seen = Vec::new();
    for fifth in Fifth::ALL {
        seen.push(beside(node, fifth, durations).await);
        seen.last().into_iter().for_each(Seen::tell);
    }
    seen
}

async fn beside(node: &Node, fifth: Fifth, durations: &Durations) -> Seen {
    let rig = Rig::set(node, HEALTHY + 1, "").await;
    disturb(&rig, fifth);
    let rates = (0..=HEALTHY).filter(|number| fifth != Fifth::Idle || *number != FIFTH);
    let rates = rates.flat_map(|organization| {
        let per_second = if organization == FIFTH { FIFTH_PER_SECOND } else { HEALTHY_PER_SECOND };
        [Door::Grpc, Door::Amqp].map(|door| Rate { organization, door, per_second })
    });
    let rates: Vec<Rate> = rates.collect();
    let stall = Stall::watch();
    let offers = offer(&rig.loader, "isolation", &rates, durations.scenario).await;
    let longest_stall_ms = stall.longest_ms();
    let (fifths, healthy): (Vec<Offer>, Vec<Offer>) =
        offers.into_iter().partition(|offer| offer.organization == FIFTH);
    let queued = |offers: &[Offer], door| -> Vec<Offer> {
        offers.iter().filter(|offer| offer.door == door).cloned().collect()
    };
    let (calls, messages) = (queued(&healthy, Door::Grpc), queued(&healthy, Door::Amqp));
    let all = |events: &HashMap<String, Time>| messages.iter().all(|offer| events.contains_key(&offer.key));
    rig.heard(PATIENCE, all).await;
    let arrivals = rig.arrivals();
    let took = |offer: &Offer| arrivals.get(&offer.key).map(|arrived| seconds(offer.at, *arrived));
    let calls_seen = Latency::of(calls.iter().filter(|offer| offer.is_done()).map(Offer::seconds));
    let messages_seen = Latency::of(messages.iter().filter_map(took));
    let id = rig.loader.organizations[FIFTH].id;
    let own = |entry: &&simulator::Entry| entry.endpoint == Endpoint::Patch && entry.requester == Some(id);
    Seen {
        fifth,
        calls_done: share(calls_seen.count, calls.len()),
        messages_done: share(messages_seen.count, messages.len()),
        throughput: super::figures::number(calls_seen.count + messages_seen.count)
            / durations.scenario.as_secs_f64(),
        calls: calls_seen,
        messages: messages_seen,
        fifth_offered: fifths.len(),
        fifth_done: fifths.iter().filter(|offer| arrivals.contains_key(&offer.key)).count(),
        fifth_patches: rig.simulator.journal().iter().filter(own).count(),
        dead_letters: rig.dead_letters().await,
        longest_stall_ms,
        violations: rig.end().await,
    }
}

fn disturb(rig: &Rig, fifth: Fifth) {
    let (simulator, id) = (&rig.simulator, rig.loader.organizations[FIFTH].id);
    let matching = Rule::patch().requester(id);
    let rule = match fifth {
        Fifth::Idle | Fifth::Well => return,
        Fifth::Broken => matching.status(503).into(),
        Fifth::Hanging => matching.hang(),
        Fifth::Slow => matching.delay(Duration::from_secs(2)),
        Fifth::Limited => {
            let limit = Limit::per_second(2).scope(Scope::Requester(id)).retry_after(RetryAfter::Seconds);
            return simulator.limit(Some(limit));
        }
        Fifth::Refused => {
            simulator.revoke_tokens_of(id);
            Rule::token().requester(id).status(401).into()
        }
    };
    simulator.script(rule);
}

impl Seen {
    fn tell(&self) {
        say(format!(
            "  fifth {:9} calls p50 {:6.1} p99 {:7.1} ms, done {:5.1} %; messages p50 {:6.1} p99 {:7.1} ms, done \
             {:5.1} %; {:5.1}/s; of the fifth {}/{} done, {} PATCHes; dead letters {}; stall {:.0} ms",
            format!("{:?}", self.fifth),
            self.calls.p50_ms,
            self.calls.p99_ms,
            self.calls_done * 100.0,
            self.messages.p50_ms,
            self.messages.p99_ms,
            self.messages_done * 100.0,
            self.throughput,
            self.fifth_done,
            self.fifth_offered,
            self.fifth_patches,
            self.dead_letters,
            self.longest_stall_ms,
        ));
    }
}

/// What is not as it should be.
pub fn faults(seen: &[Seen]) -> Vec<Fault> {
    let undisturbed = || seen.iter().filter(|seen| matches!(seen.fifth, Fifth::Idle | Fifth::Well));
    let bound = |p99: fn(&Seen) -> f64| undisturbed().map(p99).fold(0.0, f64::max) * P99_TIMES_MAX + P99_ROOM;
    let (calls_max, messages_max) = (bound(|seen| seen.calls.p99_ms), bound(|seen| seen.messages.p99_ms));
    let mut faults = Vec::new();
    for one in seen {
        let mut expect = |holds: bool, text: String| {
            if !holds {
                faults.push(Fault(format!("isolation, the fifth {:?}: {text}", one.fifth)));
            }
        };
        let (calls, messages) = (one.calls.p99_ms, one.messages.p99_ms);
        expect(calls <= calls_max, format!("calls take {calls} ms (p99), bound {calls_max:.0}"));
        expect(
            messages <= messages_max,
            format!("messages take {messages} ms (p99), bound {messages_max:.0}"),
        );
        let done = one.calls_done.min(one.messages_done);
        expect(done >= DONE_MIN, format!("only {:.1} % are done", done * 100.0));
        expect(one.dead_letters == 0, format!("{} dead letters", one.dead_letters));
        expect(one.violations.is_empty(), format!("violations: {:?}", one.violations));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(fifth: Fifth, p99_ms: f64) -> Seen {
        let latency = Latency { count: 1, p50_ms: 1.0, p99_ms, max_ms: p99_ms };
        Seen {
            fifth,
            calls: latency,
            calls_done: 1.0,
            messages: latency,
            messages_done: 1.0,
            throughput: 1.0,
            fifth_offered: 0,
            fifth_done: 0,
            fifth_patches: 0,
            dead_letters: 0,
            longest_stall_ms: 0.0,
            violations: Vec::new(),
        }
    }

    #[test]
    fn a_healthy_one_that_suffers_is_found() {
        let with = |change: fn(&mut Seen)| {
            let mut broken = seen(Fifth::Broken, 150.0);
            change(&mut broken);
            faults(&[seen(Fifth::Idle, 100.0), broken]).len()
        };
        assert_eq!(with(|_| {}), 0);
        assert_eq!(with(|seen| seen.calls.p99_ms = 201.0), 1);
        assert_eq!(with(|seen| seen.messages.p99_ms = 201.0), 1);
        assert_eq!(with(|seen| seen.messages_done = 0.9), 1);
        assert_eq!(with(|seen| seen.dead_letters = 1), 1);
        assert_eq!(with(|seen| seen.violations.push("another's token".into())), 1);
    }
}
