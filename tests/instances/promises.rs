//! What is promised of one instance holds across several.

use std::time::Duration;

use futures::future::join_all;
use guest_connection_adapter::proto::CommandState;
use harness::DEADLINE;
use simulator::Rule;
use tonic::Code;
use uuid::Uuid;

use crate::cluster::{Cluster, QUICK, events, in_order};

/// Waits until a PATCH for `guest` has come to the API.
async fn sent(cluster: &Cluster, guest: Uuid) {
    let is_sent = |entries: &[simulator::Entry]| entries.iter().any(|entry| entry.is_patch_of(guest));
    cluster.world.upstream.simulator.wait_for(is_sent, DEADLINE).await.expect("it is sent");
}

#[tokio::test]
async fn a_duplicate_at_another_instance_gets_the_answer_of_the_first() {
    let cluster = Cluster::start(2, "").await;
    let (world, guest) = (&cluster.world, Uuid::new_v4());
    let delay = Duration::from_millis(400);
    world.upstream.simulator.script(Rule::patch().guest(guest).times(1).delay(delay));
    let mut here = world.client().await;
    let call = world.upstream.archive(guest, "k");
    let first = tokio::spawn(async move { here.archive_guest_connection(call).await });
    sent(&cluster, guest).await;
    // While the first is under way, at both.
    let mut there = cluster.others[0].client().await;
    let mut here = world.client().await;
    let (second, third) = tokio::join!(
        there.archive_guest_connection(world.upstream.archive(guest, "k")),
        here.archive_guest_connection(world.upstream.archive(guest, "k")),
    );
    let (first, second, third) = (
        first.await.unwrap().unwrap().into_inner(),
        second.unwrap().into_inner(),
        third.unwrap().into_inner(),
    );
    assert!(!first.replayed && second.replayed && third.replayed);
    assert!(second.command_id == first.command_id && second.guest_connection == first.guest_connection);
    assert_eq!(world.upstream.received(guest), 1);
    // Other parameters under the same key are refused wherever they come.
    let error = there.unarchive_guest_connection(world.upstream.unarchive(guest, "k")).await.unwrap_err();
    assert_eq!(error.code(), Code::FailedPrecondition, "{error}");
    cluster.end().await;
}

#[tokio::test]
async fn commands_of_a_connection_at_all_instances_take_effect_one_after_another() {
    const ROUNDS: usize = 6;
    const GUESTS: usize = 4;
    let mut cluster = Cluster::start(3, "").await;
    let upstream = &cluster.world.upstream;
    let adapters = [&cluster.world.adapter, &cluster.others[0], &cluster.others[1]];
    let mut clients = Vec::new();
    for adapter in adapters {
        clients.push(adapter.client().await);
    }
    let guests: Vec<Uuid> = (0..GUESTS).map(|_| Uuid::new_v4()).collect();
    // All at once, at all instances, for the same connections.
    let calls = guests.iter().flat_map(|guest| {
        (0..ROUNDS).map(|round| (*guest, round)).flat_map(|(guest, round)| {
            clients.iter().enumerate().map(move |(place, client)| (guest, round, place, client.clone()))
        })
    });
    let answers = join_all(calls.map(async |(guest, round, place, mut client)| {
        client.archive_guest_connection(upstream.archive(guest, &format!("{guest}-{round}-{place}"))).await
    }));
    for answer in answers.await {
        answer.unwrap();
    }
    let each = ROUNDS * 3;
    // One at a time: no PATCH began before the one before it had ended.
    let journal = upstream.simulator.journal();
    for guest in &guests {
        let entries: Vec<_> = journal.iter().filter(|entry| entry.is_patch_of(*guest)).collect();
        assert_eq!(entries.len(), each);
        let in_turn =
            |pair: &[&simulator::Entry]| pair[0].status_at.is_some_and(|end| end <= pair[1].received_at);
        assert!(entries.windows(2).all(in_turn), "{entries:?}");
    }
    let events = events(&mut cluster.world, each * GUESTS).await;
    let last = in_order(&events);
    assert!(last.len() == GUESTS && last.values().all(|last| *last == each as u64), "{last:?}");
    assert_eq!(events.len(), each * GUESTS, "nothing is published twice while nothing is amiss");
    cluster.end().await;
}

#[tokio::test]
async fn what_a_killed_instance_had_begun_is_taken_over_within_its_lease() {
    let mut cluster = Cluster::start(2, QUICK).await;
    let guest = Uuid::new_v4();
    cluster.world.upstream.simulator.script(Rule::patch().guest(guest).times(1).hang());
    let doomed = cluster.others.remove(0);
    let mut client = doomed.client().await;
    let call = cluster.world.upstream.archive(guest, "k");
    let lost = tokio::spawn(async move { client.archive_guest_connection(call).await });
    sent(&cluster, guest).await;
    doomed.kill().await;
    assert!(lost.await.unwrap().is_err());
    // The other one finds it by itself.
    let upstream = &cluster.world.upstream;
    let wanted =
        |command: &guest_connection_adapter::proto::Command| command.state() == CommandState::Succeeded;
    upstream.command_when(&cluster.world.adapter, "k", wanted).await;
    assert_eq!(upstream.received(guest), 2);
    let events = events(&mut cluster.world, 1).await;
    assert_eq!(in_order(&events).len(), 1);
    cluster.end().await;
}

#[tokio::test]
async fn the_outbox_of_a_killed_instance_is_published_by_the_others() {
    const GUESTS: usize = 40;
    let mut cluster = Cluster::start(3, QUICK).await;
    let doomed = cluster.others.remove(1);
    // It is dead, and yet counts as alive: who is called meanwhile writes events that only it may publish.
    doomed.kill().await;
    let mut client = cluster.world.client().await;
    for _ in 0..GUESTS {
        let guest = Uuid::new_v4();
        let call = cluster.world.upstream.archive(guest, &guest.to_string());
        client.archive_guest_connection(call).await.unwrap();
    }
    let events = events(&mut cluster.world, GUESTS).await;
    assert_eq!(in_order(&events).len(), GUESTS);
    cluster.divided(2).await;
    cluster.end().await;
}

#[tokio::test]
async fn one_that_was_stopped_past_its_leases_does_no_harm_when_it_goes_on() {
    const ROUNDS: usize = 5;
    let mut cluster = Cluster::start(2, QUICK).await;
    let guest = Uuid::new_v4();
    let delay = Duration::from_millis(200);
    cluster.world.upstream.simulator.script(Rule::patch().guest(guest).delay(delay));
    let mut there = cluster.others[0].client().await;
    let call = cluster.world.upstream.archive(guest, "stopped");
    let stopped = tokio::spawn(async move { there.archive_guest_connection(call).await });
    sent(&cluster, guest).await;
    cluster.others[0].signal("STOP").await;
    // The rest goes on without it, once its leases are over.
    cluster.divided(1).await;
    let mut here = cluster.world.client().await;
    for round in 0..ROUNDS {
        let key = format!("k-{round}");
        let upstream = &cluster.world.upstream;
        if round % 2 == 0 {
            here.unarchive_guest_connection(upstream.unarchive(guest, &key)).await.unwrap();
        } else {
            here.archive_guest_connection(upstream.archive(guest, &key)).await.unwrap();
        }
    }
    cluster.others[0].signal("CONT").await;
    cluster.divided(2).await;
    // Its caller hears what became of the command, whoever ended it.
    let answer = stopped.await.unwrap().unwrap().into_inner();
    assert!(answer.guest_connection.is_some());
    let events = events(&mut cluster.world, ROUNDS + 1).await;
    in_order(&events);
    assert_eq!(cluster.world.upstream.applied(guest).last(), Some(&false), "the newest value stands");
    cluster.end().await;
}
