//! How long it took until others did what a killed instance was about to do, and what came late from those that were frozen.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use chrono::TimeDelta;
use simulator::Entry;

use crate::checks::{Index, late};
use crate::history::{History, KillSeen};
use crate::instance;

/// What is told of it; nothing of a single instance.
#[must_use]
pub fn told(history: &History) -> String {
    let mut text = String::new();
    if history.instances < 2 {
        return text;
    }
    let index = Index::new(history);
    let (mut by_others, mut by_itself) = (Vec::new(), Vec::new());
    for kill in &history.kills {
        for (taker, took) in claims(&index, kill) {
            if taker == Some(kill.instance) { by_itself.push(took) } else { by_others.push(took) }
        }
    }
    let events = history.kills.iter().filter_map(|kill| first_event(history, kill)).collect();
    let mut line = |what: &str, times: Vec<TimeDelta>| {
        writeln!(text, "{what}: {}", spread(times)).expect("a string");
    };
    line("from a kill to the next PATCH of what was under way, by another instance", by_others);
    line("the same, by the one that was started again", by_itself);
    line("from a kill to the first event of its slots", events);
    let late = index.sent.iter().filter(|entry| late::is_late(history, &index, entry)).count();
    writeln!(
        text,
        "PATCHes of frozen instances that came late: {late}, over something newer: {}",
        backward(history, &index)
    )
    .expect("a string");
    text
}

/// PATCHes that took effect late, after one of a newer command.
fn backward(history: &History, index: &Index<'_>) -> usize {
    let mut count = 0;
    for guest in index.patches.keys() {
        let mut newest = None;
        for entry in index.applied(*guest) {
            let Some(command) = late::command(history, index, entry) else { continue };
            if newest > Some(command.version()) && late::is_late(history, index, entry) {
                count += 1;
            }
            newest = newest.max(Some(command.version()));
        }
    }
    count
}

fn spread(mut times: Vec<TimeDelta>) -> String {
    times.sort();
    let shown = |time: &TimeDelta| format!("{} ms", time.num_milliseconds());
    match (times.first(), times.get(times.len() / 2), times.last()) {
        (Some(least), Some(middle), Some(most)) => {
            format!("{} times, {} to {}, median {}", times.len(), shown(least), shown(most), shown(middle))
        }
        _ => "never".to_owned(),
    }
}

/// Commands of which a PATCH was outstanding when their instance was killed: who sent the next one, and how much later.
fn claims(index: &Index<'_>, kill: &KillSeen) -> Vec<(Option<usize>, TimeDelta)> {
    let mut found = Vec::new();
    for patches in index.patches.values() {
        let mut by_owner: BTreeMap<_, Vec<&Entry>> = BTreeMap::new();
        for patch in patches {
            by_owner.entry(index.owner(patch)).or_default().push(patch);
        }
        for patches in by_owner.values() {
            let place = patches.partition_point(|patch| patch.received_at <= kill.at);
            let [before, after] = [place.checked_sub(1), Some(place)].map(|place| patches.get(place?));
            let (Some(before), Some(after)) = (before, after) else { continue };
            let is_own = instance::at_source(before.peer) == Some(kill.instance);
            let is_open = before.ended_at.is_none_or(|ended| ended >= kill.at);
            if is_own && is_open {
                found.push((instance::at_source(after.peer), after.received_at - kill.at));
            }
        }
    }
    found
}

/// How much later the first event was confirmed that the killed one would have published.
fn first_event(history: &History, kill: &KillSeen) -> Option<TimeDelta> {
    let is_taken = |(time, slot): &&(_, i16)| *time > kill.at && kill.slots.contains(slot);
    let (time, _) = history.published.iter().find(is_taken)?;
    Some(*time - kill.at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::story::{FIRST, at, sound};

    #[test]
    fn what_was_under_way_at_a_kill_is_taken_over() {
        let mut history = sound();
        // The first PATCH of the first connection is outstanding at the kill; its repeat comes from another instance.
        let mut repeat = history.journal[0].clone();
        repeat.received_at = at(2_700);
        repeat.peer = Some(instance::source(2).into());
        history.journal.push(repeat);
        let kill = |ms: i64, instance: usize| KillSeen { instance, at: at(ms), slots: vec![3, 4] };
        let taken = |kill: &KillSeen| claims(&Index::new(&history), kill);
        assert_eq!(taken(&kill(110, 0)), [(Some(2), TimeDelta::milliseconds(2_590))]);
        assert_eq!(taken(&kill(110, 1)), []);
        assert_eq!(taken(&kill(130, 0)), [], "it had been answered");
        assert_eq!(history.journal[0].guest, Some(FIRST));
        history.published = vec![(at(100), 3), (at(200), 5), (at(900), 4), (at(950), 3)];
        assert_eq!(first_event(&history, &kill(110, 0)), Some(TimeDelta::milliseconds(790)));
        assert_eq!(first_event(&history, &kill(950, 0)), None);
    }

    #[test]
    fn times_are_told_by_their_spread() {
        let times = [30, 10, 20].map(TimeDelta::milliseconds).to_vec();
        assert_eq!(spread(times), "3 times, 10 ms to 30 ms, median 20 ms");
        assert_eq!(spread(Vec::new()), "never");
        let mut history = sound();
        assert!(told(&history).contains("came late: 0, over something newer: 0"));
        history.instances = 1;
        assert_eq!(told(&history), "");
    }
}
