//! Ways in which the upstream's answers differ from its contract. None is ever an error: each is counted.

/// A way in which an answer differs from the contract.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Drift {
    /// The field, or `*` for the body as a whole. Fit to be shown: at most [`FIELD_LENGTH_MAX`] visible ASCII characters.
    pub field: String,
    /// In what way.
    pub kind: DriftKind,
}

/// The greatest length of a field's name that is kept, in characters.
pub const FIELD_LENGTH_MAX: usize = 64;

/// Stands for a name that is left out, since it is none that an API gives to a field: it may be somebody's data.
const FIELD_REDACTED: &str = "[redacted]";

impl Drift {
    /// A difference in a field. Its name comes from the other side, so it is told only if it looks like one.
    #[must_use]
    pub fn new(field: &str, kind: DriftKind) -> Self {
        let is_part = |c: char| c.is_ascii_alphanumeric() || "_-.[]*".contains(c);
        let is_name = !field.starts_with(|c: char| c.is_ascii_digit()) && field.chars().all(is_part);
        let shown = if is_name { field } else { FIELD_REDACTED };
        Self { field: shown.chars().take(FIELD_LENGTH_MAX).collect(), kind }
    }

    /// A difference of the body as a whole.
    #[must_use]
    pub fn whole(kind: DriftKind) -> Self {
        Self { field: "*".to_owned(), kind }
    }
}

/// Kinds of [`Drift`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DriftKind {
    /// The body of a 2xx is not a JSON object, or could not be read to its end.
    Unreadable,
    /// A required field is missing.
    Missing,
    /// A field is null that must not be.
    Null,
    /// A field has another type or form.
    Mistyped,
    /// A field that the contract does not have.
    UnknownField,
    /// A value that the contract does not list.
    UnknownValue,
    /// `archived` is not what was asked for.
    OtherValue,
    /// The body of an error has not the contract's form.
    ErrorForm,
    /// The answer to a token request has not the contract's form.
    TokenForm,
}

impl DriftKind {
    /// The stable name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Unreadable => "unreadable",
            Self::Missing => "missing",
            Self::Null => "null",
            Self::Mistyped => "mistyped",
            Self::UnknownField => "unknown_field",
            Self::UnknownValue => "unknown_value",
            Self::OtherValue => "other_value",
            Self::ErrorForm => "error_form",
            Self::TokenForm => "token_form",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_looks_like_a_name_is_told() {
        let field = |name: &str| Drift::new(name, DriftKind::UnknownField).field;
        assert_eq!(field("risk_band"), "risk_band");
        assert_eq!(field("guest.address[0].zip-code"), "guest.address[0].zip-code");
        assert_eq!(field(&"x".repeat(100)), "x".repeat(FIELD_LENGTH_MAX));
        for data in ["jane@example.com", "Jane Doe, +49 170 1234567", "491701234567", "a\n", "\u{1f600}"] {
            assert_eq!(field(data), FIELD_REDACTED, "{data}");
        }
    }
}
