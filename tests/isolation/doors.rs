//! Whoever has a lot to do keeps nobody waiting who has little.

use std::time::Duration;

use simulator::{Entry, Rule};
use uuid::Uuid;

use crate::support::{Sent, call, journal_when, patches, patches_of, publish, start, start_limited};

/// So many that it takes a minute to send them, one after another.
const MANY: usize = 3_000;
const EACH: Duration = Duration::from_millis(20);

#[tokio::test]
async fn a_call_is_served_before_thousands_of_messages_are() {
    let world = start_limited(1, "", "IN_FLIGHT_MAX", "1").await;
    let organization = world.upstream.organizations[0].clone();
    let client = world.client().await;
    world.upstream.simulator.script(Rule::patch().delay(EACH));
    publish(&world, &Sent::many(&organization, "message", MANY)).await;
    journal_when(&world, |journal| patches(journal).len() >= 20).await;
    for number in 0..10 {
        let before = patches(&world.upstream.simulator.journal()).len();
        let guest = Uuid::new_v4();
        call(&client, &organization, guest, &format!("call-{number}")).await.unwrap();
        let sent = patches(&world.upstream.simulator.journal());
        let place = sent.iter().position(|entry| entry.is_patch_of(guest)).unwrap();
        assert!(place - before <= 25, "{} messages went before the call", place - before);
    }
    let done = patches(&world.upstream.simulator.journal()).len();
    assert!(done < MANY, "there are messages left");
    world.end().await;
}

#[tokio::test]
async fn messages_go_on_while_calls_come_all_the_time() {
    let world = start_limited(1, "", "IN_FLIGHT_MAX", "1").await;
    let organization = world.upstream.organizations[0].clone();
    let client = world.client().await;
    world.upstream.simulator.script(Rule::patch().delay(EACH));
    let messages = Sent::many(&organization, "message", 20);
    let stop = tokio_util::sync::CancellationToken::new();
    // More callers than are served at once, each of whom calls again as soon as it is.
    let callers: Vec<_> = (0..8)
        .map(|caller| {
            let (client, organization, stop) = (client.clone(), organization.clone(), stop.clone());
            tokio::spawn(async move {
                for number in 0.. {
                    if stop.is_cancelled() {
                        return number;
                    }
                    let key = format!("call-{caller}-{number}");
                    call(&client, &organization, Uuid::new_v4(), &key).await.unwrap();
                }
                unreachable!("it is stopped before")
            })
        })
        .collect();
    journal_when(&world, |journal| patches(journal).len() >= 20).await;
    publish(&world, &messages).await;
    let are_done = |journal: &[Entry]| {
        messages.iter().all(|sent| journal.iter().any(|entry| entry.is_patch_of(sent.guest) && entry.applied))
    };
    journal_when(&world, are_done).await;
    stop.cancel();
    for caller in callers {
        assert!(caller.await.unwrap() > 0);
    }
    world.end().await;
}

#[tokio::test]
async fn an_organisation_with_little_to_do_does_not_wait_for_one_with_a_lot() {
    let mut world = start(2, "upstream.in_flight_max = 2").await;
    let [busy, other] = world.upstream.organizations.clone().try_into().unwrap();
    let client = world.client().await;
    world.upstream.simulator.script(Rule::patch().delay(EACH));
    publish(&world, &Sent::many(&busy, "busy", MANY)).await;
    journal_when(&world, |journal| patches(journal).len() >= 20).await;
    // Its messages stand behind all of the others in the queue.
    let messages = Sent::many(&other, "message", 10);
    publish(&world, &messages).await;
    for number in 0..10 {
        let before = patches_of(&world.upstream.simulator.journal(), &busy).len();
        call(&client, &other, Uuid::new_v4(), &format!("call-{number}")).await.unwrap();
        let sent = patches_of(&world.upstream.simulator.journal(), &busy).len();
        assert!(sent - before <= 25, "{} went before the call", sent - before);
    }
    let are_done = |journal: &[Entry]| {
        messages.iter().all(|sent| journal.iter().any(|entry| entry.is_patch_of(sent.guest) && entry.applied))
    };
    let journal = journal_when(&world, are_done).await;
    let sent = patches_of(&journal, &busy).len();
    assert!(sent < MANY / 2, "{sent} of {MANY} were sent before");
    // Whoever has a lot goes on all the same.
    world.events.take(100).await;
    world.end().await;
}
