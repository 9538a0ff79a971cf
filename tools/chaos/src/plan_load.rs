//! The part of a plan that tells what is sent.

use std::time::Duration;

use rand::RngExt as _;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use serde_json::json;
use uuid::Uuid;

use crate::history::{Door, What};
use crate::plan::{Form, Garbage, Step, Wish};

/// Wishes in a second.
const RATE: u64 = 40;

/// Connections on which much happens.
const HOT: usize = 8;

/// Other connections, for each second of the run.
const COLD_PER_SECOND: u64 = 8;

/// How often two instances are called for the same thing at once.
const AT_ONCE: f64 = 0.12;

/// What is sent.
pub struct Load {
    /// The busy guests.
    pub hot: Vec<Uuid>,
    /// See [`crate::plan::Plan`].
    pub wishes: Vec<Wish>,
    /// See [`crate::plan::Plan`].
    pub garbage: Vec<Garbage>,
    /// See [`crate::plan::Plan`].
    pub steps: Vec<Step>,
}

/// A random id in UUID's form.
pub fn id(rng: &mut StdRng) -> Uuid {
    uuid::Builder::from_random_bytes(rng.random()).into_uuid()
}

fn ms(count: u64) -> Duration {
    Duration::from_millis(count)
}

/// The part of the load that grows.
struct Draft<'a> {
    rng: &'a mut StdRng,
    organizations: &'a [Uuid],
    instances: usize,
    cold: Vec<Uuid>,
    load: Load,
}

/// Draws up the load.
pub fn load(rng: &mut StdRng, duration: Duration, organizations: &[Uuid], instances: usize) -> Load {
    let hot = (0..HOT).map(|_| id(rng)).collect();
    let cold = (0..COLD_PER_SECOND * duration.as_secs().max(1)).map(|_| id(rng)).collect();
    let load = Load { hot, wishes: Vec::new(), garbage: Vec::new(), steps: Vec::new() };
    let mut draft = Draft { rng, organizations, instances, cold, load };
    let length = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    for _ in 0..RATE * duration.as_secs().max(1) {
        let at = ms(draft.rng.random_range(0..length));
        match draft.rng.random_range(0..100) {
            0..4 => draft.garbage(at),
            _ => draft.wish(at),
        }
    }
    let mut load = draft.load;
    load.steps.sort_by_key(|step| step.at);
    load
}

/// The organisation that a guest is of.
pub fn organization_of(guest: Uuid, organizations: &[Uuid]) -> Uuid {
    organizations[usize::from(guest.as_bytes()[0]) % organizations.len()]
}

impl Draft<'_> {
    /// The organisation that a guest is of, each time the same.
    fn of(&self, guest: Uuid) -> Uuid {
        organization_of(guest, self.organizations)
    }

    fn wish(&mut self, at: Duration) {
        let number = self.load.wishes.len();
        let guest = if self.rng.random_bool(0.4) {
            *self.load.hot.choose(self.rng).expect("some are hot")
        } else {
            *self.cold.choose(self.rng).expect("some are cold")
        };
        let now = i64::try_from(at.as_millis()).unwrap_or(i64::MAX);
        let (kind, issued_ms, expires_ms) = match self.rng.random_range(0..100) {
            0..8 => ("stale", Some(now - self.rng.random_range(1_000..60_000)), None),
            // The same few moments for all, so that some connections see one of them twice.
            8..15 => ("equal", Some(self.rng.random_range(0..3) - 10), None),
            15..20 => ("future", Some(now + 3_600_000), None),
            20..28 => ("issued", Some(now), None),
            28..33 => ("expiring", None, Some(now + self.rng.random_range(100..2_500))),
            33..35 => ("keyless", None, None),
            _ => ("plain", None, None),
        };
        let keyless = kind == "keyless";
        let wish = Wish {
            kind: kind.to_owned(),
            requester: self.of(guest),
            key: if keyless { String::new() } else { format!("key-{number}") },
            guest,
            archived: self.rng.random(),
            trace: id(self.rng).simple().to_string(),
            issued_ms,
            expires_ms,
        };
        self.load.wishes.push(wish);
        let what = What::Wish(number);
        if keyless {
            // A repeat of it would be another command.
            let step = Step { tries: 1, ..self.step(at, what, Door::Grpc) };
            return self.load.steps.push(step);
        }
        if self.instances > 1 && self.rng.random_bool(AT_ONCE) {
            self.send_to_two(at, what);
        } else {
            self.send(at, what);
        }
        while self.rng.random_bool(0.25) {
            let later = self.delay();
            self.send(at + later, what);
        }
        if self.rng.random_bool(0.06) {
            self.conflict(at, number);
        }
    }

    /// Another wish under the same key, at about the same time; it may even be the first to arrive.
    fn conflict(&mut self, at: Duration, number: usize) {
        let original = &self.load.wishes[number];
        let mut wish = Wish { kind: "conflict".to_owned(), issued_ms: None, ..original.clone() };
        if self.rng.random() {
            wish.archived = !wish.archived;
        } else {
            // The same key of another organisation would be another command.
            let own: Vec<Uuid> =
                self.cold.iter().copied().filter(|guest| self.of(*guest) == wish.requester).collect();
            wish.guest = own.choose(self.rng).copied().unwrap_or(wish.guest);
            if wish.guest == original.guest {
                wish.archived = !wish.archived;
            }
        }
        wish.trace = id(self.rng).simple().to_string();
        self.load.wishes.push(wish);
        let later = self.delay();
        self.send(at + later, What::Wish(self.load.wishes.len() - 1));
    }

    /// How much later a repeat comes: at once, soon, or when all may be over.
    fn delay(&mut self) -> Duration {
        match self.rng.random_range(0..3) {
            0 => Duration::ZERO,
            1 => ms(self.rng.random_range(1..100)),
            _ => ms(self.rng.random_range(500..4_000)),
        }
    }

    fn send(&mut self, at: Duration, what: What) {
        let door = if self.rng.random() { Door::Grpc } else { Door::Amqp };
        let step = self.step(at, what, door);
        self.load.steps.push(step);
    }

    /// Two instances are called with one key at the same moment.
    fn send_to_two(&mut self, at: Duration, what: What) {
        let first = self.step(at, what, Door::Grpc);
        let instance = (first.instance + 1) % self.instances;
        let second = Step { instance, ..self.step(at, what, Door::Grpc) };
        self.load.steps.extend([first, second]);
    }

    fn step(&mut self, at: Duration, what: What, door: Door) -> Step {
        let timeout = match self.rng.random_range(0..10) {
            0..2 => Some(ms(self.rng.random_range(60..400))),
            2..8 => Some(ms(self.rng.random_range(1_000..4_000))),
            _ => None,
        };
        let form = match self.rng.random_range(0..10) {
            0..2 => Form::Protobuf,
            2..4 => Form::CloudEvent,
            _ => Form::Json,
        };
        let wants_reply = door == Door::Amqp && self.rng.random_bool(0.4);
        let tries = self.rng.random_range(1..4);
        let instance = if self.instances > 1 { self.rng.random_range(0..self.instances) } else { 0 };
        Step { at, what, door, instance, timeout, tries, form, wants_reply }
    }

    fn garbage(&mut self, at: Duration) {
        let guest = *self.cold.choose(self.rng).expect("some are cold");
        let mut command = json!({
            "requester_organization_id": self.of(guest),
            "guest_organization_id": guest,
            "archived": true,
            "idempotency_key": format!("garbage-{}", self.load.garbage.len()),
        });
        let mut content_type = "application/json";
        let (kind, reason, body) = match self.rng.random_range(0..9) {
            0 => ("empty", "UNDECODABLE", Some(Vec::new())),
            1 => ("cut", "UNDECODABLE", Some(br#"{"guest_organization_id":"#.to_vec())),
            2 => ("no text", "UNDECODABLE", Some(vec![0xff, 0xfe])),
            3 => {
                content_type = "text/csv";
                ("other type", "CONTENT_TYPE_UNSUPPORTED", None)
            }
            4 => {
                command["surprise"] = json!(1);
                ("unknown field", "INVALID_FIELDS", None)
            }
            5 => {
                command["guest_organization_id"] = json!("nobody");
                ("no id", "INVALID_FIELDS", None)
            }
            6 => {
                command["issue_time"] = json!("2001-01-01T00:00:00Z");
                ("too old", "INVALID_FIELDS", None)
            }
            7 => {
                command["requester_organization_id"] = json!(id(self.rng));
                ("stranger", "REQUESTER_NOT_CONFIGURED", None)
            }
            _ => ("too large", "BODY_TOO_LARGE", Some(vec![b' '; 70_000])),
        };
        let what = What::Garbage(self.load.garbage.len());
        self.load.garbage.push(Garbage {
            kind: kind.to_owned(),
            body: body.unwrap_or_else(|| command.to_string().into_bytes()),
            content_type: content_type.to_owned(),
            reason: reason.to_owned(),
        });
        let step = self.step(at, what, Door::Amqp);
        self.load.steps.push(step);
    }
}
