//! Random histories against a model that keeps rows in maps.

use std::collections::{BTreeSet, HashMap};

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;

use super::*;
use crate::domain::error::Refusal;
use crate::domain::lifecycle;

/// Every transition drawn in the state machine; a command that waits stays in its state.
const DRAWN: [(State, State); 17] = [
    (State::Accepted, State::Accepted),
    (State::Accepted, State::InFlight),
    (State::Accepted, State::Deferred),
    (State::Accepted, State::Superseded),
    (State::Accepted, State::Failed),
    (State::InFlight, State::InFlight),
    (State::InFlight, State::Deferred),
    (State::InFlight, State::Succeeded),
    (State::InFlight, State::Rejected),
    (State::InFlight, State::Failed),
    (State::InFlight, State::Abandoned),
    (State::Deferred, State::Deferred),
    (State::Deferred, State::InFlight),
    (State::Deferred, State::Superseded),
    (State::Deferred, State::Failed),
    (State::Failed, State::Accepted),
    (State::Failed, State::Deferred),
];

const GUESTS: u128 = 3;
const REQUESTERS: u128 = 2;

/// The longest time for which something is put off.
const DELAY_MAX: TimeDelta = TimeDelta::seconds(200);

/// What the one who accepts a command does with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    Claim,
    Own,
    Leave,
}

#[derive(Debug, Clone)]
enum Step {
    Accept { guest: u128, key: u8, work: Work, expires: Option<u16>, issued_ago: Option<u16>, paused: bool },
    Begin { pick: usize },
    PutOff { pick: usize, seconds: u8, keeps_place: bool },
    PutOffDue { requester: Option<u128>, seconds: u8 },
    Resume { requester: Option<u128> },
    Finish { pick: usize, ending: usize, caller_waits: bool },
    Advance { milliseconds: u32 },
}

fn step() -> impl Strategy<Value = Step> {
    let seconds = proptest::option::weighted(0.2, 0u16..30);
    let work = prop_oneof![Just(Work::Claim), Just(Work::Own), Just(Work::Leave)];
    let requester = proptest::option::of(0..REQUESTERS);
    let delay = 0u8..200;
    prop_oneof![
        4 => (0..GUESTS, 0u8..12, work, seconds.clone(), seconds, proptest::bool::weighted(0.2)).prop_map(
            |(guest, key, work, expires, issued_ago, paused)| {
                Step::Accept { guest, key, work, expires, issued_ago, paused }
            }),
        2 => (any::<usize>(), delay.clone(), any::<bool>())
            .prop_map(|(pick, seconds, keeps_place)| Step::PutOff { pick, seconds, keeps_place }),
        1 => (requester.clone(), delay)
            .prop_map(|(requester, seconds)| Step::PutOffDue { requester, seconds }),
        1 => requester.prop_map(|requester| Step::Resume { requester }),
        4 => any::<usize>().prop_map(|pick| Step::Begin { pick }),
        5 => (any::<usize>(), 0..ENDINGS.len(), any::<bool>())
            .prop_map(|(pick, ending, caller_waits)| Step::Finish { pick, ending, caller_waits }),
        3 => prop_oneof![4 => 1u32..8_000, 2 => 8_000u32..100_000, 1 => Just(3_600_000)]
            .prop_map(|milliseconds| Step::Advance { milliseconds }),
    ]
}

/// A store without a disk, which checks the rules at every write.
struct Model {
    now: Timestamp,
    commands: Vec<CommandRecord>,
    connections: HashMap<Connection, ConnectionRecord>,
    /// Claims given and not ended, lost ones too.
    claims: Vec<CommandRecord>,
    seen: BTreeSet<(&'static str, &'static str)>,
    events: HashMap<Connection, u64>,
}

impl Model {
    fn new() -> Self {
        let connections =
            (0..GUESTS).map(|guest| (connection(guest), ConnectionRecord::new(connection(guest))));
        Self {
            now: start(),
            commands: Vec::new(),
            connections: connections.collect(),
            claims: Vec::new(),
            seen: BTreeSet::new(),
            events: HashMap::new(),
        }
    }

    fn run(&mut self, step: &Step) {
        match *step {
            Step::Advance { milliseconds } => self.now += TimeDelta::milliseconds(milliseconds.into()),
            Step::Accept { guest, key, work, expires, issued_ago, paused } => {
                let mut request = request(self.commands.len() as u128, guest, &format!("{guest}-{key}"));
                request.command.expire_time = expires.map(|s| self.now + TimeDelta::seconds(s.into()));
                request.command.issue_time = issued_ago.map(|s| self.now - TimeDelta::seconds(s.into()));
                request.command.requester = requester(guest % REQUESTERS);
                request.put_off = paused.then(|| put_off(10, false));
                request.is_owned = work != Work::Leave;
                self.accept(request, work == Work::Claim);
            }
            Step::Begin { pick } => {
                if let Some(id) = self.pick_open(pick) {
                    self.begin(id);
                }
            }
            Step::PutOff { pick, seconds, keeps_place } => {
                if let Some(id) = self.pick_open(pick) {
                    self.put_off(id, &put_off(seconds, keeps_place));
                }
            }
            Step::PutOffDue { requester: of, seconds } => self.put_off_due(of.map(requester), seconds),
            Step::Resume { requester: of } => self.resume(of.map(requester)),
            Step::Finish { pick, ending: how, caller_waits } => {
                if !self.claims.is_empty() {
                    let claim = self.claims.swap_remove(pick % self.claims.len());
                    self.finish(ending(&claim, ENDINGS[how], caller_waits));
                }
            }
        }
        for guest in 0..GUESTS {
            let of_guest = self.commands.iter().filter(|c| c.command.connection == connection(guest));
            let in_flight = of_guest.filter(|c| c.state == State::InFlight).count();
            assert!(in_flight <= 1, "{in_flight} in flight on one connection");
            self.check_line(connection(guest));
        }
    }

    fn pick_open(&self, pick: usize) -> Option<CommandId> {
        let open: Vec<_> = self.commands.iter().filter(|c| !c.state.is_final()).map(|c| c.id).collect();
        (!open.is_empty()).then(|| open[pick % open.len()])
    }

    /// The first in line is due soon, or after its pause, unless it is another command's end that wakes it: nothing stalls.
    fn check_line(&self, at: Connection) {
        let of_connection = || self.commands.iter().filter(|c| c.command.connection == at);
        let Some(first) = of_connection().filter(|c| c.in_line()).min_by_key(|c| c.arrival) else { return };
        if of_connection().any(CommandRecord::blocks) {
            return;
        }
        let quiet_until = self.connections[&at].quiet.map(|quiet| quiet.until);
        let latest = quiet_until.max(Some(self.now)).map(|time| time + TERMS.hold + WAIT_MIN);
        let latest = latest.max(first.paused_since.map(|_| self.now + DELAY_MAX));
        assert!(first.due_time <= latest, "{:?} is due too late, it is {}", first.due_time, self.now);
    }

    fn accept(&mut self, request: Acceptance, claim: bool) {
        let existing = self.commands.iter().find(|c| c.command.key == request.command.key).cloned();
        let at = request.command.connection;
        let arrival = existing.as_ref().map_or(i64::MAX, |c| c.arrival);
        let mut line = self.commands.iter().filter(|c| c.command.connection == at && c.in_line());
        let is_behind = line.any(|c| c.arrival < arrival);
        match accept(existing.clone(), &self.connections[&at], request, is_behind, self.now, &TERMS) {
            Accepted::Fresh(record, connection) => {
                let (id, state) = (record.id, record.state);
                self.write(record, Some(connection));
                if claim && state == State::Accepted {
                    self.begin(id);
                }
            }
            Accepted::InProgress(record) => self.write(record, None),
            Accepted::Replayed(record, _) => assert_eq!(Some(record), existing),
            Accepted::Conflict => panic!("keys have parameters of their own here"),
        }
    }

    fn begin(&mut self, id: CommandId) {
        let record = self.command(id).clone();
        let at = record.command.connection;
        let blocker =
            self.commands.iter().find(|c| c.command.connection == at && c.id != id && c.blocks()).cloned();
        let earlier =
            |c: &&CommandRecord| c.command.connection == at && c.arrival < record.arrival && c.in_line();
        let is_behind = self.commands.iter().any(|c| earlier(&c));
        let situation = Situation { blocker: blocker.as_ref(), is_behind, caller_waits: true };
        let must_go_first = record.blocks();
        let was_accepted = record.state == State::Accepted;
        let connection = self.connections[&at].clone();
        match begin(record, connection, situation, self.now, Uuid::now_v7(), &TERMS) {
            Begun::Claimed(record, connection) => {
                assert!(blocker.is_none());
                assert!(!is_behind || must_go_first, "not at the head of its line");
                self.claims.push(record.clone());
                self.write(record, Some(connection));
            }
            Begun::Waiting(record) => {
                assert!(record.due_time > Some(self.now));
                self.write(record, None);
            }
            Begun::Ended(settlement) => self.settle(settlement),
            Begun::Unavailable(record) => {
                assert!(!was_accepted, "a store that begins what it accepts relies on it");
                assert_eq!(&record, self.command(id));
            }
        }
    }

    fn put_off(&mut self, id: CommandId, put_off: &PutOff) {
        let record = self.command(id).clone();
        let before = record.clone();
        let at = record.command.connection;
        let earlier =
            |c: &&CommandRecord| c.command.connection == at && c.arrival < record.arrival && c.in_line();
        let is_behind = self.commands.iter().any(|c| earlier(&c));
        let situation = Situation { blocker: None, is_behind, caller_waits: true };
        let connection = self.connections[&at].clone();
        match lifecycle::put_off(record, connection, situation, put_off, self.now, Uuid::now_v7()) {
            PutOffAnswer::Settled(settlement) => {
                let after = &settlement.record;
                assert_eq!((after.epoch, after.attempts), (before.epoch, before.attempts));
                if !after.state.is_final() {
                    assert!(after.due_time >= Some(self.now) && after.paused_since.is_some());
                    assert_eq!(after.in_line(), before.in_line() && put_off.keeps_place);
                }
                self.settle(settlement);
            }
            PutOffAnswer::Unavailable(record) => {
                assert_eq!(record.state, State::InFlight);
                assert_eq!(record, before);
            }
        }
    }

    fn put_off_due(&mut self, of: Option<OrganizationId>, seconds: u8) {
        let due_time = self.now + TimeDelta::seconds(seconds.into());
        let chosen = |c: &&mut CommandRecord| of.is_none_or(|of| c.command.requester == of);
        for command in self.commands.iter_mut().filter(chosen) {
            let is_due = command.due_time.is_some_and(|due_time| due_time <= self.now);
            if command.state == State::Deferred && !command.waiting && is_due {
                command.paused_since = command.paused_since.or(command.due_time);
                command.due_time = Some(due_time);
            }
        }
    }

    fn resume(&mut self, of: Option<OrganizationId>) {
        for index in 0..self.commands.len() {
            let command = &self.commands[index];
            let chosen = of.is_none_or(|of| command.command.requester == of);
            let is_paused = command.paused_since.is_some() && command.due_time > Some(self.now);
            let ahead = |c: &CommandRecord| {
                c.command.connection == command.command.connection
                    && c.in_line()
                    && c.arrival < command.arrival
            };
            if chosen && is_paused && !(command.in_line() && self.commands.iter().any(ahead)) {
                self.commands[index].due_time = Some(self.now);
            }
        }
    }

    fn finish(&mut self, finish: Finish) {
        let record = self.command(finish.id).clone();
        let connection = self.connections[&record.command.connection].clone();
        let current = record.state == State::InFlight && record.epoch == finish.epoch;
        match lifecycle::finish(record, connection, finish, self.now, &TERMS) {
            Finished::Settled(settlement) => {
                assert!(current);
                self.settle(settlement);
            }
            Finished::Stale(connection) => {
                assert!(!current);
                assert_eq!(connection.sequence, self.connections[&connection.connection].sequence);
                self.connections.insert(connection.connection, connection);
            }
        }
    }

    fn settle(&mut self, settlement: Settlement) {
        let at = settlement.connection.connection;
        for message in &settlement.messages {
            if let Message::Event(event) = message {
                let last = self.events.insert(at, event.sequence).unwrap_or(0);
                assert_eq!(event.sequence, last + 1, "a gap");
            }
        }
        self.write(settlement.record, Some(settlement.connection));
        if let Some(wake_time) = settlement.wake_time {
            let line = self.commands.iter_mut().filter(|c| c.command.connection == at && c.in_line());
            if let Some(first) = line.min_by_key(|c| c.arrival) {
                first.due_time = first.due_time.min(Some(wake_time));
            }
        }
    }

    fn write(&mut self, record: CommandRecord, connection: Option<ConnectionRecord>) {
        assert_eq!(record.due_time.is_none(), record.state.is_final());
        assert_eq!(record.finished_time.is_some(), record.state.is_final());
        let may_be_paused = matches!(record.state, State::Accepted | State::Deferred);
        assert!(may_be_paused || record.paused_since.is_none(), "paused, and {:?}", record.state);
        let paused = record.paused + record.paused_since.map_or(TimeDelta::zero(), |since| self.now - since);
        assert!(paused <= self.now - record.accepted_time, "paused longer than it is there");
        if let Some(connection) = connection {
            let before = &self.connections[&connection.connection];
            assert!(
                connection.applied.map(|a| a.version) >= before.applied.map(|a| a.version),
                "version went back"
            );
            assert!(connection.effective_time_last >= before.effective_time_last);
            assert!(connection.sequence - before.sequence <= 1);
            self.connections.insert(connection.connection, connection);
        }
        let Some(index) = self.commands.iter().position(|c| c.id == record.id) else {
            assert_eq!(record.state == State::Deferred, record.paused_since.is_some());
            let arrival = i64::try_from(self.commands.len()).unwrap() + 1;
            self.commands.push(CommandRecord { arrival, ..record });
            return;
        };
        let before = &self.commands[index];
        let transition = (before.state, record.state);
        assert!(DRAWN.contains(&transition), "{transition:?} is not drawn");
        self.seen.insert((before.state.as_str(), record.state.as_str()));
        assert!(
            !before.maybe_applied || record.maybe_applied || record.state == State::Succeeded,
            "forgotten"
        );
        assert!(!(record.maybe_applied && matches!(record.state, State::Failed | State::Superseded)));
        assert_eq!(record.effective_time, before.effective_time);
        assert!(record.epoch >= before.epoch && record.attempts >= before.attempts);
        self.commands[index] = record;
    }

    fn command(&self, id: CommandId) -> &CommandRecord {
        self.commands.iter().find(|c| c.id == id).unwrap()
    }
}

fn requester(number: u128) -> OrganizationId {
    OrganizationId(Uuid::from_u128(number))
}

fn put_off(seconds: u8, keeps_place: bool) -> PutOff {
    let refusal = Refusal::new(Reason::UpstreamUnavailable, "paused");
    PutOff { delay: Duration::from_secs(seconds.into()), keeps_place, refusal }
}

proptest! {
    #[test]
    fn random_histories_keep_the_rules(steps in proptest::collection::vec(step(), 1..150)) {
        let mut model = Model::new();
        for step in &steps {
            model.run(step);
        }
    }
}

#[test]
fn random_histories_come_by_every_transition() {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let mut seen = BTreeSet::new();
    for _ in 0..300 {
        let steps = proptest::collection::vec(step(), 150).new_tree(&mut runner).unwrap().current();
        let mut model = Model::new();
        for step in &steps {
            model.run(step);
        }
        seen.append(&mut model.seen);
    }
    let drawn: BTreeSet<_> = DRAWN.iter().map(|(from, to)| (from.as_str(), to.as_str())).collect();
    assert_eq!(seen, drawn);
}
