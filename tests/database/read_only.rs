//! A primary that turns read-only, as after a failover to where it cannot be told from a standby, and back.

use std::collections::HashSet;

use harness::Database;
use serde_json::Value;
use uuid::Uuid;

use crate::support::{call, is_for_a_time, key_of, world};

const MESSAGES: usize = 5;

#[tokio::test]
async fn calls_are_told_to_come_again_and_messages_wait_until_it_takes_writes() {
    let database = Database::create().await;
    let mut world = world(&database).await;
    let mut client = world.client().await;
    call(&mut client, &world, Uuid::new_v4(), "before").await.unwrap();
    assert_eq!(key_of(&world.events.next().await.json()), "before");
    let pid = world.adapter.pid();

    database.read_only(true).await;
    let is_told = |status: u16, body: &Value| {
        let detail = body["parts"]["store"]["detail"].as_str().unwrap_or_default();
        status == 503 && detail.contains("database does not allow writes")
    };
    world.adapter.readiness(is_told).await;
    let caller = Uuid::new_v4();
    let refused = call(&mut client, &world, caller, "called").await.expect_err("nothing can be written");
    is_for_a_time(&refused);
    let mut sent = HashSet::from(["called".to_owned()]);
    let mut guests = vec![caller];
    for number in 0..MESSAGES {
        let (guest, key) = (Uuid::new_v4(), format!("sent-{number}"));
        world.send(guest, &world.upstream.message(guest, true, &key)).await;
        sent.insert(key);
        guests.push(guest);
    }
    // None is acknowledged: all of them go back to the queue once consuming has stopped.
    let all = u32::try_from(MESSAGES).unwrap();
    world.broker.depth_when(&world.names.commands, |depth| depth == all).await;
    assert!(
        guests.iter().all(|guest| world.upstream.received(*guest) == 0),
        "nothing is sent without a claim"
    );

    database.read_only(false).await;
    world.adapter.ready().await;
    assert_eq!(world.adapter.pid(), pid);
    let done =
        call(&mut client, &world, caller, "called").await.expect("the same key, as the caller was told");
    assert!(!done.replayed);
    for event in world.events.take(MESSAGES + 1).await {
        let key = key_of(&event.json());
        assert!(sent.remove(&key), "{key} has one event");
    }
    assert!(guests.iter().all(|guest| world.upstream.applied(*guest) == [true]), "one PATCH each");
    world.broker.depth_when(&world.names.commands, |depth| depth == 0).await;
    world.end().await;
}
