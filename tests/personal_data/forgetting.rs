//! Bodies go from the store and from what is still to be told; facts stay.

use futures::{StreamExt as _, stream};
use harness::adapter::replace_file;
use harness::{Adapter, Broker, CLIENT_SECRET, DEADLINE, Names, Organization, Setup, Upstream, look_again};
use lapin::BasicProperties;
use rusqlite::OpenFlags;
use serde_json::json;
use simulator::Rule;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use super::support::{
    MARKER, PROGRAM, TOKEN, bearer, forget, gone_from_store, mark_bodies, request, run, store_holds,
};

#[tokio::test]
async fn a_guest_is_forgotten_and_the_event_is_told_without_a_body() {
    let (upstream, broker, names) = (Upstream::start().await, Broker::connect().await, Names::default());
    let setup = upstream.setup(PROGRAM).broker(&broker, &names).env("GCA_ADMIN__TOKEN", TOKEN);
    let adapter = setup.start_ready().await;
    mark_bodies(&upstream);
    let (guest, other) = (Uuid::new_v4(), Uuid::new_v4());
    let mut client = adapter.client().await;
    let first = client.archive_guest_connection(upstream.archive(guest, "first")).await.unwrap().into_inner();
    assert_eq!(first.guest_connection.unwrap().guest_name, MARKER);
    assert!(store_holds(&setup, MARKER));

    // No queue is bound: the event waits in the outbox.
    assert_eq!(forget(&adapter, other).await["commands"], 0);
    let done = forget(&adapter, guest).await;
    let expected =
        json!({"commands": 1, "outcomes": 1, "events": 1, "dead_letters": 0, "replies": 0, "not_final": 0});
    assert_eq!(done, expected);
    gone_from_store(&setup, MARKER).await;

    let mut events = broker.subscribe(&names.events).await;
    let event = events.next().await;
    let body = String::from_utf8_lossy(&event.body).into_owned();
    assert!(!body.contains(MARKER), "{body}");
    let event: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert_eq!(event["data"]["incomplete"], true, "{event}");
    assert_eq!(event["data"]["command"]["command_id"].as_str(), Some(first.command_id.as_str()), "{event}");

    // The key is known still, and nothing is sent again.
    let again = client.archive_guest_connection(upstream.archive(guest, "first")).await.unwrap().into_inner();
    assert!(again.replayed && again.incomplete && again.guest_connection.is_none(), "{again:?}");
    assert_eq!(again.command_id, first.command_id);
    assert_eq!(upstream.received(guest), 1);
    let command = upstream.command(&adapter, "first").await.unwrap();
    let outcome = command.outcome.unwrap();
    assert!(outcome.incomplete && outcome.guest_connection.is_none());
    assert_eq!(outcome.upstream_status, 200);

    let nothing =
        json!({"commands": 1, "outcomes": 0, "events": 0, "dead_letters": 0, "replies": 0, "not_final": 0});
    assert_eq!(forget(&adapter, guest).await, nothing);

    // A restart finds it as it was left.
    adapter.kill().await;
    let adapter = setup.start_ready().await;
    let again =
        adapter.client().await.archive_guest_connection(upstream.archive(guest, "first")).await.unwrap();
    assert!(again.into_inner().incomplete);
    assert!(!store_holds(&setup, MARKER));
    let (status, _) = adapter.terminate().await;
    assert!(status.success());
}

#[tokio::test]
async fn an_organisation_is_forgotten_and_what_is_under_way_is_told() {
    let (upstream, broker, names) = (Upstream::start().await, Broker::connect().await, Names::default());
    let setup = upstream.setup(PROGRAM).broker(&broker, &names).env("GCA_ADMIN__TOKEN", TOKEN);
    let adapter = setup.start_ready().await;
    let (refused, hanging) = (Uuid::new_v4(), Uuid::new_v4());
    // The API explains itself in words of the person, and at the other connection not at all.
    let words = json!({"detail": [{"loc": ["body", "archived"], "msg": MARKER, "type": "value_error"}]});
    upstream.simulator.script(Rule::patch().guest(refused).status(422).json(words));
    upstream.simulator.script(Rule::patch().guest(hanging).status(503));
    for (guest, key) in [(refused, "refused"), (hanging, "hanging")] {
        let body = serde_json::to_vec(&upstream.message(guest, true, key)).unwrap();
        let properties = BasicProperties::default().with_content_type("application/json".into());
        broker.publish(&names, &guest.to_string(), properties, &body).await;
    }
    upstream.command_when(&adapter, "refused", |command| command.finish_time.is_some()).await;
    while upstream.received(hanging) == 0 {
        harness::look_again().await;
    }
    assert!(store_holds(&setup, MARKER));

    let output = run(
        &setup,
        &adapter.admin.to_string(),
        &["forget", "--organization", &upstream.requester.to_string()],
    )
    .await;
    assert!(output.status.success(), "{output:?}");
    let done: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&done["commands"], &done["outcomes"], &done["not_final"]), (&json!(2), &json!(1), &json!(1)));
    gone_from_store(&setup, MARKER).await;
    let outcome = upstream.command(&adapter, "refused").await.unwrap().outcome.unwrap();
    assert_eq!(outcome.upstream_status, 422);
    assert!(!outcome.reason.is_empty() && !outcome.message.contains(MARKER), "{outcome:?}");
    adapter.kill().await;
}

#[tokio::test]
async fn acts_are_read_out_and_hold_no_person_and_no_secret() {
    let upstream = Upstream::start().await;
    let setup = upstream.setup(PROGRAM).env("GCA_ADMIN__TOKEN", TOKEN);
    let adapter = setup.start_ready().await;
    mark_bodies(&upstream);
    let guest = Uuid::new_v4();
    adapter.client().await.archive_guest_connection(upstream.archive(guest, "k")).await.unwrap();
    forget(&adapter, guest).await;
    forget(&adapter, guest).await;
    let listen = adapter.admin.to_string();
    let output = run(&setup, &listen, &["audit", "--limit", "1"]).await;
    assert!(output.status.success(), "{output:?}");
    let newest: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let act = &newest["acts"][0];
    assert_eq!((&act["actor"], &act["act"], &act["number"]), (&json!("admin"), &json!("forget"), &json!(2)));
    assert_eq!(act["subject"], json!({ "guest_organization_id": guest }));
    assert!(act["address"].as_str().unwrap().starts_with("127.0.0.1:"), "{act}");
    assert!(act["finish_time"].is_string() && act["result"]["outcomes"] == 0, "{act}");
    assert_eq!(newest["acts"].as_array().unwrap().len(), 1);

    // Acts outlive the process.
    let (status, log) = adapter.terminate().await;
    assert!(status.success());
    let adapter = setup.start_ready().await;
    let answer = request(adapter.admin, "GET /v1/audit?before=2&limit=10", &[&bearer(TOKEN)], "").await;
    assert_eq!(answer.json()["acts"][0]["result"]["outcomes"], 1, "{answer:?}");
    let metrics = adapter.metrics().await;
    for text in [String::from_utf8(output.stdout).unwrap(), answer.body, log.join("\n"), metrics] {
        for secret in [MARKER, TOKEN, "@"] {
            assert!(!text.contains(secret), "{secret} in {text}");
        }
    }
    assert!(!store_holds(&setup, TOKEN));
}

/// The acts that are recorded, the newest first, once there are `count` of them that are done.
async fn acts_when(adapter: &Adapter, count: usize) -> Vec<serde_json::Value> {
    let read = async {
        loop {
            let answer = request(adapter.admin, "GET /v1/audit", &[&bearer(TOKEN)], "").await;
            let acts = answer.json()["acts"].as_array().cloned().unwrap_or_default();
            if acts.iter().filter(|act| act["finish_time"].is_string()).count() >= count {
                return acts;
            }
            look_again().await;
        }
    };
    timeout(DEADLINE, read).await.expect("the acts")
}

#[tokio::test]
async fn changes_of_files_are_acts_and_name_what_changed_alone() {
    let upstream = Upstream::start().await;
    let lines = "organizations_check_interval = \"50ms\"";
    let setup = upstream.setup(PROGRAM).config(lines).env("GCA_ADMIN__TOKEN", TOKEN);
    let adapter = setup.start_ready().await;
    let other = Organization::numbered(1, Uuid::now_v7());
    let more = setup.clone().organization(&other);
    more.write();
    let acts = acts_when(&adapter, 1).await;
    assert_eq!((&acts[0]["actor"], &acts[0]["act"]), (&json!("files"), &json!("configure")));
    assert_eq!(acts[0]["subject"], json!({ "organizations_added": other.name }));
    replace_file(&more.directory().join(format!("{}_secret", other.name)), "rotated-s3cret");
    let acts = acts_when(&adapter, 2).await;
    assert_eq!(acts[0]["subject"], json!({ "organizations_changed": other.name }));
    let line = "principals.billing = { certificate_names = [\"billing.example\"], organizations = [\"*\"] }";
    more.clone().config(line).write();
    let acts = acts_when(&adapter, 3).await;
    assert_eq!(acts[0]["subject"], json!({ "principals_added": "billing" }));
    more.write();
    let acts = acts_when(&adapter, 4).await;
    assert_eq!(acts[0]["subject"], json!({ "principals_removed": "billing" }));
    // A file at fault changes nothing, and is no act.
    setup.clone().config("principals.x = 7").write();
    adapter
        .log()
        .wait_for(DEADLINE, |line| line.contains("the changed configuration is at fault"))
        .await
        .expect("it is told");
    setup.write();
    let acts = acts_when(&adapter, 5).await;
    assert_eq!(acts.len(), 5, "{acts:?}");
    assert_eq!(acts[0]["subject"], json!({ "organizations_removed": other.name }));
    let text = serde_json::to_string(&acts).unwrap();
    assert!(!text.contains("s3cret") && !text.contains(CLIENT_SECRET), "{text}");
    adapter.kill().await;
}

/// How many commands still have the body that the API answered with.
fn outcomes_left(setup: &Setup) -> usize {
    let store =
        rusqlite::Connection::open_with_flags(setup.store(), OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
    store.busy_timeout(DEADLINE).unwrap();
    let sql = "SELECT count(*) FROM commands WHERE outcome LIKE '%' || ?1 || '%'";
    let count: i64 = store.query_row(sql, [MARKER], |row| row.get(0)).unwrap();
    usize::try_from(count).unwrap()
}

#[tokio::test]
async fn a_kill_in_the_midst_leaves_no_lie_and_the_next_one_ends_it() {
    const GUESTS: usize = 600;
    let upstream = Upstream::start().await;
    let setup = upstream.setup(PROGRAM).env("GCA_ADMIN__TOKEN", TOKEN);
    let adapter = setup.start_ready().await;
    mark_bodies(&upstream);
    let (client, requester) = (adapter.client().await, upstream.requester);
    let calls = (0..GUESTS).map(|number| {
        let (mut client, call) = (client.clone(), upstream.archive(Uuid::new_v4(), &format!("key-{number}")));
        async move { client.archive_guest_connection(call).await.map(drop) }
    });
    let ended: Vec<_> = stream::iter(calls).buffer_unordered(32).collect().await;
    assert!(ended.iter().all(Result::is_ok), "{ended:?}");
    let body = json!({ "requester_organization_id": requester }).to_string();
    let (address, authorization) = (adapter.admin, bearer(TOKEN));
    // The act is begun and not over when the process is killed: its first step has been taken.
    let mut stream = TcpStream::connect(address).await.unwrap();
    let length = body.len();
    let head =
        format!("POST /v1/forget HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{authorization}\r\n\r\n");
    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
    let begun = async {
        while outcomes_left(&setup) == GUESTS {
            look_again().await;
        }
    };
    timeout(DEADLINE, begun).await.expect("something is erased");
    adapter.kill().await;
    let left = outcomes_left(&setup);
    let adapter = setup.start_ready().await;
    let answer = request(adapter.admin, "POST /v1/forget", &[&bearer(TOKEN)], &body).await;
    assert_eq!(answer.json()["outcomes"], left, "the rest, and nothing twice");
    // Not of the file's bytes: of so many rows SQLite leaves copies in unused parts of pages (docs/personal-data.md).
    assert_eq!(outcomes_left(&setup), 0);
    let acts = acts_when(&adapter, 1).await;
    let is_done = |act: &serde_json::Value| act["finish_time"].is_string();
    assert_eq!((acts.len(), is_done(&acts[0])), (2, true), "{acts:?}");
    // The first one may have been over by the time of the kill, or all but over. It says so only if it was.
    assert!(!is_done(&acts[1]) || left == 0, "{left}: {acts:?}");
    adapter.kill().await;
}
