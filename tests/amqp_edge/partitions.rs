use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use guest_connection_adapter::amqp::Settings;
use guest_connection_adapter::domain::seat::Seat;
use lapin::BasicProperties;
use uuid::Uuid;

use crate::consumer::body;
use crate::pipeline::Pipeline;
use crate::support::{Client, in_time, settings};

const GUESTS: usize = 40;

/// One more message for each guest. Yields for whom the one and the other sent a PATCH, once each of them has one.
async fn round(
    client: &Client,
    settings: &Settings,
    guests: &[Uuid],
    pipelines: [&mut Pipeline; 2],
) -> [HashSet<Uuid>; 2] {
    for guest in guests {
        let body = body(*guest, &Uuid::now_v7().to_string());
        let exchange = settings.names.commands_exchange.as_str();
        client.send(exchange, &guest.to_string(), BasicProperties::default(), &body).await;
    }
    let [one, other] = pipelines;
    let mut sent: [HashSet<Uuid>; 2] = Default::default();
    in_time("a PATCH for each", async {
        while sent[0].union(&sent[1]).count() < guests.len() {
            let (index, patch) = tokio::select! {
                patch = one.patches.recv() => (0, patch),
                patch = other.patches.recv() => (1, patch),
            };
            sent[index].insert(patch.expect("a PATCH").connection.guest.0);
        }
    })
    .await;
    sent
}

#[tokio::test]
async fn partitions_go_to_those_to_whom_they_fall_and_to_others_if_those_do_not_take_them() {
    let settings = Settings { partitions: 4, ..settings("seats") };
    let mut first = Pipeline::start(&settings).await;
    first.ready().await;
    let mut second = Pipeline::start_seated(&settings, Seat { index: 1, count: 2 }).await;
    second.ready().await;
    let client = Client::new().await;
    let guests: Vec<_> = (0..GUESTS).map(|_| Uuid::new_v4()).collect();
    let sent = round(&client, &settings, &guests, [&mut first, &mut second]).await;
    assert!(!sent[0].is_empty(), "who was first has those that it takes for its own");

    first.seat.send_replace(Seat { index: 0, count: 2 });
    let mut last = sent;
    let apart = in_time("each has its own", async {
        loop {
            let sent = round(&client, &settings, &guests, [&mut first, &mut second]).await;
            let are_apart = sent[0].is_disjoint(&sent[1]) && sent.iter().all(|sent| !sent.is_empty());
            if are_apart && sent == last {
                return sent;
            }
            last = sent;
        }
    })
    .await;
    second.seat.send_replace(Seat { index: 0, count: 2 });
    first.seat.send_replace(Seat { index: 1, count: 2 });
    in_time("they have changed places", async {
        loop {
            let sent = round(&client, &settings, &guests, [&mut first, &mut second]).await;
            if sent[0] == apart[1] && sent[1] == apart[0] {
                break;
            }
        }
    })
    .await;

    // The first one is not told that it is alone: it has what falls to nobody who is there all the same.
    second.stop().await;
    let mut nobody = Pipeline::start(&crate::support::settings("nobody")).await;
    let sent = round(&client, &settings, &guests, [&mut first, &mut nobody]).await;
    assert_eq!(sent[0].len(), GUESTS);
    nobody.stop().await;
    first.stop().await;
}

#[tokio::test]
async fn what_its_guest_does_not_route_is_counted_and_worked_on() {
    let settings = Settings { partitions: 2, ..settings("misrouted") };
    let mut pipeline = Pipeline::start(&settings).await;
    pipeline.ready().await;
    let client = Client::new().await;
    let guest = Uuid::new_v4();
    for key in
        [guest.to_string(), "other".to_owned(), guest.to_string().to_uppercase(), guest.simple().to_string()]
    {
        let body = body(guest, &Uuid::now_v7().to_string());
        client.send(&settings.names.commands_exchange, &key, BasicProperties::default(), &body).await;
        pipeline.patch().await;
    }
    assert_eq!(pipeline.counts.misrouted.load(Ordering::Relaxed), 3);
    pipeline.stop().await;
}

#[tokio::test]
async fn the_bound_on_deliveries_is_for_all_partitions_together() {
    let settings =
        Settings { partitions: 4, prefetch: 8, drain: Duration::from_millis(100), ..settings("prefetch") };
    let pipeline = Pipeline::start_held(&settings).await;
    pipeline.ready().await;
    let client = Client::new().await;
    for _ in 0..200 {
        let guest = Uuid::new_v4();
        let exchange = settings.names.commands_exchange.as_str();
        let body = body(guest, &Uuid::now_v7().to_string());
        client.send(exchange, &guest.to_string(), BasicProperties::default(), &body).await;
    }
    let names: Vec<_> =
        (0..4).map(|number| format!("{}.4.{number}", settings.names.commands_queue)).collect();
    // That many and no more are handed out, two of each.
    in_time("all that may be is handed out", async {
        loop {
            let mut ready = 0;
            for name in &names {
                ready += client.counts(name).await.0;
            }
            assert!(ready >= 192, "{ready}");
            if ready == 192 {
                break;
            }
            harness::look_again().await;
        }
    })
    .await;
    pipeline.stop().await;
}
