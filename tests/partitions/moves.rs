//! Partitions move between instances, and the order of arrival is kept; without partitions the newest value wins.

use std::sync::Arc;

use chrono::{SecondsFormat, TimeDelta, Utc};
use guest_connection_adapter::proto::CommandState;
use harness::{Adapter, DEADLINE, look_again};
use lapin::BasicProperties;
use tokio::time::timeout;
use uuid::Uuid;

use crate::support::{Load, Stage};

const GUESTS: usize = 8;

const PARTITIONS: &str = "amqp.partitions = 4";

/// Waits until the instance knows that there are so many.
async fn knows(adapter: &Adapter, count: u32) {
    let is_told = |line: &str| line.contains("divided anew") && line.contains(&format!("\"count\":{count}"));
    adapter.log().wait_for(DEADLINE, is_told).await.expect("it knows of the others");
}

/// Two instances under load, each with its partitions.
async fn two() -> (Arc<Stage>, Load, Adapter, Adapter) {
    let stage = Stage::start().await;
    let first = stage.mortal(PARTITIONS).start_ready().await;
    let load = Load::begin(&stage, GUESTS).await;
    stage.some(20).await;
    let second = stage.mortal(PARTITIONS).start_ready().await;
    knows(&first, 2).await;
    let left = |line: &str| line.contains("left to the instance to whom it falls");
    first.log().wait_for(DEADLINE, left).await.expect("it steps aside");
    stage.some(50).await;
    (stage, load, first, second)
}

#[tokio::test]
async fn order_is_kept_when_an_instance_joins_and_another_leaves() {
    let (stage, load, first, second) = two().await;
    assert!(first.terminate().await.0.success());
    stage.some(100).await;
    load.end(&stage).await;
    assert!(second.terminate().await.0.success());
}

#[tokio::test]
async fn order_is_kept_when_an_instance_is_killed() {
    let (stage, load, first, second) = two().await;
    first.kill().await;
    stage.some(100).await;
    let third = stage.mortal(PARTITIONS).start_ready().await;
    knows(&third, 2).await;
    stage.some(100).await;
    second.kill().await;
    stage.some(100).await;
    load.end(&stage).await;
    assert!(third.terminate().await.0.success());
}

#[tokio::test]
async fn without_partitions_the_newest_value_wins() {
    let stage = Stage::start().await;
    let (first, second) = (stage.instance("").start_ready().await, stage.instance("").start_ready().await);
    assert_eq!(stage.broker.consumers(&stage.names.commands).await, 2);
    let guests: Vec<_> = (0..4).map(|_| Uuid::new_v4()).collect();
    let (start, count) = (Utc::now() - TimeDelta::minutes(1), 25);
    let mut messages = Vec::new();
    for number in 0..count {
        for guest in &guests {
            let mut body = stage.upstream.message(*guest, number % 2 == 0, &format!("{guest}-{number}"));
            let time = start + TimeDelta::milliseconds(number);
            body["issue_time"] = time.to_rfc3339_opts(SecondsFormat::Millis, true).into();
            messages.push((
                guest.to_string(),
                BasicProperties::default(),
                serde_json::to_vec(&body).unwrap(),
            ));
        }
    }
    stage.broker.publish_all(&stage.names, messages).await;
    let ended = async {
        for guest in &guests {
            for number in 0..count {
                let key = format!("{guest}-{number}");
                let wanted = |state| [CommandState::Succeeded, CommandState::Superseded].contains(&state);
                let command =
                    stage.upstream.command_when(&first, &key, |command| wanted(command.state())).await;
                if number == count - 1 {
                    assert_eq!(command.state(), CommandState::Succeeded);
                }
            }
        }
    };
    timeout(DEADLINE, ended).await.expect("all have ended");
    for guest in &guests {
        assert_eq!(stage.upstream.applied(*guest).last(), Some(&true), "the last one, as it is the newest");
    }
    look_again().await;
    for adapter in [first, second] {
        assert!(adapter.terminate().await.0.success());
    }
}
