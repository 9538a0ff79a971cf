//! The promises, checked on what was seen from outside. Pure: a history goes in, findings come out.
//!
//! - [`accepted`]: nothing that was accepted is lost, and answers are true
//! - [`effects`]: PATCHes and events belong together
//! - [`order`]: no overlap, no older value after a newer one, sequences without gaps; [`late`]: what a frozen instance may do
//! - [`neighbours`]: no organisation pays for another, nothing is given up too soon
//! - [`books`]: what was promised in writing has come, and nothing else

pub mod accepted;
pub mod books;
pub mod effects;
mod index;
pub mod late;
pub mod neighbours;
pub mod order;

use std::fmt;

use uuid::Uuid;

pub use index::Index;

use crate::history::History;

/// What a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum About {
    /// A command, by its key.
    Key(String),
    /// A connection, by its guest.
    Connection(Uuid),
    /// A sending, by its number.
    Sending(usize),
    /// The run as a whole.
    Run,
}

/// A promise that was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Which check found it.
    pub check: &'static str,
    /// What it is about.
    pub about: About,
    /// What is wrong.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {:?}: {}", self.check, self.about, self.text)
    }
}

/// What one check has looked at and found.
#[derive(Debug, Default)]
pub struct Checked {
    /// Its name.
    pub check: &'static str,
    /// How many things it has looked at.
    pub count: usize,
    /// What is wrong with them.
    pub findings: Vec<Finding>,
}

impl Checked {
    fn new(check: &'static str) -> Self {
        Self { check, count: 0, findings: Vec::new() }
    }

    /// Looks at one more thing, which should be `sound`.
    fn expect(&mut self, sound: bool, about: impl FnOnce() -> About, text: impl FnOnce() -> String) {
        self.count += 1;
        if !sound {
            self.findings.push(Finding { check: self.check, about: about(), text: text() });
        }
    }
}

fn key(key: &str) -> impl FnOnce() -> About {
    let key = key.to_owned();
    move || About::Key(key)
}

/// Every check.
#[must_use]
pub fn all(history: &History) -> Vec<Checked> {
    let index = Index::new(history);
    let mut checked = owed(history, &index);
    checked.extend([
        accepted::places_are_as_asked(history),
        effects::patches_have_their_event(history, &index),
        effects::events_have_their_patch(history, &index),
        effects::deliveries_are_equal(history),
        order::nothing_overlaps(history, &index),
        order::nothing_older_follows(history, &index),
        order::the_newest_stays(history, &index),
        order::sequences_are_gapless(history, &index),
        order::first_deliveries_are_in_order(&index),
        effects::the_contract_is_kept(history),
        neighbours::requests_have_their_own_token(history, &index),
        neighbours::dead_letters_are_refusals(history, &index),
        neighbours::others_do_not_wait(history, &index),
        books::everybody_has_left(history),
    ]);
    checked
}

/// The checks that find something for as long as something is still to come.
#[must_use]
pub fn owed(history: &History, index: &Index<'_>) -> Vec<Checked> {
    vec![
        accepted::commands_are_final(history),
        accepted::messages_are_answered_for(history, index),
        accepted::answers_are_true(history),
        books::commands_have_their_messages(history, index),
        books::messages_have_their_command(history, index),
        books::replies_have_come(history, index),
        books::nothing_is_left(history),
        books::the_database_balances(history),
    ]
}

#[cfg(test)]
mod cluster_tests;

#[cfg(test)]
pub(crate) mod story;

#[cfg(test)]
mod tests;
