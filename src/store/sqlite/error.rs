//! What can go wrong at opening and inside a transaction.

use std::io;
use std::path::PathBuf;

use rusqlite::{ErrorCode, ffi};

use crate::service::ports::StoreError;
use crate::store::values::Odd;

/// Why a store cannot be opened. The texts are for operators.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A folder or file cannot be made or read.
    #[error("cannot use {path} for the store")]
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
    /// Others may read or change what is kept, or put something in its place.
    #[error(
        "{path} is open to others (mode {mode:o}), and holds personal data: mend it with `chmod {mend} {path}`"
    )]
    Exposed {
        /// The folder or file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// What takes away too much, for `chmod`.
        mend: &'static str,
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
    #[error("cannot open the store {path}: {}", explained(.error))]
    Sqlite {
        /// The database file.
        path: PathBuf,
        /// Why. Its text is part of this one's.
        error: rusqlite::Error,
    },
    /// The operating system gives no thread.
    #[error("cannot start a thread for the store: {0}")]
    Thread(io::Error),
}

/// What ends a piece of work. Becomes a [`StoreError`].
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    #[error("{}", explained(.0))]
    Sqlite(#[from] rusqlite::Error),
    #[error("the file is damaged: end the adapter and restore a backup ({0})")]
    Damage(String),
    #[error(transparent)]
    Odd(#[from] Odd),
    #[error("no command {0} is known")]
    Unknown(crate::domain::command::CommandId),
}

impl From<Fault> for StoreError {
    fn from(fault: Fault) -> Self {
        Self(fault.to_string())
    }
}

/// SQLite's error, after what it means for an operator.
pub(super) fn explained(error: &rusqlite::Error) -> String {
    let Some(code) = error.sqlite_error_code() else { return error.to_string() };
    let meaning = match code {
        ErrorCode::DiskFull => "the disk is full: make room on it",
        ErrorCode::ReadOnly => "the file or its file system is read-only: make it writable",
        ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked => {
            "another program holds the file locked: end what it does there"
        }
        ErrorCode::SystemIoFailure => return format!("the disk failed: {}", failed_call(error)),
        ErrorCode::CannotOpen | ErrorCode::PermissionDenied => {
            "the file cannot be opened: see whether it is there, its permissions, and the limit of open files"
        }
        // SQLite says the same where the disk cannot read.
        ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase => {
            "the file is damaged or cannot be read: see to the disk; if that is well, end the adapter and restore a backup"
        }
        ErrorCode::OutOfMemory => "there is no memory left",
        _ => return error.to_string(),
    };
    format!("{meaning} ({error})")
}

/// What SQLite asked of the disk in vain.
fn failed_call(error: &rusqlite::Error) -> String {
    let rusqlite::Error::SqliteFailure(failure, _) = error else { return error.to_string() };
    let call = match failure.extended_code {
        ffi::SQLITE_IOERR_READ | ffi::SQLITE_IOERR_SHORT_READ => "reading",
        ffi::SQLITE_IOERR_WRITE => "writing",
        ffi::SQLITE_IOERR_FSYNC | ffi::SQLITE_IOERR_DIR_FSYNC => "making data durable (fsync)",
        ffi::SQLITE_IOERR_TRUNCATE => "cutting a file",
        ffi::SQLITE_IOERR_SHMOPEN | ffi::SQLITE_IOERR_SHMSIZE | ffi::SQLITE_IOERR_SHMMAP => {
            "making the index of the log (-shm); the disk may be full"
        }
        _ => "a call",
    };
    format!("I/O error at {call} (SQLite's code {})", failure.extended_code)
}

/// Whether the error says that the file itself is wrong. It may be the disk all the same, if that fails at reading.
pub(super) fn is_damage(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase))
}
