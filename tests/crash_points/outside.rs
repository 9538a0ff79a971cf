//! The world around the processes, which outlives them: the upstream, the broker, the clock, and a book of what was seen.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use chrono::{SubsecRound as _, TimeDelta};
use guest_connection_adapter::domain::Timestamp;
use guest_connection_adapter::domain::command::{Command, OrganizationId};
use guest_connection_adapter::domain::message::Message;
use guest_connection_adapter::domain::reply::{Answer, Reply};
use guest_connection_adapter::service::ports::{Clock, Finished, Patch};
use tokio::sync::watch;

use crate::history::Entry;
use crate::incarnation::SETTLE;

/// What the upstream does with a PATCH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// Applies it, if `applied`, and answers with `status`.
    Answered { status: u16, applied: bool },
    /// Gives no answer, and applies it as late as it can.
    Unanswered,
}

const APPLIED: Fate = Fate::Answered { status: 200, applied: true };

/// A PATCH that is not over yet.
struct Open {
    command: u128,
    guest: u128,
    archived: bool,
    fate: Fate,
    sent: Timestamp,
    /// Takes effect at this time, unheard.
    late: Option<Timestamp>,
}

#[derive(Default)]
struct Inner {
    entries: Vec<Entry>,
    patches: usize,
    open: BTreeMap<usize, Open>,
    fates: HashMap<u128, VecDeque<Fate>>,
    values: BTreeMap<u128, bool>,
}

pub struct Outside {
    inner: Mutex<Inner>,
    started: Instant,
    changes: watch::Sender<()>,
}

pub fn number(organization: OrganizationId) -> u128 {
    organization.0.as_u128()
}

impl Outside {
    /// A world in which the PATCHes of each command meet these fates, and then succeed.
    pub fn new(fates: &[(u128, Fate)]) -> Arc<Self> {
        let mut inner = Inner::default();
        for (command, fate) in fates {
            inner.fates.entry(*command).or_default().push_back(*fate);
        }
        Arc::new(Self { inner: Mutex::new(inner), started: Instant::now(), changes: watch::Sender::new(()) })
    }

    pub fn changed(&self) {
        self.changes.send_replace(());
    }

    pub fn changes(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }

    /// Resolves once this was seen.
    pub async fn seen(&self, entry: &Entry) {
        let mut changes = self.changes();
        loop {
            changes.borrow_and_update();
            if self.lock().entries.contains(entry) {
                return;
            }
            // The sender lives as long as the world.
            let _ = changes.changed().await;
        }
    }

    pub fn note(&self, entry: Entry) {
        self.lock().entries.push(entry);
        self.changed();
    }

    pub fn finished(&self, finished: &Finished) {
        match finished {
            Finished::Settled(record) if record.state.is_final() => {
                let command = number(record.command.requester);
                self.note(Entry::Ended { command, state: record.state });
            }
            Finished::Settled(_) => {}
            Finished::Stale => self.note(Entry::Stale),
        }
    }

    pub fn received(&self, message: Message) {
        let requester = |command: &Command| number(command.requester);
        self.note(match message {
            Message::Event(event) => Entry::Event {
                id: event.id,
                command: requester(&event.command.command),
                guest: number(event.command.command.connection.guest),
                kind: event.kind,
                sequence: event.sequence,
            },
            Message::DeadLetter(letter) => {
                Entry::Letter { id: letter.id, command: requester(&letter.command.command) }
            }
            Message::Reply(reply) => {
                let command = reply.command.expect("replies of the outbox are about commands");
                Entry::Reply { id: reply.id, command: requester(&command.command), state: command.state }
            }
        });
    }

    pub fn patch_sent(&self, patch: &Patch) -> usize {
        let sent = self.now();
        let mut inner = self.lock();
        let number_of_patch = inner.patches;
        inner.patches += 1;
        let (command, guest) = (number(patch.requester), number(patch.connection.guest));
        let archived = patch.archived;
        let fate = inner.fates.get_mut(&command).and_then(VecDeque::pop_front).unwrap_or(APPLIED);
        inner.entries.push(Entry::Sent { patch: number_of_patch, command, guest, archived });
        inner.open.insert(number_of_patch, Open { command, guest, archived, fate, sent, late: None });
        number_of_patch
    }

    /// It meets its fate, and the answer, if there is one, is on its way back.
    pub fn patch_heard(&self, patch: usize) -> Reply {
        let mut inner = self.lock();
        let Some(Open { fate, archived, .. }) = inner.open.get(&patch) else { return Reply::Unanswered };
        match (*fate, *archived) {
            (Fate::Answered { status, applied }, archived) => {
                inner.over(patch, applied);
                let body = Some(format!(r#"{{"archived":{archived}}}"#).into_bytes());
                Reply::Answered(Answer { status, retry_after: None, body })
            }
            (Fate::Unanswered, _) => {
                inner.delay(patch);
                Reply::Unanswered
            }
        }
    }

    /// The upstream never sees it; what it would have done, it does with the next one.
    pub fn patch_lost(&self, patch: usize) -> Reply {
        let mut inner = self.lock();
        if let Some(Open { command, fate, .. }) = inner.open.get(&patch) {
            let (command, fate) = (*command, *fate);
            inner.fates.entry(command).or_default().push_front(fate);
        }
        inner.over(patch, false);
        Reply::Unanswered
    }

    /// It takes effect as late as it can.
    pub fn patch_late(&self, patch: usize) -> Reply {
        self.lock().delay(patch);
        Reply::Unanswered
    }

    /// The process that sent them is gone: what is under way takes effect, as late as it can.
    pub fn orphan_patches(&self) {
        let mut inner = self.lock();
        let open: Vec<_> = inner.open.keys().copied().collect();
        open.into_iter().for_each(|patch| inner.delay(patch));
    }

    /// Lets everything take effect that still may, and yields what was seen and the values of the connections.
    pub fn end(&self) -> (Vec<Entry>, Vec<(u128, bool)>) {
        let mut inner = self.lock();
        inner.take_effect(|_| true);
        (inner.entries.clone(), inner.values.clone().into_iter().collect())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }
}

impl Inner {
    fn over(&mut self, patch: usize, applied: bool) {
        let Some(open) = self.open.remove(&patch) else { return };
        if applied {
            self.values.insert(open.guest, open.archived);
            self.entries.push(Entry::Applied { patch });
        }
        self.entries.push(Entry::Over { patch });
    }

    fn delay(&mut self, patch: usize) {
        let Some(open) = self.open.get_mut(&patch) else { return };
        if matches!(open.fate, Fate::Answered { applied: false, .. }) {
            return self.over(patch, false);
        }
        if open.late.is_none() {
            open.late = Some(open.sent + SETTLE - TimeDelta::milliseconds(5));
        }
    }

    fn take_effect(&mut self, is_due: impl Fn(Timestamp) -> bool) {
        let due = self.open.iter().filter(|(_, open)| open.late.is_some_and(&is_due));
        let due: Vec<_> = due.map(|(patch, _)| *patch).collect();
        due.into_iter().for_each(|patch| self.over(patch, true));
    }
}

/// Whoever is told a time finds that everything that was to be by then has been: a store cannot see the end of a quiet
/// time before the upstream has done what it may do within it.
impl Clock for Outside {
    fn now(&self) -> Timestamp {
        let epoch: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
        let elapsed: Duration = self.started.elapsed();
        let now = (epoch + TimeDelta::from_std(elapsed).unwrap()).trunc_subsecs(6);
        self.lock().take_effect(|time| time <= now);
        now
    }
}
