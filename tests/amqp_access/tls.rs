//! The broker by TLS, and what it says of a certificate that does not do.

use harness::{Adapter, Names, Setup, Upstream, World};
use uuid::Uuid;

use crate::PROGRAM;
use crate::support::{ALL, Authority, Pair, Place, not_ready, tls_lines};

async fn adapter(
    place: &Place,
    host: &str,
    authority: &Authority,
    client: Option<&Pair>,
) -> (Adapter, Setup) {
    let upstream = Upstream::start().await;
    let setup = upstream.setup(PROGRAM).broker_at(&place.address(host), &Names::default());
    let lines = tls_lines(setup.directory(), authority, client);
    let setup = setup.config(&lines);
    (setup.start().await, setup)
}

async fn refused(adapter: Adapter, text: &str) {
    for part in ["amqp.consume", "amqp.publish", "amqp.reply"] {
        not_ready(&adapter, part, text).await;
    }
    let (status, log) = adapter.terminate().await;
    assert!(status.success());
    assert!(log.iter().any(|line| line.contains("broker: not available") && line.contains(text)), "{log:#?}");
}

#[tokio::test]
async fn the_main_job_is_done_by_tls_and_the_certificate_says_who_connects() {
    let place = Place::turn().await;
    let user = format!("adapter-{}", Uuid::new_v4().simple());
    place.user(&user, "", ALL).await;
    let client = place.authority.client(&user);
    let folder = tempfile::tempdir().unwrap();
    let lines = tls_lines(folder.path(), &place.authority, Some(&client)) + "\namqp.sasl = \"external\"";
    let broker = place.node.connect().await;
    let mut world = World::start_at(PROGRAM, broker, &place.address("localhost"), &lines).await;
    let guest = Uuid::new_v4();
    world.send(guest, &world.upstream.message(guest, true, "by-tls")).await;
    assert_eq!(world.events.next().await.json()["data"]["guest_connection"]["archived"], true);
    assert_eq!(world.upstream.applied(guest), [true]);
    let connections = place.node.ctl(&["list_connections", "user", "ssl", "auth_mechanism"]).await;
    let ours: Vec<_> = connections.lines().filter(|line| line.starts_with(&user)).collect();
    assert_eq!(ours.len(), 3, "{connections}");
    assert!(ours.iter().all(|line| line.ends_with("true\tEXTERNAL")), "{connections}");
    world.end().await;
}

#[tokio::test]
async fn a_certificate_of_an_unknown_authority_is_refused() {
    let place = Place::turn().await;
    let client = place.authority.client("guest");
    let (adapter, _) = adapter(&place, "localhost", &Authority::new(), Some(&client)).await;
    refused(adapter, "an authority that is not trusted").await;
}

#[tokio::test]
async fn a_certificate_for_another_host_is_refused() {
    let place = Place::turn().await;
    let client = place.authority.client("guest");
    let (adapter, _) = adapter(&place, "127.0.0.1", &place.authority, Some(&client)).await;
    refused(adapter, "its certificate is not for the host").await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused_until_there_is_a_good_one() {
    let place = Place::turn().await;
    place.serve(&place.authority.server(true)).await;
    let client = place.authority.client("guest");
    let (adapter, _) = adapter(&place, "localhost", &place.authority, Some(&client)).await;
    not_ready(&adapter, "amqp.consume", "its certificate has expired").await;
    place.serve(&place.authority.server(false)).await;
    adapter.ready().await;
    assert!(adapter.terminate().await.0.success());
}

#[tokio::test]
async fn a_broker_that_wants_a_client_certificate_is_understood() {
    let place = Place::turn().await;
    let (missing, _) = adapter(&place, "localhost", &place.authority, None).await;
    refused(missing, "it wants a client certificate").await;
    let foreign = Authority::new().client("guest");
    let (foreign, _) = adapter(&place, "localhost", &place.authority, Some(&foreign)).await;
    refused(foreign, "it does not accept the client certificate").await;
}

#[tokio::test]
async fn a_certificate_of_no_user_is_refused_and_a_renewed_one_is_used_at_once() {
    let place = Place::turn().await;
    let stranger = place.authority.client("stranger");
    let (adapter, setup) = adapter(&place, "localhost", &place.authority, Some(&stranger)).await;
    adapter.ready().await;
    assert!(adapter.terminate().await.0.success(), "with the password of the usual user it is let in");
    let setup = setup.config(
        "amqp.sasl = \"external\"\namqp.reconnect_delay_base = \"1h\"\namqp.reconnect_delay_max = \"1h\"",
    );
    let adapter = setup.start().await;
    not_ready(&adapter, "amqp.consume", "refused the credentials of the client certificate's user").await;
    // The next attempt would be made in half an hour or so.
    tls_lines(setup.directory(), &place.authority, Some(&place.authority.client("guest")));
    adapter.ready().await;
    assert!(adapter.terminate().await.0.success());
}

#[tokio::test]
async fn a_port_without_tls_is_told() {
    let place = Place::turn().await;
    let upstream = Upstream::start().await;
    let address = format!("amqps://localhost:{}/%2f", place.node.address().port());
    let adapter = upstream.setup(PROGRAM).broker_at(&address, &Names::default()).start().await;
    refused(adapter, "does not speak TLS").await;
}
