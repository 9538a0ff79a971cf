//! The server crashes under a load of commands, and comes back by its log: nothing is lost, and nothing done twice but what may
//! be.

use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::future::join_all;
use harness::{DEADLINE, Server, World, look_again};
use tokio::time::timeout;
use uuid::Uuid;

use crate::support::{PREFETCH, call, is_for_a_time, key_of, world};

/// How often it crashes.
const CRASHES: usize = 3;

/// Callers at once, each of which makes one call after another.
const CALLERS: usize = 8;

/// Commands that are done between two crashes, at least.
const BETWEEN: usize = 60;

/// What the load is told, and tells.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    done: AtomicUsize,
    refused: AtomicUsize,
}

/// Calls, each with a guest of its own, and each repeated under its key until it is answered. Yields what was asked for.
async fn calls(world: &World, load: &Load, caller: usize) -> Vec<(String, Uuid)> {
    let (mut client, mut asked) = (world.client().await, Vec::new());
    while !load.is_over.load(Ordering::SeqCst) {
        let (key, guest) = (format!("called-{caller}-{}", asked.len()), Uuid::new_v4());
        asked.push((key.clone(), guest));
        loop {
            match call(&mut client, world, guest, &key).await {
                Ok(_) => break,
                Err(status) => is_for_a_time(&status),
            }
            load.refused.fetch_add(1, Ordering::SeqCst);
            look_again().await;
        }
        load.done.fetch_add(1, Ordering::SeqCst);
    }
    asked
}

/// Messages, one after another, with a guest of its own each.
async fn messages(world: &World, load: &Load) -> Vec<(String, Uuid)> {
    let mut asked = Vec::new();
    while !load.is_over.load(Ordering::SeqCst) {
        let (key, guest) = (format!("sent-{}", asked.len()), Uuid::new_v4());
        world.send(guest, &world.upstream.message(guest, true, &key)).await;
        asked.push((key, guest));
        look_again().await;
    }
    asked
}

/// Waits until so many more calls are done.
async fn progress(load: &Load) {
    let wanted = load.done.load(Ordering::SeqCst) + BETWEEN;
    let reached = async {
        while load.done.load(Ordering::SeqCst) < wanted {
            look_again().await;
        }
    };
    timeout(DEADLINE, reached).await.expect("calls are served");
}

async fn crashes(world: &World, server: &mut Server, load: &Load) {
    progress(load).await;
    for _ in 0..CRASHES {
        let refused = load.refused.load(Ordering::SeqCst);
        server.crash().await;
        let noticed = async {
            while load.refused.load(Ordering::SeqCst) == refused {
                look_again().await;
            }
        };
        timeout(DEADLINE, noticed).await.expect("calls are refused meanwhile");
        server.up().await;
        world.adapter.ready().await;
        progress(load).await;
    }
    load.is_over.store(true, Ordering::SeqCst);
}

#[tokio::test]
async fn every_command_is_done_once_though_the_server_crashes_time_and_again() {
    let mut server = Server::start().await;
    let database = server.database().await;
    let mut world = world(&database).await;
    let (pid, load) = (world.adapter.pid(), Load::default());
    let callers = join_all((0..CALLERS).map(|caller| calls(&world, &load, caller)));
    let (called, sent, ()) =
        tokio::join!(callers, messages(&world, &load), crashes(&world, &mut server, &load));
    assert_eq!(world.adapter.pid(), pid);

    let asked: BTreeMap<String, Uuid> = called.into_iter().flatten().chain(sent).collect();
    let (mut ids, mut told) = (HashSet::new(), HashSet::new());
    // An event may come again, under its id.
    while told.len() < asked.len() {
        let event = world.events.next().await.json();
        if ids.insert(event["id"].as_str().unwrap().to_owned()) {
            assert_eq!(event["sequence"], format!("{:020}", 1), "{event}");
            assert!(told.insert(key_of(&event)), "{event}: another event of one command");
        }
    }
    assert!(asked.keys().all(|key| told.contains(key)));
    let mut repeated = 0;
    for (key, guest) in &asked {
        let applied = world.upstream.applied(*guest);
        assert!(!applied.is_empty() && applied.iter().all(|archived| *archived), "{key}: {applied:?}");
        repeated += applied.len() - 1;
        let command = world.upstream.command(&world.adapter, key).await.unwrap();
        assert!(command.finish_time.is_some(), "{key}: {command:?}");
    }
    // Only what was under way at a crash may have been sent again.
    assert!(repeated <= CRASHES * (CALLERS + PREFETCH), "{repeated} of {} were repeated", asked.len());
    world.broker.depth_when(&world.names.commands, |depth| depth == 0).await;
    world.end().await;
}
