//! A batch of changes is two round trips.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use futures::future::join_all;
use guest_connection_adapter::domain::lifecycle::Finish;
use guest_connection_adapter::service::ports::{Accepted, Begun, Store};
use guest_connection_adapter::store::postgres::PostgresStore;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use super::{PostgresHarness, settings_at};
use crate::conformance::world::{RETENTION, TERMS, World, applied, wish};

/// Passes connections on, and counts how often a client has spoken after it was answered.
async fn counting(server: SocketAddr) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (address, trips) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&trips);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let server = TcpStream::connect(server).await.unwrap();
            tokio::spawn(carry(client, server, Arc::clone(&counter)));
        }
    });
    (address, trips)
}

async fn carry(client: TcpStream, server: TcpStream, trips: Arc<AtomicUsize>) {
    let is_answered = AtomicBool::new(true);
    let (mut client_in, mut client_out) = client.into_split();
    let (mut server_in, mut server_out) = server.into_split();
    let there = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = client_in.read(&mut buffer).await {
            let is_trip = is_answered.swap(false, Ordering::SeqCst);
            trips.fetch_add(usize::from(is_trip), Ordering::SeqCst);
            server_out.write_all(&buffer[..length]).await.unwrap();
        }
    };
    let back = async {
        let mut buffer = vec![0; 64 * 1024];
        while let Ok(length @ 1..) = server_in.read(&mut buffer).await {
            is_answered.store(true, Ordering::SeqCst);
            client_out.write_all(&buffer[..length]).await.unwrap();
        }
    };
    tokio::select! { () = there => {}, () = back => {} }
}

/// Accepts a few commands as one batch, and ends them as another. Yields how many trips each of them took.
async fn batches(store: &Arc<dyn Store>, trips: &AtomicUsize, round: u128) -> [usize; 2] {
    let begun = trips.load(Ordering::SeqCst);
    let asked = (1..=3).map(|guest| {
        let key = format!("key-{round}-{guest}");
        store.accept(wish(10 * round + guest, &key).acceptance(), Some(Uuid::now_v7()))
    });
    let mut finishes = Vec::new();
    for accepted in join_all(asked).await {
        let Ok(Accepted::Fresh(_, Some(Begun::Claimed(record)))) = accepted else { panic!("{accepted:?}") };
        finishes.push(Finish { id: record.id, epoch: record.epoch, ..applied() });
    }
    let accepted = trips.load(Ordering::SeqCst);
    for finished in join_all(finishes.into_iter().map(|finish| store.finish(finish))).await {
        finished.unwrap();
    }
    [accepted - begun, trips.load(Ordering::SeqCst) - accepted]
}

#[tokio::test]
async fn a_batch_is_two_round_trips() {
    let world = World::new(PostgresHarness::new().await);
    let database = &world.harness.database;
    world.harness.postgres().close().await.unwrap();
    let (address, trips) = counting(database.address()).await;
    let settings = settings_at(&database.url_at(address), Duration::from_secs(10));
    let clock = Arc::clone(&world.harness.clock) as _;
    let store: Arc<dyn Store> =
        Arc::new(PostgresStore::open(settings, TERMS, RETENTION, clock).await.unwrap());
    // The first ones prepare the statements.
    batches(&store, &trips, 1).await;
    assert_eq!(batches(&store, &trips, 2).await, [2, 2]);
    store.close().await.unwrap();
}
