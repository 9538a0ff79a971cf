//! A caller that is served, and sockets that speak HTTP/2 by the byte.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use guest_connection_adapter::proto::guest_connection_service_client::GuestConnectionServiceClient;
use harness::{Adapter, DEADLINE, Upstream, look_again};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::transport::Channel;
use uuid::Uuid;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// What a client says first.
pub fn preface() -> Vec<u8> {
    [&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..], &frame(SETTINGS, 0, 0, &[])].concat()
}

/// The headers of a call, in HPACK without a table.
pub fn call() -> Vec<u8> {
    call_with("te", "trailers")
}

/// The same with another header at the end.
pub fn call_with(name: &str, value: &str) -> Vec<u8> {
    let text = |name: &str, value: &str| {
        let part = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        [vec![0], part(name), part(value)].concat()
    };
    [
        vec![0x83, 0x86],
        text(":path", "/guestconnections.v1.GuestConnectionService/GetCommand"),
        text(":authority", "localhost"),
        text("content-type", "application/grpc"),
        text(name, value),
    ]
    .concat()
}

/// An adapter without a broker, and a caller whom nobody has harmed.
pub struct Place {
    pub upstream: Upstream,
    pub adapter: Adapter,
    channel: Channel,
}

impl Place {
    pub async fn start(lines: &str) -> Self {
        let upstream = Upstream::start().await;
        let adapter = upstream.setup(PROGRAM).config(lines).start_ready().await;
        let channel =
            Channel::from_shared(format!("http://{}", adapter.grpc)).unwrap().connect().await.unwrap();
        Self { upstream, adapter, channel }
    }

    /// The caller is served, on the connection that it has.
    pub async fn serves(&self) {
        self.serves_on(self.channel.clone()).await;
    }

    /// A caller is served on a new connection.
    pub async fn serves_anew(&self) {
        let channel = Channel::from_shared(format!("http://{}", self.adapter.grpc)).unwrap();
        self.serves_on(channel.connect().await.unwrap()).await;
    }

    pub async fn serves_on(&self, channel: Channel) {
        let guest = Uuid::new_v4();
        let call = self.upstream.archive(guest, &guest.to_string());
        let mut client = GuestConnectionServiceClient::new(channel);
        timeout(DEADLINE, client.archive_guest_connection(call))
            .await
            .expect("served in time")
            .expect("served");
    }

    /// Waits until so many connections were refused for this reason.
    pub async fn refused(&self, reason: &str, count: usize) {
        let series = format!("adapter_grpc_connections_refused_total{{reason=\"{reason}\"}} ");
        let mut last = String::new();
        let reached = async {
            loop {
                last = self.adapter.metrics().await;
                let value = last.lines().find_map(|line| line.strip_prefix(&series)?.parse::<usize>().ok());
                if value.is_some_and(|value| value >= count) {
                    return;
                }
                look_again().await;
            }
        };
        assert!(timeout(DEADLINE, reached).await.is_ok(), "{series}{count}:\n{last}");
    }
}

/// A raw connection, which is read in the background until its end.
pub struct Raw {
    writer: OwnedWriteHalf,
    reading: JoinHandle<()>,
    /// What the other end has said.
    said: Arc<Mutex<Vec<u8>>>,
}

/// The frames in `said`: kind, flags and payload.
fn frames(said: &[u8]) -> Vec<(u8, u8, Vec<u8>)> {
    let (mut frames, mut rest) = (Vec::new(), said);
    while let [high, middle, low, kind, flags, _, _, _, _, after @ ..] = rest {
        let length = usize::from(*high) << 16 | usize::from(*middle) << 8 | usize::from(*low);
        let Some((payload, after)) = after.split_at_checked(length) else { break };
        frames.push((*kind, *flags, payload.to_vec()));
        rest = after;
    }
    frames
}

impl Raw {
    pub async fn open(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap())
    }

    /// From an address of one's own: each of 127.0.0.0/8 is there.
    pub async fn open_from(own: &str, address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::new(own.parse::<IpAddr>().unwrap(), 0)).unwrap();
        Self::over(socket.connect(address).await.unwrap())
    }

    fn over(socket: TcpStream) -> Self {
        let (mut reader, writer) = socket.into_split();
        let said = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&said);
        let reading = tokio::spawn(async move {
            let mut chunk = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut chunk).await {
                heard.lock().unwrap().extend_from_slice(&chunk[..count]);
            }
        });
        Self { writer, reading, said }
    }

    pub async fn say(&mut self, bytes: &[u8]) {
        self.writer.write_all(bytes).await.unwrap();
    }

    /// Waits until a call is answered, or its stream or connection refused.
    ///
    /// Who hangs up before that may get neither: the other end need not answer one who has left.
    pub async fn answered(&self) {
        let is_answered = || {
            let said = frames(&self.said.lock().unwrap());
            said.iter().any(|(kind, ..)| matches!(*kind, HEADERS | RST_STREAM | GOAWAY)) || self.is_closed()
        };
        let answered = async {
            while !is_answered() {
                look_again().await;
            }
        };
        timeout(DEADLINE, answered).await.expect("an answer");
    }

    pub fn is_closed(&self) -> bool {
        self.reading.is_finished()
    }

    /// Hangs up, and yields what the other end had said.
    pub async fn finish(mut self) -> Vec<(u8, u8, Vec<u8>)> {
        self.writer.shutdown().await.unwrap();
        self.end().await
    }

    /// Waits until the other end closes, and yields the frames that it said: kind, flags and payload.
    pub async fn end(self) -> Vec<(u8, u8, Vec<u8>)> {
        timeout(DEADLINE, self.reading).await.expect("it is closed").unwrap();
        frames(&self.said.lock().unwrap())
    }

    /// Says what `next` yields until it is cut off; how many times that was.
    pub async fn flood(mut self, mut next: impl FnMut(u32) -> Vec<u8>) -> u32 {
        let flooding = async {
            for count in 0.. {
                if self.reading.is_finished() || self.writer.write_all(&next(count)).await.is_err() {
                    return count;
                }
            }
            u32::MAX
        };
        timeout(Duration::from_secs(20).max(DEADLINE), flooding).await.expect("it is cut off")
    }
}
