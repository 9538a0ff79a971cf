//! The files of a configuration, read when they have changed and stand still.

use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::config::{Config, Faults, Reading, Source};

/// So often files that change while they are read are read again; then it is for the next look.
const READS_MAX: usize = 5;

/// A file that was written so short a time ago may be there by half: some editors empty a file before they fill it, and an
/// empty one is a configuration as well. Besides, the clock that stamps files moves on in steps, so that another write
/// within this time could leave no trace.
const STILL_TIME: Duration = Duration::from_millis(100);

/// Files, and what they looked like when they were last read.
pub(super) struct Files {
    source: Source,
    paths: Vec<PathBuf>,
    /// Nothing before the first reading, or if they would not stand still.
    seen: Option<Vec<Option<Signature>>>,
}

/// What changes when a file does. A symbolic link is followed: what counts is the file at its end.
#[derive(PartialEq, Eq)]
struct Signature {
    device: u64,
    inode: u64,
    mode: u32,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Files {
    pub(super) fn new(source: Source) -> Self {
        let paths = source.file().map(PathBuf::from).into_iter().collect();
        Self { source, paths, seen: None }
    }

    /// Reads the configuration if a file has changed since the last reading. Nothing if none has, or if they will not stand
    /// still.
    pub(super) fn look(&mut self) -> Option<Result<Config, Faults>> {
        let mut before = self.signatures();
        if self.seen.as_ref() == Some(&before) {
            return None;
        }
        for _ in 0..READS_MAX {
            if before.iter().flatten().any(Signature::is_fresh) {
                std::thread::sleep(STILL_TIME);
                before = self.signatures();
                continue;
            }
            let Reading { mut files, config } = self.source.read();
            files.dedup();
            let is_complete = files == self.paths;
            self.paths = files;
            let after = self.signatures();
            // What was written in the midst of the reading may be in it by half.
            if is_complete && before == after {
                self.seen = Some(after);
                return Some(config);
            }
            before = after;
        }
        self.seen = None;
        None
    }

    fn signatures(&self) -> Vec<Option<Signature>> {
        self.paths.iter().map(|path| std::fs::metadata(path).ok().map(|file| Signature::of(&file))).collect()
    }
}

impl Signature {
    fn of(file: &std::fs::Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
            mode: file.mode(),
            length: file.size(),
            modified: (file.mtime(), file.mtime_nsec()),
            changed: (file.ctime(), file.ctime_nsec()),
        }
    }

    /// Whether it has only just been written.
    fn is_fresh(&self) -> bool {
        let (seconds, nanos) = self.changed;
        let stamp = u64::try_from(seconds).unwrap_or_default();
        let stamp = Duration::new(stamp, u32::try_from(nanos).unwrap_or_default());
        let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + stamp);
        // A stamp of the future comes from another machine's clock and says nothing.
        age.is_ok_and(|age| age < STILL_TIME)
    }
}
