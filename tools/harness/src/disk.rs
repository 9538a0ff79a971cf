//! A disk that fails when it is told to, below the store of an adapter: see `tools/faultdisk/faultdisk.c`.

use std::fs::{File, OpenOptions};
use std::io::{Seek as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;

use crate::adapter::Setup;

/// What the disk does instead of its work.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// It works.
    None,
    /// It has no room.
    Full,
    /// Its file system is read-only.
    ReadOnly,
    /// Writes fail.
    WriteFails,
    /// What was written cannot be made durable.
    SyncFails,
    /// To make it durable takes so much longer, or until the fault is over.
    SyncSlow(Duration),
    /// Reads fail.
    ReadFails,
}

/// The disk of one adapter.
pub struct Disk {
    control: Mutex<File>,
}

impl Disk {
    /// Puts a disk below the store of `setup`. It works until it is told otherwise.
    #[must_use]
    pub fn below(setup: Setup) -> (Setup, Self) {
        let control_path = setup.directory().join("faultdisk");
        let mut options = OpenOptions::new();
        let control = options.write(true).create(true).truncate(true).open(&control_path);
        let disk = Self { control: Mutex::new(control.expect("a control file")) };
        disk.set(Fault::None);
        let library = library(setup.program());
        let store = setup.store();
        let setup = setup
            .env("LD_PRELOAD", &library.display().to_string())
            .env("FAULTDISK_STORE", &store.display().to_string())
            .env("FAULTDISK_CONTROL", &control_path.display().to_string());
        (setup, disk)
    }

    /// Changes what the disk does, from the next call on.
    pub fn set(&self, fault: Fault) {
        let text = match fault {
            Fault::None => "none".to_owned(),
            Fault::Full => "full".to_owned(),
            Fault::ReadOnly => "readonly".to_owned(),
            Fault::WriteFails => "write-eio".to_owned(),
            Fault::SyncFails => "fsync-eio".to_owned(),
            Fault::SyncSlow(delay) => format!("fsync-slow {}", delay.as_millis()),
            Fault::ReadFails => "read-eio".to_owned(),
        };
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        // Always of one length and written at once, so that no reader sees a mixture.
        control.rewind().expect("the beginning");
        control.write_all(format!("{text:<32}\n").as_bytes()).expect("the fault is written");
    }
}

/// The shared object, compiled once for each process, beside the program under test.
fn library(program: &Path) -> &'static PathBuf {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../faultdisk/faultdisk.c");
        let folder = program.parent().expect("a folder");
        let (library, draft) =
            (folder.join("faultdisk.so"), folder.join(format!("faultdisk.{}.so", std::process::id())));
        let mut compiler = Command::new("cc");
        compiler.args(["-O1", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o"]);
        let status = compiler.arg(&draft).arg(&source).status().expect("cc runs; `make setup` installs it");
        assert!(status.success(), "{} does not compile", source.display());
        // Another test program may use the present one.
        std::fs::rename(&draft, &library).expect("it takes its place");
        library
    })
}
