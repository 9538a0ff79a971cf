//! A long random mix of everything, with the books and the rules checked at each step.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::TimeDelta;
use guest_connection_adapter::domain::command::OrganizationId;
use guest_connection_adapter::domain::connection::{Connection, Version};
use guest_connection_adapter::domain::error::{Reason, Refusal};
use guest_connection_adapter::domain::lifecycle::{Acceptance, Finish, PutOff};
use guest_connection_adapter::domain::message::Message;
use guest_connection_adapter::domain::record::{CommandRecord, State};
use guest_connection_adapter::service::ports::{Accepted, Begun, Finished, PutOffAnswer};
use guest_connection_adapter::service::tenure::Slots;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use uuid::Uuid;

use super::world::*;

const STEPS: usize = 2_000;
const SEED: u64 = 20_260_102;
const GUESTS: u128 = 4;

/// What the walk knows of its own doing.
#[derive(Default)]
struct Walk {
    /// Claims given and not ended, the lost ones too.
    claims: Vec<CommandRecord>,
    known: Vec<CommandRecord>,
    sequences: HashMap<Connection, u64>,
    applied: HashMap<Connection, Version>,
    outbox_after: i64,
}

pub async fn a_random_walk_keeps_the_books_and_the_rules<H: Harness>(mut world: World<H>) {
    let mut random = StdRng::seed_from_u64(SEED);
    let mut walk = Walk::default();
    for step in 0..STEPS {
        match random.random_range(0..100) {
            0..26 => accept(&world, &mut walk, &mut random).await,
            26..30 => put_off(&world, &mut random).await,
            30..50 => begin_due(&world, &mut walk).await,
            50..80 => finish(&world, &mut walk, &mut random).await,
            80..90 => confirm(&world, &mut random).await,
            90..97 => world.advance(TimeDelta::milliseconds(random.random_range(1..20_000))),
            97 => world.advance(TimeDelta::milliseconds(-random.random_range(1..500))),
            98 => drop(world.store().purge(10).await.unwrap()),
            _ if step % 5 == 0 => world.harness.reopen().await,
            _ => world.advance(TERMS.lease),
        }
        world.check_books().await;
        check_new_messages(&world, &mut walk).await;
    }
    settle_everything(&world, &mut walk).await;
    let books = world.check_books().await;
    for open in [State::Accepted, State::InFlight, State::Deferred] {
        assert_eq!(count(&books, open), 0, "{books:?}");
    }
    assert_eq!(books.outbox_pending, 0);
    assert!(count(&books, State::Succeeded) > 50, "{books:?}");
    assert!(count(&books, State::Superseded) > 0, "{books:?}");
}

async fn accept<H: Harness>(world: &World<H>, walk: &mut Walk, random: &mut StdRng) {
    // Few keys, so that some are repeated.
    let guest = random.random_range(0..GUESTS);
    let mut wish = wish(guest, &format!("{guest}-{}", random.random_range(0..400)));
    wish.archived = random.random_range(0..10) > 0;
    if random.random() {
        wish = wish.by_amqp().reply_to("replies");
    }
    if random.random_range(0..4) == 0 {
        wish = wish.issued(world.now() - TimeDelta::seconds(random.random_range(-5..20)));
    }
    let claim = random.random::<bool>().then(Uuid::now_v7);
    let put_off = (random.random_range(0..8) == 0).then(|| pause(random));
    let request = Acceptance { put_off, ..wish.acceptance() };
    match world.store().accept(request, claim).await.unwrap() {
        Accepted::Fresh(record, begun) => {
            walk.known.push(record);
            if let Some(Begun::Claimed(record)) = begun {
                walk.claims.push(record);
            }
        }
        Accepted::InProgress(record) => assert!(!record.state.is_final()),
        Accepted::Replayed(record) => assert!(record.state.is_replayed()),
        Accepted::Conflict => {}
    }
}

fn pause(random: &mut StdRng) -> PutOff {
    let delay = Duration::from_secs(random.random_range(0..60));
    let refusal = Refusal::new(Reason::UpstreamUnavailable, "paused");
    PutOff { delay, keeps_place: random.random(), refusal }
}

/// One or many, put off or resumed.
async fn put_off<H: Harness>(world: &World<H>, random: &mut StdRng) {
    let store = world.store();
    let requester = random.random::<bool>().then_some(OrganizationId(Uuid::from_u128(1)));
    match random.random_range(0..4) {
        0 => drop(store.put_off_due(requester, Duration::from_secs(20)).await.unwrap()),
        1 => drop(store.resume(requester).await.unwrap()),
        _ => {
            for due in store.due(<_>::default(), 3).await.unwrap() {
                let answer = store.put_off(due.id, Uuid::now_v7(), true, pause(random)).await.unwrap();
                assert!(!matches!(answer, PutOffAnswer::Unavailable(_)), "{answer:?}");
            }
        }
    }
}

async fn begin_due<H: Harness>(world: &World<H>, walk: &mut Walk) {
    for due in world.store().due(<_>::default(), 5).await.unwrap() {
        if let Begun::Claimed(record) = world.begin_quietly(due.id).await {
            assert_eq!(record.command.connection, due.connection);
            walk.claims.push(record);
        }
    }
}

async fn finish<H: Harness>(world: &World<H>, walk: &mut Walk, random: &mut StdRng) {
    if walk.claims.is_empty() {
        return;
    }
    let claim = walk.claims.swap_remove(random.random_range(0..walk.claims.len()));
    let ending = match random.random_range(0..10) {
        0..5 => applied(),
        5 => rejected(),
        6 => refused(),
        7 => broken(),
        8 => unreachable(),
        _ => unanswered(Duration::from_secs(random.random_range(0..10))),
    };
    let ending = Finish { id: claim.id, epoch: claim.epoch, caller_waits: random.random(), ..ending };
    if let Finished::Settled(record) = world.store().finish(ending).await.unwrap() {
        assert_eq!(record.epoch, claim.epoch);
        assert_ne!(record.state, State::InFlight);
    }
}

async fn confirm<H: Harness>(world: &World<H>, random: &mut StdRng) {
    let rows = world.store().outbox(0, random.random_range(1..40), Slots::ALL).await.unwrap();
    world.store().confirm(rows.iter().map(|row| row.number).collect()).await.unwrap();
}

/// Events of a connection have the next number each, and never tell of an older version.
async fn check_new_messages<H: Harness>(world: &World<H>, walk: &mut Walk) {
    let rows = world.store().outbox(0, 10_000, Slots::ALL).await.unwrap();
    let after = walk.outbox_after;
    for row in rows.into_iter().filter(|row| row.number > after) {
        walk.outbox_after = row.number;
        let Message::Event(event) = Arc::unwrap_or_clone(row.message) else { continue };
        let connection = event.command.command.connection;
        let last = walk.sequences.insert(connection, event.sequence).unwrap_or(0);
        assert_eq!(event.sequence, last + 1);
        let version = Version { effective_time: event.command.effective_time, command_id: event.command.id };
        if let Some(before) = walk.applied.insert(connection, version) {
            assert!(before <= version, "an older command took effect after a newer one");
        }
    }
}

/// Runs recovery until nothing is open, and the relay until nothing is pending.
async fn settle_everything<H: Harness>(world: &World<H>, walk: &mut Walk) {
    for round in 0.. {
        assert!(round < 2_000, "work does not end");
        let Some(due_time) = world.store().due_next().await.unwrap() else { break };
        world.advance((due_time - world.now()).max(TimeDelta::zero()));
        for due in world.store().due(<_>::default(), 100).await.unwrap() {
            if let Begun::Claimed(record) = world.begin_quietly(due.id).await {
                world.settle(&record, applied()).await;
            }
        }
        check_new_messages(world, walk).await;
    }
    for known in &walk.known {
        let record = world.command(known).await;
        assert_eq!((record.arrival, record.effective_time), (known.arrival, known.effective_time));
    }
    world.confirm_all().await;
}

impl<H: Harness> World<H> {
    async fn begin_quietly(&self, id: guest_connection_adapter::domain::command::CommandId) -> Begun {
        self.store().begin(id, Uuid::now_v7(), true).await.unwrap()
    }
}
