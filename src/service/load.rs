//! What the process holds, and how much it may: commands under way and their bytes, and the store's backlog.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};

use crate::domain::command::OrganizationId;
use crate::domain::record::Door;

/// Bytes are counted in units of this many.
const UNIT_LENGTH: usize = 256;

/// The least that a command takes, whatever its message: its task, its place in the lane, its record.
const COMMAND_LENGTH_MIN: usize = 2_048;

/// The part of what may be held, as a divisor, that messages leave to calls: those wait for an answer.
const CALLS_DIVISOR: usize = 4;

/// The part, as a divisor, that one requester may have which is constrained: it has reached a limit of its own, or fails.
/// As much is kept from all of those together.
const SHARE_DIVISOR: usize = 4;

/// Bounds of what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Commands under way in this process.
    pub commands_max: usize,
    /// Their bytes, as their messages came.
    pub bytes_max: usize,
    /// Commands in the store that are not final.
    pub backlog_max: u64,
    /// Calls that the gRPC door serves at once.
    pub calls_max: usize,
    /// Messages that the broker hands out at once.
    pub messages_max: usize,
    /// Commands that recovery works on at once, besides.
    pub recovered_max: usize,
}

/// By what way a command came to be under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// By a call.
    Call,
    /// By a message.
    Message,
    /// From the store.
    Recovered,
}

impl From<Door> for Way {
    fn from(door: Door) -> Self {
        match door {
            Door::Grpc => Self::Call,
            Door::Amqp => Self::Message,
        }
    }
}

/// How many commands are under way.
#[derive(Debug, Default)]
struct Counts {
    /// Those of each requester, by [`Way`].
    of: HashMap<OrganizationId, [usize; 3]>,
    /// Those whose requester was constrained when they came.
    constrained: [usize; 3],
}

/// A command under way of a requester. Dropping it takes it out of the count.
#[derive(Debug)]
pub struct Counted {
    counts: Arc<Mutex<Counts>>,
    requester: OrganizationId,
    way: Way,
    is_constrained: bool,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut counts = lock(&self.counts);
        counts.constrained[self.way as usize] -= usize::from(self.is_constrained);
        if let Some(count) = counts.of.get_mut(&self.requester) {
            count[self.way as usize] -= 1;
            if *count == [0; 3] {
                counts.of.remove(&self.requester);
            }
        }
    }
}

/// Each change is complete before the lock is let go, so a poisoned lock guards sound data.
fn lock(counts: &Mutex<Counts>) -> MutexGuard<'_, Counts> {
    counts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What is held. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Load {
    limits: Limits,
    commands: Arc<Semaphore>,
    units: Arc<Semaphore>,
    counts: Arc<Mutex<Counts>>,
    freed: Arc<Notify>,
    /// Whether the store's backlog is as long as it may be, or was and has not shrunk enough since.
    backlog_is_full: watch::Sender<bool>,
}

/// A command's share of what may be held. Dropping it gives it back.
#[derive(Debug)]
pub struct Hold {
    _command: OwnedSemaphorePermit,
    _units: OwnedSemaphorePermit,
    _counted: Counted,
    /// The last, so that all of it is free when it tells.
    _wake: Wake,
}

/// Tells those who wait for room.
#[derive(Debug)]
struct Wake(Arc<Notify>);

impl Drop for Wake {
    fn drop(&mut self) {
        self.0.notify_waiters();
    }
}

impl Load {
    /// Nothing is held yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            commands: Arc::new(Semaphore::new(limits.commands_max.min(Semaphore::MAX_PERMITS))),
            units: Arc::new(Semaphore::new((limits.bytes_max / UNIT_LENGTH).min(Semaphore::MAX_PERMITS))),
            counts: Arc::default(),
            freed: Arc::default(),
            backlog_is_full: watch::Sender::new(false),
            limits,
        }
    }

    /// Room for one more command of `requester`, whose message has `length` bytes; nothing if there is none.
    #[must_use]
    pub fn hold(
        &self,
        requester: OrganizationId,
        door: Door,
        length: usize,
        is_constrained: bool,
    ) -> Option<Hold> {
        if door == Door::Amqp && self.commands.available_permits() <= self.reserve() {
            return None;
        }
        let units = u32::try_from(length.max(COMMAND_LENGTH_MIN).div_ceil(UNIT_LENGTH)).ok()?;
        let command = self.commands.clone().try_acquire_owned().ok()?;
        let units = self.units.clone().try_acquire_many_owned(units).ok()?;
        let counted = self.count(requester, door.into(), is_constrained);
        let wake = Wake(Arc::clone(&self.freed));
        Some(Hold { _command: command, _units: units, _counted: counted, _wake: wake })
    }

    /// How many commands are under way, by the way they came: calls, messages, recovered ones.
    #[must_use]
    pub fn under_way(&self) -> [usize; 3] {
        let counts = lock(&self.counts);
        counts.of.values().fold([0; 3], |sum, of| [sum[0] + of[0], sum[1] + of[1], sum[2] + of[2]])
    }

    /// Counts a command of `requester` for as long as the answer is kept.
    #[must_use]
    pub fn count(&self, requester: OrganizationId, way: Way, is_constrained: bool) -> Counted {
        let mut counts = lock(&self.counts);
        counts.of.entry(requester).or_default()[way as usize] += 1;
        counts.constrained[way as usize] += usize::from(is_constrained);
        Counted { counts: Arc::clone(&self.counts), requester, way, is_constrained }
    }

    /// Whether a constrained requester has a quarter or more of what may be under way by this way, or all of those together
    /// leave no more than a quarter. Of very little a message gets nothing: it can wait in the store.
    #[must_use]
    pub fn is_beyond_share(&self, requester: OrganizationId, way: Way) -> bool {
        let Limits { commands_max, calls_max, messages_max, recovered_max, .. } = self.limits;
        let all = match way {
            Way::Call => calls_max.min(commands_max),
            Way::Message => messages_max.min(commands_max - self.reserve()),
            Way::Recovered => recovered_max,
        };
        let share = if way == Way::Message { all / SHARE_DIVISOR } else { all.div_ceil(SHARE_DIVISOR) };
        let left = if all > 1 { all.div_ceil(SHARE_DIVISOR) } else { 0 };
        let counts = lock(&self.counts);
        let held = counts.of.get(&requester).map_or(0, |count| count[way as usize]);
        held >= share || counts.constrained[way as usize] + left >= all
    }

    /// Places that messages leave to calls.
    fn reserve(&self) -> usize {
        self.limits.commands_max / CALLS_DIVISOR
    }

    /// Notes how many commands in the store are not final. After it was full it counts as full until a tenth of it is
    /// free, so that the doors do not open and close with every command.
    pub fn note_backlog(&self, backlog: u64) {
        let max = self.limits.backlog_max;
        let bound = if self.backlog_is_full() { max - max / 10 } else { max };
        self.backlog_is_full.send_replace(backlog >= bound);
    }

    /// Whether the store holds as many commands that are not final as it may.
    #[must_use]
    pub fn backlog_is_full(&self) -> bool {
        *self.backlog_is_full.borrow()
    }

    /// Why no more messages should be taken in for now, if so.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        let Limits { commands_max, bytes_max, backlog_max, .. } = self.limits;
        if self.backlog_is_full() {
            Some(format!("the store holds about {backlog_max} commands that are not final"))
        } else if self.commands.available_permits() <= self.reserve() {
            Some(format!("{} commands are under way", commands_max - self.reserve()))
        } else if self.units.available_permits() < COMMAND_LENGTH_MIN / UNIT_LENGTH {
            Some(format!("commands of {bytes_max} bytes are under way"))
        } else {
            None
        }
    }

    /// Resolves once [`Self::obstacle`] has nothing to say. Nothing is taken hold of meanwhile: who waits for room for messages
    /// must not keep it from calls.
    pub async fn room(&self) {
        let mut backlog_is_full = self.backlog_is_full.subscribe();
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if self.obstacle().is_none() {
                return;
            }
            tokio::select! {
                () = freed => {}
                // The sender does not go away while `self` is there.
                _ = backlog_is_full.changed() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use uuid::Uuid;

    use super::*;

    fn limits(commands_max: usize, bytes_max: usize) -> Limits {
        let (calls_max, messages_max, recovered_max) = (8, 8, 8);
        Limits { commands_max, bytes_max, backlog_max: 10, calls_max, messages_max, recovered_max }
    }

    fn requester(n: u128) -> OrganizationId {
        OrganizationId(Uuid::from_u128(n))
    }

    fn hold(load: &Load, length: usize) -> Option<Hold> {
        load.hold(requester(1), Door::Amqp, length, false)
    }

    #[test]
    fn messages_leave_room_for_calls() {
        let load = Load::new(limits(8, 1 << 20));
        let messages: Vec<_> = std::iter::from_fn(|| hold(&load, 1)).collect();
        assert_eq!(messages.len(), 6);
        assert!(load.obstacle().is_some());
        let mut room = Box::pin(load.room());
        assert!(room.as_mut().now_or_never().is_none());
        // Who waits for room holds nothing.
        let calls: Vec<_> = std::iter::from_fn(|| load.hold(requester(1), Door::Grpc, 0, false)).collect();
        assert_eq!(calls.len(), 2);
        drop(calls);
        assert!(load.room().now_or_never().is_none());
        drop(messages);
        assert!(room.now_or_never().is_some());
    }

    #[test]
    fn the_share_of_a_requester_is_a_quarter_of_what_its_door_may_hold() {
        let load = Load::new(limits(100, 1 << 20));
        let first = hold(&load, 1).expect("room");
        assert!(!load.is_beyond_share(requester(1), Way::Message));
        let second = hold(&load, 1).expect("room");
        assert!(load.is_beyond_share(requester(1), Way::Message));
        assert!(!load.is_beyond_share(requester(1), Way::Call));
        assert!(!load.is_beyond_share(requester(2), Way::Message));
        drop((first, second));
        assert!(!load.is_beyond_share(requester(1), Way::Message));
        assert!(lock(&load.counts).of.is_empty());
    }

    #[test]
    fn constrained_requesters_together_leave_a_quarter_to_others() {
        let load = Load::new(limits(100, 1 << 20));
        let take = |n| load.count(requester(n), Way::Recovered, true);
        let held: Vec<_> =
            (1..10).take_while(|n| !load.is_beyond_share(requester(*n), Way::Recovered)).map(take).collect();
        assert_eq!(held.len(), 6, "of eight");
        // Those that are not constrained do not count.
        let _other = load.count(requester(20), Way::Recovered, false);
        drop(held);
        assert!(!load.is_beyond_share(requester(1), Way::Recovered));
        assert_eq!(lock(&load.counts).constrained, [0; 3]);
    }

    #[test]
    fn of_very_little_one_is_left_to_others() {
        for (messages_max, recovered_max) in [(1, 2), (3, 1)] {
            let load = Load::new(Limits { messages_max, recovered_max, ..limits(8, 1 << 20) });
            assert!(load.is_beyond_share(requester(1), Way::Message), "it waits in the store");
            assert!(!load.is_beyond_share(requester(1), Way::Recovered), "from where it is taken up");
            let _held = load.count(requester(1), Way::Recovered, true);
            assert!(load.is_beyond_share(requester(2), Way::Recovered));
        }
    }

    #[test]
    fn commands_bytes_and_backlog_are_bounded_each() {
        let load = Load::new(limits(2, 16_384));
        let first = hold(&load, 10).expect("room");
        assert!(hold(&load, 16_384).is_none(), "too many bytes beside the first");
        let second = hold(&load, 8_192).expect("room");
        assert!(hold(&load, 1).is_none());
        assert!(load.obstacle().is_some_and(|why| why.contains("2 commands")));
        assert!(load.room().now_or_never().is_none());
        drop(first);
        assert!(load.room().now_or_never().is_some());
        let third = hold(&load, 8_192).expect("room");
        drop(second);
        assert_eq!(load.obstacle(), None);
        load.note_backlog(10);
        assert!(load.backlog_is_full() && load.obstacle().is_some_and(|why| why.contains("10 commands")));
        assert!(load.room().now_or_never().is_none());
        load.note_backlog(9);
        assert!(load.backlog_is_full(), "a tenth must be free");
        load.note_backlog(8);
        assert!(load.room().now_or_never().is_some());
        drop(third);
    }

    #[test]
    fn bytes_alone_fill_it_too() {
        let load = Load::new(limits(100, 4_096));
        let _first = hold(&load, 4_000).expect("room");
        assert!(load.obstacle().is_some_and(|why| why.contains("4096 bytes")));
    }
}
