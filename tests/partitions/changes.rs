//! The number of partitions changes under load, by the procedure of `docs/amqp.md`.

use std::time::Duration;

use harness::Adapter;
use simulator::Rule;

use crate::support::{Load, Retiring, Stage};

const GUESTS: usize = 6;

fn lines(to: u16, from: u16) -> String {
    format!("amqp.partitions = {to}\namqp.partitions_from = {from}")
}

/// One after another all instances get the configuration of the change. Where there is one queue there is one instance, since
/// only then its order is promised.
async fn roll(stage: &Stage, old: Adapter, from: u16, to: u16) -> Vec<Adapter> {
    let mut instances = vec![stage.instance(&lines(to, from)).start_ready().await];
    stage.some(20).await;
    assert!(old.terminate().await.0.success());
    stage.some(20).await;
    if to > 0 {
        instances.push(stage.instance(&lines(to, from)).start_ready().await);
        stage.some(20).await;
    }
    instances
}

async fn changed(from: u16, to: u16) {
    let stage = Stage::start().await;
    let old = stage.instance(&format!("amqp.partitions = {from}")).start_ready().await;
    let load = Load::begin(&stage, GUESTS).await;
    stage.some(20).await;
    let instances = roll(&stage, old, from, to).await;
    assert!(stage.depth(to).await > 0, "the new queues are bound while the old ones still are");

    let operator = stage.instance(&lines(to, from));
    let (status, told) = Retiring::begin(&operator).end().await;
    assert!(status.success(), "{told}");
    for queue in stage.queues(from) {
        assert!(!stage.is_there(&queue).await, "{queue}: {told}");
    }
    stage.some(50).await;
    load.end(&stage).await;
    let (status, told) = Retiring::begin(&operator).end().await;
    assert!(status.success(), "once more does no harm: {told}");
    for instance in instances {
        assert!(instance.terminate().await.0.success());
    }
    let after = stage.instance(&format!("amqp.partitions = {to}")).start_ready().await;
    let load = Load::begin(&stage, GUESTS).await;
    stage.some(50).await;
    load.end(&stage).await;
    assert!(after.terminate().await.0.success());
}

#[tokio::test]
async fn two_partitions_become_three() {
    changed(2, 3).await;
}

#[tokio::test]
async fn one_queue_becomes_two_partitions() {
    changed(0, 2).await;
}

#[tokio::test]
async fn two_partitions_become_one_queue() {
    changed(2, 0).await;
}

#[tokio::test]
async fn a_fence_survives_who_got_it() {
    let stage = Stage::start().await;
    let old = stage.instance("amqp.partitions = 2").start_ready().await;
    assert!(old.terminate().await.0.success());
    // Commands in hand keep the queues from being deleted.
    stage.upstream.simulator.script(Rule::patch().delay(Duration::from_millis(800)));
    let first = stage.mortal(&lines(3, 2)).start_ready().await;
    let load = Load::begin(&stage, GUESTS).await;
    stage.some(4).await;
    let retiring = Retiring::begin(&stage.instance(&lines(3, 2))).says("messages wait").await;
    first.kill().await;
    stage.upstream.simulator.clear_faults();
    let second = stage.mortal(&lines(3, 2)).start_ready().await;
    let (status, told) = retiring.end().await;
    assert!(status.success(), "{told}");
    load.end(&stage).await;
    assert!(second.terminate().await.0.success());
}
