//! What is configured of an organisation, and of all, is kept.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use simulator::{Entry, Limit, RetryAfter, Rule, Scope};

use crate::support::{
    Sent, call, events_of, keys, most_at_once, nothing_is_left, patches, patches_of, publish, start,
    start_limited, succeeded,
};

#[tokio::test]
async fn the_rate_of_an_organisation_is_kept_and_is_its_own() {
    let mut world = start_limited(2, "", "REQUESTS_PER_SECOND", "20").await;
    let [slow, free] = world.upstream.organizations.clone().try_into().unwrap();
    let client = world.client().await;
    let began = Utc::now();
    let mut all = Sent::many(&slow, "slow", 60);
    publish(&world, &all).await;
    let others = Sent::many(&free, "free", 60);
    publish(&world, &others).await;
    for sent in &others[..10] {
        call(&client, &free, sent.guest, &sent.key).await.unwrap();
    }
    succeeded(&client, &others, Some(1)).await;
    let journal = world.upstream.simulator.journal();
    assert!(patches_of(&journal, &slow).len() < 60, "the others do not wait for it");
    succeeded(&client, &all, Some(1)).await;
    keeps_rate(&patches_of(&world.upstream.simulator.journal(), &slow), began);
    all.extend(others);
    events_of(&mut world, keys(&all)).await;
    nothing_is_left(&world).await;
    world.end().await;
}

/// 20 a second, of which two may come at once.
fn keeps_rate(entries: &[Entry], began: DateTime<Utc>) {
    assert_eq!(entries.len(), 60);
    for (place, entry) in (0_i64..).zip(entries) {
        let soonest = TimeDelta::milliseconds(50 * (place - 1).max(0));
        let after = entry.received_at - began;
        // The clocks of two processes are the same, but they are read to the millisecond.
        assert!(after + TimeDelta::milliseconds(5) >= soonest, "number {place} came after {after}");
    }
}

#[tokio::test]
async fn an_organisation_has_no_more_under_way_than_it_may_and_others_have() {
    let mut world = start_limited(2, "", "IN_FLIGHT_MAX", "2").await;
    let [narrow, free] = world.upstream.organizations.clone().try_into().unwrap();
    let client = world.client().await;
    world.upstream.simulator.script(Rule::patch().delay(Duration::from_millis(50)));
    let mut all = Sent::many(&narrow, "narrow", 40);
    all.extend(Sent::many(&free, "free", 40));
    publish(&world, &all).await;
    let calls = Sent::many(&narrow, "call", 10);
    let answers = calls.iter().map(|sent| call(&client, &narrow, sent.guest, &sent.key));
    futures::future::try_join_all(answers).await.unwrap();
    all.extend(calls);
    events_of(&mut world, keys(&all)).await;
    succeeded(&client, &all, Some(1)).await;
    let journal = world.upstream.simulator.journal();
    let (own, others) = (patches_of(&journal, &narrow), patches_of(&journal, &free));
    assert_eq!(most_at_once(&own), 2);
    assert!(most_at_once(&others) > 2, "the others are not bound by it");
    nothing_is_left(&world).await;
    world.end().await;
}

#[tokio::test]
async fn all_of_them_have_no_more_under_way_than_the_upstream_may_get() {
    let mut world = start(3, "upstream.in_flight_max = 3").await;
    let client = world.client().await;
    world.upstream.simulator.script(Rule::patch().delay(Duration::from_millis(20)));
    let mut all = Vec::new();
    for (number, organization) in world.upstream.organizations.iter().enumerate() {
        all.extend(Sent::many(organization, &format!("message-{number}"), 30));
    }
    publish(&world, &all).await;
    let calls: Vec<_> =
        world.upstream.organizations.iter().map(|of| Sent::new(of, &format!("call-{}", of.name))).collect();
    let answers = calls.iter().map(|sent| call(&client, &sent.organization, sent.guest, &sent.key));
    futures::future::try_join_all(answers).await.unwrap();
    all.extend(calls);
    events_of(&mut world, keys(&all)).await;
    succeeded(&client, &all, Some(1)).await;
    assert_eq!(world.upstream.simulator.stats().max_outstanding, 3);
    nothing_is_left(&world).await;
    world.end().await;
}

#[tokio::test]
async fn a_limit_that_nobody_told_of_is_found_with_few_refusals() {
    let mut world = start(1, "").await;
    let organization = world.upstream.organizations[0].clone();
    let limit =
        Limit::per_second(50).scope(Scope::Requester(organization.id)).retry_after(RetryAfter::Seconds);
    world.upstream.simulator.limit(Some(limit));
    let all = Sent::many(&organization, "k", 400);
    publish(&world, &all).await;
    events_of(&mut world, keys(&all)).await;
    let journal = patches(&world.upstream.simulator.journal());
    let refused = journal.iter().filter(|entry| entry.status == Some(429)).count();
    assert!(refused > 0, "the limit was met");
    assert!(refused <= 100, "{refused} of {} were refused", journal.len());
    for sent in &all {
        assert_eq!(world.upstream.applied(sent.guest), [true]);
    }
    nothing_is_left(&world).await;
    world.end().await;
}
