//! What the process holds, and how much it may: commands under way and their bytes, and the store's backlog.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

/// Bytes are counted in units of this many.
const UNIT_LENGTH: usize = 256;

/// The least that a command takes, whatever its message: its task, its place in the lane, its record.
const COMMAND_LENGTH_MIN: usize = 2_048;

/// Bounds of what is held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Commands under way in this process.
    pub commands_max: usize,
    /// Their bytes, as their messages came.
    pub bytes_max: usize,
    /// Commands in the store that are not final.
    pub backlog_max: u64,
}

/// What is held. Cloning shares it.
#[derive(Debug, Clone)]
pub struct Load {
    limits: Limits,
    commands: Arc<Semaphore>,
    units: Arc<Semaphore>,
    /// Whether the store's backlog is as long as it may be, or was and has not shrunk enough since.
    backlog_is_full: watch::Sender<bool>,
}

/// A command's share of what may be held. Dropping it gives it back.
#[derive(Debug)]
pub struct Hold {
    _command: OwnedSemaphorePermit,
    _units: OwnedSemaphorePermit,
}

impl Load {
    /// Nothing is held yet.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            commands: Arc::new(Semaphore::new(limits.commands_max.min(Semaphore::MAX_PERMITS))),
            units: Arc::new(Semaphore::new((limits.bytes_max / UNIT_LENGTH).min(Semaphore::MAX_PERMITS))),
            backlog_is_full: watch::Sender::new(false),
            limits,
        }
    }

    /// Room for one more command whose message has `length` bytes; nothing if there is none.
    #[must_use]
    pub fn hold(&self, length: usize) -> Option<Hold> {
        let units = u32::try_from(length.max(COMMAND_LENGTH_MIN).div_ceil(UNIT_LENGTH)).ok()?;
        let command = self.commands.clone().try_acquire_owned().ok()?;
        let units = self.units.clone().try_acquire_many_owned(units).ok()?;
        Some(Hold { _command: command, _units: units })
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

    /// Why nothing more should be taken in for now, if so.
    #[must_use]
    pub fn obstacle(&self) -> Option<String> {
        let Limits { commands_max, bytes_max, backlog_max } = self.limits;
        if self.backlog_is_full() {
            Some(format!("the store holds about {backlog_max} commands that are not final"))
        } else if self.commands.available_permits() == 0 {
            Some(format!("{commands_max} commands are under way"))
        } else if self.units.available_permits() < COMMAND_LENGTH_MIN / UNIT_LENGTH {
            Some(format!("commands of {bytes_max} bytes are under way"))
        } else {
            None
        }
    }

    /// Resolves once [`Self::obstacle`] has nothing to say.
    pub async fn room(&self) {
        let mut backlog_is_full = self.backlog_is_full.subscribe();
        while self.obstacle().is_some() {
            // Neither the sender nor the semaphores go away while `self` is there. What is acquired is given back.
            let _ = backlog_is_full.wait_for(|is_full| !is_full).await;
            let _ = self.commands.acquire().await;
            let least = u32::try_from(COMMAND_LENGTH_MIN / UNIT_LENGTH).unwrap_or(u32::MAX);
            let _ = self.units.acquire_many(least).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn commands_bytes_and_backlog_are_bounded_each() {
        let load = Load::new(Limits { commands_max: 2, bytes_max: 16_384, backlog_max: 10 });
        let first = load.hold(10).expect("room");
        assert!(load.hold(16_384).is_none(), "too many bytes beside the first");
        let second = load.hold(8_192).expect("room");
        assert!(load.hold(1).is_none());
        assert!(load.obstacle().is_some_and(|why| why.contains("2 commands")));
        assert!(load.room().now_or_never().is_none());
        drop(first);
        assert!(load.room().now_or_never().is_some());
        let third = load.hold(8_192).expect("room");
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
        let load = Load::new(Limits { commands_max: 100, bytes_max: 4_096, backlog_max: 10 });
        let _first = load.hold(4_000).expect("room");
        assert!(load.obstacle().is_some_and(|why| why.contains("4096 bytes")));
    }
}
