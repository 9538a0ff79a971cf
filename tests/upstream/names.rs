//! Names, addresses and the time that connecting takes.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use guest_connection_adapter::domain::obstacle::Obstacle;
use guest_connection_adapter::domain::reply::Reply;
use guest_connection_adapter::mycreditapp::{Credentials, MyCreditApp, Settings};
use guest_connection_adapter::service::ports::Upstream as _;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;

use crate::peer::{REQUESTER, answer, base_url, organization, patch, serve, settings, with_static_token};

/// Answers each question with the next of its answers, the last one again and again; nothing is a failure.
#[derive(Clone)]
struct Script {
    answers: Arc<Mutex<Vec<Vec<SocketAddr>>>>,
    asked: Arc<Mutex<usize>>,
}

impl Script {
    /// `answers` are asked for in turn.
    fn new(answers: &[&[std::net::IpAddr]]) -> Self {
        let answers = answers.iter().map(|found| found.iter().map(|ip| SocketAddr::new(*ip, 0)).collect());
        Self { answers: Arc::new(Mutex::new(answers.rev().collect())), asked: Arc::default() }
    }

    fn asked(&self) -> usize {
        *self.asked.lock().unwrap()
    }
}

impl Resolve for Script {
    fn resolve(&self, _: Name) -> Resolving {
        *self.asked.lock().unwrap() += 1;
        let mut answers = self.answers.lock().unwrap();
        let found = if answers.len() > 1 { answers.pop() } else { answers.last().cloned() };
        let found = found.unwrap_or_default();
        Box::pin(async move {
            if found.is_empty() {
                return Err("no such name".into());
            }
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// For an end at `port` of whatever a name comes to.
fn named(port: u16) -> Settings {
    let mut settings =
        settings(SocketAddr::from(([127, 0, 0, 1], port)), Credentials::StaticToken("t".into()));
    base_url(&mut settings).set_host(Some("upstream.test")).unwrap();
    settings.connect_timeout = Duration::from_secs(2);
    settings.attempt_timeout = Duration::from_secs(5);
    settings
}

async fn send(upstream: &MyCreditApp) -> Reply {
    let authorization = upstream.authorize(organization(REQUESTER), false).await.unwrap();
    upstream.patch(patch(), authorization).await
}

/// A listener whose queue is full: who comes now is kept waiting, and told nothing. It lasts as long as what is returned.
async fn crowded(address: SocketAddr) -> (SocketAddr, impl Sized) {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let listener = socket.listen(1).unwrap();
    let address = listener.local_addr().unwrap();
    // A queue of one holds two.
    let mut connecting = JoinSet::new();
    for _ in 0..16 {
        connecting.spawn(TcpStream::connect(address));
    }
    let mut held = Vec::new();
    for _ in 0..2 {
        held.push(connecting.join_next().await.unwrap().unwrap().unwrap());
    }
    (address, (listener, connecting, held))
}

#[tokio::test]
async fn connecting_ends_in_time_and_nothing_was_sent() {
    let (address, _crowd) = crowded("127.0.0.1:0".parse().unwrap()).await;
    let reply = send(&with_static_token(address)).await;
    assert!(matches!(reply, Reply::Unreachable(Obstacle::ConnectTimeout)), "{reply:?}");
}

#[tokio::test]
async fn a_name_that_fails_is_asked_again_and_one_that_held_is_asked_for_each_connection() {
    let (address, _requests) = serve(|number| {
        let close = if number == 1 { "connection: close\r\n" } else { "" };
        Some(answer("200 OK", close, "{}"))
    })
    .await;
    let here: &[std::net::IpAddr] = &[Ipv4Addr::LOCALHOST.into()];
    let names = Script::new(&[&[], &[], here]);
    let upstream = MyCreditApp::with_resolver(named(address.port()), names.clone()).unwrap();
    for asked in [1, 2] {
        let reply = send(&upstream).await;
        assert!(matches!(reply, Reply::Unreachable(Obstacle::Name)), "{reply:?}");
        assert_eq!(names.asked(), asked, "a failure is not remembered");
    }
    assert!(matches!(send(&upstream).await, Reply::Answered(_)));
    assert!(matches!(send(&upstream).await, Reply::Answered(_)));
    assert_eq!(names.asked(), 3, "the connection was kept");
    assert!(matches!(send(&upstream).await, Reply::Answered(_)));
    assert_eq!(names.asked(), 4, "an address is not remembered either");
}

#[tokio::test]
async fn one_dead_address_of_several_does_not_matter() {
    let (address, _requests) = serve(|_| Some(answer("200 OK", "", "{}"))).await;
    let [v4, v6, other]: [std::net::IpAddr; 3] =
        [Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into(), Ipv4Addr::new(127, 0, 0, 2).into()];
    // Nobody listens there.
    for found in [[v6, v4], [other, v4]] {
        let upstream = MyCreditApp::with_resolver(named(address.port()), Script::new(&[&found])).unwrap();
        let reply = send(&upstream).await;
        assert!(matches!(reply, Reply::Answered(_)), "{found:?}: {reply:?}");
    }
    // Somebody listens and never takes a connection.
    for dead in [v6, other] {
        let (_, _crowd) = crowded(SocketAddr::new(dead, address.port())).await;
        let upstream =
            MyCreditApp::with_resolver(named(address.port()), Script::new(&[&[dead, v4]])).unwrap();
        let reply = send(&upstream).await;
        assert!(matches!(reply, Reply::Answered(_)), "{dead}: {reply:?}");
    }
}
