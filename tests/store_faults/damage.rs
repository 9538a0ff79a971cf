//! A file that is damaged or cannot be used at start, or is damaged under way.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use harness::disk::{Disk, Fault};
use harness::{DEADLINE, Setup, Upstream, World};
use uuid::Uuid;

use crate::support::{PROGRAM, QUICK, call, is_not_ready, is_refused};

/// A store with some commands in it, left behind by a kill: the newest are in its log only.
struct Remains {
    setup: Setup,
    database: Vec<u8>,
    log: Vec<u8>,
}

const COMMANDS: usize = 40;

impl Remains {
    async fn leave(upstream: &Upstream) -> Self {
        let setup = upstream.setup(PROGRAM);
        // The end of the first process puts all into the database, the kill of the second leaves a log.
        let adapter = setup.start_ready().await;
        for number in 0..COMMANDS {
            let request = upstream.archive(Uuid::new_v4(), &format!("k-{number}"));
            adapter.client().await.archive_guest_connection(request).await.unwrap();
        }
        assert!(adapter.terminate().await.0.success());
        let adapter = setup.start_ready().await;
        let request = upstream.archive(Uuid::new_v4(), "last");
        adapter.client().await.archive_guest_connection(request).await.unwrap();
        adapter.kill().await;
        let (database, log) =
            (std::fs::read(setup.store()).unwrap(), std::fs::read(log_of(&setup.store())).unwrap());
        assert!(log.len() > 4096, "there is a log: {}", log.len());
        Self { setup, database, log }
    }

    fn put(&self, database: &[u8], log: &[u8]) {
        for (path, bytes) in [(self.setup.store(), database), (log_of(&self.setup.store()), log)] {
            std::fs::write(&path, bytes).unwrap();
            std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        }
    }

    /// The program refuses these files, says so, and leaves them as they are.
    async fn are_refused(&self, what: &str, database: &[u8], log: &[u8]) {
        self.put(database, log);
        let (status, text) = self.setup.start_in_vain().await;
        assert_eq!(status.code(), Some(1), "{what}: {text}");
        for words in ["the store cannot be opened", "adapter.db", "backup"] {
            assert!(text.contains(words), "{what}: {text}");
        }
        assert!(!text.contains("the adapter is started"), "{what}: {text}");
        assert!(std::fs::read(self.setup.store()).unwrap() == database, "{what}: the database is left alone");
        // An empty log is as good as none.
        let log_after = std::fs::read(log_of(&self.setup.store())).unwrap_or_default();
        assert!(log_after == log, "{what}: the log is left alone");
    }
}

fn log_of(store: &Path) -> PathBuf {
    store.with_file_name("adapter.db-wal")
}

#[tokio::test]
async fn a_damaged_file_is_refused_at_start_and_left_alone() {
    let upstream = Upstream::start().await;
    let remains = Remains::leave(&upstream).await;
    let (database, log) = (&remains.database, &remains.log);
    let mut headless = database.clone();
    headless[..100].fill(0xA5);
    remains.are_refused("a header of garbage", &headless, &[]).await;
    remains.are_refused("no database at all", "a shopping list".repeat(900).as_bytes(), &[]).await;
    remains.are_refused("cut to a half", &database[..database.len() / 2], &[]).await;
    remains.are_refused("cut within its first page", &database[..1000], &[]).await;
    remains.are_refused("emptied, with its log", &[], log).await;
    let mut garbage = log.clone();
    garbage.fill(0x5A);
    remains.are_refused("a log of garbage", database, &garbage).await;
    let mut flipped = log.clone();
    flipped[17] ^= 1;
    remains.are_refused("a log with a damaged header", database, &flipped).await;

    // With the files as they were nothing is missing.
    remains.put(database, log);
    let adapter = remains.setup.start_ready().await;
    for key in ["k-0", "last"] {
        assert!(upstream.command(&adapter, key).await.unwrap().finish_time.is_some());
    }
    assert!(adapter.terminate().await.0.success());
}

#[tokio::test]
async fn a_damaged_page_is_found_at_start_wherever_it_lies() {
    let upstream = Upstream::start().await;
    let remains = Remains::leave(&upstream).await;
    let pages = remains.database.len() / 4096;
    assert!(pages > 10, "{pages} pages");
    for page in 0..pages {
        let mut damaged = remains.database.clone();
        damaged[page * 4096..][..4096].fill(0x5A);
        remains.are_refused(&format!("page {page} of {pages}"), &damaged, &[]).await;
    }
}

#[tokio::test]
async fn a_file_that_is_damaged_under_way_is_written_to_no_more() {
    let (world, disk) = World::on_disk(PROGRAM, QUICK).await;
    call(&world, Uuid::new_v4(), "before", DEADLINE).await.unwrap();
    // The log is folded into the file when there is nothing to do.
    let folded = async {
        while std::fs::metadata(log_of(&world.setup.store())).unwrap().len() > 0 {
            harness::look_again().await;
        }
    };
    tokio::time::timeout(DEADLINE, folded).await.expect("the log is folded in");
    let length = std::fs::metadata(world.setup.store()).unwrap().len();
    std::fs::write(world.setup.store(), vec![0x5A; usize::try_from(length).unwrap()]).unwrap();
    // A failure makes the writer forget what it has read.
    disk.set(Fault::Full);
    is_not_ready(&world, "").await;
    disk.set(Fault::None);
    is_not_ready(&world, "the file is damaged").await;
    let guest = Uuid::new_v4();
    is_refused(&world, guest, "after").await;
    world.send(guest, &world.upstream.message(guest, true, "after")).await;
    crate::support::until_depth(&world, 1).await;
    assert_eq!(world.upstream.received(guest), 0);
    let setup = world.setup;
    assert!(world.adapter.terminate().await.0.success());
    let (status, text) = setup.start_in_vain().await;
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains("restore a backup"), "{text}");
}

#[tokio::test]
async fn a_second_process_is_refused_the_store() {
    let upstream = Upstream::start().await;
    let setup = upstream.setup(PROGRAM);
    let adapter = setup.start_ready().await;
    let (status, text) = setup.start_in_vain().await;
    assert_eq!(status.code(), Some(1), "{text}");
    assert!(text.contains(&format!("is in use (by process {})", adapter.pid())), "{text}");
    let mut client = adapter.client().await;
    client.archive_guest_connection(upstream.archive(Uuid::new_v4(), "k")).await.expect("the first goes on");
    adapter.kill().await;
    // A killed process leaves no lock behind.
    let adapter = setup.start_ready().await;
    assert!(upstream.command(&adapter, "k").await.unwrap().finish_time.is_some());
    assert!(adapter.terminate().await.0.success());
}

#[tokio::test]
async fn a_store_that_takes_nothing_at_start_is_named() {
    let upstream = Upstream::start().await;
    let (setup, disk) = Disk::below(upstream.setup(PROGRAM));
    let adapter = setup.start_ready().await;
    adapter.client().await.archive_guest_connection(upstream.archive(Uuid::new_v4(), "k")).await.unwrap();
    assert!(adapter.terminate().await.0.success());
    let troubles = [
        (Fault::Full, "the disk may be full"),
        (Fault::ReadOnly, "ead-only file system"),
        (Fault::WriteFails, "I/O error"),
        (Fault::ReadFails, "nput/output error"),
    ];
    for (fault, words) in troubles {
        disk.set(fault);
        let (status, text) = setup.start_in_vain().await;
        assert_eq!(status.code(), Some(1), "{fault:?}: {text}");
        assert!(text.contains("the store cannot be opened") && text.contains(words), "{fault:?}: {text}");
    }
    // As long as there is nothing to write this one does not show, and then it is told.
    disk.set(Fault::SyncFails);
    let adapter = setup.start().await;
    let told = |status: u16, body: &serde_json::Value| {
        let detail = body["parts"]["store"]["detail"].as_str();
        status == 503 && detail.is_some_and(|text| text.contains("I/O error at making data durable"))
    };
    adapter.readiness(told).await;
    disk.set(Fault::None);
    adapter.ready().await;
    assert!(upstream.command(&adapter, "k").await.unwrap().finish_time.is_some());
    assert!(adapter.terminate().await.0.success());
}
