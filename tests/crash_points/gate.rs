//! What stands between a process and the outside: it can be shut for ever (a crash) or for a while (a pause).

use std::collections::HashMap;
use std::future::pending;
use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::point::{Effect, Moment, Point};

/// What happens at the point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blow {
    /// From then on the process has no effect and hears nothing.
    Crash,
    /// So it is until it is woken, and then it goes on as if nothing had been.
    Pause,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Open,
    Paused,
    Crashed,
}

/// The gate of one process.
pub struct Gate {
    plan: Option<(Point, Blow)>,
    counts: Mutex<HashMap<Effect, usize>>,
    mode: watch::Sender<Mode>,
}

/// Whether a call may go out now, and the moment at which it is to be struck, if it is the one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Free(Option<Moment>),
    Shut,
}

impl Gate {
    pub fn new(plan: Option<(Point, Blow)>) -> Arc<Self> {
        Arc::new(Self { plan, counts: Mutex::default(), mode: watch::Sender::new(Mode::Open) })
    }

    /// An effect is about to be had. Decided at once: what goes out, goes out in the order of calls.
    pub fn approach(&self, effect: Effect) -> Way {
        if *self.mode.borrow() != Mode::Open {
            return Way::Shut;
        }
        let mut counts = self.counts.lock().unwrap();
        let count = counts.entry(effect).or_default();
        *count += 1;
        match self.plan {
            Some((point, _)) if point.effect == effect && point.nth == *count => {
                if point.moment == Moment::Before {
                    self.strike();
                    return Way::Shut;
                }
                Way::Free(Some(point.moment))
            }
            _ => Way::Free(None),
        }
    }

    /// The point is reached.
    pub fn strike(&self) {
        let Some((_, blow)) = self.plan else { return };
        self.mode.send_replace(if blow == Blow::Crash { Mode::Crashed } else { Mode::Paused });
    }

    /// Resolves once the gate is open; never after a crash.
    pub async fn pass(&self) {
        let mut mode = self.mode.subscribe();
        if mode.wait_for(|mode| *mode == Mode::Open).await.is_err() {
            pending::<()>().await;
        }
    }

    /// Resolves once the point was reached.
    pub async fn struck(&self) {
        let mut mode = self.mode.subscribe();
        if mode.wait_for(|mode| *mode != Mode::Open).await.is_err() {
            pending::<()>().await;
        }
    }

    pub fn is_struck(&self) -> bool {
        *self.mode.borrow() != Mode::Open
    }

    /// Ends a pause.
    pub fn wake(&self) {
        self.mode.send_if_modified(|mode| {
            let paused = *mode == Mode::Paused;
            if paused {
                *mode = Mode::Open;
            }
            paused
        });
    }
}
