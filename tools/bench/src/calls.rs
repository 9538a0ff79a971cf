//! Calls: so many at once, or so many in a second.

use std::time::{Duration, Instant};

use guest_connection_adapter::proto::guest_connection_service_client::GuestConnectionServiceClient;
use harness::Organization;
use hdrhistogram::Histogram;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, sleep};
use tonic::Code;
use tonic::transport::Channel;
use uuid::Uuid;

use crate::Outcome;

type Client = GuestConnectionServiceClient<Channel>;

/// Connections that calls are spread over.
const CONNECTIONS: usize = 4;

/// How long a call may take: one that is not answered is a failure, not a measurement that stands still.
const PATIENCE: Duration = Duration::from_secs(30);

/// How long a caller waits that was refused.
const REFUSED: Duration = Duration::from_millis(5);

/// For which connection a caller calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    /// Every call for one of its own.
    Anew,
    /// The same call again and again.
    Same,
    /// New calls, all for this one.
    Only(Uuid),
}

/// The time of calls, in microseconds: up to a minute, to three digits.
pub fn times() -> Outcome<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 60_000_000, 3)?)
}

/// Clients on connections of their own.
pub async fn clients(address: &str) -> Outcome<Vec<Client>> {
    let mut clients = Vec::new();
    for _ in 0..CONNECTIONS {
        let endpoint = Channel::from_shared(address.to_owned())?.tcp_nodelay(true).timeout(PATIENCE);
        let channel = endpoint.connect().await?;
        clients.push(Client::new(channel));
    }
    Ok(clients)
}

/// Calls until it is not refused for being one too many, which then tells in its time.
async fn call(client: &mut Client, organization: &Organization, guest: Uuid, key: Uuid) -> Outcome {
    let until = Instant::now() + PATIENCE;
    loop {
        match client.archive_guest_connection(organization.archive(guest, &key.to_string())).await {
            Ok(_) => return Ok(()),
            Err(status) if status.code() == Code::ResourceExhausted && Instant::now() < until => {
                sleep(REFUSED).await;
            }
            Err(status) => return Err(status.into()),
        }
    }
}

/// Keeps `count` calls under way for `length`. Yields their times.
pub async fn at_once(
    clients: &[Client],
    organization: &Organization,
    count: usize,
    whom: Whom,
    length: Duration,
) -> Outcome<Histogram<u64>> {
    let mut tasks = JoinSet::new();
    let until = Instant::now() + length;
    for caller in 0..count {
        let (mut client, organization) = (clients[caller % clients.len()].clone(), organization.clone());
        tasks.spawn(async move {
            let (mut times, mut key) = (self::times()?, Uuid::new_v4());
            while Instant::now() < until {
                if whom != Whom::Same {
                    key = Uuid::new_v4();
                }
                let guest = if let Whom::Only(guest) = whom { guest } else { key };
                let began = Instant::now();
                call(&mut client, &organization, guest, key).await?;
                times.saturating_record(began.elapsed().as_micros() as u64);
            }
            Outcome::Ok(times)
        });
    }
    let mut all = times()?;
    while let Some(ended) = tasks.join_next().await {
        all.add(ended??)?;
    }
    Ok(all)
}

/// Calls `rate` times in a second for `length`, whether or not those before are answered. A call's time counts from when it
/// was due, so that one that holds up others tells in all of them.
pub async fn at_rate(
    clients: &[Client],
    organization: &Organization,
    rate: u32,
    length: Duration,
) -> Outcome<Histogram<u64>> {
    let step = Duration::from_millis(1).max(Duration::from_secs(1) / rate);
    let mut ticks = interval(step);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let began = Instant::now();
    let count = (f64::from(rate) * length.as_secs_f64()) as u32;
    let (mut tasks, mut all, mut sent) = (JoinSet::new(), times()?, 0);
    while sent < count {
        ticks.tick().await;
        while sent < count && Duration::from_secs(1) * sent / rate <= began.elapsed() {
            let due = began + Duration::from_secs(1) * sent / rate;
            let mut client = clients[sent as usize % clients.len()].clone();
            let organization = organization.clone();
            tasks.spawn(async move {
                let guest = Uuid::new_v4();
                call(&mut client, &organization, guest, guest).await?;
                Outcome::Ok(due.elapsed())
            });
            sent += 1;
        }
        while let Some(ended) = tasks.try_join_next() {
            all.saturating_record(ended??.as_micros() as u64);
        }
    }
    while let Some(ended) = tasks.join_next().await {
        all.saturating_record(ended??.as_micros() as u64);
    }
    Ok(all)
}
