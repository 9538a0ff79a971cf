//! How often and how soon something is sent again, and what its caller hears of it.

use std::time::Duration;

use guest_connection_adapter::proto::CommandState;
use simulator::Rule;
use tonic::Code;
use uuid::Uuid;

use crate::support::{Sent, call, call_within, command_when, is_final, is_told, journal_when, start, told};

#[tokio::test]
async fn a_call_outlasts_a_few_failures() {
    let world = start(1, "").await;
    let organization = world.upstream.organizations[0].clone();
    let client = world.client().await;
    for (number, rule) in [
        Rule::patch().times(2).status(503).into(),
        Rule::patch().times(2).maintenance(),
        Rule::patch().times(2).reset_before_apply(),
        Rule::patch().times(2).reset_after_apply(),
    ]
    .into_iter()
    .enumerate()
    {
        world.upstream.simulator.script(rule);
        let guest = Uuid::new_v4();
        call(&client, &organization, guest, &format!("k-{number}")).await.unwrap();
        assert_eq!(world.upstream.received(guest), 3);
        assert_eq!(world.upstream.applied(guest).last(), Some(&true));
    }
    world.end().await;
}

#[tokio::test]
async fn without_a_budget_nothing_is_retried_under_its_claim() {
    let lines = "upstream.retry_share = 0.0\nupstream.retry_floor = 0\n";
    let world = start(1, lines).await;
    let organization = world.upstream.organizations[0].clone();
    let client = world.client().await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).times(1).maintenance());
    let refusal = call(&client, &organization, guest, "k").await.unwrap_err();
    is_told(&refusal, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
    assert_eq!(world.upstream.received(guest), 1);
    // Who asks again is served.
    call(&client, &organization, guest, "k").await.unwrap();
    assert_eq!((world.upstream.received(guest), world.upstream.applied(guest)), (2, vec![true]));
    world.end().await;
}

#[tokio::test]
async fn the_budget_is_a_share_of_what_succeeds() {
    let lines = "upstream.retry_share = 0.5\nupstream.retry_floor = 0\n";
    let world = start(2, lines).await;
    let [organization, other] = world.upstream.organizations.clone().try_into().unwrap();
    let client = world.client().await;
    // Those of another organisation earn it nothing.
    for sent in Sent::many(&organization, "own", 10).iter().chain(&Sent::many(&other, "other", 10)) {
        call(&client, &sent.organization, sent.guest, &sent.key).await.unwrap();
    }
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).maintenance());
    let refusal = call(&client, &organization, guest, "k").await.unwrap_err();
    is_told(&refusal, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
    let received = world.upstream.received(guest);
    assert!((2..=6).contains(&received), "{received} requests, of which 5 were to be retries at most");
    world.end().await;
}

#[tokio::test]
async fn a_caller_s_deadline_shortens_the_wait_and_the_command_goes_on() {
    let world = start(1, "").await;
    let organization = world.upstream.organizations[0].clone();
    let client = world.client().await;
    let (guest, deadline) = (Uuid::new_v4(), Duration::from_secs(3));
    let unknown = Rule::patch().guest(guest).times(1).status(503).header("retry-after", "4");
    world.upstream.simulator.script(unknown);
    let refusal = call_within(&client, &organization, guest, "k", deadline).await.unwrap_err();
    is_told(&refusal, Code::Unavailable, "UPSTREAM_UNAVAILABLE");
    assert_eq!(world.upstream.received(guest), 1, "the wait that was asked for is longer than the caller's");
    // Its fate is unknown, so it goes on by itself; who asks again waits for it.
    let command = command_when(&client, &organization, "k", is_final).await;
    assert_eq!((command.state(), command.attempts), (CommandState::Succeeded, 2), "{command:?}");
    let again = call(&client, &organization, guest, "k").await.unwrap();
    assert!(again.replayed, "{again:?}");
    assert_eq!((world.upstream.received(guest), world.upstream.applied(guest)), (2, vec![true]));
    let journal = world.upstream.simulator.journal();
    let times: Vec<_> = journal.iter().filter(|entry| entry.is_patch_of(guest)).collect();
    let waited = times[1].received_at - times[0].received_at;
    assert!(waited >= chrono::TimeDelta::seconds(4), "sent again after {waited}");
    world.end().await;
}

#[tokio::test]
async fn a_caller_that_is_told_early_may_ask_again() {
    let world = start(1, "").await;
    let organization = world.upstream.organizations[0].clone();
    let client = world.client().await;
    let (guest, deadline) = (Uuid::new_v4(), Duration::from_secs(3));
    // The one is not applied and ends; the other waits with its requester for as long as was asked for.
    let refused = Rule::patch().guest(guest).times(1).status(429).header("retry-after", "4");
    world.upstream.simulator.script(refused);
    let refusal = call_within(&client, &organization, guest, "k", deadline).await.unwrap_err();
    is_told(&refusal, Code::ResourceExhausted, "UPSTREAM_RATE_LIMITED");
    assert!(told(&refusal).2.is_some_and(|delay| delay <= Duration::from_secs(5)), "{refusal:?}");
    let command = command_when(&client, &organization, "k", is_final).await;
    assert_eq!((command.state(), command.attempts), (CommandState::Failed, 1), "{command:?}");
    let answer = call(&client, &organization, guest, "k").await.unwrap();
    assert!(!answer.replayed, "{answer:?}");
    assert_eq!((world.upstream.received(guest), world.upstream.applied(guest)), (2, vec![true]));
    let both =
        |journal: &[simulator::Entry]| journal.iter().filter(|entry| entry.is_patch_of(guest)).count() == 2;
    let journal = journal_when(&world, both).await;
    let times: Vec<_> = journal.iter().filter(|entry| entry.is_patch_of(guest)).collect();
    let waited = times[1].received_at - times[0].received_at;
    assert!(waited >= chrono::TimeDelta::seconds(4), "sent again after {waited}");
    world.end().await;
}
