//! The files of a configuration, read when they have changed and stand still.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
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
pub(super) struct Signature {
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
            if before.iter().flatten().any(|file| file.is_fresh(SystemTime::now())) {
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
        self.paths.iter().map(|path| Signature::at(path)).collect()
    }
}

impl Signature {
    /// That of the file at `path`, if there is one.
    pub(super) fn at(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().map(|file| Self::of(&file))
    }

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
    pub(super) fn is_fresh(&self, now: SystemTime) -> bool {
        let (seconds, nanos) = self.changed;
        let stamp = u64::try_from(seconds).unwrap_or_default();
        let stamp = Duration::new(stamp, u32::try_from(nanos).unwrap_or_default());
        let age = now.duration_since(SystemTime::UNIX_EPOCH + stamp);
        // A stamp of the future comes from another machine's clock and says nothing.
        age.is_ok_and(|age| age < STILL_TIME)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    const ID: &str = "0190c1d4-7c1e-7d3a-9a53-5c1f6e1b2a77";

    fn config(secret: &Path) -> String {
        format!(
            "[organizations.acme]\nid = '{ID}'\nclient_id = 'c'\nclient_secret_file = '{}'\n",
            secret.display()
        )
    }

    fn write(path: &Path, text: &str) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    #[test]
    fn files_are_read_when_one_has_changed_and_not_before() {
        let place = tempfile::tempdir().unwrap();
        let path = |name: &str| place.path().join(name);
        write(&path("first"), "s3cret");
        write(&path("second"), "s3cret-2");
        symlink("first", path("link")).unwrap();
        write(&path("config"), &config(&path("link")));
        let mut files = Files::new(Source::new(Some(path("config")), []));
        assert!(files.look().is_some_and(|read| read.is_ok()), "the first time");
        assert!(files.look().is_none());
        // The same text again is a change of the file, and so is its mode.
        write(&path("config"), &config(&path("link")));
        assert!(files.look().is_some_and(|read| read.is_ok()));
        fs::set_permissions(path("first"), fs::Permissions::from_mode(0o644)).unwrap();
        assert!(files.look().is_some_and(|read| read.is_err()));
        assert!(files.look().is_none(), "a fault is read once too");
        // What the link leads to is another file, which nobody has written to.
        symlink("second", path("new-link")).unwrap();
        fs::rename(path("new-link"), path("link")).unwrap();
        assert!(files.look().is_some_and(|read| read.is_ok()));
        fs::remove_file(path("second")).unwrap();
        assert!(files.look().is_some_and(|read| read.is_err()));
        write(&path("second"), "s3cret-3");
        assert!(files.look().is_some_and(|read| read.is_ok()), "a file that was missing is waited for");
        assert!(files.look().is_none());
    }

    #[test]
    fn what_has_just_been_written_may_not_be_complete() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        let written = |ago: i64| {
            let nanos = 1_700_000_000_000_000_000 - ago * 1_000_000;
            let changed = (nanos / 1_000_000_000, nanos % 1_000_000_000);
            let rest = Signature { device: 0, inode: 0, mode: 0, length: 0, modified: (0, 0), changed };
            rest.is_fresh(now)
        };
        assert!(written(0) && written(99));
        assert!(!written(100) && !written(5_000));
        assert!(!written(-50), "another machine's clock");
    }
}
