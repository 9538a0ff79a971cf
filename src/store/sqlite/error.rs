//! What can go wrong at opening and inside a transaction.

use std::io;
use std::path::PathBuf;

use crate::service::ports::StoreError;

/// Why a store cannot be opened. The texts are for operators.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A folder or file cannot be made or read.
    #[error("cannot use {path} for the store: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another store, in this process or another one, has the file.
    #[error(
        "the store {path} is in use ({holder}): end that process, or configure another path for this one"
    )]
    Locked {
        /// The database file.
        path: PathBuf,
        /// Who has it, as far as the lock file says.
        holder: String,
    },
    /// The file has several names: another process could open it by one of them without finding the lock.
    #[error("the store {path} has {links} names (hard links): remove the others, or configure another path")]
    Linked {
        /// The database file.
        path: PathBuf,
        /// How many names.
        links: u64,
    },
    /// A newer program has changed the schema.
    #[error(
        "the store {path} has schema version {found}, this program knows versions up to {known}: run the newer program, \
         or restore a backup made by this one"
    )]
    TooNew {
        /// The database file.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The newest version known.
        known: i64,
    },
    /// It is a database, but not one of this program.
    #[error("{path} is a database of another program: configure another path (the file was not changed)")]
    Foreign {
        /// The database file.
        path: PathBuf,
    },
    /// It is not a database, or a broken one.
    #[error(
        "{path} is not a readable database ({reason}): restore a backup, or move the file away to begin with an empty store"
    )]
    Corrupt {
        /// The database file.
        path: PathBuf,
        /// What was found.
        reason: String,
    },
    /// SQLite refuses for another reason.
    #[error("cannot open the store {path}: {source}")]
    Sqlite {
        /// The database file.
        path: PathBuf,
        /// Why.
        source: rusqlite::Error,
    },
    /// The operating system gives no thread.
    #[error("cannot start a thread for the store: {0}")]
    Thread(io::Error),
}

/// What ends a piece of work. Becomes a [`StoreError`].
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("{0}")]
    Sqlite(#[from] rusqlite::Error),
    #[error("a row cannot be read: {0}")]
    Row(String),
    #[error("a value cannot be written: {0}")]
    Value(&'static str),
    #[error("no command {0} is known")]
    Unknown(crate::domain::command::CommandId),
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        Self(fault.to_string())
    }
}
