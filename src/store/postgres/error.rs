//! What can go wrong at opening and inside a transaction.

use tokio_postgres::error::SqlState;

use crate::domain::command::CommandId;
use crate::service::ports::StoreError;
use crate::store::values::Odd;

/// Why a store cannot be opened. The texts are for operators, and hold no password.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The address is none.
    #[error("the store's address is no PostgreSQL URL: {0}")]
    Address(String),
    /// The server cannot be reached, or refuses.
    #[error("the store cannot be reached: {0}")]
    Connect(String),
    /// A newer program has changed the schema.
    #[error(
        "the store has schema version {found}, for programs that know version {needs}; this one knows versions up to \
         {known}: run the newer program"
    )]
    TooNew {
        /// Its version.
        found: i32,
        /// The version that a program must know to work with it.
        needs: i32,
        /// The newest version known.
        known: i32,
    },
    /// The schema cannot be brought up to date.
    #[error("the store's schema cannot be brought up to date: {0}")]
    Schema(String),
}

/// What ends a piece of work. Becomes a [`StoreError`].
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("{}", explained(.0))]
    Postgres(#[from] tokio_postgres::Error),
    #[error(transparent)]
    Odd(#[from] Odd),
    #[error("no command {0} is known")]
    Unknown(CommandId),
    /// A panic. Its text is not told: it may quote a row.
    #[error("a fault of the program")]
    Program,
    /// There is no connection.
    #[error("{0}")]
    Unreachable(String),
    #[error("{0}")]
    Other(String),
}

impl Fault {
    /// Whether the same may succeed at once: it met somebody else's change.
    pub(super) fn is_conflict(&self) -> bool {
        let Self::Postgres(error) = self else { return false };
        error.code().is_some_and(|code| {
            [
                &SqlState::UNIQUE_VIOLATION,
                &SqlState::T_R_SERIALIZATION_FAILURE,
                &SqlState::T_R_DEADLOCK_DETECTED,
            ]
            .contains(&code)
        })
    }

    /// Whether the connection is of no more use: it is gone, or the server takes no writes any more.
    pub(super) fn ends_connection(&self) -> bool {
        let Self::Postgres(error) = self else { return matches!(self, Self::Unreachable(_)) };
        let is_of_server = error.code().is_some_and(|code| {
            *code == SqlState::READ_ONLY_SQL_TRANSACTION
                || code.code().starts_with("57P")
                || code.code().starts_with("08")
        });
        error.is_closed() || error.as_db_error().is_none() || is_of_server
    }
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        Self(fault.to_string())
    }
}

/// PostgreSQL's error in one line. Its details quote rows, which hold personal data, so they are left out.
pub(super) fn explained(error: &tokio_postgres::Error) -> String {
    if let Some(error) = error.as_db_error() {
        return format!("PostgreSQL refuses: {} ({})", error.message(), error.code().code());
    }
    let source = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
    format!("the connection to PostgreSQL failed: {error}{source}")
}
