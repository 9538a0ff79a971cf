//! The proxy does what it says, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use harness::{DEADLINE, Direction, FaultProxy};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

/// Long enough for what comes at once, short enough to wait for what must not come.
const MOMENT: Duration = Duration::from_millis(100);

/// A server that sends back what it gets.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    address
}

async fn say(stream: &mut TcpStream, word: &[u8; 4]) {
    stream.write_all(word).await.unwrap();
}

async fn hears(stream: &mut TcpStream, word: &[u8; 4]) -> bool {
    let mut heard = [0; 4];
    timeout(DEADLINE, stream.read_exact(&mut heard)).await.unwrap().unwrap();
    &heard == word
}

async fn is_silent(stream: &mut TcpStream) -> bool {
    timeout(MOMENT, stream.read_u8()).await.is_err()
}

#[tokio::test]
async fn connections_are_cut_reset_and_refused() {
    let proxy = FaultProxy::start(echo().await);
    let mut first = TcpStream::connect(proxy.address()).await.unwrap();
    say(&mut first, b"abcd").await;
    assert!(hears(&mut first, b"abcd").await);
    proxy.cut();
    let end = timeout(DEADLINE, first.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(end.kind(), ErrorKind::UnexpectedEof);

    let mut second = TcpStream::connect(proxy.address()).await.unwrap();
    say(&mut second, b"abcd").await;
    assert!(hears(&mut second, b"abcd").await);
    proxy.reset();
    let end = timeout(DEADLINE, second.read_u8()).await.unwrap().unwrap_err();
    assert_eq!(end.kind(), ErrorKind::ConnectionReset);

    proxy.refuse();
    let refused = async { while TcpStream::connect(proxy.address()).await.is_ok() {} };
    timeout(DEADLINE, refused).await.unwrap();
    assert_eq!(TcpStream::connect(proxy.address()).await.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    proxy.leave_unattended();
    let silent = async {
        loop {
            if let Ok(stream) = TcpStream::connect(proxy.address()).await {
                return stream;
            }
        }
    };
    let mut third = timeout(DEADLINE, silent).await.unwrap();
    say(&mut third, b"abcd").await;
    assert!(is_silent(&mut third).await);
    proxy.accept();
    assert!(hears(&mut third, b"abcd").await);
}

#[tokio::test]
async fn bytes_are_held_and_delayed() {
    let proxy = FaultProxy::start(echo().await);
    let mut old = TcpStream::connect(proxy.address()).await.unwrap();
    proxy.freeze(Direction::ToClient);
    say(&mut old, b"abcd").await;
    assert!(is_silent(&mut old).await);
    proxy.thaw();
    assert!(hears(&mut old, b"abcd").await);

    proxy.strand();
    let mut new = TcpStream::connect(proxy.address()).await.unwrap();
    say(&mut new, b"efgh").await;
    assert!(hears(&mut new, b"efgh").await);
    say(&mut old, b"ijkl").await;
    assert!(is_silent(&mut old).await);
    proxy.thaw();
    assert!(hears(&mut old, b"ijkl").await);

    proxy.delay(MOMENT);
    let started = Instant::now();
    say(&mut old, b"mnop").await;
    assert!(hears(&mut old, b"mnop").await);
    assert!(started.elapsed() >= 2 * MOMENT, "there and back");
    drop((old, new));
    proxy.connected(0).await;
    assert_eq!(proxy.begun(), 2);
}
