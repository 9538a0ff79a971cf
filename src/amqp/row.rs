//! What the queues that are consumed from on one connection have in common. They end together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{Notify, watch};

use super::delivery::Desk;
use super::generation::Source;
use super::link::Channels;
use super::settings::Settings;
use super::tap::Tap;
use crate::domain::error::Refusal;
use crate::domain::seat::Seat;

/// Why consuming stopped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// It was asked to.
    Shutdown,
    /// Nothing can be taken for now.
    Suspended(Refusal),
    /// It goes on at once, as another user.
    Outdated,
    /// It goes on at once, with the queues of the new generation.
    Moved,
    /// Something is wrong; what was prefetched goes back.
    Fault(String),
}

/// The queues to consume from.
#[derive(Debug)]
pub struct Plan {
    /// Whether they are of the generation that is left.
    pub is_old: bool,
    /// The queues.
    pub sources: Vec<Source>,
}

/// What the taps on one connection share.
pub struct Row {
    /// The settings.
    pub settings: Arc<Settings>,
    /// Where messages are worked on.
    pub desk: Arc<Desk>,
    /// Opens channels.
    pub channels: Channels,
    /// Whether the queues are of the generation that is left.
    pub is_old: bool,
    /// Messages that the broker hands out of each queue ahead of their acknowledgement, at least 1.
    pub prefetch: u16,
    /// Wakes whoever watches over a pause.
    pub full: Notify,
    /// Wakes whoever waits until the row is open.
    pub opened: Notify,
    /// How many taps are still to be opened before it is.
    closed: AtomicUsize,
    stop: watch::Sender<Option<Stop>>,
}

impl Row {
    /// A row for `plan`, and its taps. What falls to `seat` is opened first.
    #[must_use]
    pub fn new(
        settings: &Arc<Settings>,
        desk: &Arc<Desk>,
        channels: Channels,
        seat: &watch::Receiver<Seat>,
        plan: Plan,
    ) -> (Arc<Self>, Vec<Tap>) {
        let count = u16::try_from(plan.sources.len()).unwrap_or(u16::MAX).max(1);
        let place = *seat.borrow();
        let own = plan.sources.iter().filter(|source| source.falls_to(place)).count();
        let row = Arc::new(Self {
            settings: Arc::clone(settings),
            desk: Arc::clone(desk),
            channels,
            is_old: plan.is_old,
            // 0 would mean no bound at all.
            prefetch: (settings.prefetch / count).max(1),
            full: Notify::new(),
            opened: Notify::new(),
            closed: AtomicUsize::new(own),
            stop: watch::Sender::new(None),
        });
        if own == 0 {
            row.opened.notify_one();
        }
        let tap = |source: Source| {
            let is_own = source.falls_to(place);
            Tap::new(Arc::clone(&row), source, seat.clone(), is_own)
        };
        let taps = plan.sources.into_iter().map(tap).collect();
        (row, taps)
    }

    /// Ends all taps, unless they were told to end before. Yields why they end.
    pub fn end(&self, stop: Stop) -> Stop {
        self.stop.send_if_modified(|known| {
            let is_first = known.is_none();
            if is_first {
                *known = Some(stop.clone());
            }
            is_first
        });
        self.stop.borrow().clone().unwrap_or(stop)
    }

    /// Resolves when the taps are to end, and says why.
    pub async fn ended(&self) -> Stop {
        let mut stop = self.stop.subscribe();
        let stop = stop.wait_for(Option::is_some).await.ok().and_then(|stop| stop.clone());
        // The sender lives as long as `self`.
        stop.unwrap_or(Stop::Shutdown)
    }

    /// Notes that one of those taps is open that are opened first.
    pub fn note_open(&self) {
        if self.closed.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.opened.notify_one();
        }
    }
}
