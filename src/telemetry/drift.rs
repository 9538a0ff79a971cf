//! Counts how the upstream's answers differ from its contract, and logs each kind once.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use opentelemetry::KeyValue;

use super::instruments::instruments;
use super::records;
use crate::domain::drift::Drift;

/// Differences that are told apart, at most: the names of fields are the other side's.
const KNOWN_MAX: usize = 64;

/// The field of what is not told apart any more.
const OTHER: &str = "_other";

/// What the process has seen so far.
static KNOWN: Mutex<Known> = Mutex::new(Known(BTreeSet::new()));

#[derive(Default)]
struct Known(BTreeSet<Drift>);

impl Known {
    /// The difference as it is counted, and whether it is new.
    fn admit(&mut self, drift: Drift) -> (Drift, bool) {
        if self.0.contains(&drift) {
            return (drift, false);
        }
        let told_apart = self.0.iter().filter(|known| known.field != OTHER).count();
        let drift = if told_apart < KNOWN_MAX { drift } else { Drift { field: OTHER.to_owned(), ..drift } };
        let new = self.0.insert(drift.clone());
        (drift, new)
    }
}

/// Counts the differences of one answer. Only names are told, never values.
pub fn note(drifts: Vec<Drift>) {
    for drift in drifts {
        let (Drift { field, kind }, new) = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).admit(drift);
        if new {
            records::Drifted { field: &field, kind: kind.as_str() }.log();
        }
        instruments().drifts.add(1, &[KeyValue::new("field", field), KeyValue::new("kind", kind.as_str())]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::drift::DriftKind::{Missing, UnknownField};

    #[test]
    fn each_is_new_once_and_so_many_are_told_apart() {
        let mut known = Known::default();
        let missing = Drift::new("status", Missing);
        assert_eq!(known.admit(missing.clone()), (missing.clone(), true));
        assert_eq!(known.admit(missing.clone()), (missing.clone(), false));
        for number in 1..KNOWN_MAX {
            assert!(known.admit(Drift::new(&format!("f{number}"), UnknownField)).1);
        }
        let other = Drift::new(OTHER, UnknownField);
        assert_eq!(known.admit(Drift::new("one_more", UnknownField)), (other.clone(), true));
        assert_eq!(known.admit(Drift::new("yet_one", UnknownField)), (other, false));
        assert_eq!(known.admit(missing.clone()), (missing, false), "what is known stays so");
        assert_eq!(known.admit(Drift::new("f1", Missing)), (Drift::new(OTHER, Missing), true));
        assert_eq!(known.0.len(), KNOWN_MAX + 2);
    }
}
