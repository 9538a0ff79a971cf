//! Instances that share their database, their broker and the upstream.

use std::collections::HashMap;
use std::time::Duration;

use harness::{Adapter, Database, World};
use serde_json::Value;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

/// Who is killed is taken over soon.
pub const QUICK: &str = r#"
upstream.attempt_timeout = "1s"
upstream.connect_timeout = "500ms"
upstream.command_timeout = "1500ms"
upstream.retry_delay_base = "50ms"
upstream.retry_delay_max = "100ms"
upstream.settle = "1s"
store.lease = "2s"
store.instance_lease = "1s"
"#;

/// The first instance stands in the world, the others beside it.
pub struct Cluster {
    pub world: World,
    pub others: Vec<Adapter>,
    /// As long as it is needed.
    pub database: Database,
}

impl Cluster {
    pub async fn start(count: usize, lines: &str) -> Self {
        let database = Database::create().await;
        let lines = format!("{lines}\nstore.url = \"{}\"", database.url());
        let world = World::start(PROGRAM, &lines).await;
        let mut others = Vec::new();
        while others.len() + 1 < count {
            others.push(world.setup.start_ready().await);
        }
        let cluster = Self { world, others, database };
        cluster.divided(i64::try_from(count).unwrap()).await;
        cluster
    }

    /// Waits until `count` instances have divided the outbox among themselves.
    pub async fn divided(&self, count: i64) {
        let client = self.database.connect().await;
        let sql = "SELECT count(DISTINCT owner), count(owner) FROM outbox_slots";
        let waiting = async {
            loop {
                let row = client.query_one(sql, &[]).await.unwrap();
                if (row.get::<_, i64>(0), row.get::<_, i64>(1)) == (count, 64) {
                    return;
                }
                harness::look_again().await;
            }
        };
        tokio::time::timeout(harness::DEADLINE, waiting).await.expect("the slots are divided");
    }

    /// Ends all.
    pub async fn end(self) {
        for other in self.others {
            let (status, log) = other.terminate().await;
            assert!(status.success(), "{}", log.join("\n"));
        }
        self.world.end().await;
    }
}

/// The sequence number of an event, and of which guest it is.
fn place(event: &Value) -> (String, u64) {
    let number = event["sequence"].as_str().unwrap().parse().unwrap();
    (event["subject"].as_str().unwrap_or_else(|| panic!("{event}")).to_owned(), number)
}

/// Asserts that the first appearances of events are in order within each connection, without a gap. Yields how many there are
/// of each.
pub fn in_order(events: &[Value]) -> HashMap<String, u64> {
    let mut last: HashMap<String, u64> = HashMap::new();
    for event in events {
        let (subject, number) = place(event);
        let last = last.entry(subject).or_default();
        assert!(number <= *last + 1, "event {number} came after {last}: {event}");
        *last = number.max(*last);
    }
    last
}

/// Waits for so many different events.
pub async fn events(world: &mut World, count: usize) -> Vec<Value> {
    let mut events: Vec<Value> = Vec::new();
    let mut different = std::collections::HashSet::new();
    while different.len() < count {
        let event = world.events.next_within(Duration::from_secs(30)).await;
        let event = event.unwrap_or_else(|| panic!("{} of {count} events came", different.len())).json();
        different.insert(event["id"].as_str().unwrap().to_owned());
        events.push(event);
    }
    events
}
