//! Accepted TCP connections that a request handler can reset or slow down.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use futures::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::Sleep;

/// The handle of one accepted connection.
#[derive(Clone, Default)]
pub(crate) struct SocketControl(Arc<Control>);

#[derive(Default)]
struct Control {
    peer: Option<IpAddr>,
    reset: AtomicBool,
    waker: AtomicWaker,
    /// Milliseconds between two bytes written; 0 writes freely.
    drip_ms: AtomicU64,
    /// Kept until the connection is gone.
    kept: Mutex<Vec<Box<dyn Send>>>,
}

impl SocketControl {
    /// The address that the connection came from.
    pub(crate) fn peer(&self) -> Option<IpAddr> {
        self.0.peer
    }

    /// Closes the connection with RST, now or at the next read or write of it.
    pub(crate) fn reset(&self) {
        self.0.reset.store(true, Ordering::Release);
        self.0.waker.wake();
    }

    /// From now on writes one byte per interval.
    pub(crate) fn drip(&self, interval_ms: u64) {
        self.0.drip_ms.store(interval_ms.max(1), Ordering::Release);
    }

    /// Drops `value` when the connection is gone.
    pub(crate) fn keep(&self, value: impl Send + 'static) {
        self.0.kept.lock().unwrap_or_else(PoisonError::into_inner).push(Box::new(value));
    }
}

impl Connected<IncomingStream<'_, ControlledListener>> for SocketControl {
    fn connect_info(stream: IncomingStream<'_, ControlledListener>) -> Self {
        stream.io().control.clone()
    }
}

/// The open connections of a simulator.
#[derive(Default)]
pub(crate) struct Sockets(Mutex<Vec<Weak<Control>>>);

impl Sockets {
    fn register(&self, control: &SocketControl) {
        let mut controls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if controls.len() == controls.capacity() {
            controls.retain(|control| control.strong_count() > 0);
        }
        controls.push(Arc::downgrade(&control.0));
    }

    /// Resets every open connection.
    pub(crate) fn reset_all(&self) {
        let controls = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for control in controls.iter().filter_map(Weak::upgrade) {
            SocketControl(control).reset();
        }
    }
}

/// A listener whose connections can be controlled. Its end is told by `_closed` being dropped.
pub(crate) struct ControlledListener {
    // Dropped in this order: the port is closed before that is told.
    listener: TcpListener,
    sockets: Arc<Sockets>,
    _closed: oneshot::Sender<()>,
}

impl ControlledListener {
    /// The receiver ends with an error when the port is closed.
    pub(crate) fn new(listener: TcpListener, sockets: Arc<Sockets>) -> (Self, oneshot::Receiver<()>) {
        let (closed, when_closed) = oneshot::channel();
        (Self { listener, sockets, _closed: closed }, when_closed)
    }
}

impl Listener for ControlledListener {
    type Io = ControlledStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        let (stream, address) = Listener::accept(&mut self.listener).await;
        // Without it small answers wait for the peer's delayed ack; a failure only costs time.
        let _ = stream.set_nodelay(true);
        let control = SocketControl(Arc::new(Control { peer: Some(address.ip()), ..Control::default() }));
        self.sockets.register(&control);
        (ControlledStream { stream, control, pause: None }, address)
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        self.listener.local_addr()
    }
}

/// One accepted connection.
pub(crate) struct ControlledStream {
    stream: TcpStream,
    control: SocketControl,
    pause: Option<Pin<Box<Sleep>>>,
}

impl ControlledStream {
    /// Fails if the connection is to be reset. The server drops it then, and linger 0 makes the close an RST.
    fn check_reset(&self, context: &Context<'_>) -> io::Result<()> {
        self.control.0.waker.register(context.waker());
        if self.control.0.reset.load(Ordering::Acquire) {
            self.stream.set_zero_linger()?;
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        Ok(())
    }

    /// Waits for the interval between two dripped bytes.
    fn poll_pause(&mut self, context: &mut Context<'_>, interval_ms: u64) -> Poll<()> {
        let pause = self
            .pause
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(Duration::from_millis(interval_ms))));
        ready!(pause.as_mut().poll(context));
        self.pause = None;
        Poll::Ready(())
    }
}

impl AsyncRead for ControlledStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_reset(context)?;
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for ControlledStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_reset(context)?;
        let interval_ms = self.control.0.drip_ms.load(Ordering::Acquire);
        if interval_ms == 0 || bytes.is_empty() {
            return Pin::new(&mut self.stream).poll_write(context, bytes);
        }
        ready!(self.poll_pause(context, interval_ms));
        Pin::new(&mut self.stream).poll_write(context, &bytes[..1])
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_reset(context)?;
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
