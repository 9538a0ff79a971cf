//! A file that is at fault keeps what held before, and says so.

use std::os::unix::fs::PermissionsExt as _;

use harness::World;
use uuid::Uuid;

use crate::support::{Other, PROGRAM, QUICK, changed, readiness, rotate};

/// Something that is done to the files.
type Step<'a> = Box<dyn Fn() + 'a>;

/// How many records have this message.
fn count(world: &World, message: &str) -> usize {
    world.adapter.log().all().iter().filter(|line| line.contains(message)).count()
}

#[tokio::test]
async fn a_broken_file_keeps_what_held_before_says_so_once_and_mends() {
    let world = World::start(PROGRAM, QUICK).await;
    let mut client = world.client().await;
    assert_eq!(readiness(&world, "ready").await, "");
    let secret = world.setup.directory().join("client_secret");
    let config = world.setup.directory().join("adapter.toml");
    let set_mode = |mode| std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(mode)).unwrap();
    let broken = "organizations.test = { id = \"nobody\", client_secret = \"in-the-wrong-place\" }";
    let cases: Vec<(&str, Step<'_>, Step<'_>)> = vec![
        (
            "is not TOML",
            Box::new(|| std::fs::write(&config, "[organizations.test\nid = ").unwrap()),
            Box::new(|| world.setup.write()),
        ),
        (
            "organizations.test.client_secret: a secret must not stand in this file",
            Box::new(|| world.setup.clone().config(broken).write()),
            Box::new(|| world.setup.write()),
        ),
        (
            "cannot be read",
            Box::new(|| std::fs::remove_file(&config).unwrap()),
            Box::new(|| world.setup.write()),
        ),
        (
            "is empty",
            Box::new(|| rotate(&world, "client_secret", "")),
            Box::new(|| {
                rotate(&world, "client_secret", harness::CLIENT_SECRET);
            }),
        ),
        (
            "names no organisation any more",
            Box::new(|| std::fs::write(&config, "").unwrap()),
            Box::new(|| world.setup.write()),
        ),
        ("chmod 600", Box::new(|| set_mode(0o644)), Box::new(|| set_mode(0o600))),
    ];
    for (number, (told, breaks, mends)) in cases.iter().enumerate() {
        breaks();
        let detail = readiness(&world, "degraded").await;
        assert!(detail.contains(told), "{detail}");
        assert!(
            !detail.contains("in-the-wrong-place") && !detail.contains(harness::CLIENT_SECRET),
            "{detail}"
        );
        let metrics = world.adapter.metrics().await;
        let refused = metrics.lines().find(|line| {
            line.starts_with("adapter_organizations_reloads_total") && line.contains("result=\"refused\"")
        });
        let counted = refused.and_then(|line| line.rsplit(' ').next()).and_then(|count| count.parse().ok());
        assert_eq!(counted, Some(number + 1), "{metrics}");
        let call = world.upstream.archive(Uuid::new_v4(), &format!("k-{number}"));
        client.archive_guest_connection(call).await.unwrap();
        mends();
        readiness(&world, "ready").await;
        for message in ["what held before it still holds", "the configuration is good again"] {
            let told = |lines: &[String]| lines.iter().filter(|line| line.contains(message)).count() > number;
            world.adapter.log().wait_until(harness::DEADLINE, told).await.expect("it is told");
            assert_eq!(count(&world, message), number + 1, "once: {message}");
        }
    }
    drop(cases);
    assert_eq!(count(&world, "the organisations have changed"), 0);
    assert!(!world.adapter.log().all().join("\n").contains("in-the-wrong-place"));
    world.end().await;
}

#[tokio::test]
async fn other_keys_are_told_to_need_a_restart_and_change_nothing() {
    let world = World::start(PROGRAM, QUICK).await;
    let other = Other::new("other");
    other.register(&world.upstream.simulator);
    let more = "upstream.base_url = \"http://127.0.0.1:1/nowhere\"\nupstream.settle = \"31s\"\ntelemetry.log_filter = \"warn\"";
    world.setup.clone().config(more).config(&other.line(&world, "")).write();
    changed(&world, 1).await;
    let told = world.adapter.log().wait_for(harness::DEADLINE, |line| line.contains("after a restart only"));
    let told = told.await.unwrap();
    assert!(told.contains("telemetry.log_filter, upstream.base_url, upstream.settle"), "{told}");
    assert!(!told.contains("nowhere") && !told.contains("31s"), "{told}");
    // Both go to the API that was there at the start.
    let mut client = world.client().await;
    client.archive_guest_connection(other.archive(Uuid::new_v4(), "k")).await.unwrap();
    client.archive_guest_connection(world.upstream.archive(Uuid::new_v4(), "k")).await.unwrap();
    assert_eq!(count(&world, "after a restart only"), 1);
    world.end().await;
}

/// A secret mounted as Kubernetes does it: a link to a link, of which the one in the middle is swapped.
#[tokio::test]
async fn a_secret_behind_a_link_that_is_swapped_is_followed() {
    use std::os::unix::fs::symlink;
    let world = World::start(PROGRAM, QUICK).await;
    let other = Other::new("other");
    other.register(&world.upstream.simulator);
    let directory = world.setup.directory();
    for (version, secret) in [("v1", "not-yet"), ("v2", "secret-of-other")] {
        std::fs::create_dir(directory.join(version)).unwrap();
        harness::adapter::secret_file(&directory.join(version), "secret", secret);
    }
    symlink("v1", directory.join("..data")).unwrap();
    let line = other.line(&world, "");
    std::fs::remove_file(directory.join("other")).unwrap();
    symlink("..data/secret", directory.join("other")).unwrap();
    // The upstream is asked with a wrong secret once, which is no breach of the contract.
    world.setup.clone().config(&line).write();
    changed(&world, 1).await;
    let mut client = world.client().await;
    let call = other.archive(Uuid::new_v4(), "k");
    assert!(client.archive_guest_connection(call.clone()).await.is_err());
    symlink("v2", directory.join("..data.new")).unwrap();
    std::fs::rename(directory.join("..data.new"), directory.join("..data")).unwrap();
    changed(&world, 2).await;
    client.archive_guest_connection(call).await.unwrap();
    let (status, _) = world.adapter.terminate().await;
    assert!(status.success());
}
