//! Commands beside one that cannot go on.

use guest_connection_adapter::proto::{Command, CommandState};
use harness::{Organization, World};
use serde_json::json;
use simulator::{Endpoint, Rule};
use uuid::Uuid;

use crate::support::{
    Sent, call, command_when, is_final, journal_when, nothing_is_left, part_when, publish, start, succeeded,
};

/// A message about a connection of `target`.
async fn send(world: &World, organization: &Organization, target: Uuid, guest: Uuid, key: &str) {
    let mut message = organization.message(guest, true, key);
    message["target_organization_id"] = json!(target);
    world.send(guest, &message).await;
}

#[tokio::test]
async fn a_command_does_not_wait_behind_one_of_a_paused_organisation_on_the_same_connection() {
    let world = start(2, "").await;
    let [paused, healthy] = world.upstream.organizations.clone().try_into().unwrap();
    let client = world.client().await;
    let simulator = &world.upstream.simulator;
    let rule = simulator.script(Rule::token().requester(paused.id).status(401));
    let (target, first, second) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
    for organization in [&paused, &healthy] {
        simulator.add_connection(organization.id, target);
    }
    // The one finds out in the line, the other comes when it is known.
    for (number, guest) in [first, second].into_iter().enumerate() {
        let (before, behind) = (format!("before-{number}"), format!("behind-{number}"));
        send(&world, &paused, target, guest, &before).await;
        send(&world, &healthy, target, guest, &behind).await;
        let command = command_when(&client, &healthy, &behind, is_final).await;
        assert_eq!((command.state(), command.attempts), (CommandState::Succeeded, 1), "{command:?}");
        let is_deferred = |command: &Command| command.state() == CommandState::Deferred;
        let command = command_when(&client, &paused, &before, is_deferred).await;
        assert_eq!(command.attempts, 0, "{command:?}");
    }
    simulator.remove_fault(rule);
    // They were overtaken, and the older never follows the newer.
    for number in 0..2 {
        let command = command_when(&client, &paused, &format!("before-{number}"), is_final).await;
        assert_eq!((command.state(), command.attempts), (CommandState::Superseded, 0), "{command:?}");
    }
    assert_eq!((world.upstream.applied(first).len(), world.upstream.applied(second).len()), (1, 1));
    nothing_is_left(&world).await;
    world.end().await;
}

#[tokio::test]
async fn one_guest_that_fails_time_and_again_stops_no_other() {
    let world = start(2, "").await;
    let organization = world.upstream.organizations[0].clone();
    let client = world.client().await;
    let guest = Uuid::new_v4();
    let rule = world.upstream.simulator.script(Rule::patch().guest(guest).status(500));
    publish(&world, &[Sent::about(&organization, guest, true, "bad")]).await;
    for round in 1..=3 {
        // More failures in a row than open a breaker, with nothing in between.
        let is_failing = |journal: &[simulator::Entry]| {
            journal.iter().filter(|entry| entry.is_patch_of(guest)).count() >= round * 8
        };
        journal_when(&world, is_failing).await;
        let messages = Sent::many(&organization, &format!("message-{round}"), 10);
        publish(&world, &messages).await;
        let calls = Sent::many(&organization, &format!("call-{round}"), 10);
        for sent in &calls {
            call(&client, &organization, sent.guest, &sent.key).await.unwrap();
        }
        succeeded(&client, &messages, Some(1)).await;
        succeeded(&client, &calls, Some(1)).await;
        part_when(&world, "upstream", "ready").await;
    }
    let states: Vec<_> = world
        .upstream
        .simulator
        .journal()
        .iter()
        .filter(|entry| entry.endpoint == Endpoint::Patch)
        .map(|e| e.status)
        .collect();
    assert_eq!(states.iter().filter(|status| **status == Some(200)).count(), 60);
    world.upstream.simulator.remove_fault(rule);
    let command = command_when(&client, &organization, "bad", is_final).await;
    assert_eq!(command.state(), CommandState::Succeeded, "{command:?}");
    nothing_is_left(&world).await;
    world.end().await;
}
