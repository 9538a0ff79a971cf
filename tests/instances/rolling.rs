//! Instances are replaced one by one, under load, and nobody notices.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use guest_connection_adapter::proto::guest_connection_service_client::GuestConnectionServiceClient;
use harness::Adapter;
use simulator::Rule;
use tokio::sync::watch;
use tonic::transport::Channel;
use uuid::Uuid;

use crate::cluster::{Cluster, events, in_order};

type Clients = Vec<(std::net::SocketAddr, GuestConnectionServiceClient<Channel>)>;

/// What a load balancer does: calls go to those that are ready.
struct Balancer {
    ready: watch::Sender<Clients>,
    next: AtomicUsize,
}

impl Balancer {
    async fn of(adapters: &[&Adapter]) -> Arc<Self> {
        let balancer = Arc::new(Self { ready: watch::Sender::default(), next: AtomicUsize::new(0) });
        for adapter in adapters {
            balancer.add(adapter).await;
        }
        balancer
    }

    /// Takes one in, and out again as soon as it is not ready any more.
    async fn add(self: &Arc<Self>, adapter: &Adapter) {
        let (grpc, admin, client) = (adapter.grpc, adapter.admin, adapter.client().await);
        self.ready.send_modify(|ready| ready.push((grpc, client)));
        let balancer = Arc::clone(self);
        tokio::spawn(async move {
            while matches!(harness::http::get(admin, "/readyz").await, Some((200, _))) {
                harness::look_again().await;
            }
            balancer.ready.send_modify(|ready| ready.retain(|(address, _)| *address != grpc));
        });
    }

    fn pick(&self) -> GuestConnectionServiceClient<Channel> {
        let ready = self.ready.borrow();
        ready[self.next.fetch_add(1, Ordering::Relaxed) % ready.len()].1.clone()
    }
}

#[tokio::test]
async fn a_rolling_restart_fails_no_call_and_loses_no_message() {
    const CALLERS: usize = 6;
    const MESSAGES: usize = 150;
    let mut cluster = Cluster::start(3, "shutdown.notice = \"500ms\"").await;
    cluster.world.upstream.simulator.script(Rule::patch().delay(Duration::from_millis(25)));
    let adapters: Vec<&Adapter> = std::iter::once(&cluster.world.adapter).chain(&cluster.others).collect();
    let balancer = Balancer::of(&adapters).await;
    let is_over = Arc::new(AtomicBool::new(false));
    let requester = cluster.world.upstream.organizations[0].clone();
    let calling: Vec<_> = (0..CALLERS)
        .map(|_| {
            let (balancer, is_over, requester) =
                (Arc::clone(&balancer), Arc::clone(&is_over), requester.clone());
            tokio::spawn(async move {
                let (mut served, guest) = (0, Uuid::new_v4());
                while !is_over.load(Ordering::Relaxed) {
                    let call = requester.archive(guest, &format!("{guest}-{served}"));
                    balancer.pick().archive_guest_connection(call).await.expect("no call fails");
                    served += 1;
                }
                served
            })
        })
        .collect();
    for number in 0..MESSAGES {
        let (guest, key) = (Uuid::new_v4(), format!("message-{number}"));
        cluster.world.send(guest, &cluster.world.upstream.message(guest, true, &key)).await;
        if number % (MESSAGES / 3) == 0 {
            // The oldest goes, a new one comes.
            let new = cluster.world.setup.start_ready().await;
            balancer.add(&new).await;
            let old = std::mem::replace(&mut cluster.world.adapter, cluster.others.remove(0));
            cluster.others.push(new);
            let (status, log) = old.terminate().await;
            assert!(status.success(), "{}", log.join("\n"));
        }
    }
    cluster.divided(3).await;
    is_over.store(true, Ordering::Relaxed);
    let mut served = 0;
    for calls in calling {
        served += calls.await.unwrap();
    }
    assert!(served > CALLERS * 3, "{served}");
    let events = events(&mut cluster.world, served + MESSAGES).await;
    let last = in_order(&events);
    assert_eq!(last.values().sum::<u64>(), u64::try_from(served + MESSAGES).unwrap());
    assert_eq!(cluster.world.broker.depth(&cluster.world.names.dead_letters).await, 0);
    assert!(cluster.world.upstream.simulator.violations().is_empty());
    cluster.end().await;
}

#[tokio::test]
async fn one_that_ends_leaves_its_line_to_the_others_at_once() {
    const MESSAGES: usize = 40;
    let mut cluster = Cluster::start(2, "amqp.partitions = 2\nshutdown.drain_timeout = \"6s\"").await;
    let (world, guest) = (&cluster.world, Uuid::new_v4());
    world.upstream.simulator.script(Rule::patch().delay(Duration::from_millis(150)));
    for number in 0..MESSAGES {
        world.send(guest, &world.upstream.message(guest, number % 2 == 0, &format!("key-{number}"))).await;
    }
    let some = |entries: &[simulator::Entry]| entries.iter().filter(|entry| entry.applied).count() >= 3;
    world.upstream.simulator.wait_for(some, harness::DEADLINE).await.unwrap();
    // Whichever of them has the line: far more is left than one of them may take the time for.
    for _ in 0..2 {
        let new = cluster.world.setup.start_ready().await;
        let old = std::mem::replace(&mut cluster.world.adapter, cluster.others.remove(0));
        cluster.others.push(new);
        let (status, log) = old.terminate().await;
        assert!(status.success(), "{}", log.join("\n"));
    }
    // Without a word it would stand still for `store.lease`, which is longer than this waits for an event.
    let events = events(&mut cluster.world, MESSAGES).await;
    assert_eq!(in_order(&events).len(), 1);
    let wanted: Vec<bool> = (0..MESSAGES).map(|number| number % 2 == 0).collect();
    assert_eq!(cluster.world.upstream.applied(guest), wanted, "and in order");
    cluster.end().await;
}
