//! The API as a whole is away: nothing is sent but a try now and then, and nobody is harmed by it.

use guest_connection_adapter::proto::CommandState;
use harness::{Organization, World};
use simulator::Rule;
use tonic::Code;
use uuid::Uuid;

use crate::support::{
    Client, LASTING, Sent, call, command, command_when, events_of, is_final, is_told, journal_when, keys,
    most_at_once, nothing_is_left, part_when, patches, publish, refused_for, start, succeeded,
};

#[tokio::test]
async fn calls_are_refused_at_once_and_leave_nothing_and_known_keys_are_answered() {
    let world = start(2, LASTING).await;
    let organizations = world.upstream.organizations.clone();
    let client = world.client().await;
    let known = Uuid::new_v4();
    let first = call(&client, &organizations[0], known, "known").await.unwrap();
    world.upstream.simulator.script(Rule::patch().status(503));

    let (key, refusal) = refused_for(&client, &organizations, "UPSTREAM_PAUSED").await;
    is_told(&refusal, Code::Unavailable, "UPSTREAM_PAUSED");
    for organization in &organizations {
        assert_eq!(command(&client, organization, &key).await, None, "a refused call leaves no row");
    }
    let sent = patches(&world.upstream.simulator.journal()).len();
    for number in 0..50 {
        let organization = &organizations[number % 2];
        let key = format!("refused-{number}");
        let refusal = call(&client, organization, Uuid::new_v4(), &key).await.unwrap_err();
        is_told(&refusal, Code::Unavailable, "UPSTREAM_PAUSED");
        assert_eq!(command(&client, organization, &key).await, None, "a refused call leaves no row");
    }
    let again = call(&client, &organizations[0], known, "known").await.unwrap();
    assert!(again.replayed && again.command_id == first.command_id, "{again:?}");
    assert_eq!(patches(&world.upstream.simulator.journal()).len(), sent, "nothing is sent");

    let detail = part_when(&world, "upstream", "degraded").await;
    assert!(detail.contains("the upstream fails"), "{detail}");
    let body = world.adapter.readiness(|status, _| status == 200).await;
    assert_eq!(body["parts"]["upstream"]["status"], "degraded", "{body}");
    world.end().await;
}

/// What waits during an outage.
struct Waiting {
    /// Commands for connections of their own.
    single: Vec<Sent>,
    /// Three for each of ten connections, which nothing but their order in the queue orders.
    lines: Vec<[Sent; 3]>,
}

impl Waiting {
    fn new(organizations: &[Organization]) -> Self {
        let turn = |number: usize| &organizations[number % organizations.len()];
        let single = (0..40).map(|number| Sent::new(turn(number), &format!("single-{number}"))).collect();
        let line = |number: usize| {
            let guest = Uuid::new_v4();
            [(0, true), (1, false), (2, true)].map(|(place, archived)| {
                Sent::about(turn(number), guest, archived, &format!("line-{number}-{place}"))
            })
        };
        Self { single, lines: (0..10).map(line).collect() }
    }

    fn all(&self) -> Vec<Sent> {
        self.single.iter().chain(self.lines.iter().flatten()).cloned().collect()
    }

    /// Everything is done, once each, and no older one after a newer one.
    async fn is_done(&self, world: &World, client: &Client) {
        succeeded(client, &self.single, None).await;
        for sent in &self.single {
            assert_eq!(world.upstream.applied(sent.guest), [true], "once");
        }
        for line in &self.lines {
            succeeded(client, line, None).await;
            assert_eq!(world.upstream.applied(line[0].guest), [true, false, true], "once each, in order");
        }
    }
}

/// Waits until consuming has stopped for the outage.
async fn stopped(world: &World) {
    let detail = part_when(world, "amqp.consume", "degraded").await;
    assert!(detail.contains("suspended") && detail.contains("UPSTREAM_PAUSED"), "{detail}");
}

/// Asserts that none of them was deferred without having been sent.
async fn none_put_off(client: &Client, commands: &[Sent]) {
    for sent in commands {
        if let Some(command) = command(client, &sent.organization, &sent.key).await {
            let is_put_off = command.state() == CommandState::Deferred && command.attempts == 0;
            assert!(!is_put_off, "{command:?}");
        }
    }
}

/// Asserts that one event came of each command that succeeded, and of no other.
async fn one_event_each(world: &mut World, client: &Client, commands: &[Sent]) {
    let mut done = Vec::new();
    for sent in commands {
        let command = command_when(client, &sent.organization, &sent.key, is_final).await;
        done.extend((command.state() == CommandState::Succeeded).then(|| sent.key.clone()));
    }
    events_of(world, done).await;
    nothing_is_left(world).await;
    part_when(world, "upstream", "ready").await;
    part_when(world, "amqp.consume", "ready").await;
}

#[tokio::test]
async fn messages_wait_in_the_queue_while_the_api_answers_503_and_are_done_after_it() {
    let mut world = start(2, "").await;
    let organizations = world.upstream.organizations.clone();
    let client = world.client().await;
    world.upstream.simulator.script(Rule::patch().status(503));
    // What brought the outage to light is deferred, and tried again in its course.
    let first: Vec<_> = organizations
        .iter()
        .enumerate()
        .flat_map(|(number, of)| Sent::many(of, &format!("first-{number}"), 3))
        .collect();
    publish(&world, &first).await;
    part_when(&world, "upstream", "degraded").await;
    let opened = patches(&world.upstream.simulator.journal()).len();

    let waiting = Waiting::new(&organizations);
    let all = waiting.all();
    publish(&world, &all).await;
    stopped(&world).await;
    let queue = &world.names.commands;
    let count = u32::try_from(all.len()).unwrap();
    // Those that are under way go back too.
    world.broker.depth_when(queue, |depth| depth >= count).await;
    journal_when(&world, |journal| patches(journal).len() >= opened + 8).await;
    none_put_off(&client, &all).await;
    assert_eq!(world.broker.depth(&world.names.dead_letters).await, 0);
    let body = world.adapter.readiness(|status, _| status == 200).await;
    assert_eq!(body["parts"]["upstream"]["status"], "degraded", "{body}");

    world.upstream.simulator.clear_faults();
    let tried = patches(&world.upstream.simulator.journal());
    assert_eq!(most_at_once(&tried[opened..]), 1, "one tries at a time");
    // Those that wait had no part in it.
    let is_waiting = |guest| all.iter().any(|sent| Some(sent.guest) == guest);
    assert_eq!(tried.iter().filter(|entry| is_waiting(entry.guest)).count(), 0);
    waiting.is_done(&world, &client).await;
    let all: Vec<_> = first.iter().chain(&all).cloned().collect();
    one_event_each(&mut world, &client, &all).await;
    world.end().await;
}

#[tokio::test]
async fn messages_wait_in_the_queue_while_connections_are_refused_and_are_done_after_it() {
    let mut world = start(2, "").await;
    let organizations = world.upstream.organizations.clone();
    let client = world.client().await;
    // The tokens are there before the API goes.
    for organization in &organizations {
        call(&client, organization, Uuid::new_v4(), "before").await.unwrap();
        world.events.next().await;
    }
    let before = patches(&world.upstream.simulator.journal()).len();
    world.upstream.simulator.pause_listening().await.unwrap();
    let (key, refusal) = refused_for(&client, &organizations, "UPSTREAM_PAUSED").await;
    is_told(&refusal, Code::Unavailable, "UPSTREAM_PAUSED");
    assert_eq!(command(&client, &organizations[0], &key).await, None);

    let waiting = Waiting::new(&organizations);
    let all = waiting.all();
    publish(&world, &all).await;
    stopped(&world).await;
    // Nothing that was deferred can try, so now and then one of these does; the others go back.
    world.broker.depth_when(&world.names.commands, |depth| depth >= 40).await;
    none_put_off(&client, &all).await;
    assert_eq!(world.broker.depth(&world.names.dead_letters).await, 0);

    world.upstream.simulator.resume_listening().await.unwrap();
    waiting.is_done(&world, &client).await;
    one_event_each(&mut world, &client, &all).await;
    let sent = patches(&world.upstream.simulator.journal()).len() - before;
    assert!(sent <= all.len(), "{sent} PATCHes of {} commands", all.len());
    world.end().await;
}

#[tokio::test]
async fn an_outage_in_which_there_is_no_token_is_one_like_others_and_ends_with_it() {
    // What a try waits for is the API, and not the end of a rest after failed token requests.
    let rest = "upstream.token_delay_base = \"4m\"\nupstream.token_delay_max = \"4m\"\n";
    let mut world = start(1, rest).await;
    let organizations = world.upstream.organizations.clone();
    let client = world.client().await;
    world.upstream.simulator.pause_listening().await.unwrap();
    let (key, refusal) = refused_for(&client, &organizations, "UPSTREAM_PAUSED").await;
    is_told(&refusal, Code::Unavailable, "UPSTREAM_PAUSED");
    assert_eq!(command(&client, &organizations[0], &key).await, None);

    let sent = Sent::many(&organizations[0], "waiting", 40);
    publish(&world, &sent).await;
    stopped(&world).await;
    // One now and then tries.
    world.broker.depth_when(&world.names.commands, |depth| depth >= 35).await;
    world.upstream.simulator.resume_listening().await.unwrap();
    succeeded(&client, &sent, None).await;
    events_of(&mut world, keys(&sent)).await;
    nothing_is_left(&world).await;
    world.end().await;
}

#[tokio::test]
async fn an_outage_that_goes_on_for_one_ends_for_the_others() {
    let mut world = start(3, "").await;
    let organizations = world.upstream.organizations.clone();
    let [broken, others @ ..] = organizations.as_slice() else { panic!("three organisations") };
    let client = world.client().await;
    world.upstream.simulator.script(Rule::patch().status(503));
    // Those of the one that is not served any more come first wherever commands wait: in the store,
    let mut theirs = Sent::many(broken, "first", 6);
    publish(&world, &theirs).await;
    let of_others = |tag: &'static str, count| {
        others
            .iter()
            .enumerate()
            .flat_map(move |(number, of)| Sent::many(of, &format!("{tag}-{number}"), count))
    };
    let mut expected: Vec<_> = of_others("deferred", 6).collect();
    publish(&world, &expected).await;
    part_when(&world, "upstream", "degraded").await;
    // and in the queue.
    theirs.extend(Sent::many(broken, "head", 40));
    publish(&world, &theirs[6..]).await;
    expected.extend(of_others("tail", 20));
    publish(&world, &expected[12..]).await;
    stopped(&world).await;

    world.upstream.simulator.clear_faults();
    world.upstream.simulator.script(Rule::patch().requester(broken.id).status(500));
    succeeded(&client, &expected, None).await;
    assert!(theirs.iter().all(|sent| world.upstream.applied(sent.guest).is_empty()));
    world.upstream.simulator.clear_faults();
    let all: Vec<_> = theirs.into_iter().chain(expected).collect();
    succeeded(&client, &all, None).await;
    events_of(&mut world, keys(&all)).await;
    nothing_is_left(&world).await;
    world.end().await;
}
