//! Where a process can be struck: every effect that it has on the outside, and the moments around it.

use std::fmt;

/// What the pipeline does to the outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// The command is registered.
    Accept,
    /// The claim is asked for at the head of the lane.
    Begin,
    /// A token is fetched.
    Token,
    /// The PATCH.
    Patch,
    /// The end of a claim is written.
    Finish,
    /// The dead letter of a message that is no command is placed.
    Refuse,
    /// A message is acknowledged.
    Ack,
    /// The right to send the newest value of a suspect connection again is asked for.
    BeginHeal,
    /// The end of that is written.
    FinishHeal,
    /// Messages of the outbox are published.
    Publish,
    /// The outbox is marked.
    Mark,
}

/// When, seen from the effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Moment {
    /// Nothing has left the process.
    Before,
    /// It left and is lost on its way.
    Lost,
    /// It left, and takes effect some time after.
    Late,
    /// Part of it took effect.
    Partly,
    /// It took effect; the process has not heard of it.
    After,
}

impl Effect {
    pub const ALL: [Self; 11] = [
        Self::Accept,
        Self::Begin,
        Self::Token,
        Self::Patch,
        Self::Finish,
        Self::Refuse,
        Self::Ack,
        Self::BeginHeal,
        Self::FinishHeal,
        Self::Publish,
        Self::Mark,
    ];

    /// The moments at which it can be struck. A write to the store that was handed over and is lost is as good as one
    /// that was not handed over: the store's own tests cut it in two.
    pub const fn moments(self) -> &'static [Moment] {
        match self {
            Self::Patch => &[Moment::Before, Moment::Lost, Moment::Late, Moment::After],
            Self::Publish => &[Moment::Before, Moment::Partly, Moment::After],
            _ => &[Moment::Before, Moment::After],
        }
    }

    /// Whether it is had for the sake of a suspect connection alone.
    pub const fn heals(self) -> bool {
        matches!(self, Self::BeginHeal | Self::FinishHeal)
    }

    /// Whether it is a step on the way to the upstream.
    pub const fn sends(self) -> bool {
        matches!(self, Self::Token | Self::Patch)
    }

    /// Every point, at the `nth` time that it is come by, from 1.
    pub fn points(nth: usize) -> impl Iterator<Item = Point> {
        let of = move |effect: Self| {
            effect.moments().iter().map(move |moment| Point { effect, moment: *moment, nth })
        };
        Self::ALL.into_iter().flat_map(of)
    }
}

/// One point in the life of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Point {
    pub effect: Effect,
    pub moment: Moment,
    /// At which of its effects of this kind, from 1.
    pub nth: usize,
}

impl fmt::Display for Point {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} {:?} #{}", self.moment, self.effect, self.nth)
    }
}
