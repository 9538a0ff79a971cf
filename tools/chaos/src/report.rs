//! What a run has shown, for people.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::PathBuf;

use chrono::TimeDelta;
use simulator::{Endpoint, Entry};
use uuid::Uuid;

use crate::checks::{About, Checked, Finding};
use crate::history::{Answer, Door, EventSeen, History, Sending, Time, What};
use crate::run::{Phase, Run, Unsettled};
use crate::{instance, stage, takeover};

/// Findings told of one check, at most.
const FINDINGS_SHOWN: usize = 5;

/// How much before and after a command's life is told.
const MARGIN: TimeDelta = TimeDelta::milliseconds(500);

/// Counts and, if something is wrong, the story of the first finding of each check.
#[must_use]
pub fn summary(run: &Run) -> String {
    let mut text = counts(&run.history);
    let settled = match &run.settled {
        Ok(time) => format!("settled {time:.1?} after the last sending and fault\n"),
        Err(unsettled) => given_up(unsettled),
    };
    text.push_str(&settled);
    writeln!(text, "longest stall of this process: {:.0?}", run.longest_stall).expect("a string");
    text.push_str(&takeover::told(&run.history));
    if !run.checked.is_empty() {
        text.push_str(&verdict(&run.history, &run.checked));
    }
    text
}

/// Where a run that did not become quiet stood.
fn given_up(unsettled: &Unsettled) -> String {
    let Unsettled { phase, reason, faults, owed } = unsettled;
    let mut text = format!("NOT SETTLED, {reason} while {phase:?}\n");
    for fault in faults {
        writeln!(text, "  fault under way since {fault}").expect("a string");
    }
    if *phase != Phase::Disturbing {
        writeln!(text, "{} things were owed at the last look", owed.len()).expect("a string");
    }
    for owed in owed.iter().take(FINDINGS_SHOWN) {
        writeln!(text, "  {owed}").expect("a string");
    }
    text
}

/// What the checks say.
#[must_use]
pub fn verdict(history: &History, checked: &[Checked]) -> String {
    let mut text = String::from("checks:\n");
    for check in checked {
        let findings = check.findings.len();
        let word = if findings == 0 { "ok".to_owned() } else { format!("{findings} BROKEN") };
        writeln!(text, "  {:6} {word:10} {}", check.count, check.check).expect("a string");
    }
    for check in checked.iter().filter(|check| !check.findings.is_empty()) {
        for finding in check.findings.iter().take(FINDINGS_SHOWN) {
            writeln!(text, "\nBROKEN: {finding}").expect("a string");
        }
        text.push_str(&story(history, &check.findings[0]));
    }
    text
}

fn tally<'a>(words: impl Iterator<Item = &'a str>) -> String {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    words.for_each(|word| *counts.entry(word).or_default() += 1);
    let list: Vec<_> = counts.iter().map(|(word, count)| format!("{word} {count}")).collect();
    list.join(", ")
}

fn counts(history: &History) -> String {
    let History { wishes, garbage, sendings, faults, journal, commands, .. } = history;
    let patches: Vec<_> = journal.iter().filter(|entry| entry.endpoint == Endpoint::Patch).collect();
    let applied = patches.iter().filter(|entry| entry.applied).count();
    let states: Vec<String> = commands.values().map(|command| command.state.to_string()).collect();
    let answers = sendings.iter().map(|sending| match (&sending.answer, sending.door) {
        (Answer::Done { .. }, _) => "grpc OK",
        (Answer::Refused { reason, .. }, _) => reason.as_str(),
        (Answer::Confirmed, _) => "amqp confirmed",
        (Answer::Unknown(_), Door::Grpc) => "grpc unknown",
        (Answer::Unknown(_), Door::Amqp) => "amqp unknown",
        (Answer::NotSent(_), _) => "not sent",
    });
    let mut text = format!("seed {}\n", history.seed);
    let mut line = |name: &str, count: usize, kinds: String| {
        writeln!(text, "{name}: {count} ({kinds})").expect("a string");
    };
    line("wishes", wishes.len(), tally(wishes.iter().map(|wish| wish.kind.as_str())));
    line("garbage", garbage.len(), tally(garbage.iter().map(|garbage| garbage.kind.as_str())));
    line("sendings", sendings.len(), tally(answers));
    line("faults", faults.len(), tally(faults.iter().map(|fault| fault.kind.as_str())));
    let met = patches.iter().filter_map(|entry| entry.fault.as_deref());
    line("PATCHes", patches.len(), format!("applied {applied}; faults met: {}", tally(met)));
    line("commands", commands.len(), tally(states.iter().map(String::as_str)));
    let deliveries = format!("dead letters {}, replies {}", history.letters.len(), history.replies.len());
    line("events", history.events.len(), deliveries);
    text
}

/// Everything that has to do with a finding, in order of time.
#[must_use]
pub fn story(history: &History, finding: &Finding) -> String {
    let guests: Vec<Uuid> = match &finding.about {
        About::Run => return String::new(),
        About::Connection(guest) => vec![*guest],
        About::Sending(number) => match history.sendings.get(*number).map(|sending| sending.what) {
            Some(What::Wish(wish)) => vec![history.wishes[wish].guest],
            _ => Vec::new(),
        },
        About::Key(key) => {
            let wishes = history.wishes.iter().filter(|wish| wish.key == *key);
            wishes.map(|wish| wish.guest).collect()
        }
    };
    let mut lines: Vec<(Time, String)> = Vec::new();
    for (number, sending) in history.sendings.iter().enumerate() {
        let own = match sending.what {
            What::Wish(wish) => guests.contains(&history.wishes[wish].guest),
            What::Garbage(_) => finding.about == About::Sending(number),
        };
        if own {
            lines.push((sending.at, told(history, number, sending)));
        }
    }
    for entry in history.journal.iter().filter(|entry| entry.guest.is_some_and(|g| guests.contains(&g))) {
        lines.push((entry.received_at, patch(entry)));
    }
    for command in history.commands.values().filter(|command| guests.contains(&command.guest)) {
        lines.push((command.accept_time, format!("command  {command:?}")));
    }
    let (Some(first), Some(last)) =
        (lines.iter().map(|line| line.0).min(), lines.iter().map(|line| line.0).max())
    else {
        return String::new();
    };
    for fault in &history.faults {
        if fault.from <= last + MARGIN && fault.until >= first - MARGIN {
            let took = fault.until - fault.from;
            let instance = fault.instance.map(|number| format!(" of instance {number}")).unwrap_or_default();
            lines.push((fault.from, format!("FAULT    {}{instance} for {took}: {}", fault.kind, fault.text)));
        }
    }
    lines.sort();
    let mut text = String::from("  what happened on its connection:\n");
    for (time, line) in lines {
        let at = (time - history.started_at).num_milliseconds();
        writeln!(text, "  {at:>7} ms  {line}").expect("a string");
    }
    for event in history.events.iter().filter(|event| guests.contains(&event.guest)) {
        let EventSeen { id, kind, sequence, key, trace, .. } = event;
        writeln!(text, "  event {sequence} {kind} of {key}: {id}, trace {trace}").expect("a string");
    }
    for letter in &history.letters {
        let of = letter.command.as_ref().and_then(|(id, _)| history.commands.values().find(|c| c.id == *id));
        if of.is_some_and(|command| guests.contains(&command.guest)) {
            writeln!(text, "  dead letter {letter:?}").expect("a string");
        }
    }
    text
}

fn told(history: &History, number: usize, sending: &Sending) -> String {
    let what = match sending.what {
        What::Wish(wish) => {
            let wish = &history.wishes[wish];
            format!("{} ({}, archived {}, trace {})", wish.key, wish.kind, wish.archived, wish.trace)
        }
        What::Garbage(garbage) => format!("garbage ({})", history.garbage[garbage].kind),
    };
    let took = sending.answered_at.map(|at| (at - sending.at).num_milliseconds());
    format!("sending  {number} by {:?}: {what}; after {took:?} ms {:?}", sending.door, sending.answer)
}

fn patch(entry: &Entry) -> String {
    let after = |time: Option<Time>| time.map(|time| (time - entry.received_at).num_milliseconds());
    format!(
        "PATCH    {} from {:?} archived {:?}, status {:?}, status after {:?} ms, ended after {:?} ms, applied as {:?} after {:?} ms, \
         fault {:?}, {}",
        entry.seq,
        instance::at_source(entry.peer),
        entry.archived,
        entry.status,
        after(entry.status_at),
        after(entry.ended_at),
        entry.applied_seq,
        after(entry.applied_at),
        entry.fault,
        entry.traceparent.as_deref().unwrap_or("no trace"),
    )
}

/// Where the files of failed runs are kept.
#[must_use]
pub fn folder(seed: u64) -> PathBuf {
    let target = stage::program().parent().and_then(|folder| folder.parent()).map(PathBuf::from);
    target.unwrap_or_default().join("chaos").join(seed.to_string())
}

/// Keeps everything that is needed to look into a run.
///
/// # Errors
/// A file cannot be written.
pub fn keep(run: &Run) -> std::io::Result<PathBuf> {
    let folder = folder(run.history.seed);
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join("history.json"), serde_json::to_vec(&run.history)?)?;
    for (number, log) in run.logs.iter().enumerate() {
        let name =
            if run.logs.len() == 1 { "adapter.log".to_owned() } else { format!("adapter-{number}.log") };
        std::fs::write(folder.join(name), log.join("\n"))?;
    }
    for (number, standing) in run.standings.iter().enumerate() {
        std::fs::write(folder.join(format!("standing-{number}.txt")), standing)?;
    }
    std::fs::write(folder.join("broker.log"), &run.broker_log)?;
    std::fs::write(folder.join("adapter.toml"), &run.configuration)?;
    std::fs::write(folder.join("report.txt"), summary(run))?;
    Ok(folder)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::{all, story};

    #[test]
    fn a_run_that_was_given_up_tells_where_it_stood() {
        let owed = Finding { check: "nothing is left", about: About::Run, text: "3 messages".to_owned() };
        let (reason, faults) = ("told to end", vec!["12:00 broker killed".to_owned()]);
        let text = given_up(&Unsettled { phase: Phase::Settling, reason, faults, owed: vec![owed; 7] });
        for part in ["told to end while Settling", "since 12:00 broker killed", "7 things", "3 messages"] {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
    }

    #[test]
    fn a_finding_comes_with_the_story_of_its_connection() {
        let mut history = story::sound();
        history.journal[0].archived = Some(false);
        let checked = all(&history);
        let text = verdict(&history, &checked);
        for part in ["BROKEN: applied PATCHes have their event", "sending  0 by Grpc: archive", "PATCH    1 "]
        {
            assert!(text.contains(part), "no {part:?} in {text}");
        }
        assert!(!text.contains("PATCH    3 "), "it is of another connection: {text}");
    }
}
