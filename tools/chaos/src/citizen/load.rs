//! An open load: so many commands a second by each door, whatever becomes of the earlier ones.

use std::sync::Arc;
use std::time::Duration;

use chrono::Utc;
use futures::future::join_all;
use harness::Organization;
use lapin::BasicProperties;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tonic::{Request, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use super::rig::Loader;
use crate::history::{Door, Time};

/// How long a caller waits.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Messages published before their confirms are waited for.
const CHUNK: usize = 1_000;

/// So many commands a second of an organisation by a door.
#[derive(Debug, Clone, Copy)]
pub struct Rate {
    /// The organisation, by its number.
    pub organization: usize,
    /// The door.
    pub door: Door,
    /// Commands per second.
    pub per_second: f64,
}

/// A command that was offered.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The organisation, by its number.
    pub organization: usize,
    /// The door.
    pub door: Door,
    /// Its key.
    pub key: String,
    /// When it was sent.
    pub at: Time,
    /// When the answer or the broker's confirm came.
    pub answered: Time,
    /// What that was.
    pub outcome: Outcome,
}

/// What its sender heard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Success, or the broker's confirm.
    Done,
    /// A refusal.
    Refused {
        /// The gRPC code, the reason and the beginning of the message.
        code: String,
        /// Whether it says when to come again.
        retry_info: bool,
    },
}

impl Offer {
    /// Seconds from sending to answer.
    #[must_use]
    pub fn seconds(&self) -> f64 {
        seconds(self.at, self.answered)
    }

    /// Whether the caller heard of success.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.outcome == Outcome::Done
    }
}

/// Seconds between two points in time.
#[must_use]
pub fn seconds(from: Time, until: Time) -> f64 {
    (until - from).to_std().unwrap_or_default().as_secs_f64()
}

/// Offers commands for a time, each for a connection of its own, and waits for all answers. Keys begin with `tag`.
pub async fn offer(loader: &Arc<Loader>, tag: &str, rates: &[Rate], duration: Duration) -> Vec<Offer> {
    let started = Instant::now();
    let streams = rates.iter().map(|rate| one(loader, tag, *rate, started, duration));
    join_all(streams).await.concat()
}

async fn one(
    loader: &Arc<Loader>,
    tag: &str,
    rate: Rate,
    started: Instant,
    duration: Duration,
) -> Vec<Offer> {
    let mut under_way = JoinSet::new();
    let interval = Duration::from_secs_f64(1.0 / rate.per_second);
    // No two of them at the same moment, as far as that goes.
    let mut due = started + interval.mul_f64(rand::random());
    for number in 0_usize.. {
        if due >= started + duration {
            break;
        }
        sleep_until(due).await;
        due += interval;
        let (loader, key) =
            (Arc::clone(loader), format!("{tag}-{}-{:?}-{number}", rate.organization, rate.door));
        under_way.spawn(async move { send(&loader, rate, key).await });
    }
    under_way.join_all().await
}

async fn send(loader: &Loader, rate: Rate, key: String) -> Offer {
    let (organization, guest, at) = (&loader.organizations[rate.organization], Uuid::new_v4(), Utc::now());
    let outcome = match rate.door {
        Door::Amqp => {
            let (routing_key, properties, body) = message(organization, guest, &key);
            loader.broker.publish(&loader.names, &routing_key, properties, &body).await;
            Outcome::Done
        }
        Door::Grpc => {
            let mut request = Request::new(organization.archive(guest, &key));
            request.set_timeout(CALL_TIMEOUT);
            match loader.client.clone().archive_guest_connection(request).await {
                Ok(_) => Outcome::Done,
                Err(status) => refused(&status),
            }
        }
    };
    Offer { organization: rate.organization, door: rate.door, key, at, answered: Utc::now(), outcome }
}

fn refused(status: &Status) -> Outcome {
    let reason = status.get_details_error_info().map(|info| info.reason).unwrap_or_default();
    // What follows names the command.
    let message = status.message().split([';', '(']).next().unwrap_or_default().trim_end();
    let code = format!("{:?} {reason}: {message}", status.code());
    Outcome::Refused { code, retry_info: status.get_details_retry_info().is_some() }
}

fn message(organization: &Organization, guest: Uuid, key: &str) -> (String, BasicProperties, Vec<u8>) {
    let properties =
        BasicProperties::default().with_content_type("application/json".into()).with_delivery_mode(2);
    (guest.to_string(), properties, organization.message(guest, true, key).to_string().into_bytes())
}

/// Puts `count` messages into the queue at once, by turns for the organisations given, each for a connection of its own.
pub async fn pile_up(loader: &Loader, tag: &str, organizations: &[usize], count: usize) {
    let mut left = Vec::with_capacity(CHUNK);
    for number in 0..count {
        let organization = organizations[number % organizations.len()];
        let key = format!("{tag}-{number}");
        left.push(message(&loader.organizations[organization], Uuid::new_v4(), &key));
        if left.len() == CHUNK || number + 1 == count {
            loader.broker.publish_all(&loader.names, std::mem::take(&mut left)).await;
        }
    }
}
