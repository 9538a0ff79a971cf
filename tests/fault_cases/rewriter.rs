//! A client of the broker that can send what no library would: bytes are exchanged on their way.

use std::net::SocketAddr;

use harness::Broker;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy};
use tokio::net::{TcpListener, TcpStream};

/// A client of the same broker whose bytes `from` arrive as `to`, which is as long.
pub async fn client(broker: &Broker, from: &'static [u8], to: &'static [u8]) -> Broker {
    assert_eq!(from.len(), to.len());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(carry(listener, broker.socket(), from, to));
    broker.by_way_of(address).await
}

async fn carry(listener: TcpListener, target: SocketAddr, from: &'static [u8], to: &'static [u8]) {
    let (client, _) = listener.accept().await.unwrap();
    let server = TcpStream::connect(target).await.unwrap();
    let ((mut client_in, mut client_out), (mut server_in, mut server_out)) =
        (client.into_split(), server.into_split());
    tokio::spawn(async move { copy(&mut server_in, &mut client_out).await });
    let mut buffer = vec![0; 256 * 1024];
    // A message of a test is small and arrives in one piece.
    while let Ok(length @ 1..) = client_in.read(&mut buffer).await {
        let piece = &mut buffer[..length];
        for at in 0..length.saturating_sub(from.len() - 1) {
            if piece[at..].starts_with(from) {
                piece[at..at + to.len()].copy_from_slice(to);
            }
        }
        if server_out.write_all(piece).await.is_err() {
            return;
        }
    }
}
