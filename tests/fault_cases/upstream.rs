//! The upstream: cases 31 to 34. Case 30 is `outcomes_rare::case_30_a_redirection_to_another_host_is_not_followed`.

use std::time::Duration;

use chrono::TimeDelta;
use guest_connection_adapter::proto::{Command, CommandState};
use harness::World;
use serde_json::{Value, json};
use simulator::{Entry, Rule, TimeForm};
use uuid::Uuid;

use crate::PROGRAM;
use crate::callers::{archive, event, nothing_more_is_told};

type Script = fn(Uuid) -> Rule;

/// Attempts short enough to wait for, long enough for a loaded machine.
const QUICK: &str = r#"
upstream.attempt_timeout = "1500ms"
upstream.connect_timeout = "500ms"
upstream.command_timeout = "4s"
upstream.settle = "500ms"
upstream.defer_delay_base = "200ms"
upstream.defer_delay_max = "400ms"
"#;

/// Fewer than were reported: each is refused once, however slowly they come, and so many of them would take minutes.
const COMMANDS: usize = 30;

/// How strictly attempts are spaced out beyond this is a matter of pace, not of faults.
#[tokio::test]
async fn case_31_a_wave_of_429_does_not_come_back_in_lockstep() {
    let mut world = World::start(PROGRAM, "").await;
    let guests: Vec<Uuid> = (0..COMMANDS).map(|_| Uuid::new_v4()).collect();
    for guest in &guests {
        world
            .upstream
            .simulator
            .script(Rule::patch().guest(*guest).times(1).status(429).header("retry-after", "2"));
    }
    for guest in &guests {
        world.send(*guest, &world.upstream.message(*guest, true, &guest.to_string())).await;
    }
    let mut told: Vec<String> = Vec::new();
    while told.len() < COMMANDS {
        told.push(event(&mut world).await);
    }
    told.sort();
    told.dedup();
    assert_eq!(told.len(), COMMANDS, "one event each");
    let journal = world.upstream.simulator.journal();
    let waits: Vec<TimeDelta> = guests
        .iter()
        .map(|guest| {
            let attempts: Vec<&Entry> = journal.iter().filter(|entry| entry.is_patch_of(*guest)).collect();
            assert_eq!(attempts.len(), 2, "asked for patience once");
            attempts[1].received_at - attempts[0].answered_at.unwrap()
        })
        .collect();
    let (least, most) = (*waits.iter().min().unwrap(), *waits.iter().max().unwrap());
    assert!(least >= TimeDelta::seconds(2), "nobody comes before the time: {least}");
    assert!(most - least > TimeDelta::milliseconds(150), "they are spread: {least} to {most}");
    let known =
        async |guest: &Uuid| world.upstream.command(&world.adapter, &guest.to_string()).await.unwrap();
    for guest in &guests {
        assert!(!known(guest).await.maybe_applied);
    }
    assert_eq!(world.broker.depth(&world.names.dead_letters).await, 0);
    nothing_more_is_told(world).await;
}

/// What a 200 carries never makes a second PATCH, nor a refusal.
async fn counts_as_done(rows: &[(&str, Script, bool)], look: impl Fn(&str, &Value)) {
    let mut world = World::start(PROGRAM, QUICK).await;
    for (key, rule, incomplete) in rows {
        let guest = Uuid::new_v4();
        world.upstream.simulator.script(rule(guest));
        let answer = archive(&world, guest, key).await.unwrap_or_else(|error| panic!("{key}: {error:?}"));
        assert_eq!(answer.incomplete, *incomplete, "{key}");
        let event = world.events.next().await.json();
        assert_eq!(event["type"], "ai.mycreditapp.guest-connection.archived.v1", "{key}");
        assert_eq!(event["data"]["incomplete"], *incomplete, "{key}");
        look(key, &event["data"]["guest_connection"]);
        if event["data"]["guest_connection"]["created_at"].is_string() {
            let read = answer.guest_connection.expect("a connection");
            assert!(read.created_at.is_some() && read.updated_at.is_some(), "{key}: times are read");
        }
        assert_eq!(world.upstream.received(guest), 1, "{key} is never repeated");
        assert!(archive(&world, guest, key).await.expect("it is remembered").replayed, "{key}");
        assert_eq!(world.upstream.received(guest), 1, "{key} is never repeated");
    }
    nothing_more_is_told(world).await;
}

#[tokio::test]
async fn case_32_an_empty_success_counts() {
    let rows: [(&str, Script, bool); 3] = [
        ("204", |g| Rule::patch().guest(g).empty_body(204), true),
        ("empty-200", |g| Rule::patch().guest(g).empty_body(200), true),
        ("blank-202", |g| Rule::patch().guest(g).status(202).text(" ").applied().into(), true),
    ];
    counts_as_done(&rows, |key, sent| assert!(sent.is_null(), "{key}: {sent}")).await;
}

#[tokio::test]
async fn case_33_a_success_of_unknown_form_counts() {
    let rows: [(&str, Script, bool); 10] = [
        ("extra", |g| Rule::patch().guest(g).extra_fields(), false),
        ("zoned", |g| Rule::patch().guest(g).time_form(TimeForm::Zoned), false),
        ("bare", |g| Rule::patch().guest(g).time_form(TimeForm::Zoneless), false),
        ("other", |g| Rule::patch().guest(g).wrong_archived(), true),
        ("malformed", |g| Rule::patch().guest(g).malformed_json(), true),
        ("null", |g| shows(g, json!(null)), true),
        ("list", |g| shows(g, json!([1, 2])), true),
        ("missing", |g| shows(g, json!({"archived": true})), false),
        ("nulls", |g| shows(g, json!({"archived": null, "status": null, "created_at": null})), true),
        ("types", |g| shows(g, json!({"archived": "yes", "status": 7, "created_at": {}})), true),
    ];
    let look = |key: &str, sent: &Value| match key {
        "extra" => assert!(sent["labels"]["tier"] == "gold" && sent["status"] == "awaiting_review", "{sent}"),
        "zoned" | "bare" => assert_eq!(sent.as_object().unwrap().len(), 16, "{sent}"),
        _ => {}
    };
    counts_as_done(&rows, look).await;
}

fn shows(guest: Uuid, body: Value) -> Rule {
    Rule::patch().guest(guest).status(200).json(body).applied().into()
}

#[tokio::test]
async fn case_34_a_body_without_an_end_is_cut_off_and_counts() {
    let rows: [(&str, Script, bool); 3] = [
        ("cut", |g| Rule::patch().guest(g).truncate_body(), true),
        ("dripped", |g| Rule::patch().guest(g).drip(Duration::from_millis(200)), true),
        ("endless", |g| Rule::patch().guest(g).endless_body(), true),
    ];
    counts_as_done(&rows, |_, _| {}).await;
}

/// Before the status line nothing is known.
#[tokio::test]
async fn case_34_headers_without_an_end_are_an_unknown_fate() {
    let mut world = World::start(PROGRAM, QUICK).await;
    let guest = Uuid::new_v4();
    world.upstream.simulator.script(Rule::patch().guest(guest).drip_headers(Duration::from_millis(300)));
    world.send(guest, &world.upstream.message(guest, true, "k")).await;
    let deferred = |command: &Command| command.state() == CommandState::Deferred;
    let kept = world.upstream.command_when(&world.adapter, "k", deferred).await;
    assert!(kept.maybe_applied);
    assert_eq!(kept.outcome.unwrap().reason, "UPSTREAM_UNANSWERED");
    world.upstream.simulator.clear_faults();
    let told = world.events.next().await.json();
    assert_eq!(
        (&told["type"], &told["data"]["incomplete"]),
        (&json!("ai.mycreditapp.guest-connection.archived.v1"), &json!(false))
    );
    nothing_more_is_told(world).await;
}
