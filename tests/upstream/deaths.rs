//! Connections that were kept, and ended between two requests or in the midst of one.

use std::net::SocketAddr;

use guest_connection_adapter::domain::reply::Reply;
use guest_connection_adapter::mycreditapp::MyCreditApp;
use guest_connection_adapter::service::ports::Upstream as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use crate::peer::{REQUESTER, answer, organization, patch, request, with_static_token};

/// How the first connection ends, after one request that was answered.
#[derive(Debug, Clone, Copy)]
enum Death {
    /// While nothing is under way; the client has seen it.
    Idle,
    /// The next request is read and the connection closed.
    Read,
    /// It is reset instead.
    Reset,
    /// A part of the answer is sent before.
    Answering,
}

/// An end whose first connection dies, and that tells of each request (the number of its connection), and of the death.
async fn serve(death: Death) -> (SocketAddr, mpsc::UnboundedReceiver<usize>, mpsc::UnboundedReceiver<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, requests) = mpsc::unbounded_channel();
    let (died, deaths) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        for number in 0.. {
            let (mut socket, _) = listener.accept().await.unwrap();
            let (seen, died) = (seen.clone(), died.clone());
            tokio::spawn(async move {
                for served in 0.. {
                    if number == 0 && served == 1 && matches!(death, Death::Idle) {
                        socket.shutdown().await.unwrap();
                        assert_eq!(
                            socket.read(&mut [0; 64]).await.unwrap(),
                            0,
                            "the client closes its side too"
                        );
                        died.send(()).unwrap();
                        return;
                    }
                    if request(&mut socket).await.is_none() {
                        return;
                    }
                    seen.send(number).unwrap();
                    match (number, served, death) {
                        (0, 1, Death::Read | Death::Idle) => return,
                        (0, 1, Death::Reset) => return socket.set_zero_linger().unwrap(),
                        (0, 1, Death::Answering) => {
                            return socket.write_all(b"HTTP/1.1 200 OK\r\ncontent-le").await.unwrap();
                        }
                        _ => socket.write_all(&answer("200 OK", "", r#"{"archived": true}"#)).await.unwrap(),
                    }
                }
            });
        }
    });
    (address, requests, deaths)
}

async fn send(upstream: &MyCreditApp) -> Reply {
    let authorization = upstream.authorize(organization(REQUESTER), false).await.unwrap();
    upstream.patch(patch(), authorization).await
}

#[tokio::test]
async fn a_connection_closed_while_idle_costs_nothing() {
    let (address, mut requests, mut deaths) = serve(Death::Idle).await;
    let upstream = with_static_token(address);
    assert!(matches!(send(&upstream).await, Reply::Answered(_)));
    deaths.recv().await.unwrap();
    assert!(matches!(send(&upstream).await, Reply::Answered(_)), "on a fresh connection");
    assert_eq!((requests.recv().await, requests.recv().await), (Some(0), Some(1)));
    assert!(requests.try_recv().is_err(), "each is sent once");
}

/// Whether it was applied before the end cannot be seen from here, so both are one.
#[tokio::test]
async fn a_connection_that_ends_under_a_request_leaves_it_unanswered_and_is_not_used_again() {
    for death in [Death::Read, Death::Reset, Death::Answering] {
        let (address, mut requests, _deaths) = serve(death).await;
        let upstream = with_static_token(address);
        assert!(matches!(send(&upstream).await, Reply::Answered(_)));
        let reply = send(&upstream).await;
        assert!(matches!(reply, Reply::Unanswered), "{death:?}: {reply:?}");
        assert!(matches!(send(&upstream).await, Reply::Answered(_)), "{death:?}");
        let seen = [requests.recv().await, requests.recv().await, requests.recv().await];
        assert_eq!(seen, [Some(0), Some(0), Some(1)], "sent once: {death:?}");
        assert!(requests.try_recv().is_err());
    }
}
