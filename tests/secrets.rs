//! Secrets show nowhere: one run with everything that can happen to them, and a search through all that it left behind.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::too_many_lines,
    reason = "a test fails by panicking, and tells a whole story"
)]

use std::fmt::Debug;
use std::process::Command;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD_NO_PAD;
use guest_connection_adapter::proto;
use harness::adapter::{replace_file, secret_file};
use harness::broker::Arrived;
use harness::{Collector, DEADLINE, World};
use lapin::BasicProperties;
use serde_json::{Value, json};
use simulator::{Endpoint, Rule};
use tonic::Status;
use uuid::Uuid;

const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

/// In each a part without any character that an encoding could change.
const SECRETS: [&str; 9] = [
    "\"firstClientSecret/+%1",
    "\"rotatedClientSecret/+%2",
    "\"wrongClientSecret/+%3",
    "secretFromTheEnvironment&4",
    "misplacedInTheFile=5",
    "wrongBrokerPassword@6",
    "firstIssuedToken.eyJ.7",
    "secondIssuedToken.eyJ.8",
    "staticToken.eyJ.9",
];

const QUICK: &str = r#"
organizations_check_interval = "50ms"
telemetry.log_filter = "trace,h2=trace,hyper=trace,hyper_util=trace,reqwest=trace,tonic=trace,tower=trace,lapin=trace"
upstream.retry_delay_base = "20ms"
upstream.retry_delay_max = "100ms"
upstream.defer_delay_base = "50ms"
upstream.defer_delay_max = "200ms"
upstream.token_delay_base = "50ms"
upstream.token_delay_max = "200ms"
"#;

/// Everything that was said, by where.
#[derive(Default)]
struct Said(Vec<(String, Vec<u8>)>);

impl Said {
    fn note(&mut self, place: &str, what: impl Into<Vec<u8>>) {
        self.0.push((place.to_owned(), what.into()));
    }

    fn shown(&mut self, place: &str, what: &impl Debug) {
        self.note(place, format!("{what:?}"));
    }

    fn arrived(&mut self, place: &str, message: &Arrived) {
        self.shown(place, &message.properties);
        self.shown(place, &message.table("x-guest-connection-adapter"));
        self.note(place, message.body.clone());
    }

    /// Where `secret` stands, in whatever form.
    fn places(&self, secret: &str) -> Vec<String> {
        let forms = forms(secret);
        let found = |text: &[u8]| {
            forms.iter().find(|form| text.windows(form.len()).any(|window| window == form.as_bytes()))
        };
        let places = self.0.iter().filter_map(|(place, text)| Some((place, found(text)?)));
        places.map(|(place, form)| format!("{place}, as {form}")).collect()
    }
}

/// The secret as it is, the part of it that percent-encoding and JSON leave as it is, and Base64 at any offset.
fn forms(secret: &str) -> Vec<String> {
    let plain = secret.split(|c: char| !c.is_ascii_alphanumeric()).max_by_key(|part| part.len()).unwrap();
    let percent: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
    let mut forms = vec![secret.to_owned(), plain.to_owned(), percent, json!(secret).to_string()];
    for offset in 0..3 {
        // What stands before and behind decides on the characters at both ends.
        let encoded = BASE64_STANDARD_NO_PAD.encode(format!("{}{secret}", &"xxx"[..offset]));
        forms.push(encoded[4..encoded.len() - 4].to_owned());
    }
    forms
}

#[test]
fn the_search_finds_what_it_is_to_find() {
    for secret in SECRETS {
        let encoded = base64::prelude::BASE64_STANDARD.encode(format!("user:{secret}:more"));
        let percent: String = url::form_urlencoded::byte_serialize(secret.as_bytes()).collect();
        let quoted = json!({"text": json!({"secret": secret}).to_string()}).to_string();
        for text in [format!("a {secret} b"), encoded, percent, quoted] {
            let mut said = Said::default();
            said.note("here", text.clone());
            assert_eq!(said.places(secret).len(), 1, "{text}");
        }
    }
}

struct Organizations {
    client: Uuid,
    environment: Uuid,
    token: Uuid,
}

/// Answers the next token request of `requester` with a token that is known to us.
fn issue(world: &World, requester: Uuid, token: &str) {
    world.upstream.simulator.register_token(token, requester);
    let body = json!({"access_token": token, "expires_in": 3600});
    world.upstream.simulator.script(Rule::token().requester(requester).times(1).status(200).json(body));
}

fn archive(requester: Uuid, key: &str) -> proto::ArchiveGuestConnectionRequest {
    proto::ArchiveGuestConnectionRequest {
        guest_organization_id: Uuid::new_v4().to_string(),
        requester_organization_id: requester.to_string(),
        idempotency_key: key.to_owned(),
        ..<_>::default()
    }
}

/// An error that says the secret back.
fn echo(secret: &str) -> Value {
    json!({"detail": [{"loc": ["body", secret], "msg": format!("{secret} is wrong"), "type": "oauth", "code": secret}]})
}

fn refused(said: &mut Said, place: &str, answer: Result<impl Debug, Status>) {
    let status = answer.map(|answer| panic!("{place} succeeded: {answer:?}")).unwrap_err();
    said.shown(place, &status);
    said.note(place, status.details());
}

async fn start(collector: &Collector) -> (World, Organizations) {
    let of = Organizations { client: Uuid::now_v7(), environment: Uuid::now_v7(), token: Uuid::now_v7() };
    let world = World::arranged(PROGRAM, |setup| {
        secret_file(setup.directory(), "client_secret", SECRETS[0]);
        secret_file(setup.directory(), "token", SECRETS[8]);
        let (client, environment, token) = (of.client, of.environment, of.token);
        let lines = format!(
            r#"
organizations.test = {{ id = "{client}", client_id = "client", client_secret_file = "client_secret" }}
organizations.environment = {{ id = "{environment}", client_id = "environment-client" }}
organizations.token = {{ id = "{token}", token_file = "token" }}
telemetry.otlp_endpoint = "{}"
"#,
            collector.endpoint()
        );
        let setup = setup.env("GCA_ORGANIZATIONS__ENVIRONMENT__CLIENT_SECRET", SECRETS[3]);
        setup.config(QUICK).config(&lines)
    });
    let world = world.await;
    let simulator = &world.upstream.simulator;
    simulator.register_client("client", SECRETS[0], of.client);
    simulator.register_client("environment-client", SECRETS[3], of.environment);
    simulator.register_token(SECRETS[8], of.token);
    (world, of)
}

/// What goes well, and what the API refuses.
async fn commands(world: &mut World, of: &Organizations, said: &mut Said) {
    let mut client = world.client().await;
    let simulator = &world.upstream.simulator;
    issue(world, of.client, SECRETS[6]);
    said.shown("answer", &client.archive_guest_connection(archive(of.client, "k-1")).await.unwrap());
    said.shown("answer", &client.archive_guest_connection(archive(of.token, "k-1")).await.unwrap());
    // The token is refused, and another one is got.
    simulator.revoke_tokens();
    simulator.register_token(SECRETS[8], of.token);
    issue(world, of.client, SECRETS[7]);
    said.shown("answer", &client.archive_guest_connection(archive(of.client, "k-2")).await.unwrap());
    // The API quotes the token, to a call and to a message.
    simulator.script(Rule::patch().requester(of.client).times(2).status(422).json(echo(SECRETS[7])));
    let call = client.archive_guest_connection(archive(of.client, "k-3")).await;
    refused(said, "a refused call", call);
    let replies = world.broker.queue().await;
    let (mut inbox, mut letters) =
        (world.broker.consume(&replies).await, world.broker.consume(&world.names.dead_letters).await);
    let guest = Uuid::new_v4();
    let message = |key: &str| {
        json!({"requester_organization_id": of.client, "guest_organization_id": guest, "archived": true,
               "idempotency_key": key})
    };
    let base = || BasicProperties::default().with_reply_to(replies.as_str().into());
    world.send_with(guest, base(), &message("m-1")).await;
    said.arrived("dead letter", &letters.next().await);
    said.arrived("reply", &inbox.next().await);
    // The token endpoint quotes the secret, and refuses it.
    for status in [400, 401, 500] {
        let rule = Rule::token().requester(of.environment).times(1).status(status).json(echo(SECRETS[3]));
        simulator.script(rule);
        let mut call = tonic::Request::new(archive(of.environment, &format!("e-{status}")));
        call.set_timeout(std::time::Duration::from_millis(500));
        let answer = client.archive_guest_connection(call).await;
        said.shown("the token endpoint quotes", &answer);
    }
    world.send_with(guest, base(), &message("m-2")).await;
    said.arrived("reply", &inbox.next().await);
    for _ in 0..4 {
        said.arrived("event", &world.events.next().await);
    }
}

/// Rotations, good and bad, and files that are at fault.
async fn rotations(world: &World, of: &Organizations, said: &mut Said) {
    let file = |name: &str| world.setup.directory().join(name);
    let simulator = &world.upstream.simulator;
    let tokens_of = |entries: &[simulator::Entry], status| {
        let asked = entries.iter().filter(|entry| entry.endpoint == Endpoint::Token);
        asked.filter(|entry| entry.status == Some(status)).count()
    };
    let good = tokens_of(&simulator.journal(), 200);
    simulator.register_client("client", SECRETS[1], of.client);
    replace_file(&file("client_secret"), SECRETS[1]);
    let seen = simulator.wait_for(|entries| tokens_of(entries, 200) > good, DEADLINE).await;
    seen.unwrap();
    let bad = tokens_of(&simulator.journal(), 401);
    replace_file(&file("client_secret"), SECRETS[2]);
    let seen = simulator.wait_for(|entries| tokens_of(entries, 401) > bad, DEADLINE).await;
    seen.unwrap();
    let misplaced = format!(
        r#"organizations.test = {{ id = "{}", client_id = "client", client_secret = "{}" }}"#,
        of.client, SECRETS[4]
    );
    let odd = format!("amqp.uri = \"amqp://someone:{}@localhost/\"", SECRETS[5]);
    let faults: [&dyn Fn(); 4] = [
        &|| world.setup.clone().config(&misplaced).write(),
        &|| world.setup.clone().config(&odd).write(),
        &|| replace_file(&file("adapter.toml"), &format!("[organizations]\nx = \"{}\n", SECRETS[4])),
        &|| replace_file(&file("client_secret"), &format!("{}\n{}", SECRETS[1], SECRETS[2].repeat(9))),
    ];
    for fault in faults {
        fault();
        let is_degraded = |value: &Value| value["parts"]["organizations"]["status"] == "degraded";
        let body = world.adapter.readiness(|_, value| is_degraded(value)).await;
        said.note("/readyz", body.to_string());
        said.note("check", check(world));
        replace_file(&file("client_secret"), SECRETS[1]);
        world.setup.write();
        let is_ready = |value: &Value| value["parts"]["organizations"]["status"] == "ready";
        said.note("/readyz", world.adapter.readiness(|_, value| is_ready(value)).await.to_string());
    }
}

fn check(world: &World) -> Vec<u8> {
    let mut command = Command::new(PROGRAM);
    command.args(["check", "--config", "adapter.toml"]).current_dir(world.setup.directory());
    command.env("GCA_ORGANIZATIONS__ENVIRONMENT__CLIENT_SECRET", SECRETS[3]);
    let output = command.output().unwrap();
    [output.stdout, output.stderr].concat()
}

/// Another adapter, which the broker does not let in.
async fn wrong_password(world: &World, said: &mut Said) {
    let setup =
        world.setup.clone().config("store.path = \"second.db\"").env("GCA_AMQP__PASSWORD", SECRETS[5]);
    let adapter = setup.start().await;
    let refused =
        |value: &Value| value["parts"]["amqp.consume"].to_string().contains("refused the credentials");
    said.note("/readyz", adapter.readiness(|_, value| refused(value)).await.to_string());
    let (status, log) = adapter.terminate().await;
    assert!(status.success());
    said.note("the second log", log.join("\n"));
}

#[tokio::test]
async fn no_secret_shows_in_anything_that_a_full_run_leaves_behind() {
    let collector = Collector::start().await;
    let (mut world, of) = start(&collector).await;
    let mut said = Said::default();
    said.note("check", check(&world));
    said.note("example-config", Command::new(PROGRAM).arg("example-config").output().unwrap().stdout);
    commands(&mut world, &of, &mut said).await;
    rotations(&world, &of, &mut said).await;
    wrong_password(&world, &mut said).await;

    let directory = world.setup.directory().to_owned();
    let output = world.adapter.output().clone();
    let (status, log) = world.adapter.terminate().await;
    assert!(status.success(), "{status}");
    assert!(log.iter().any(|line| line.contains("the organisations have changed")));
    assert!(log.iter().any(|line| line.contains("refused a token")));
    said.note("log", log.join("\n"));
    said.note("standard output", output.all().join("\n"));
    let spans =
        collector.wait_for(DEADLINE, |spans| spans.iter().any(|span| span.name.starts_with("POST"))).await;
    said.shown("spans", &spans);
    for file in std::fs::read_dir(directory.join("var")).unwrap() {
        let path = file.unwrap().path();
        said.note(&path.display().to_string(), std::fs::read(&path).unwrap());
    }
    for place in ["log", "spans", "/readyz", "event", "reply", "dead letter", "a refused call", "check"] {
        assert!(said.0.iter().any(|(known, text)| known == place && text.len() > 50), "nothing of {place}");
    }
    assert!(said.0.iter().any(|(place, _)| place.ends_with("adapter.db")));
    for secret in SECRETS {
        assert_eq!(said.places(secret), Vec::<String>::new(), "{secret}");
    }
}
