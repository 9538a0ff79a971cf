//! The acknowledgements of one channel, in turns: what is settled while one is on its way goes with the next, and messages
//! that nothing open stands before are acknowledged by one frame (`multiple`).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use futures::FutureExt as _;
use futures::future::{BoxFuture, join_all};
use lapin::Acker;
use lapin::message::Delivery;
use lapin::options::BasicAckOptions;

use super::delivery::Desk;
use super::records;
use super::spans::{self, Processing};
use crate::telemetry::instruments::instruments;
use crate::telemetry::span::Span;
use crate::telemetry::step::Step;

/// A message that may be acknowledged.
pub struct Due {
    tag: u64,
    acker: Acker,
    step: Step,
    began: Instant,
    span: Span,
    /// Ends when it is acknowledged. Absent for what is no command.
    _processing: Option<Processing>,
}

impl Due {
    /// A delivery that is done with, in the span that is entered.
    #[must_use]
    pub fn new(desk: &Desk, delivery: Delivery, processing: Option<Processing>) -> Self {
        let step = spans::ack(&desk.settings, &delivery);
        let (tag, acker) = (delivery.delivery_tag, delivery.acker);
        Self { tag, acker, step, began: Instant::now(), span: Span::present(), _processing: processing }
    }

    /// Notes what became of its acknowledgement. One that does not go out is no fault: the broker hands the message out
    /// again, and its record or dead letter is found.
    fn told(mut self, desk: &Desk, acked: bool) {
        let settings = &desk.settings;
        let lost = (!acked).then_some("channel_closed");
        spans::operated(settings, spans::ACK, &settings.names.commands_queue, self.began.elapsed(), lost);
        if let Some(lost) = lost {
            self.step.fail(lost);
            instruments().acks_lost.add(1, &[]);
            desk.counts.acks_lost.fetch_add(1, Ordering::Relaxed);
            self.span.within(|| records::AckLost.log());
        }
    }
}

/// The deliveries of a channel by their tags, `D` being what is done with.
pub struct Acks<D = Due> {
    /// Handed out, and not acknowledged nor about to be.
    open: BTreeSet<u64>,
    due: BTreeMap<u64, D>,
    sending: Option<BoxFuture<'static, ()>>,
}

/// What is acknowledged at once.
#[derive(Debug, PartialEq, Eq)]
struct Turn<D> {
    /// Everything up to the last of these, by one frame.
    together: Vec<D>,
    /// What something open stands before, each by a frame of its own.
    alone: Vec<D>,
}

impl<D> Default for Acks<D> {
    fn default() -> Self {
        Self { open: BTreeSet::new(), due: BTreeMap::new(), sending: None }
    }
}

impl<D> Acks<D> {
    /// A delivery was handed out.
    pub fn delivered(&mut self, tag: u64) {
        self.open.insert(tag);
    }

    /// A delivery was settled otherwise.
    pub fn forget(&mut self, tag: u64) {
        self.open.remove(&tag);
    }

    /// Whether nothing is to be sent, or on its way.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.due.is_empty() && self.sending.is_none()
    }

    fn put(&mut self, tag: u64, due: D) {
        // What was settled otherwise is not to be acknowledged as well.
        if self.open.remove(&tag) {
            self.due.insert(tag, due);
        }
    }

    fn take(&mut self) -> Option<Turn<D>> {
        if self.due.is_empty() {
            return None;
        }
        let alone = match self.open.first() {
            Some(first) => self.due.split_off(first),
            None => BTreeMap::new(),
        };
        let together = std::mem::take(&mut self.due);
        Some(Turn { together: together.into_values().collect(), alone: alone.into_values().collect() })
    }
}

impl Acks {
    /// Has `due` acknowledged by the next [`Self::send`].
    pub fn settle(&mut self, due: Due) {
        self.put(due.tag, due);
    }

    /// Sends what is due until nothing is. May be dropped and called again: what is on its way goes on then.
    pub async fn send(&mut self, desk: &Arc<Desk>) {
        loop {
            if let Some(sending) = &mut self.sending {
                sending.await;
                self.sending = None;
            }
            let Some(turn) = self.take() else { return };
            self.sending = Some(turn.send(Arc::clone(desk)).boxed());
        }
    }
}

impl Turn<Due> {
    async fn send(self, desk: Arc<Desk>) {
        let Self { together, alone } = self;
        let up_to = together.last().map(|last| last.acker.clone());
        let options = BasicAckOptions { multiple: together.len() > 1 };
        let first = async {
            match up_to {
                Some(acker) => acker.ack(options).await.unwrap_or(false),
                None => true,
            }
        };
        let rest = alone.iter().map(|due| due.acker.ack(BasicAckOptions::default()));
        let (acked, rest_acked) = futures::join!(first, join_all(rest));
        together.into_iter().for_each(|due| due.told(&desk, acked));
        let told = alone.into_iter().zip(rest_acked);
        told.for_each(|(due, acked)| due.told(&desk, acked.unwrap_or(false)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn turn(together: &[u64], alone: &[u64]) -> Turn<u64> {
        Turn { together: together.to_vec(), alone: alone.to_vec() }
    }

    fn delivered(tags: std::ops::RangeInclusive<u64>) -> Acks<u64> {
        let mut acks = Acks::default();
        tags.for_each(|tag| acks.delivered(tag));
        acks
    }

    fn settle(acks: &mut Acks<u64>, tags: &[u64]) {
        tags.iter().for_each(|tag| acks.put(*tag, *tag));
    }

    #[test]
    fn only_what_nothing_open_stands_before_is_acknowledged_together() {
        let mut acks = delivered(1..=6);
        assert!(acks.is_idle());
        assert_eq!(acks.take(), None);
        settle(&mut acks, &[4, 2, 1]);
        assert!(!acks.is_idle());
        assert_eq!(acks.take(), Some(turn(&[1, 2], &[4])));
        settle(&mut acks, &[6]);
        assert_eq!(acks.take(), Some(turn(&[], &[6])), "3 is open");
        settle(&mut acks, &[3]);
        assert_eq!(acks.take(), Some(turn(&[3], &[])), "5 is open");
        settle(&mut acks, &[5]);
        assert_eq!(acks.take(), Some(turn(&[5], &[])));
        assert!(acks.is_idle());
    }

    #[test]
    fn nothing_is_acknowledged_twice_or_without_having_been_delivered() {
        let mut acks = delivered(1..=2);
        settle(&mut acks, &[1]);
        assert_eq!(acks.take(), Some(turn(&[1], &[])));
        settle(&mut acks, &[1, 7]);
        assert_eq!(acks.take(), None);
        acks.forget(2);
        settle(&mut acks, &[2]);
        assert_eq!(acks.take(), None, "it was given back");
        acks.delivered(3);
        settle(&mut acks, &[3]);
        assert_eq!(acks.take(), Some(turn(&[3], &[])));
    }
}
