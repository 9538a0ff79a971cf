//! What callers may do and see: their own, and nothing that tells of others.

use guest_connection_adapter::proto;
use harness::adapter::field;
use harness::{Organization, adapter::record};
use tonic::Code;
use tonic::transport::Channel;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::support::{
    House, archive, bearing, by_id, look_up, not_permitted, reason, unauthenticated, whole,
};

#[tokio::test]
async fn what_is_not_granted_is_refused_alike_whether_it_exists_or_not() {
    let house = House::start("").await;
    let mut client = house.adapter.client().await;
    let (first, second) = (house.issuer.token("first"), house.issuer.token("second"));
    let guest = Uuid::new_v4();
    let done = archive(&mut client, &first, house.organization(0).archive(guest, "k")).await.unwrap();
    // The other one's organisation, its used key, a fresh key, and an organisation that is nowhere.
    let nowhere = Organization::numbered(9, Uuid::now_v7());
    let mut refusals = Vec::new();
    for call in [
        house.organization(0).archive(guest, "k"),
        house.organization(0).archive(guest, "fresh"),
        house.organization(0).archive(Uuid::new_v4(), "k"),
        nowhere.archive(guest, "k"),
    ] {
        let refused = archive(&mut client, &second, call).await.unwrap_err();
        assert_eq!(reason(&refused), not_permitted());
        refusals.push(whole(&refused));
    }
    for question in
        [house.organization(0).lookup("k"), house.organization(0).lookup("l"), nowhere.lookup("k")]
    {
        refusals.push(whole(&look_up(&mut client, &second, question).await.unwrap_err()));
    }
    let unarchive = bearing(&second, house.organization(0).unarchive(guest, "back"));
    refusals.push(whole(&client.unarchive_guest_connection(unarchive).await.unwrap_err()));
    refusals.dedup();
    assert_eq!(refusals.len(), 1, "{refusals:#?}");
    assert_eq!(house.upstream.applied(guest), [true], "nothing was done but what its owner asked for");
    // The replay of another one's key in one's own name is a command of one's own.
    let own = archive(&mut client, &second, house.organization(1).archive(guest, "k")).await.unwrap();
    assert!(!own.replayed);
    assert_ne!(own.command_id, done.command_id);
    let again = archive(&mut client, &first, house.organization(0).archive(guest, "k")).await.unwrap();
    assert!(again.replayed);
    assert_eq!(again.command_id, done.command_id);
    house.end().await;
}

#[tokio::test]
async fn another_ones_command_is_an_unknown_one() {
    let house = House::start("").await;
    let mut client = house.adapter.client().await;
    let (first, second) = (house.issuer.token("first"), house.issuer.token("second"));
    let done = archive(&mut client, &first, house.upstream.archive(Uuid::new_v4(), "k")).await.unwrap();
    let unknown = Uuid::now_v7().to_string();
    let theirs = look_up(&mut client, &second, by_id(&done.command_id)).await.unwrap_err();
    let nobodys = look_up(&mut client, &second, by_id(&unknown)).await.unwrap_err();
    assert_eq!(reason(&theirs), (Code::NotFound, "COMMAND_NOT_FOUND".to_owned()));
    // Each names the id that it was asked for, and nothing else differs.
    let replaced = |status: &tonic::Status| {
        let (code, message, details, metadata) = whole(status);
        let place = |id: &str| details.windows(36).position(|window| window == id.as_bytes());
        let at = place(&done.command_id).or(place(&unknown)).expect("the id");
        let mut details = details.clone();
        details[at..at + 36].fill(b'x');
        (code, message, details, metadata.len())
    };
    assert_eq!(replaced(&theirs), replaced(&nobodys));
    for name in ["first", "reader", "operator"] {
        let token = house.issuer.token(name);
        let seen = look_up(&mut client, &token, by_id(&done.command_id)).await.expect(name);
        assert_eq!(seen.command_id, done.command_id);
        look_up(&mut client, &token, house.organization(0).lookup("k")).await.expect(name);
    }
    house.end().await;
}

#[tokio::test]
async fn a_method_that_is_not_granted_is_refused() {
    let house = House::start(
        "principals.writer = { jwt_subjects = [\"writer\"], organizations = [\"test\"], methods = [\"archive\"] }",
    )
    .await;
    let mut client = house.adapter.client().await;
    let (reader, writer) = (house.issuer.token("reader"), house.issuer.token("writer"));
    let guest = Uuid::new_v4();
    let refused = archive(&mut client, &reader, house.upstream.archive(guest, "k")).await.unwrap_err();
    assert_eq!(reason(&refused), not_permitted());
    assert_eq!(house.upstream.received(guest), 0);
    let done = archive(&mut client, &writer, house.upstream.archive(guest, "k")).await.unwrap();
    let call = bearing(&writer, house.upstream.unarchive(guest, "l"));
    assert_eq!(reason(&client.unarchive_guest_connection(call).await.unwrap_err()), not_permitted());
    for question in [by_id(&done.command_id), by_id(&Uuid::now_v7().to_string())] {
        assert_eq!(reason(&look_up(&mut client, &writer, question).await.unwrap_err()), not_permitted());
    }
    house.end().await;
}

#[tokio::test]
async fn a_request_without_a_requester_tells_nothing_of_the_default_one() {
    let with = House::start("default_organization = \"test\"").await;
    let without = House::start("").await;
    let mut told = Vec::new();
    for house in [&with, &without] {
        let mut client = house.adapter.client().await;
        let call = proto::ArchiveGuestConnectionRequest {
            requester_organization_id: String::new(),
            ..house.organization(0).archive(Uuid::new_v4(), "k")
        };
        let refused = archive(&mut client, &house.issuer.token("second"), call.clone()).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument);
        told.push(whole(&refused));
        let mut question = house.organization(0).lookup("k");
        if let Some(proto::get_command_request::Lookup::Key(key)) = &mut question.lookup {
            key.requester_organization_id.clear();
        }
        told.push(whole(&look_up(&mut client, &house.issuer.token("second"), question).await.unwrap_err()));
        let answer = archive(&mut client, &house.issuer.token("first"), call).await;
        assert_eq!(answer.is_ok(), std::ptr::eq(house, &raw const with), "for whom it is meant");
    }
    assert_eq!(told[..2], told[2..]);
    with.end().await;
    without.end().await;
}

#[tokio::test]
async fn health_is_open_and_reflection_is_not() {
    let house = House::start("").await;
    let endpoint = Channel::from_shared(format!("http://{}", house.adapter.grpc)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.expect("open");
    let question = || {
        let request = ServerReflectionRequest {
            message_request: Some(MessageRequest::ListServices(String::new())),
            ..<_>::default()
        };
        futures::stream::iter([request])
    };
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let refused = reflection.server_reflection_info(question()).await.unwrap_err();
    assert_eq!(reason(&refused), unauthenticated());
    let call = bearing(&house.issuer.token("reader"), question());
    reflection.server_reflection_info(call).await.expect("for those who are known");
    // A name that is nowhere is refused like any other.
    let path = http::uri::PathAndQuery::from_static("/nowhere.Service/Method");
    let mut grpc = tonic::client::Grpc::new(channel);
    grpc.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<proto::GetCommandRequest, proto::GetCommandResponse>::default();
    let refused = grpc.unary(tonic::Request::new(by_id("x")), path, codec).await.map(|_| ()).unwrap_err();
    assert_eq!(reason(&refused), unauthenticated());
    house.end().await;
}

#[tokio::test]
async fn a_flood_of_one_principal_costs_the_others_nothing() {
    let lines = "principals.first = { jwt_subjects = [\"first\"], organizations = [\"test\"], requests_per_second = 0.01 }";
    let house = House::start(lines).await;
    let mut client = house.adapter.client().await;
    let (first, second) = (house.issuer.token("first"), house.issuer.token("second"));
    let guest = Uuid::new_v4();
    archive(&mut client, &first, house.organization(0).archive(guest, "k")).await.expect("the first one");
    for number in 0..20 {
        let call = house.organization(0).archive(Uuid::new_v4(), &format!("flood-{number}"));
        let refused = archive(&mut client, &first, call).await.unwrap_err();
        assert_eq!(reason(&refused), (Code::ResourceExhausted, "OVERLOADED".to_owned()));
        let delay = refused.get_error_details().retry_info().unwrap().retry_delay.unwrap();
        assert!((60..=100).contains(&delay.as_secs()), "{delay:?}");
        assert!(refused.metadata().contains_key("grpc-retry-pushback-ms"));
        let call = house.organization(1).archive(Uuid::new_v4(), &format!("calm-{number}"));
        archive(&mut client, &second, call).await.expect("not held up");
    }
    house.end().await;
}

#[tokio::test]
async fn the_log_of_refusals_is_bounded() {
    let house = House::start("").await;
    let mut client = house.adapter.client().await;
    let started = std::time::Instant::now();
    for _ in 0..200 {
        client.get_command(by_id(&Uuid::now_v7().to_string())).await.unwrap_err();
    }
    let elapsed = started.elapsed().as_secs_f64();
    assert_eq!(house.refused("nothing_proved").await, 200);
    let lines = house.adapter.log().all();
    let refusals: Vec<_> = lines
        .iter()
        .filter_map(|line| record(line))
        .filter(|r| field(r, "reason") == Some("nothing_proved"))
        .collect();
    let bound = elapsed.mul_add(5.0, 2.0);
    let count = u32::try_from(refusals.len()).unwrap();
    assert!((1..=200).contains(&count) && f64::from(count) <= bound, "{count} lines in {elapsed} s");
    assert!(field(&refusals[0], "address").is_some_and(|address| address.starts_with("127.0.0.1:")));
    house.end().await;
}
