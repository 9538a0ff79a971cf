//! Files: permissions, lock, versions, damage.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use guest_connection_adapter::service::ports::Store as _;
use guest_connection_adapter::store::sqlite::OpenError;
use rusqlite::Connection;

use super::{SqliteHarness, close_to_others, open};
use crate::conformance::world::{ManualClock, World, applied, wish};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[tokio::test]
async fn files_are_their_owners_alone() {
    let folder = harness::private_folder();
    let path = folder.path().join("a/b/store.db");
    let clock = ManualClock::new();
    let store = open(path.clone(), &clock).unwrap();
    store.probe().await.unwrap();
    assert_eq!(mode(path.parent().unwrap()), 0o700);
    assert_eq!(mode(path.parent().unwrap().parent().unwrap()), 0o700);
    let names = ["store.db", "store.db-wal", "store.db-shm", "store.db.lock"];
    for name in names {
        assert_eq!(mode(&path.with_file_name(name)), 0o600, "{name}");
    }
    store.close().await.unwrap();
    // As a container platform leaves a volume that it gives to a group.
    fs::set_permissions(path.parent().unwrap(), Permissions::from_mode(0o2770)).unwrap();
    for name in ["store.db", "store.db.lock"] {
        fs::set_permissions(path.with_file_name(name), Permissions::from_mode(0o660)).unwrap();
    }
    let store = open(path.clone(), &clock).unwrap();
    store.probe().await.unwrap();
    for name in names {
        assert_eq!(mode(&path.with_file_name(name)), 0o600, "{name}");
    }
}

#[tokio::test]
async fn what_others_may_use_is_refused_with_the_mend() {
    let folder = harness::private_folder();
    let path = folder.path().join("a/store.db");
    let clock = ManualClock::new();
    open(path.clone(), &clock).unwrap().close().await.unwrap();
    fs::write(path.with_file_name("store.db-wal"), "").unwrap();
    close_to_others(&path.with_file_name("store.db-wal"));
    let places = [
        ("", 0o755, "chmod 700 "),
        ("", 0o701, "chmod 700 "),
        ("store.db", 0o644, "chmod 600 "),
        ("store.db", 0o602, "chmod 600 "),
        ("store.db.lock", 0o604, "chmod 600 "),
        ("store.db-wal", 0o664, "chmod 600 "),
    ];
    for (name, lax, mend) in places {
        let place =
            if name.is_empty() { path.parent().unwrap().to_owned() } else { path.with_file_name(name) };
        let before = fs::metadata(&place).unwrap().permissions();
        fs::set_permissions(&place, Permissions::from_mode(lax)).unwrap();
        let error = open(path.clone(), &clock).err().expect("it is refused");
        assert!(matches!(error, OpenError::Exposed { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains(&format!("{mend}{}", place.display())), "{text}");
        assert_eq!(mode(&place), lax, "it is left as it is");
        fs::set_permissions(&place, before).unwrap();
    }
    open(path, &clock).unwrap().close().await.unwrap();
}

#[tokio::test]
async fn a_second_store_is_refused_until_the_first_is_closed() {
    let harness = SqliteHarness::new().await;
    let world = World::new(harness);
    let record = world.done(wish(1, "k"), applied()).await;
    let error = open(world.harness.path(), &world.harness.clock).err().expect("it is in use");
    assert!(matches!(error, OpenError::Locked { .. }));
    let text = error.to_string();
    assert!(text.contains(&world.harness.path().display().to_string()), "{text}");
    assert!(text.contains(&std::process::id().to_string()) && text.contains("another path"), "{text}");

    world.store().close().await.unwrap();
    let error = world.store().probe().await.unwrap_err();
    assert!(error.to_string().contains("closed"), "{error}");
    world.store().close().await.unwrap();
    let wal = fs::metadata(world.harness.path().with_file_name("store.db-wal"));
    assert!(wal.is_err() || wal.unwrap().len() == 0, "the log is folded in");
    let second = open(world.harness.path(), &world.harness.clock).unwrap();
    assert_eq!(second.command(record.id).await.unwrap(), Some(record));
}

#[tokio::test]
async fn another_name_of_the_file_is_no_way_around_the_lock() {
    let harness = SqliteHarness::new().await;
    let link = harness.path().with_file_name("link.db");
    std::os::unix::fs::symlink(harness.path(), &link).unwrap();
    let error = open(link, &harness.clock).err().expect("the same file");
    assert!(matches!(error, OpenError::Locked { .. }), "{error}");
    let hard = harness.path().with_file_name("hard.db");
    fs::hard_link(harness.path(), &hard).unwrap();
    let error = open(hard, &harness.clock).err().expect("the same file");
    assert!(matches!(error, OpenError::Linked { links: 2, .. }), "{error}");
    let dangling = harness.path().with_file_name("dangling.db");
    std::os::unix::fs::symlink("nowhere", &dangling).unwrap();
    assert!(matches!(open(dangling, &harness.clock).err(), Some(OpenError::File { .. })));
}

#[tokio::test]
async fn a_newer_schema_is_refused() {
    let harness = SqliteHarness::new().await;
    let (path, clock) = (harness.path(), harness.clock.clone());
    crate::conformance::world::Harness::store(&harness).close().await.unwrap();
    Connection::open(&path).unwrap().pragma_update(None, "user_version", 99).unwrap();
    let error = open(path, &clock).err().expect("it is newer");
    assert!(matches!(error, OpenError::TooNew { found: 99, known: 5, .. }), "{error}");
}

#[tokio::test]
async fn what_is_not_ours_is_refused_and_left_alone() {
    let folder = harness::private_folder();
    let clock = ManualClock::new();
    let text = folder.path().join("text");
    fs::write(&text, "not a database, ".repeat(500)).unwrap();
    close_to_others(&text);
    let error = open(text.clone(), &clock).err().expect("no database");
    assert!(matches!(error, OpenError::Corrupt { .. }), "{error}");
    assert_eq!(fs::read_to_string(&text).unwrap(), "not a database, ".repeat(500));

    let foreign = folder.path().join("foreign.db");
    Connection::open(&foreign)
        .unwrap()
        .execute_batch("CREATE TABLE t (a); INSERT INTO t VALUES (1)")
        .unwrap();
    close_to_others(&foreign);
    let before = fs::read(&foreign).unwrap();
    let error = open(foreign.clone(), &clock).err().expect("another program's");
    assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    assert_eq!(fs::read(&foreign).unwrap(), before);
}

#[tokio::test]
async fn a_damaged_file_is_refused() {
    let world = World::new(SqliteHarness::new().await);
    for guest in 0..50 {
        world.done(wish(guest, &format!("k-{guest}")), applied()).await;
    }
    world.store().close().await.unwrap();
    let path = world.harness.path();
    let whole = fs::read(&path).unwrap();
    let mut overwritten = whole.clone();
    overwritten[4096..].fill(0x5A);
    for (damage, bytes) in [("cut", &whole[..whole.len() / 4]), ("overwritten", &overwritten)] {
        fs::write(&path, bytes).unwrap();
        let error = open(path.clone(), &world.harness.clock).err().expect(damage);
        assert!(matches!(error, OpenError::Corrupt { .. }), "{damage}: {error}");
        assert!(error.to_string().contains("backup"), "{error}");
    }
}

#[tokio::test]
async fn an_unusable_folder_is_named() {
    let folder = harness::private_folder();
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    let error = open(file.join("store.db"), &ManualClock::new()).err().expect("a file is no folder");
    assert!(matches!(error, OpenError::File { .. }), "{error}");
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
}
