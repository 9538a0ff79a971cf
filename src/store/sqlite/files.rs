//! The store's files: for their owner alone, and for one process at a time.

use std::fs::{self, DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::sync::watch;

use super::error::OpenError;

const FOLDER_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The same for `chmod`.
const FOLDER_MEND: &str = "700";
const FILE_MEND: &str = "600";

/// The proof that no other store uses the file. Freed when the last thread that works on the store drops it, or by the
/// operating system when the process dies.
pub(super) struct Lock {
    // The order matters: whoever waits for the end of `held` finds the file unlocked.
    _file: File,
    _held: watch::Sender<()>,
}

/// Refuses a folder or files that others than owner and group may use. To ask the file system needs no open file, see
/// [`identity`].
///
/// The group's permissions pass: container platforms give a volume to a group and set them anew at each mount, and who is
/// in a group was put there. Files lose them when the store is opened.
pub(super) fn check_permissions(path: &Path) -> Result<(), OpenError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let files = ["", ".lock", "-wal", "-shm"].map(|suffix| beside(path, suffix));
    let places = files.into_iter().map(|file| (file, FILE_MEND));
    for (place, mend) in std::iter::once((folder.to_owned(), FOLDER_MEND)).chain(places) {
        // What is not there will be made as it should be; what cannot be looked at cannot be used either.
        let Ok(found) = fs::metadata(&place) else { continue };
        let mode = found.permissions().mode() & 0o7777;
        if mode & 0o007 != 0 {
            return Err(OpenError::Exposed { path: place, mode, mend });
        }
    }
    Ok(())
}

/// Makes the folder if it is missing, and yields the one name by which the file is opened and locked, whatever links lead
/// to it. Never opens the file: to close it again would end the locks of a connection that has it open.
pub(super) fn identity(path: &Path) -> Result<PathBuf, OpenError> {
    let fail = |source| OpenError::File { path: path.to_owned(), source };
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        DirBuilder::new().recursive(true).mode(FOLDER_MODE).create(folder).map_err(fail)?;
    }
    match fs::metadata(path) {
        Ok(file) if file.nlink() > 1 => Err(OpenError::Linked { path: path.to_owned(), links: file.nlink() }),
        Ok(_) => fs::canonicalize(path).map_err(fail),
        // A link that leads nowhere is refused by its name; what is not there at all will be made in its folder.
        Err(_) if path.is_symlink() => Err(fail(io::Error::other("the link leads nowhere"))),
        Err(_) => {
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let folder = fs::canonicalize(folder.unwrap_or(Path::new("."))).map_err(fail)?;
            let name = path.file_name().ok_or_else(|| fail(io::Error::other("it names no file")))?;
            Ok(folder.join(name))
        }
    }
}

/// Takes the lock. The receiver's channel closes when the lock is free again.
pub(super) fn lock(path: &Path) -> Result<(Lock, watch::Receiver<()>), OpenError> {
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source| OpenError::File { path, source }
    };
    let lock_path = beside(path, ".lock");
    let mut file = open_private(&lock_path).map_err(fail(&lock_path))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(OpenError::Locked { path: path.to_owned(), holder: holder(&mut file) });
        }
        Err(TryLockError::Error(source)) => return Err(OpenError::File { path: lock_path, source }),
    }
    write_holder(&mut file).map_err(fail(&lock_path))?;
    let (held, freed) = watch::channel(());
    Ok((Lock { _file: file, _held: held }, freed))
}

/// For the operator who finds the store locked.
fn write_holder(file: &mut File) -> io::Result<()> {
    file.set_len(0)?;
    file.rewind()?;
    writeln!(file, "{}", std::process::id())
}

fn holder(file: &mut File) -> String {
    let mut text = String::new();
    match file.read_to_string(&mut text) {
        Ok(_) if !text.trim().is_empty() => format!("by process {}", text.trim()),
        _ => "by another process".to_owned(),
    }
}

/// Makes the database file if it is missing, and sees to it that its owner alone may read it.
///
/// Only for a file that no connection of this process has open: to close a file ends every lock of the process on it,
/// SQLite's too.
pub(super) fn secure_database(path: &Path) -> Result<(), OpenError> {
    open_private(path).map(drop).map_err(|source| OpenError::File { path: path.to_owned(), source })?;
    secure_log(path)
}

/// Bytes of a write-ahead log before its first page (<https://sqlite.org/fileformat2.html#the_write_ahead_log>).
const LOG_HEADER_LENGTH: usize = 32;

/// Looks at the write-ahead log beside the database, which SQLite would take for an empty one if it were damaged: what
/// was committed last would be gone without a word. Nothing is changed.
///
/// SQLite makes the header durable before it writes the first page, so a crash leaves no longer log without one.
pub(super) fn check_log(path: &Path) -> Result<(), OpenError> {
    let log = beside(path, "-wal");
    let mut header = Vec::new();
    let read = match File::open(&log) {
        Ok(file) => file.take(LOG_HEADER_LENGTH as u64 + 1).read_to_end(&mut header),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Ok(0),
        Err(source) => Err(source),
    };
    read.map_err(|source| OpenError::File { path: log.clone(), source })?;
    if header.len() <= LOG_HEADER_LENGTH {
        return Ok(());
    }
    let corrupt = |reason: &str| Err(OpenError::Corrupt { path: log.clone(), reason: reason.to_owned() });
    if fs::metadata(path).map_or(0, |file| file.len()) == 0 {
        return corrupt("it is the log of a database that is gone or empty");
    }
    if is_log_header(&header[..LOG_HEADER_LENGTH]) { Ok(()) } else { corrupt("its header is damaged") }
}

fn is_log_header(header: &[u8]) -> bool {
    let word = |index: usize| -> [u8; 4] { std::array::from_fn(|at| header[4 * index + at]) };
    let number: fn([u8; 4]) -> u32 = match u32::from_be_bytes(word(0)) {
        0x377f_0682 => u32::from_le_bytes,
        0x377f_0683 => u32::from_be_bytes,
        _ => return false,
    };
    let sums = (0..3).fold((0_u32, 0_u32), |(first, second), pair| {
        let first = first.wrapping_add(number(word(2 * pair))).wrapping_add(second);
        (first, second.wrapping_add(number(word(2 * pair + 1))).wrapping_add(first))
    });
    sums == (u32::from_be_bytes(word(6)), u32::from_be_bytes(word(7)))
}

/// Sees to it that the owner alone may read what SQLite has put beside the database. What it makes later gets the
/// permissions of the database.
pub(super) fn secure_log(path: &Path) -> Result<(), OpenError> {
    for suffix in ["-wal", "-shm"] {
        let path = beside(path, suffix);
        match fs::set_permissions(&path, Permissions::from_mode(FILE_MODE)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                return Err(OpenError::File { path, source });
            }
            _ => {}
        }
    }
    Ok(())
}

/// The files that the store has open, by what the file system knows them by.
///
/// What is written to a file that was removed or replaced would be gone at the next start without any error before.
pub(super) struct Present(Vec<(PathBuf, Inode)>);

/// Device and number.
type Inode = (u64, u64);

impl Present {
    /// As they are now: the database and what SQLite has put beside it.
    pub(super) fn of(path: &Path) -> Self {
        let files = ["", "-wal", "-shm"].map(|suffix| beside(path, suffix));
        Self(files.into_iter().filter_map(|file| inode(&file).map(|found| (file, found))).collect())
    }

    /// The first one that is not what it was any more.
    pub(super) fn missing(&self) -> Option<&Path> {
        self.0.iter().find(|(file, known)| inode(file) != Some(*known)).map(|(file, _)| file.as_path())
    }
}

fn inode(path: &Path) -> Option<Inode> {
    fs::metadata(path).ok().map(|file| (file.dev(), file.ino()))
}

/// Opens or makes a file that is the owner's alone from its first moment, whatever the umask.
fn open_private(path: &Path) -> io::Result<File> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
    if file.metadata()?.permissions().mode() & 0o777 != FILE_MODE {
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    }
    Ok(file)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}
