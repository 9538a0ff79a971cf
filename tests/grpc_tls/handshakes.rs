//! Who gets in, and who does not.

use guest_connection_adapter::proto::guest_connection_service_client::GuestConnectionServiceClient;
use guest_connection_adapter::proto::{GetCommandRequest, get_command_request::Lookup};
use harness::Upstream;
use harness::tls::{Authority, SERVER, TlsClient, secured};
use rustls::version::{TLS12, TLS13};
use tonic::Code;
use uuid::Uuid;

use crate::support::{BILLING, PROGRAM, Place, raw};

#[tokio::test]
async fn both_versions_of_tls_are_spoken_and_nothing_but_http2() {
    let place = Place::start(false, "").await;
    for version in [&TLS12, &TLS13] {
        let client = TlsClient::with(&place.servers, None, &[b"http/1.1", b"h2"], &[version]);
        place.call(&client).await.unwrap();
    }
    for protocols in [&[b"http/1.1" as &[u8]][..], &[]] {
        let client = TlsClient::with(&place.servers, None, protocols, &[&TLS13]);
        place.call(&client).await.unwrap_err();
    }
    place.call(&TlsClient::new(&place.servers, None)).await.unwrap();
    // One that offered something else was told so; one that offered nothing was hung up on.
    place.metric("adapter_grpc_connections_refused_total{reason=\"handshake\"}", |count| count >= 1.0).await;
    place.metric("adapter_grpc_connections_refused_total{reason=\"protocol\"}", |count| count >= 1.0).await;
}

#[tokio::test]
async fn a_client_sees_through_a_server_that_is_another() {
    let place = Place::start(false, "").await;
    let fault = TlsClient::new(&Authority::new(), None).connect(place.adapter.grpc).await.unwrap_err();
    assert!(fault.to_string().contains("UnknownIssuer"), "{fault}");
    let elsewhere = TlsClient::new(&place.servers, None).looking_for("elsewhere.example");
    let fault = elsewhere.connect(place.adapter.grpc).await.unwrap_err();
    assert!(fault.to_string().contains("not valid for name"), "{fault}");
}

#[tokio::test]
async fn an_expired_certificate_is_served_and_told_of() {
    let (upstream, servers) = (Upstream::start().await, Authority::new());
    let setup = secured(upstream.setup(PROGRAM), &servers.expired(SERVER), None);
    let adapter = setup.start_ready().await;
    let fault = TlsClient::new(&servers, None).connect(adapter.grpc).await.unwrap_err();
    assert!(fault.to_string().contains("expired"), "{fault}");
    let place = Place { upstream, servers, clients: Authority::new(), setup, adapter };
    assert!(place.certificate("degraded").await.contains("has expired"));
}

#[tokio::test]
async fn a_client_certificate_must_be_there_good_and_of_the_right_authority() {
    let place = Place::start(true, &crate::support::billing()).await;
    let own = place.clients.client(BILLING);
    place.call(&TlsClient::new(&place.servers, Some(&own))).await.unwrap();
    let refused = [
        ("none", None),
        ("expired", Some(place.clients.expired(BILLING))),
        ("of another authority", Some(Authority::new().client(BILLING))),
        ("of the servers' authority", Some(place.servers.client(BILLING))),
    ];
    for version in [&TLS12, &TLS13] {
        for (case, own) in &refused {
            let client = TlsClient::with(&place.servers, own.as_ref(), &[b"h2"], &[version]);
            assert!(place.call(&client).await.is_err(), "{case}");
        }
    }
    place.metric("adapter_grpc_connections_refused_total{reason=\"handshake\"}", |count| count >= 8.0).await;
    place.call(&TlsClient::new(&place.servers, Some(&own))).await.unwrap();
}

#[tokio::test]
async fn a_certificate_s_name_says_who_calls_and_that_is_kept_with_the_command() {
    let place = Place::start(true, &crate::support::billing()).await;
    let client = async |name: &str| {
        let own = place.clients.client(name);
        let channel = TlsClient::new(&place.servers, Some(&own)).channel(place.adapter.grpc).await.unwrap();
        GuestConnectionServiceClient::new(channel)
    };
    let mut known = client(BILLING).await;
    let call = place.upstream.archive(Uuid::new_v4(), "known");
    let answer = known.archive_guest_connection(call).await.unwrap().into_inner();
    let lookup = Some(Lookup::CommandId(answer.command_id));
    let command = known.get_command(GetCommandRequest { lookup }).await.unwrap().into_inner().command;
    let asked_by = command.unwrap().asked_by.unwrap();
    assert_eq!(asked_by.principal, "billing");
    assert!(asked_by.address.starts_with("127.0.0.1:"), "{asked_by:?}");

    let guest = Uuid::new_v4();
    let call = place.upstream.archive(guest, "unknown");
    let refusal =
        client("spiffe://example.org/nobody").await.archive_guest_connection(call).await.unwrap_err();
    assert_eq!(refusal.code(), Code::Unauthenticated, "{refusal:?}");
    assert_eq!(place.upstream.received(guest), 0);
}

#[tokio::test]
async fn an_optional_client_certificate_may_be_left_out_but_not_be_a_bad_one() {
    let lines = format!("grpc.client_certificates = \"optional\"\n{}", crate::support::billing());
    let place = Place::start(true, &lines).await;
    let own = place.clients.client(BILLING);
    place.call(&TlsClient::new(&place.servers, Some(&own))).await.unwrap();
    place.call(&TlsClient::new(&place.servers, None)).await.unwrap();
    for bad in [place.clients.expired(BILLING), Authority::new().client(BILLING)] {
        place.call(&TlsClient::new(&place.servers, Some(&bad))).await.unwrap_err();
    }
}

/// A greeting that fits but for its version, TLS 1.1.
fn greeting_1_1() -> Vec<u8> {
    let mut hello = vec![3, 2];
    hello.extend([7; 32]);
    hello.extend([0, 0, 4, 0xc0, 0x13, 0xc0, 0x2b, 1, 0]);
    // Groups and signature algorithms.
    hello.extend([0, 16, 0, 10, 0, 4, 0, 2, 0, 23, 0, 13, 0, 4, 0, 2, 4, 3]);
    let length = u8::try_from(hello.len()).unwrap();
    let mut message = vec![22, 3, 1, 0, length + 4, 1, 0, 0, length];
    message.extend(hello);
    message
}

#[tokio::test]
async fn older_tls_and_no_tls_are_hung_up_on() {
    let place = Place::start(false, "").await;
    let said = raw(place.adapter.grpc, &greeting_1_1()).await;
    // A fatal alert of TLS: `protocol_version`.
    assert_eq!(said[..1], [21], "{said:?}");
    assert_eq!(said[5..], [2, 70], "{said:?}");
    let plain = [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    let said = raw(place.adapter.grpc, &plain).await;
    assert!(said.is_empty() || said[0] == 21, "{said:?}");
    place.metric("adapter_grpc_connections_refused_total{reason=\"handshake\"}", |count| count >= 2.0).await;
    place.call(&TlsClient::new(&place.servers, None)).await.unwrap();
}

#[tokio::test]
async fn tls_is_hung_up_on_where_there_is_none() {
    let upstream = Upstream::start().await;
    let adapter = upstream.setup(PROGRAM).start_ready().await;
    TlsClient::new(&Authority::new(), None).connect(adapter.grpc).await.unwrap_err();
}
