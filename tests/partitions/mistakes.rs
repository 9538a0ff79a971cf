//! What the operator must see to, and how it is told if that is not so.

use harness::DEADLINE;

use crate::support::{Load, Retiring, Stage};

#[tokio::test]
async fn an_instance_with_the_former_configuration_is_noticed_when_it_declares_its_queues_again() {
    let stage = Stage::start().await;
    let lines = "amqp.partitions = 3\namqp.partitions_from = 2";
    let former = stage.instance("amqp.partitions = 2");
    assert!(former.start_ready().await.terminate().await.0.success());
    let adapter = stage.instance(lines).start_ready().await;
    let operator = stage.instance(&format!("{lines}\namqp.check_interval = \"20s\""));
    let retiring = Retiring::begin(&operator).says("it is watched").await;
    let late = former.start().await;
    let (status, told) = retiring.end().await;
    assert_eq!(status.code(), Some(1), "{told}");
    assert!(told.contains("is there again") && told.contains("amqp.partitions_from = 2"), "{told}");
    assert!(late.terminate().await.0.success());

    // Once that is stopped it can be begun again, by whoever has restarted.
    assert!(adapter.terminate().await.0.success());
    let adapter = stage.instance(lines).start_ready().await;
    let (status, told) = Retiring::begin(&stage.instance(lines)).end().await;
    assert!(status.success(), "{told}");
    let load = Load::begin(&stage, 4).await;
    stage.some(20).await;
    load.end(&stage).await;
    assert!(adapter.terminate().await.0.success());
}

#[tokio::test]
async fn a_fence_that_meets_the_former_configuration_deletes_nothing() {
    let stage = Stage::start().await;
    let former = stage.instance("amqp.partitions = 2").start_ready().await;
    let load = Load::begin(&stage, 4).await;
    stage.some(10).await;
    let lines = "amqp.partitions = 3\namqp.partitions_from = 2";
    let retiring = Retiring::begin(&stage.instance(lines)).says("messages wait").await;
    let is_told = |line: &str| line.contains("for another configuration");
    former.log().wait_for(DEADLINE, is_told).await.expect("it is told");
    let (guests, count) = load.halt().await;
    // With the roll completed another fence does it.
    assert!(former.terminate().await.0.success());
    let adapter = stage.instance(lines).start_ready().await;
    let (status, told) = retiring.says("it is watched").await.end().await;
    assert!(status.success(), "{told}");
    // The former one had bound its queues again, after a while without: order is not promised then, but nothing is lost.
    stage.all(&guests, count).await;
    assert!(adapter.terminate().await.0.success());
}

#[tokio::test]
async fn instances_that_share_one_queue_are_noticed_before_anything_is_changed() {
    let stage = Stage::start().await;
    let (first, second) = (stage.instance("").start_ready().await, stage.instance("").start_ready().await);
    let operator = stage.instance("amqp.partitions = 2\namqp.partitions_from = 0");
    let (status, told) = Retiring::begin(&operator).end().await;
    assert_eq!(status.code(), Some(1), "{told}");
    assert!(told.contains("has 2 consumers") && told.contains("nothing was changed"), "{told}");
    let load = Load::begin(&stage, 2).await;
    stage.some(10).await;
    assert_eq!(stage.depth(0).await + stage.broker.consumers(&stage.names.commands).await, 2);
    let (guests, count) = load.halt().await;
    stage.all(&guests, count).await;
    for adapter in [first, second] {
        assert!(adapter.terminate().await.0.success());
    }
}

#[tokio::test]
async fn there_must_be_something_to_retire() {
    let stage = Stage::start().await;
    let (status, told) = Retiring::begin(&stage.instance("amqp.partitions = 2")).end().await;
    assert_eq!(status.code(), Some(1), "{told}");
    assert!(told.contains("`amqp.partitions_from` is not set"), "{told}");
}
