//! What programs that measure share: load, rates, and processor time.

#![allow(clippy::cast_precision_loss, reason = "figures")]

use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use lapin::BasicProperties;
use simulator::Entry;
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::{Adapter, Organization, Upstream};

/// The fields of `/proc/PID/stat` after the name: 1 is the parent, 11 to 14 are the times of the process and of children that
/// have ended.
fn stat(pid: &str) -> Option<Vec<u64>> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = text.rsplit_once(") ")?;
    Some(fields.split(' ').map(|field| field.parse().unwrap_or(0)).collect())
}

/// Processor time of a process so far, in clock ticks of 10 ms.
#[must_use]
pub fn ticks_of(pid: &str) -> u64 {
    stat(pid).map_or(0, |fields| fields[11..15].iter().sum())
}

/// The same of a process and those that it has started.
#[must_use]
pub fn ticks_of_family(pid: &str) -> u64 {
    let parent: u64 = pid.parse().unwrap_or(0);
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let children = entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| {
        name.bytes().all(|byte| byte.is_ascii_digit())
            && stat(name).is_some_and(|fields| fields.get(1) == Some(&parent))
    });
    ticks_of(pid) + children.map(|child| ticks_of(&child)).sum::<u64>()
}

/// A percentile of sorted times, in microseconds.
#[must_use]
pub fn percentile(times: &[Duration], percent: usize) -> u128 {
    times.get((times.len() * percent).div_ceil(100).saturating_sub(1)).map_or(0, Duration::as_micros)
}

/// Messages for the queue of commands: `count` of them, for `guests` connections, archived and unarchived in turn.
#[must_use]
pub fn backlog(upstream: &Upstream, count: usize, guests: usize) -> Vec<(String, BasicProperties, Vec<u8>)> {
    let guests: Vec<Uuid> = (0..guests).map(|_| Uuid::new_v4()).collect();
    let message = |number: usize| {
        let guest = guests[number % guests.len()];
        let body =
            upstream.message(guest, number.is_multiple_of(2), &format!("{guest}-{number}")).to_string();
        (guest.to_string(), BasicProperties::default().with_delivery_mode(2), body.into_bytes())
    };
    (0..count).map(message).collect()
}

/// PATCHes in a second, from the first one to the last answer.
#[must_use]
pub fn rate(journal: &[Entry]) -> Option<f64> {
    let patches: Vec<_> = journal.iter().filter(|entry| entry.guest.is_some()).collect();
    let first = patches.iter().map(|entry| entry.received_at).min()?;
    let last = patches.iter().filter_map(|entry| entry.status_at).max()?;
    Some(patches.len() as f64 / (last - first).as_seconds_f64())
}

/// Has `callers` call `adapters` one call after another until that time, each for a connection of its own. Yields the times of
/// all calls, sorted.
///
/// # Errors
/// A call failed.
pub async fn call(
    adapters: &[Adapter],
    organization: &Organization,
    callers: usize,
    until: Instant,
) -> Result<Vec<Duration>, Box<dyn Error>> {
    let mut tasks = JoinSet::new();
    for caller in 0..callers {
        let mut client = adapters[caller % adapters.len()].client().await;
        let organization = organization.clone();
        tasks.spawn(async move {
            let mut times = Vec::new();
            while Instant::now() < until {
                let (guest, began) = (Uuid::new_v4(), Instant::now());
                client.archive_guest_connection(organization.archive(guest, &guest.to_string())).await?;
                times.push(began.elapsed());
            }
            Ok::<_, tonic::Status>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(ended) = tasks.join_next().await {
        times.extend(ended??);
    }
    times.sort();
    Ok(times)
}
