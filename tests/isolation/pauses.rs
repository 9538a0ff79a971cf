//! Time in which nothing may be sent is nobody's fault.

use guest_connection_adapter::proto::{Command, CommandState};
use simulator::{Entry, Rule};

use crate::support::{Sent, command_when, is_final, journal_when, publish, start};

/// What is tried for 3 s is given up; no retry hides the end of an attempt.
const GIVE_UP_SOON: &str = r#"
upstream.connect_timeout = "500ms"
upstream.attempt_timeout = "1s"
upstream.command_timeout = "1500ms"
upstream.retry_share = 0.0
upstream.retry_floor = 0
store.lease = "2s"
store.give_up_after = "3s"
"#;

#[tokio::test]
async fn a_pause_does_not_count_towards_the_time_after_which_a_command_is_given_up() {
    let world = start(2, GIVE_UP_SOON).await;
    let [paused, failing] = world.upstream.organizations.clone().try_into().unwrap();
    let client = world.client().await;
    let mut letters = world.broker.consume(&world.names.dead_letters).await;
    let simulator = &world.upstream.simulator;
    let no_token = simulator.script(Rule::token().requester(paused.id).status(401));
    let (waits, fails) = (Sent::new(&paused, "waits"), Sent::new(&failing, "fails"));
    simulator.script(Rule::patch().guest(fails.guest).maintenance());
    publish(&world, std::slice::from_ref(&waits)).await;
    let is_deferred = |command: &Command| command.state() == CommandState::Deferred;
    command_when(&client, &paused, "waits", is_deferred).await;

    // Another one, which is tried all the time, is given up: so the first has waited for longer than it may be tried.
    publish(&world, std::slice::from_ref(&fails)).await;
    let letter = letters.next().await.table("x-guest-connection-adapter");
    assert_eq!(letter["state"], "abandoned", "{letter:?}");
    let given_up = command_when(&client, &failing, "fails", is_final).await;
    assert_eq!(given_up.state(), CommandState::Abandoned);
    assert!(given_up.attempts > 1, "{given_up:?}");
    let command = command_when(&client, &paused, "waits", |_| true).await;
    assert_eq!((command.state(), command.attempts), (CommandState::Deferred, 0), "{command:?}");

    // It fails once more: that would end it if the time counted.
    simulator.script(Rule::patch().guest(waits.guest).times(1).maintenance());
    simulator.remove_fault(no_token);
    let is_sent = |journal: &[Entry]| journal.iter().any(|entry| entry.is_patch_of(waits.guest));
    journal_when(&world, is_sent).await;
    let command = command_when(&client, &paused, "waits", is_final).await;
    assert_eq!((command.state(), command.attempts), (CommandState::Succeeded, 2), "{command:?}");
    world.end().await;
}

#[tokio::test]
async fn an_outage_of_the_api_does_not_count_either() {
    // A try every second and more, so that nearly all of the time is paused.
    let slow = "upstream.breaker_delay_base = \"1s\"\nupstream.breaker_delay_max = \"2s\"\n";
    let world = start(1, &format!("{GIVE_UP_SOON}{slow}")).await;
    let organization = world.upstream.organizations[0].clone();
    let client = world.client().await;
    world.upstream.simulator.script(Rule::patch().maintenance());
    let commands = Sent::many(&organization, "k", 8);
    publish(&world, &commands).await;
    // Eight tries and more at half a second's distance at least.
    journal_when(&world, |journal| crate::support::patches(journal).len() >= 16).await;
    world.upstream.simulator.clear_faults();
    for sent in &commands {
        let command = command_when(&client, &organization, &sent.key, is_final).await;
        assert_eq!(command.state(), CommandState::Succeeded, "{command:?}");
    }
    assert_eq!(world.broker.depth(&world.names.dead_letters).await, 0);
    world.end().await;
}
