//! No organisation pays for another, and nothing is given up that the upstream has not refused for good.

use std::collections::HashMap;
use std::iter;

use chrono::TimeDelta;
use simulator::Entry;
use uuid::Uuid;

use super::index::Owner;
use super::{About, Checked, Index, key};
use crate::history::{CommandSeen, Door, FaultSeen, History, Sending, State, Time, What};
use crate::terms::LEASE;

/// How long a command may take from its acceptance while nothing is wrong that concerns it: a deferred one takes longer.
const PROMPT: TimeDelta = TimeDelta::milliseconds(1_500);

/// For how long after a fault its consequences last: the longest quiet time, and what was deferred is done.
const AFTERMATH: TimeDelta = TimeDelta::seconds(4);

/// What has waited during a fault is sent after it at twice the pace and no faster, beside what comes anew: so many times its
/// length are over until all is as before.
const DRAIN: i32 = 2;

/// For how long after a 429 an organisation may be sent for slowly: the pace that it was told is given up by and by, and no
/// faster, since nothing tells when a limit is gone. After this time it is eight times as high at least.
const PACED: TimeDelta = TimeDelta::seconds(55);

/// For how long nothing may be sent for an organisation that is sent for slowly: once in a second is the least, and a command
/// that waits in the store may be found a second later.
const PACED_GAP: TimeDelta = TimeDelta::seconds(3);

/// The same of several instances. Each has a pace of its own for an organisation, and a connection waits for the one that it falls
/// to; the others, which may have nothing to send for it, do not fill the gaps.
const PACED_GAP_SHARED: TimeDelta = TimeDelta::seconds(10);

/// So many requests within this time are much.
const BUSY_COUNT: usize = 20;
const BUSY_TIME: TimeDelta = TimeDelta::seconds(2);

fn requesters(history: &History) -> HashMap<&str, Uuid> {
    history.wishes.iter().map(|wish| (wish.key.as_str(), wish.requester)).collect()
}

/// While only another organisation fares badly, commands are done at once, or in turn: where their own organisation was told to
/// slow down, and where there is still much to be sent that has waited.
#[must_use]
pub fn others_do_not_wait(history: &History, index: &Index<'_>) -> Checked {
    let mut checked = Checked::new("one organisation's trouble holds up no other");
    let (requesters, troubles) = (requesters(history), troubles(history));
    let gap = if history.instances > 1 { PACED_GAP_SHARED } else { PACED_GAP };
    for command in history.commands.values() {
        let Some(requester) = requesters.get(command.key.as_str()).copied() else { continue };
        // That it ends is another check's.
        let Some(finish) = command.finish_time.filter(|_| command.state.is_final()) else { continue };
        if !beside_trouble(&troubles, command, requester) || met_a_fault(index, command) {
            continue;
        }
        let took = finish - command.accept_time;
        let accept = command.accept_time;
        let is_in_time = took <= PROMPT
            || goes_at_its_pace(index, requester, (accept, finish), gap)
            || is_in_a_queue(&troubles, index, accept, finish);
        checked.expect(is_in_time, key(&command.key), || {
            format!("it took {took}, and nothing was wrong but with another organisation")
        });
    }
    checked
}

/// What went wrong, when, and for whom; for all if for nobody.
struct Trouble {
    from: Time,
    until: Time,
    organization: Option<Uuid>,
}

/// The faults, and the requests that met one which had been waiting for them: what hangs holds a place up.
fn troubles(history: &History) -> Vec<Trouble> {
    let faults = history.faults.iter().map(|fault| {
        let FaultSeen { from, until, organization, .. } = *fault;
        Trouble { from, until, organization }
    });
    let mut troubles: Vec<_> = faults.collect();
    let is_known = |entry: &Entry| {
        troubles.iter().any(|trouble| {
            let is_meant = trouble.organization.is_some() && trouble.organization == entry.requester;
            is_meant && (trouble.from..=trouble.until).contains(&entry.received_at)
        })
    };
    let met = history.journal.iter().filter(|entry| entry.fault.is_some() && !is_known(entry));
    let met = met.map(|entry| {
        let from = entry.received_at;
        Trouble { from, until: entry.ended_at.unwrap_or(from), organization: None }
    });
    let met: Vec<_> = met.collect();
    troubles.extend(met);
    troubles
}

/// Whether another organisation fared badly in the first moments of a command's life, and nothing else was wrong then
/// or shortly before.
fn beside_trouble(troubles: &[Trouble], command: &CommandSeen, requester: Uuid) -> bool {
    let accept = command.accept_time;
    let overlaps = |trouble: &&Trouble| {
        let lasted = trouble.until - trouble.from;
        trouble.from <= accept + PROMPT && trouble.until + AFTERMATH + lasted * DRAIN >= accept
    };
    let mut troubles = troubles.iter().filter(overlaps).peekable();
    let is_of_another = |trouble: &Trouble| trouble.organization.is_some_and(|other| other != requester);
    troubles.peek().is_some() && troubles.all(is_of_another)
}

/// Whether an organisation was told to slow down not long ago, and is sent for all the time from `accept` to `finish`: a command
/// that waits then waits for others of its own organisation.
fn goes_at_its_pace(
    index: &Index<'_>,
    requester: Uuid,
    (accept, finish): (Time, Time),
    gap: TimeDelta,
) -> bool {
    let patches = index.patches_by_requester.get(&requester).map_or(&[][..], Vec::as_slice);
    let until = |time: Time| patches.partition_point(|entry| entry.received_at <= time);
    let is_limited =
        patches[until(accept - PACED)..until(finish)].iter().any(|entry| entry.status == Some(429));
    let meanwhile = patches[until(accept)..until(finish)].iter().map(|entry| entry.received_at);
    let times: Vec<_> = iter::once(accept).chain(meanwhile).chain(iter::once(finish)).collect();
    is_limited && times.windows(2).all(|pair| pair[1] - pair[0] <= gap)
}

/// Whether much was sent all the time from `accept` to `finish`, and no more than half of it for organisations that fared badly:
/// then what has waited through an outage is sent one after another, as fast as that goes.
fn is_in_a_queue(troubles: &[Trouble], index: &Index<'_>, accept: Time, finish: Time) -> bool {
    let until = |time: Time| index.sent.partition_point(|entry| entry.received_at <= time);
    let is_busy = |from: Time| until(from + BUSY_TIME) - until(from) >= BUSY_COUNT;
    let mut from = accept;
    while from + BUSY_TIME <= finish {
        if !is_busy(from) {
            return false;
        }
        from += BUSY_TIME;
    }
    let is_troubled = |entry: &&&Entry| {
        let meets = |trouble: &Trouble| trouble.until >= accept && trouble.organization == entry.requester;
        troubles.iter().filter(|trouble| trouble.organization.is_some()).any(meets)
    };
    let meanwhile = &index.sent[until(accept)..until(finish)];
    meanwhile.iter().filter(is_troubled).count() * 2 <= meanwhile.len()
}

/// Whether a PATCH of the command's connection met a scripted fault not long before.
fn met_a_fault(index: &Index<'_>, command: &CommandSeen) -> bool {
    let since = command.accept_time - AFTERMATH;
    let mut patches = index.patches.get(&command.guest).into_iter().flatten();
    patches.any(|entry| entry.fault.is_some() && entry.received_at >= since)
}

/// A command has a dead letter only if it has expired or the upstream has refused it for good.
#[must_use]
pub fn dead_letters_are_refusals(history: &History, index: &Index<'_>) -> Checked {
    let mut checked = Checked::new("only what was refused for good is a dead letter");
    for letter in &history.letters {
        let Some((id, state)) = &letter.command else { continue };
        let Some(command) = index.commands_by_id.get(id.as_str()) else { continue };
        let mut patches = index.patches.get(&command.guest).into_iter().flatten();
        let refused = patches.any(|entry| {
            index.owner(entry) == Owner::Key(&command.key) && entry.status.is_some_and(refuses_for_good)
        });
        let sound = *state != State::Abandoned
            && (letter.reason == "COMMAND_EXPIRED" || refused || is_taken_for_left(history, command, *state));
        checked.expect(sound, key(&command.key), || {
            format!("it is {state} for {}, and no PATCH of it was refused for good", letter.reason)
        });
    }
    checked
}

/// Whether a caller waited for the command for longer than an instance leaves it to another one. Such a command may be put off
/// by one that does not know of the caller, and then fail before its eyes: it has a dead letter too, since somebody may have
/// been told that it goes on.
fn is_taken_for_left(history: &History, command: &CommandSeen, state: State) -> bool {
    let lease = TimeDelta::from_std(LEASE).unwrap_or(TimeDelta::MAX);
    let is_long_call = |sending: &Sending| {
        let What::Wish(wish) = sending.what else { return false };
        history.wishes[wish].key == command.key
            && sending.door == Door::Grpc
            && sending.answered_at.is_some_and(|answered_at| answered_at - sending.at > lease)
    };
    history.instances > 1 && state == State::Failed && history.sendings.iter().any(is_long_call)
}

/// Whether the contract lets a command end with this status.
pub(super) fn refuses_for_good(status: u16) -> bool {
    (300..500).contains(&status) && ![401, 408, 425, 429].contains(&status)
}

/// Every request is made with the credentials of the organisation that asked for it.
#[must_use]
pub fn requests_have_their_own_token(history: &History, index: &Index<'_>) -> Checked {
    let mut checked = Checked::new("requests carry their own organisation's token");
    let requesters = requesters(history);
    for entry in index.patches.values().flatten() {
        let asked = match index.owner(entry) {
            Owner::Key(key) => requesters.get(key).copied(),
            Owner::Trace(_) => None,
        };
        let named = entry.requester.is_some() && asked.is_none_or(|asked| entry.requester == Some(asked));
        // A token that nobody has issued is outside the contract, which is another check's.
        let own = entry.client_organization.is_none_or(|client| entry.requester == Some(client));
        checked.expect(
            named && own,
            || entry.guest.map_or(About::Run, About::Connection),
            || {
                let (requester, client) = (entry.requester, entry.client_organization);
                format!(
                    "PATCH {}: asked by {asked:?}, requester {requester:?}, token of {client:?}",
                    entry.seq
                )
            },
        );
    }
    checked
}
