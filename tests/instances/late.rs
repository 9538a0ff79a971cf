//! What an instance still has to say that was overtaken while it was stopped.

use guest_connection_adapter::proto::CommandState;
use harness::proxy::Direction;
use harness::{DEADLINE, Database, FaultProxy, Setup, Upstream, look_again};
use simulator::Entry;
use tokio::time::timeout;
use uuid::Uuid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

const QUICK: &str = r#"
upstream.connect_timeout = "400ms"
upstream.attempt_timeout = "500ms"
upstream.command_timeout = "1500ms"
upstream.settle = "1s"
store.lease = "2s"
store.instance_lease = "1s"
"#;

/// An adapter that finds upstream and database at these addresses.
fn setup(upstream: &Upstream, base_url: &str, url: &str) -> Setup {
    let lines = format!("upstream.base_url = \"{base_url}\"\nstore.url = \"{url}\"\n{QUICK}");
    upstream.setup(PROGRAM).config(&lines)
}

/// Rule 7: the one that was overtaken is the only one that knows that its PATCH may have come after a newer one. It says so even
/// if the store is away when it wakes, and its claim long over.
#[tokio::test]
async fn one_that_was_overtaken_says_so_as_soon_as_the_store_is_back() {
    let (upstream, database) = (Upstream::start().await, Database::create().await);
    let to_upstream = FaultProxy::start(upstream.simulator.address());
    let to_database = FaultProxy::start(database.address());
    let base_url = format!("http://{}/v1-beta", to_upstream.address());
    let first = setup(&upstream, &base_url, &database.url_at(to_database.address())).start_ready().await;
    let second = setup(&upstream, &upstream.simulator.base_url(), database.url()).start_ready().await;
    let (mut client, mut other) = (first.client().await, second.client().await);
    // It has its token now, and a connection.
    client.archive_guest_connection(upstream.archive(Uuid::new_v4(), "k-0")).await.unwrap();

    // Its PATCH is written and does not go out, and it stops.
    to_upstream.freeze(Direction::ToTarget);
    let (guest, heard) = (Uuid::new_v4(), to_upstream.heard());
    let request = upstream.archive(guest, "k-1");
    let call = tokio::spawn(async move { client.archive_guest_connection(request).await });
    to_upstream.heard_more(heard).await;
    first.signal("STOP").await;
    // Another one takes over, and then comes something newer.
    let is_done =
        |command: &guest_connection_adapter::proto::Command| command.state() == CommandState::Succeeded;
    upstream.command_when(&second, "k-1", is_done).await;
    other.unarchive_guest_connection(upstream.unarchive(guest, "k-2")).await.unwrap();

    to_upstream.thaw();
    let is_late = |entries: &[Entry]| {
        entries.iter().filter(|entry| entry.is_patch_of(guest) && entry.applied).count() == 3
    };
    upstream.simulator.wait_for(is_late, DEADLINE).await.expect("the PATCH goes out late");
    assert_eq!(upstream.applied(guest), [true, false, true]);
    to_database.refuse();
    to_database.cut();
    first.signal("CONT").await;
    let is_not_stored = |line: &str| line.contains("could not be stored");
    first.log().wait_for(DEADLINE, is_not_stored).await.expect("it has something to say");
    to_database.accept();

    let healed = async {
        while upstream.applied(guest).last() != Some(&false) {
            look_again().await;
        }
    };
    timeout(DEADLINE, healed).await.expect("the newest value is sent again");
    assert_eq!(upstream.applied(guest), [true, false, true, false]);
    let _ = call.await;
    for adapter in [first, second] {
        assert!(adapter.terminate().await.0.success());
    }
}
