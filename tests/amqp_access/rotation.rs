//! Credentials that change under load: nothing is lost, and nothing is done twice.

use std::collections::HashMap;

use harness::adapter::replace_file;
use harness::{DEADLINE, World};
use lapin::BasicProperties;
use serde_json::Value;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::PROGRAM;
use crate::support::{ALL, Place, not_ready, user_lines};

/// How many commands are published at a time.
const BATCH: usize = 5;

/// How many events are awaited before a change, and after it.
const SOME: usize = 20;

/// A world whose adapter connects as a user of its own.
struct Rotating {
    world: World,
    user: String,
    folder: TempDir,
}

impl Rotating {
    async fn start(place: &Place, lines: &str) -> Self {
        let user = format!("rotating-{}", Uuid::new_v4().simple());
        place.user(&user, "first-s3cret", ALL).await;
        let folder = tempfile::tempdir().unwrap();
        let broker = place.node.connect().await;
        let address = broker.address();
        let lines = format!(
            "{}\norganizations_check_interval = \"50ms\"\n{lines}",
            user_lines(folder.path(), &user, "first-s3cret")
        );
        let world = World::start_at(PROGRAM, broker, &address, &lines).await;
        Self { world, user, folder }
    }

    fn write_password(&self, password: &str) {
        replace_file(&self.folder.path().join("password"), password);
    }

    /// Every connection of the user is closed by the broker.
    async fn cut(&self, place: &Place) {
        let close = format!("rabbit_networking:close_all_user_connections(<<\"{}\">>, \"test\").", self.user);
        place.node.eval(&close).await;
    }

    async fn end(self) {
        let Self { world, .. } = self;
        let (status, log) = world.adapter.terminate().await;
        assert!(status.success());
        assert!(!log.join("\n").contains("s3cret"));
        assert_eq!(world.upstream.simulator.violations(), Vec::<String>::new());
    }
}

#[tokio::test]
async fn a_password_changes_under_load() {
    let place = Place::turn().await;
    let mut rotating = Rotating::start(&place, "").await;
    let (load, mut ids) = (Load::begin(&rotating.world).await, HashMap::new());
    some(&mut rotating.world, &mut ids).await;
    place.change_password(&rotating.user, "second-s3cret").await;
    rotating.write_password("second-s3cret");
    logged(&rotating.world, "\"credentials\":true").await;
    some(&mut rotating.world, &mut ids).await;
    let log = rotating.world.adapter.log().all();
    let connected = log.iter().filter(|line| line.contains("broker: connected")).count();
    assert_eq!(connected, 3, "connections that stand are left alone: {log:#?}");
    rotating.cut(&place).await;
    logged(&rotating.world, "CONNECTION_FORCED").await;
    rotating.world.adapter.ready().await;
    some(&mut rotating.world, &mut ids).await;
    let guests = load.end().await;
    finish(&mut rotating.world, &guests, ids).await;
    rotating.world.adapter.ready().await;
    assert_eq!(connections(&place, &rotating.user).await, 3);
    let log = rotating.world.adapter.log().all();
    assert!(
        !log.iter().any(|line| line.contains("refused the credentials")),
        "the new one was used: {log:#?}"
    );
    rotating.end().await;
}

#[tokio::test]
async fn a_password_that_is_refused_is_tried_no_longer_once_there_is_another() {
    let place = Place::turn().await;
    let hour = "amqp.reconnect_delay_base = \"1h\"\namqp.reconnect_delay_max = \"1h\"";
    let mut rotating = Rotating::start(&place, hour).await;
    // The first wait, after the connection was cut, is for a changed file too.
    place.change_password(&rotating.user, "second-s3cret").await;
    rotating.cut(&place).await;
    logged(&rotating.world, "CONNECTION_FORCED").await;
    rotating.write_password("wrong-s3cret");
    for part in ["amqp.consume", "amqp.publish", "amqp.reply"] {
        not_ready(&rotating.world.adapter, part, "refused the credentials").await;
    }
    let load = Load::begin(&rotating.world).await;
    rotating.write_password("second-s3cret");
    rotating.world.adapter.ready().await;
    let guests = load.end().await;
    assert_eq!(finish(&mut rotating.world, &guests, HashMap::new()).await, 0);
    rotating.end().await;
}

#[tokio::test]
async fn another_user_takes_over_under_load_without_a_word_of_trouble() {
    let place = Place::turn().await;
    let mut rotating = Rotating::start(&place, "").await;
    let successor = format!("{}-2", rotating.user);
    place.user(&successor, "other-s3cret", ALL).await;
    let (load, mut ids) = (Load::begin(&rotating.world).await, HashMap::new());
    some(&mut rotating.world, &mut ids).await;
    let folder = tempfile::tempdir().unwrap();
    let setup = rotating.world.setup.clone().config(&user_lines(folder.path(), &successor, "other-s3cret"));
    setup.write();
    timeout(DEADLINE, async {
        while (connections(&place, &rotating.user).await, connections(&place, &successor).await) != (0, 3) {
            harness::look_again().await;
        }
    })
    .await
    .expect("the successor alone is connected");
    some(&mut rotating.world, &mut ids).await;
    let guests = load.end().await;
    assert_eq!(finish(&mut rotating.world, &guests, ids).await, 0, "no confirm was lost");
    rotating.world.adapter.ready().await;
    let log = rotating.world.adapter.log().all();
    for trouble in ["not available", "was closed before a message was acknowledged"] {
        assert!(!log.iter().any(|line| line.contains(trouble)), "{log:#?}");
    }
    rotating.end().await;
}

async fn connections(place: &Place, user: &str) -> usize {
    let count = format!(
        "length([P || [{{pid, P}}, {{user, <<\"{user}\">>}}] <- rabbit_networking:connection_info_all([pid, user])])."
    );
    place.node.eval(&count).await.parse().unwrap()
}

async fn logged(world: &World, text: &str) {
    let told = world.adapter.log().wait_for(harness::DEADLINE, |line| line.contains(text)).await;
    told.unwrap_or_else(|lines| panic!("{text}: {}", lines.join("\n")));
}

/// Commands that are published all the time, by a client of their own.
struct Load {
    stop: CancellationToken,
    task: JoinHandle<Vec<Uuid>>,
}

impl Load {
    async fn begin(world: &World) -> Self {
        let (broker, names, stop) =
            (world.broker.again().await, world.names.clone(), CancellationToken::new());
        let (organization, stopped) = (world.upstream.organizations[0].clone(), stop.clone());
        let task = tokio::spawn(async move {
            let mut guests = Vec::new();
            while !stopped.is_cancelled() {
                let batch: Vec<Uuid> = (0..BATCH).map(|_| Uuid::new_v4()).collect();
                let messages = batch.iter().map(|guest| {
                    let body = organization.message(*guest, true, &format!("key-{guest}"));
                    (guest.to_string(), BasicProperties::default(), serde_json::to_vec(&body).unwrap())
                });
                broker.publish_all(&names, messages.collect()).await;
                guests.extend(batch);
                harness::look_again().await;
            }
            guests
        });
        Self { stop, task }
    }

    async fn end(self) -> Vec<Uuid> {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

/// Takes events until there is one of every guest. Yields how many came more than once.
async fn finish(world: &mut World, guests: &[Uuid], mut ids: HashMap<String, usize>) -> usize {
    while ids.len() < guests.len() {
        note(&world.events.next().await.json(), &mut ids);
    }
    for guest in guests {
        assert_eq!((world.upstream.applied(*guest), world.upstream.received(*guest)), (vec![true], 1));
    }
    assert_eq!(world.broker.depth(&world.names.dead_letters).await, 0);
    ids.values().filter(|count| **count > 1).count()
}

fn note(event: &Value, ids: &mut HashMap<String, usize>) {
    *ids.entry(event["id"].as_str().unwrap().to_owned()).or_default() += 1;
}

async fn some(world: &mut World, ids: &mut HashMap<String, usize>) {
    for event in world.events.take(SOME).await {
        note(&event.json(), ids);
    }
}
