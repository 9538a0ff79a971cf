//! One of five organisations fares badly, in every way there is. The others notice nothing, and it harms itself as little
//! as can be.

use std::collections::BTreeMap;

use guest_connection_adapter::proto;
use guest_connection_adapter::proto::CommandState;
use harness::{Organization, World};
use simulator::{Endpoint, Entry, Rule};
use tonic::Code;
use uuid::Uuid;

use crate::support::{
    Client, Sent, call, command, command_when, is_final, is_told, journal_when, keys, most_at_once,
    nothing_is_left, part_when, patches_of, publish, refused_for, start, succeeded,
};

/// A breaker stays open for 2.5 s at least: so long that hardly anything of a test's step is a try.
const OPEN_LONG: &str = r#"
upstream.breaker_delay_base = "5s"
upstream.breaker_delay_max = "5s"
"#;

/// Five organisations, of which the last one fares badly.
struct Five {
    world: World,
    client: Client,
    healthy: Vec<Organization>,
    broken: Organization,
}

impl Five {
    async fn start(lines: &str) -> Self {
        let world = start(5, &format!("{OPEN_LONG}{lines}")).await;
        let client = world.client().await;
        let mut healthy = world.upstream.organizations.clone();
        let broken = healthy.pop().unwrap();
        Self { world, client, healthy, broken }
    }

    fn sent(&self) -> Vec<Entry> {
        patches_of(&self.world.upstream.simulator.journal(), &self.broken)
    }

    /// The others' commands, by both doors, succeed at the first attempt.
    async fn others_are_served(&self, tag: &str) -> Vec<Sent> {
        let mut all = Vec::new();
        for (number, organization) in self.healthy.iter().enumerate() {
            all.extend(Sent::many(organization, &format!("{tag}-{number}"), 8));
        }
        publish(&self.world, &all).await;
        let calls: Vec<_> =
            self.healthy.iter().map(|of| Sent::new(of, &format!("{tag}-call-{}", of.name))).collect();
        let answers = calls.iter().map(|sent| call(&self.client, &sent.organization, sent.guest, &sent.key));
        futures::future::try_join_all(answers).await.unwrap();
        all.extend(calls);
        succeeded(&self.client, &all, Some(1)).await;
        all
    }

    /// The broken one's messages are taken and put off, but for one that may be a try; its calls are refused.
    async fn broken_is_put_off(&self, tag: &str) -> Vec<Sent> {
        let (_, refusal) =
            refused_for(&self.client, std::slice::from_ref(&self.broken), "REQUESTER_PAUSED").await;
        is_told(&refusal, Code::Unavailable, "REQUESTER_PAUSED");
        let sent = Sent::many(&self.broken, tag, 20);
        publish(&self.world, &sent).await;
        let mut tried = 0;
        for one in &sent {
            let is_settled =
                |command: &proto::Command| command.state() == CommandState::Deferred || is_final(command);
            let command = command_when(&self.client, &self.broken, &one.key, is_settled).await;
            assert_eq!(command.state(), CommandState::Deferred, "{command:?}");
            tried += usize::from(command.attempts > 0);
            if command.attempts == 0 {
                assert_eq!(command.outcome.as_ref().unwrap().reason, "REQUESTER_PAUSED", "{command:?}");
            }
        }
        assert!(tried <= 2, "{tried} of 20 were sent while nothing should be");
        self.world.broker.depth_when(&self.world.names.commands, |depth| depth == 0).await;
        let (key, refusal) =
            refused_for(&self.client, std::slice::from_ref(&self.broken), "REQUESTER_PAUSED").await;
        is_told(&refusal, Code::Unavailable, "REQUESTER_PAUSED");
        assert_eq!(command(&self.client, &self.broken, &key).await, None, "a refused call leaves no row");
        let detail = part_when(&self.world, "upstream", "degraded").await;
        assert!(detail.contains(&self.broken.id.to_string()), "{detail}");
        assert!(!detail.contains("the upstream fails"), "{detail}");
        sent
    }

    /// Mended, its commands run by themselves, once each.
    async fn ends_well(mut self, others: &[Sent], broken: &[Sent]) {
        for sent in broken {
            let command = command_when(&self.client, &self.broken, &sent.key, is_final).await;
            assert_eq!(command.state(), CommandState::Succeeded, "{command:?}");
            assert_eq!(self.world.upstream.applied(sent.guest), [true], "once");
        }
        // Calls that were tried before it was known have events too. One may come twice, but under one id.
        let mut seen = BTreeMap::new();
        while keys(others).chain(keys(broken)).any(|key| !seen.contains_key(&key)) {
            let event = self.world.events.next().await.json();
            let key = event["data"]["command"]["idempotency_key"].as_str().unwrap().to_owned();
            let id = seen.entry(key).or_insert_with(|| event["id"].clone());
            assert_eq!(*id, event["id"], "a second event: {event}");
        }
        nothing_is_left(&self.world).await;
        part_when(&self.world, "upstream", "ready").await;
        self.world.end().await;
    }
}

/// Opens the breaker of the fifth by messages, has the others served meanwhile, and mends it.
async fn fares_badly(lines: &str, rule: impl Fn(Uuid) -> Rule) {
    let five = Five::start(lines).await;
    let rule = five.world.upstream.simulator.script(rule(five.broken.id));
    let mut broken = Sent::many(&five.broken, "first", 12);
    publish(&five.world, &broken).await;
    let mut others = five.others_are_served("meanwhile").await;
    let detail = part_when(&five.world, "upstream", "degraded").await;
    assert!(detail.contains(&five.broken.id.to_string()), "{detail}");
    // What was under way when the breaker opened is not a try.
    for sent in &broken {
        let is_deferred = |command: &proto::Command| command.state() == CommandState::Deferred;
        command_when(&five.client, &five.broken, &sent.key, is_deferred).await;
    }
    let opened = five.sent().len();
    broken.extend(five.broken_is_put_off("second").await);
    others.extend(five.others_are_served("later").await);
    journal_when(&five.world, |journal| patches_of(journal, &five.broken).len() >= opened + 2).await;
    let simulator = &five.world.upstream.simulator;
    simulator.remove_fault(rule);
    let tries = &five.sent()[opened..];
    assert_eq!(most_at_once(tries), 1, "one tries at a time: {tries:#?}");
    five.ends_well(&others, &broken).await;
}

#[tokio::test]
async fn it_is_answered_503() {
    fares_badly("", |id| Rule::patch().requester(id).status(503).into()).await;
}

#[tokio::test]
async fn its_requests_hang() {
    let lines = "upstream.attempt_timeout = \"2s\"\nupstream.connect_timeout = \"1s\"\n";
    fares_badly(lines, |id| Rule::patch().requester(id).hang()).await;
}

#[tokio::test]
async fn its_tokens_are_not_accepted() {
    fares_badly("", |id| Rule::patch().requester(id).status(401).into()).await;
}

#[tokio::test]
async fn it_gets_no_token() {
    let five = Five::start("").await;
    let simulator = &five.world.upstream.simulator;
    let rule = simulator.script(Rule::token().requester(five.broken.id).status(401));
    let mut broken = Sent::many(&five.broken, "first", 12);
    publish(&five.world, &broken).await;
    let mut others = five.others_are_served("meanwhile").await;
    for sent in &broken {
        let is_deferred = |command: &proto::Command| command.state() == CommandState::Deferred;
        let command = command_when(&five.client, &five.broken, &sent.key, is_deferred).await;
        assert_eq!(command.attempts, 0, "{command:?}");
    }
    broken.extend(five.broken_is_put_off("second").await);
    others.extend(five.others_are_served("later").await);
    assert_eq!(five.sent().len(), 0);
    let asks = |journal: &[Entry]| -> Vec<Entry> {
        let is_one = |entry: &&Entry| {
            entry.endpoint == Endpoint::Token && entry.client_organization == Some(five.broken.id)
        };
        journal.iter().filter(is_one).cloned().collect()
    };
    let asked = journal_when(&five.world, |journal| asks(journal).len() >= 3).await;
    assert_eq!(most_at_once(&asks(&asked)), 1, "one asks at a time");
    five.world.upstream.simulator.remove_fault(rule);
    five.ends_well(&others, &broken).await;
}

#[tokio::test]
async fn it_is_asked_to_wait() {
    let five = Five::start("").await;
    let simulator = &five.world.upstream.simulator;
    let limited = Rule::patch().requester(five.broken.id).status(429).header("retry-after", "8");
    let rule = simulator.script(limited);
    let mut broken = Sent::many(&five.broken, "first", 12);
    publish(&five.world, &broken).await;
    let heard =
        |journal: &[Entry]| patches_of(journal, &five.broken).iter().any(|entry| entry.ended_at.is_some());
    journal_when(&five.world, heard).await;
    let mut others = five.others_are_served("meanwhile").await;
    let detail = part_when(&five.world, "upstream", "degraded").await;
    assert!(detail.contains(&five.broken.id.to_string()), "{detail}");

    // A pause is no failure: who can wait for its end does, and who cannot is told how long it is.
    let second = Sent::many(&five.broken, "second", 20);
    publish(&five.world, &second).await;
    let (guest, deadline) = (Uuid::new_v4(), std::time::Duration::from_secs(1));
    let refusal =
        crate::support::call_within(&five.client, &five.broken, guest, "short", deadline).await.unwrap_err();
    is_told(&refusal, Code::ResourceExhausted, "UPSTREAM_RATE_LIMITED");
    assert_eq!(command(&five.client, &five.broken, "short").await, None, "a refused call leaves no row");
    five.world.broker.depth_when(&five.world.names.commands, |depth| depth == 0).await;
    others.extend(five.others_are_served("later").await);
    // Those that were on their way when the first 429 came, and no more.
    assert!(five.sent().len() <= 12, "{} requests while it was to wait", five.sent().len());
    for sent in &second {
        assert_eq!(five.world.upstream.received(sent.guest), 0);
    }
    five.world.upstream.simulator.remove_fault(rule);
    broken.extend(second);
    five.ends_well(&others, &broken).await;
}

#[tokio::test]
async fn it_is_slow() {
    let five = Five::start("").await;
    let simulator = &five.world.upstream.simulator;
    let slow = Rule::patch().requester(five.broken.id).delay(std::time::Duration::from_secs(3));
    let rule = simulator.script(slow);
    let broken = Sent::many(&five.broken, "slow", 100);
    publish(&five.world, &broken).await;
    let is_under_way = |journal: &[Entry]| !patches_of(journal, &five.broken).is_empty();
    journal_when(&five.world, is_under_way).await;
    let others = five.others_are_served("meanwhile").await;
    let sent = five.sent();
    assert!(sent.len() < broken.len(), "the slow one was done before the others were");
    // Half of what may be under way is not its to take.
    assert!(most_at_once(&sent) <= 8, "{} at once", most_at_once(&sent));
    simulator.remove_fault(rule);
    five.ends_well(&others, &broken).await;
}
