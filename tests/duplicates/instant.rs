//! Twins that start at the same instant.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::future::join_all;
use harness::DEADLINE;
use lapin::BasicProperties;
use tokio::sync::Barrier;
use uuid::Uuid;

use crate::support::{PATIENT, Scene};

const PAIRS: usize = 40;

/// Two calls and two messages for each key, all let go together.
#[tokio::test(flavor = "multi_thread")]
async fn twins_at_the_same_instant_are_one_patch_one_event_and_one_answer() {
    let mut scene = Scene::start(PATIENT).await;
    let keys: Vec<(Uuid, String)> =
        (0..PAIRS).map(|number| (Uuid::new_v4(), format!("k-{number}"))).collect();
    let client = scene.world.client().await;
    let barrier = Arc::new(Barrier::new(2 * PAIRS + 1));
    let calls: Vec<_> = keys
        .iter()
        .flat_map(|twin| [twin, twin])
        .map(|(guest, key)| {
            let (mut client, barrier) = (client.clone(), barrier.clone());
            let mut request = tonic::Request::new(scene.world.upstream.archive(*guest, key));
            request.set_timeout(DEADLINE);
            tokio::spawn(async move {
                barrier.wait().await;
                client.archive_guest_connection(request).await.map(tonic::Response::into_inner)
            })
        })
        .collect();
    let messages = keys.iter().flat_map(|twin| [twin, twin]).map(|(guest, key)| {
        let body = serde_json::to_vec(&scene.world.upstream.message(*guest, true, key)).unwrap();
        (guest.to_string(), BasicProperties::default(), body)
    });
    let messages: Vec<_> = messages.collect();
    barrier.wait().await;
    scene.world.broker.publish_all(&scene.world.names, messages).await;

    let mut ids: HashMap<String, HashSet<String>> = HashMap::new();
    let mut firsts: HashMap<String, usize> = HashMap::new();
    for answer in join_all(calls).await {
        let answer = answer.unwrap().expect("an answer");
        assert_eq!(answer.guest_connection.as_ref().unwrap().archived, Some(true));
        *firsts.entry(answer.idempotency_key.clone()).or_default() += usize::from(!answer.replayed);
        ids.entry(answer.idempotency_key).or_default().insert(answer.command_id);
    }
    let mut told = HashSet::new();
    for _ in &keys {
        assert!(told.insert(scene.event().await), "one event each");
    }
    for (guest, key) in &keys {
        assert_eq!(ids[key].len(), 1, "{key} is one command");
        assert!(firsts[key] <= 1, "{key} was done by one of them");
        assert_eq!(scene.world.upstream.received(*guest), 1, "{key} is one PATCH");
    }
    scene.nothing_more_is_told().await;
}
