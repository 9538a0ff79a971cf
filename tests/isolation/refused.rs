//! What the contract rejects is not sent again.

use guest_connection_adapter::proto::CommandState;
use simulator::Rule;
use tonic::Code;

use crate::support::{Sent, call, command_when, is_final, part_when, publish, start, told};

#[tokio::test]
async fn what_the_contract_rejects_is_sent_once_by_either_door() {
    let world = start(2, "").await;
    let organization = world.upstream.organizations[0].clone();
    let client = world.client().await;
    let mut letters = world.broker.consume(&world.names.dead_letters).await;
    // Each as often as would open a breaker, if it counted.
    let rejections = [
        (400, Code::InvalidArgument, CommandState::Rejected),
        (403, Code::PermissionDenied, CommandState::Failed),
        (404, Code::NotFound, CommandState::Rejected),
        (409, Code::FailedPrecondition, CommandState::Rejected),
        (422, Code::InvalidArgument, CommandState::Rejected),
    ];
    for (status, code, state) in rejections {
        let calls = Sent::many(&organization, &format!("call-{status}"), 6);
        let messages = Sent::many(&organization, &format!("message-{status}"), 6);
        for sent in calls.iter().chain(&messages) {
            world.upstream.simulator.script(Rule::patch().guest(sent.guest).status(status));
        }
        for sent in &calls {
            let refusal = call(&client, &organization, sent.guest, &sent.key).await.unwrap_err();
            assert_eq!(told(&refusal).0, code, "{status}: {refusal:?}");
        }
        publish(&world, &messages).await;
        for _ in &messages {
            letters.next().await;
        }
        for sent in calls.iter().chain(&messages) {
            let command = command_when(&client, &organization, &sent.key, is_final).await;
            assert_eq!((command.state(), command.attempts), (state, 1), "{status}: {command:?}");
        }
        part_when(&world, "upstream", "ready").await;
        for sent in calls.iter().chain(&messages) {
            assert_eq!(world.upstream.received(sent.guest), 1, "{status}");
        }
    }
    world.end().await;
}
