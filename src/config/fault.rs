//! What is wrong with a configuration: everything at once.

use std::fmt;

/// One fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// The key, or the file, that is at fault.
    pub key: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// All faults of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq, thiserror::Error)]
pub struct Faults(pub Vec<Fault>);

impl Faults {
    /// A single one.
    #[must_use]
    pub fn one(key: &str, message: String) -> Self {
        Self(vec![Fault { key: key.to_owned(), message }])
    }

    /// Notes one more.
    pub(super) fn push(&mut self, key: impl Into<String>, message: impl Into<String>) {
        self.0.push(Fault { key: key.into(), message: message.into() });
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, Fault { key, message }) in self.0.iter().enumerate() {
            let separator = if number == 0 { "" } else { "\n" };
            write!(f, "{separator}{key}: {message}")?;
        }
        Ok(())
    }
}
