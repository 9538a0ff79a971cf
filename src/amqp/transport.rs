//! The bytes between lapin and the broker: mended as they come in, and cut off for good when nobody wants them.
//!
//! lapin never ends a connection by itself that is being made, or said good-bye to, while the other side keeps silent.
//! Its thread and its socket would stay for as long as the process lives.

use std::io::{Error, ErrorKind, Result};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_rs::traits::Reactor;
use async_rs::util::RuntimeParts;
use async_rs::{Runtime, Tokio};
use futures::{AsyncRead, AsyncWrite, FutureExt as _, Stream};
use lapin::AsyncTcpStream;
use lapin::tcp::AMQPUriTcpExt as _;
use lapin::uri::AMQPUri;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::access::Credentials;
use super::mend::Mender;
use super::records;
use super::tls;

/// How much is read at once.
const PIECE_LENGTH: usize = 16 * 1024;

type Socket = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;

/// Tokio, but that connections are [`Transport`]s.
pub type Kit = RuntimeParts<Tokio, Connecting>;

/// The runtime for lapin. Must be called within one.
#[must_use]
pub fn runtime() -> Runtime<Kit> {
    Runtime::new(RuntimeParts::new(Tokio::current(), Connecting(Tokio::current())))
}

/// Connects to the broker, encrypted if the address says so. Everything ends when `cut` is cancelled.
///
/// # Errors
/// As the system tells it.
pub async fn connect(
    uri: AMQPUri,
    credentials: &Credentials,
    cut: CancellationToken,
) -> Result<AsyncTcpStream<Transport>> {
    let runtime = Runtime::new(Tokio::current());
    let connecting = uri.connect_with_config_async(credentials.tls(), &runtime);
    let socket = cut.run_until_cancelled(connecting).await.unwrap_or_else(|| Err(ended()))?;
    Ok(AsyncTcpStream::Plain(Transport::new(socket, cut)))
}

fn ended() -> Error {
    Error::new(ErrorKind::ConnectionAborted, "the connection is not wanted any more")
}

/// A connection's bytes.
pub struct Transport {
    socket: Socket,
    mender: Mender,
    /// What was read and not handed on, from `handed_on` on.
    read: Vec<u8>,
    handed_on: usize,
    cut: Pin<Box<WaitForCancellationFutureOwned>>,
    is_cut: bool,
}

impl Transport {
    fn new(socket: Socket, cut: CancellationToken) -> Self {
        Self {
            socket,
            mender: Mender::default(),
            read: Vec::new(),
            handed_on: 0,
            cut: Box::pin(cut.cancelled_owned()),
            is_cut: false,
        }
    }

    /// Why the other side has ended TLS, if it said so. A server of TLS 1.3 looks at the client's certificate only when the
    /// client may write already, whose writing then fails before the reason is read.
    fn last_word(&mut self, context: &mut Context<'_>) -> Option<Error> {
        match Pin::new(&mut self.socket).poll_read(context, &mut [0; 1]) {
            Poll::Ready(Err(error)) if tls::error(&error).is_some() => Some(error),
            _ => None,
        }
    }

    fn check(&mut self, context: &mut Context<'_>) -> Result<()> {
        self.is_cut = self.is_cut || self.cut.poll_unpin(context).is_ready();
        if self.is_cut { Err(ended()) } else { Ok(()) }
    }
}

impl AsyncRead for Transport {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut [u8]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        this.check(context)?;
        while this.handed_on == this.read.len() {
            this.read.clear();
            this.handed_on = 0;
            let mut piece = [0; PIECE_LENGTH];
            let length = ready!(Pin::new(&mut this.socket).poll_read(context, &mut piece))?;
            if length == 0 {
                return Poll::Ready(Ok(0));
            }
            let before = this.mender.mended();
            this.mender.take(&piece[..length], &mut this.read);
            if this.mender.mended() > before {
                records::Mended.log();
            }
        }
        let length = into.len().min(this.read.len() - this.handed_on);
        into[..length].copy_from_slice(&this.read[this.handed_on..][..length]);
        this.handed_on += length;
        Poll::Ready(Ok(length))
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        if this.is_cut {
            return Poll::Ready(Err(ended()));
        }
        match ready!(Pin::new(&mut this.socket).poll_write(context, bytes)) {
            Ok(length) => Poll::Ready(Ok(length)),
            Err(error) => Poll::Ready(Err(this.last_word(context).unwrap_or(error))),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(context)
    }

    fn poll_close(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        // A peer that keeps silent would let an encrypted connection wait for its good-bye.
        if this.is_cut {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.socket).poll_close(context)
    }
}

/// Makes [`Transport`]s where lapin's interface asks for a reactor; the rest is tokio's.
#[derive(Debug, Clone)]
pub struct Connecting(Tokio);

impl Reactor for Connecting {
    type TcpStream = Transport;
    type Sleep = <Tokio as Reactor>::Sleep;

    fn register<H: std::io::Read + std::io::Write + AsFd + AsRawFd + Send + 'static>(
        &self,
        socket: H,
    ) -> Result<impl AsyncRead + AsyncWrite + Send + Unpin + 'static> {
        self.0.register(socket)
    }

    fn sleep(&self, duration: Duration) -> Self::Sleep {
        self.0.sleep(duration)
    }

    fn interval(&self, duration: Duration) -> impl Stream<Item = std::time::Instant> + Send + 'static {
        self.0.interval(duration)
    }

    fn tcp_connect_addr(
        &self,
        address: SocketAddr,
    ) -> impl Future<Output = Result<Self::TcpStream>> + Send + 'static {
        let connecting = self.0.tcp_connect_addr(address);
        async move { Ok(Transport::new(AsyncTcpStream::Plain(connecting.await?), CancellationToken::new())) }
    }
}
