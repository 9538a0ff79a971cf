use std::sync::Arc;
use std::time::Duration;

use guest_connection_adapter::amqp::Settings;
use guest_connection_adapter::domain::error::{Reason, Refusal};
use guest_connection_adapter::domain::message::{DeadLetter, EventKind, Message, Reply};
use guest_connection_adapter::domain::record::{Outcome, ReplyAddress};
use guest_connection_adapter::service::ports::{OVER, Publication, Publisher as _};
use lapin::options::ExchangeDeleteOptions;
use lapin::types::FieldTable;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;

use crate::support::{Client, behind_proxy, event, in_time, next, publisher, settings};

#[tokio::test]
async fn events_are_confirmed_and_come_in_order() {
    let settings = settings("confirmed");
    let (publisher, _, shutdown) = publisher(&settings).await;
    let client = Client::new().await;
    let (_, mut events) = client.subscribe(&settings.names.events_exchange, "#").await;
    let messages: Vec<_> = (0..100).map(|_| event(EventKind::Archived)).collect();
    let publications = publisher.publish(messages.clone(), None).await;
    assert_eq!(publications, vec![Publication::Confirmed; 100]);
    for message in &messages {
        let delivery = next(&mut events).await;
        let id = delivery.properties.message_id().as_ref().map(ToString::to_string);
        assert_eq!(id, Some(message.id().to_string()));
        assert_eq!(delivery.properties.delivery_mode(), &Some(2));
    }
    shutdown.cancel();
}

#[tokio::test]
async fn a_returned_message_is_matched_to_itself_alone() {
    let settings = settings("unroutable");
    let (publisher, _, shutdown) = publisher(&settings).await;
    let client = Client::new().await;
    let _inbox = client.subscribe(&settings.names.events_exchange, "guest-connection.archived.#").await;
    for round in 0..20 {
        let odd = (round * 37) % 200;
        let kind = |index| if index == odd { EventKind::Unarchived } else { EventKind::Archived };
        let publications = publisher.publish((0..200).map(|index| event(kind(index))).collect(), None).await;
        for (index, publication) in publications.into_iter().enumerate() {
            let expected = if index == odd { Publication::Unroutable } else { Publication::Confirmed };
            assert_eq!(publication, expected, "message {index} of round {round}");
        }
    }
    shutdown.cancel();
}

#[tokio::test]
async fn a_channel_that_the_broker_closes_is_opened_again() {
    let settings = settings("channel");
    let (publisher, _, shutdown) = publisher(&settings).await;
    let client = Client::new().await;
    let exchange = settings.names.events_exchange.as_str();
    client.channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await.expect("deleted");
    let message = event(EventKind::Archived);
    let publications = in_time("a failure", publisher.publish(vec![message.clone()], None)).await;
    assert!(
        matches!(&publications[..], [Publication::Failed(reason)] if reason.contains("404")),
        "{publications:?}"
    );
    // The exchange is declared with the next channel; nobody has bound a queue to it yet.
    let publications = in_time("an answer", publisher.publish(vec![message.clone()], None)).await;
    assert_eq!(publications, [Publication::Unroutable]);
    let (_, mut events) = client.subscribe(exchange, "#").await;
    assert_eq!(publisher.publish(vec![message.clone()], None).await, [Publication::Confirmed]);
    let id = next(&mut events).await.properties.message_id().as_ref().map(ToString::to_string);
    assert_eq!(id, Some(message.id().to_string()));
    shutdown.cancel();
}

#[tokio::test]
async fn a_cut_connection_is_made_again() {
    let direct = settings("cut");
    let (proxy, address) = behind_proxy(&direct.address);
    let settings = Settings { address, ..direct };
    let (publisher, readiness, shutdown) = publisher(&settings).await;
    let client = Client::new().await;
    let _inbox = client.subscribe(&settings.names.events_exchange, "#").await;
    for _ in 0..3 {
        proxy.cut();
        // Whether the cut was noticed before or after, the message is confirmed in the end.
        in_time("a confirm", async {
            while publisher.publish(vec![event(EventKind::Archived)], None).await != [Publication::Confirmed]
            {
            }
        })
        .await;
        crate::support::ready(&readiness, "amqp.publish").await;
    }
    shutdown.cancel();
}

#[tokio::test]
async fn replies_go_to_their_queue_and_are_told_when_it_is_gone() {
    let settings = settings("reply");
    let (publisher, _, shutdown) = publisher(&settings).await;
    let client = Client::new().await;
    let queue = client.queue().await;
    let mut answers = client.consume(&queue).await;
    // Longer than a frame of the connection for replies.
    let text = "the body is empty; ".repeat(5_000);
    let reply = |reply_to: &str| {
        Arc::new(Message::Reply(Box::new(Reply {
            id: Uuid::now_v7(),
            address: ReplyAddress { reply_to: reply_to.to_owned(), correlation_id: Some("c-1".to_owned()) },
            trace: Default::default(),
            command: None,
            replayed: false,
            time: None,
            outcome: Outcome::refused(None, Reason::Undecodable, &text),
        })))
    };
    let publications =
        publisher.publish(vec![reply(&queue), event(EventKind::Archived), reply("gone")], None).await;
    assert_eq!(publications, [Publication::Confirmed, Publication::Unroutable, Publication::Unroutable]);
    let answer = next(&mut answers).await;
    assert_eq!(answer.properties.correlation_id().as_ref().map(ToString::to_string), Some("c-1".into()));
    let body: serde_json::Value = serde_json::from_slice(&answer.data).expect("JSON");
    assert_eq!(body["reason"], "UNDECODABLE");
    assert_eq!(body["message"], text);
    shutdown.cancel();
}

#[tokio::test]
async fn a_dead_letter_is_kept_while_it_has_no_queue() {
    let settings = settings("letter");
    let (publisher, _, shutdown) = publisher(&settings).await;
    let client = Client::new().await;
    let (queue, exchange) =
        (settings.names.dead_letters_queue.as_str(), settings.names.dead_letters_exchange.as_str());
    let Message::Event(event) = Arc::unwrap_or_clone(event(EventKind::Archived)) else {
        unreachable!("it is an event")
    };
    let letter = Arc::new(Message::DeadLetter(Box::new(DeadLetter {
        id: Uuid::now_v7(),
        time: event.time,
        trace: event.trace,
        command: event.command,
        refusal: Refusal::new(Reason::UpstreamNotFound, "no such connection"),
    })));
    client
        .channel
        .queue_unbind(queue.into(), exchange.into(), "#".into(), FieldTable::default())
        .await
        .expect("unbound");
    assert_eq!(publisher.publish(vec![letter.clone()], None).await, [Publication::Unroutable]);
    client
        .channel
        .queue_bind(queue.into(), exchange.into(), "#".into(), Default::default(), FieldTable::default())
        .await
        .expect("bound");
    assert_eq!(publisher.publish(vec![letter.clone()], None).await, [Publication::Confirmed]);
    let mut letters = client.consume(queue).await;
    let id = next(&mut letters).await.properties.message_id().as_ref().map(ToString::to_string);
    assert_eq!(id, Some(letter.id().to_string()));
    shutdown.cancel();
}

/// The right to publish may run out while there is no connection: then nothing goes when there is one again.
#[tokio::test]
async fn nothing_is_published_once_the_right_to_it_has_run_out() {
    let direct = settings("until");
    let (proxy, address) = behind_proxy(&direct.address);
    let settings = Settings { address, ..direct };
    let (publisher, _, shutdown) = publisher(&settings).await;
    let client = Client::new().await;
    let (_, mut events) = client.subscribe(&settings.names.events_exchange, "#").await;
    let (late, in_good_time) = (event(EventKind::Archived), event(EventKind::Unarchived));
    let over = Some(Instant::now());
    assert_eq!(publisher.publish(vec![late.clone()], over).await, [Publication::Failed(OVER.to_owned())]);
    proxy.refuse();
    proxy.cut();
    let until = Instant::now() + Duration::from_millis(300);
    let publishing = publisher.publish(vec![late], Some(until));
    let reopened = async {
        sleep_until(until).await;
        proxy.accept();
    };
    let (publications, ()) = tokio::join!(in_time("an answer", publishing), reopened);
    assert!(matches!(&publications[..], [Publication::Failed(_)]), "{publications:?}");
    let later = Some(Instant::now() + Duration::from_secs(60));
    let publications = in_time("an answer", publisher.publish(vec![in_good_time.clone()], later)).await;
    assert_eq!(publications, [Publication::Confirmed]);
    let delivery = next(&mut events).await;
    let id = delivery.properties.message_id().as_ref().map(ToString::to_string);
    assert_eq!(id, Some(in_good_time.id().to_string()));
    shutdown.cancel();
}
