//! What the adapter's user needs on the broker, and no more: the table of `docs/amqp.md`.

use harness::broker::Broker;
use harness::{Adapter, Names, Setup, Upstream};
use lapin::BasicProperties;
use serde_json::Value;
use uuid::Uuid;

use crate::PROGRAM;
use crate::support::{Place, not_ready, user_lines};

/// The patterns of the page with the test's names: configure, write, read.
struct Patterns([String; 3]);

impl Patterns {
    fn declaring(names: &Names) -> Self {
        let Names { commands, dead_letters, events } = names;
        Self([
            any(&[commands, dead_letters, events]),
            any(&[commands, dead_letters, events, "amq.default"]),
            any(&[commands, dead_letters]),
        ])
    }

    fn usual(names: &Names) -> Self {
        let Names { commands, dead_letters, events } = names;
        Self(["^$".to_owned(), any(&[dead_letters, events, "amq.default"]), any(&[commands])])
    }

    fn all(&self) -> [&str; 3] {
        [&self.0[0], &self.0[1], &self.0[2]]
    }
}

/// A pattern for these names and no others. A backslash is one of Erlang's too.
fn any(names: &[&str]) -> String {
    format!("^({})$", names.join("|").replace('.', "[.]"))
}

/// A client as a user of its own with these permissions.
async fn client(place: &Place, what: &str, patterns: [&str; 3]) -> Broker {
    let user = format!("{what}-{}", Uuid::new_v4().simple());
    place.user(&user, "pw", patterns).await;
    Broker::connect_to(&place.node.uri().replace("guest:guest", &format!("{user}:pw"))).await
}

struct Stage {
    upstream: Upstream,
    names: Names,
    setup: Setup,
    user: String,
    broker: Broker,
}

/// Everything is declared, by a user who may just do that.
async fn stage(place: &Place) -> Stage {
    let (upstream, names) = (Upstream::start().await, Names::default());
    let user = format!("least-{}", Uuid::new_v4().simple());
    place.user(&user, "pw", Patterns::declaring(&names).all()).await;
    let broker = place.node.connect().await;
    let setup = upstream.setup(PROGRAM).broker(&broker, &names);
    let lines = user_lines(setup.directory(), &user, "pw");
    let setup = setup.config(&lines);
    let adapter = setup.start_ready().await;
    assert!(adapter.terminate().await.0.success());
    let setup = setup.config("amqp.declare = false");
    Stage { upstream, names, setup, user, broker }
}

impl Stage {
    async fn send(&self, key: &str, reply_to: Option<&str>, body: &Value) {
        let properties = match reply_to {
            Some(queue) => BasicProperties::default().with_reply_to(queue.into()),
            None => BasicProperties::default(),
        };
        self.broker.publish(&self.names, key, properties, &serde_json::to_vec(body).unwrap()).await;
    }
}

#[tokio::test]
async fn the_main_job_is_done_with_the_least_permissions() {
    let place = Place::turn().await;
    let stage = stage(&place).await;
    place.permit(&stage.user, Patterns::usual(&stage.names).all()).await;
    let keys = "^guest-connection[.](archived|unarchived|indeterminate)[.]";
    place.permit_keys(&stage.user, &stage.names.events, keys).await;
    // The queues that the harness makes for a client have such names.
    let own = "test[.][0-9a-f]+";
    let Names { commands, dead_letters, events } = &stage.names;
    let consumer =
        ["^test[.][0-9a-f]+$", "^test[.][0-9a-f]+$", &format!("^({own}|{})$", events.replace('.', "[.]"))];
    let consumer = client(&place, "consumer", consumer).await;
    let producer = ["^test[.][0-9a-f]+$", &any(&[commands]), "^test[.][0-9a-f]+$"];
    let producer = client(&place, "producer", producer).await;
    let operator = client(&place, "operator", ["^$", &any(&[commands]), &any(&[dead_letters])]).await;

    let adapter = stage.setup.start_ready().await;
    let mut events = consumer.subscribe(events).await;
    let mut letters = operator.consume(dead_letters).await;
    let replies = producer.queue().await;
    let mut answers = producer.consume(&replies).await;
    let stage = Stage { broker: producer, ..stage };
    let guest = Uuid::new_v4();
    stage.send("key", Some(&replies), &stage.upstream.message(guest, true, "least")).await;
    assert_eq!(events.next().await.json()["data"]["guest_connection"]["archived"], true);
    assert_eq!(answers.next().await.json()["status"], "succeeded");
    stage.send("key", Some(&replies), &Value::from("no command")).await;
    assert_eq!(answers.next().await.json()["status"], "refused");
    assert_eq!(letters.next().await.body, b"\"no command\"");
    assert_eq!(stage.upstream.applied(guest), [true]);
    assert!(adapter.terminate().await.0.success());
}

#[tokio::test]
async fn partitions_are_declared_used_and_left_with_the_least_permissions() {
    let place = Place::turn().await;
    let stage = stage(&place).await;
    let Names { commands, dead_letters, events } = &stage.names;
    let queues = |count: u16| (0..count).map(move |number| format!("{commands}.{count}.{number}"));
    let (two, three): (Vec<_>, Vec<_>) = (queues(2).collect(), queues(3).collect());
    let (hash, next) = (format!("{commands}.2"), format!("{commands}.3"));
    let list = |names: &[&String], more: &[&Vec<String>]| {
        let names: Vec<_> =
            names.iter().copied().chain(more.iter().copied().flatten()).map(String::as_str).collect();
        any(&names)
    };
    let declared = list(&[commands, dead_letters, events, &hash, &next], &[&two, &three]);
    let all =
        list(&[commands, dead_letters, events, &hash, &next, &"amq.default".to_owned()], &[&two, &three]);
    let read = list(&[commands, dead_letters, &hash, &next], &[&two, &three]);
    place.permit(&stage.user, [&declared, &all, &read]).await;
    let declaring = stage.setup.clone().config("amqp.declare = true\namqp.partitions = 2");
    assert!(declaring.start_ready().await.terminate().await.0.success());

    // As it runs from day to day.
    let usual = list(&[dead_letters, events, &"amq.default".to_owned()], &[]);
    place.permit(&stage.user, ["^$", &usual, &list(&[], &[&two])]).await;
    let setup = stage.setup.clone().config("amqp.partitions = 2");
    let adapter = setup.start_ready().await;
    let guest = Uuid::new_v4();
    stage.send(&guest.to_string(), None, &stage.upstream.message(guest, true, "partitioned")).await;
    stage.upstream.command_when(&adapter, "partitioned", |command| command.finish_time.is_some()).await;
    assert!(adapter.terminate().await.0.success());

    // While their number changes: whoever gets to the end of an old queue deletes it.
    let admin = declaring.config("amqp.partitions = 3\namqp.partitions_from = 2");
    place.permit(&stage.user, [&declared, &all, &read]).await;
    assert!(admin.start_ready().await.terminate().await.0.success());
    place.permit(&stage.user, [&list(&[], &[&two]), &usual, &list(&[], &[&two, &three])]).await;
    let setup = stage.setup.clone().config("amqp.partitions = 3\namqp.partitions_from = 2");
    let adapter = setup.start_ready().await;
    let operator = format!("operator-{}", Uuid::new_v4().simple());
    let write = list(&[&hash, &"amq.default".to_owned()], &[]);
    place.user(&operator, "pw", [&any(&[&hash]), &write, &any(&[commands])]).await;
    let own = stage.upstream.setup(PROGRAM).broker(&stage.broker, &stage.names);
    let lines = user_lines(own.directory(), &operator, "pw");
    let own =
        own.config("amqp.declare = false\namqp.partitions = 3\namqp.partitions_from = 2").config(&lines);
    let own = own.config("amqp.check_interval = \"1s\"");
    own.write();
    let mut retire = tokio::process::Command::new(PROGRAM);
    retire.args(["partitions", "retire", "--config", "adapter.toml"]).current_dir(own.directory());
    let output = retire.output().await.unwrap();
    assert!(output.status.success(), "{output:?}");
    let guest = Uuid::new_v4();
    stage.send(&guest.to_string(), None, &stage.upstream.message(guest, true, "moved")).await;
    stage.upstream.command_when(&adapter, "moved", |command| command.finish_time.is_some()).await;
    assert!(adapter.terminate().await.0.success());
}

#[tokio::test]
async fn a_permission_that_is_missing_is_named() {
    let place = Place::turn().await;
    let stage = stage(&place).await;
    let Names { commands, dead_letters, events } = &stage.names;
    let usual = Patterns::usual(&stage.names);
    let [configure, write, read] = usual.all();

    place.permit(&stage.user, [configure, write, "^$"]).await;
    let adapter = stage.setup.start().await;
    let text = format!("ACCESS_REFUSED - access to queue '{commands}' in vhost '/' refused");
    not_ready(&adapter, "amqp.consume", &text).await;
    assert!(adapter.terminate().await.0.success());

    place.permit(&stage.user, [configure, &any(&[dead_letters, "amq.default"]), read]).await;
    let adapter = stage.setup.start_ready().await;
    stage.send("key", None, &stage.upstream.message(Uuid::new_v4(), true, "no-events")).await;
    told(&adapter, "events", &format!("access to exchange '{events}' in vhost '/' refused")).await;
    drop(adapter.kill().await);

    place.permit(&stage.user, [configure, &any(&[events, "amq.default"]), read]).await;
    let adapter = stage.setup.clone().config("amqp.delivery_hold = \"500ms\"").start_ready().await;
    stage.send("key", None, &Value::from("no command")).await;
    told(&adapter, "amqp.consume", &format!("access to exchange '{dead_letters}' in vhost '/' refused"))
        .await;
    drop(adapter.kill().await);

    place.permit(&stage.user, [configure, &any(&[events, dead_letters]), read]).await;
    let adapter = stage.setup.start_ready().await;
    let replies = stage.broker.queue().await;
    stage.send("key", Some(&replies), &stage.upstream.message(Uuid::new_v4(), true, "no-replies")).await;
    let text = "access to exchange 'amq.default' in vhost '/' refused";
    let given_up = |line: &str| line.contains("the reply is given up") && line.contains(text);
    adapter.log().wait_for(harness::DEADLINE, given_up).await.expect("the reply is given up, and why");
}

/// Waits until the part is not well and says why.
async fn told(adapter: &Adapter, part: &str, text: &str) {
    let says = |body: &Value| {
        let part = &body["parts"][part];
        part["status"] != "ready" && part["detail"].as_str().is_some_and(|detail| detail.contains(text))
    };
    adapter.readiness(|_, body| says(body)).await;
}
