//! Listening, and ceasing to, on one port.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::socket::{ControlledListener, SocketControl, Sockets};

const BACKLOG: u32 = 1024;

/// The port, which is either served or held without listening.
pub(crate) struct Server {
    address: SocketAddr,
    router: Router,
    sockets: Arc<Sockets>,
    port: Port,
}

enum Port {
    Open(Serving),
    /// Bound, so that no one else takes it, but refusing connections.
    Held(TcpSocket),
    Closed,
}

struct Serving {
    stop: oneshot::Sender<()>,
    port_closed: oneshot::Receiver<()>,
    task: JoinHandle<io::Result<()>>,
}

impl Server {
    pub(crate) async fn start(listen: SocketAddr, router: Router) -> io::Result<Self> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let mut server = Self { address, router, sockets: Arc::default(), port: Port::Closed };
        server.serve(listener);
        Ok(server)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    fn serve(&mut self, listener: TcpListener) {
        let (listener, port_closed) = ControlledListener::new(listener, Arc::clone(&self.sockets));
        let (stop, stopped) = oneshot::channel::<()>();
        let service = self.router.clone().into_make_service_with_connect_info::<SocketControl>();
        let serving = axum::serve(listener, service).with_graceful_shutdown(async {
            // A sender that is gone means the same as one that sent.
            let _ = stopped.await;
        });
        let task = tokio::spawn(serving.into_future());
        self.port = Port::Open(Serving { stop, port_closed, task });
    }

    /// Closes the port and idle connections, and holds the port. Requests under way are still answered.
    pub(crate) async fn pause(&mut self) -> io::Result<()> {
        let Port::Open(serving) = std::mem::replace(&mut self.port, Port::Closed) else {
            return Ok(());
        };
        // An error means that the server ended by itself, which closes the port as well.
        let _ = serving.stop.send(());
        let _ = serving.port_closed.await;
        let socket = if self.address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
        socket.set_reuseaddr(true)?;
        socket.bind(self.address)?;
        self.port = Port::Held(socket);
        Ok(())
    }

    /// Listens again on the same port.
    pub(crate) async fn resume(&mut self) -> io::Result<()> {
        let listener = match std::mem::replace(&mut self.port, Port::Closed) {
            Port::Held(socket) => socket.listen(BACKLOG)?,
            Port::Closed => TcpListener::bind(self.address).await?,
            open @ Port::Open(_) => {
                self.port = open;
                return Ok(());
            }
        };
        self.serve(listener);
        Ok(())
    }

    /// Resets every open connection; the port stays as it is.
    pub(crate) fn reset_connections(&self) {
        self.sockets.reset_all();
    }

    /// Closes the port and resets what is still open.
    pub(crate) async fn shutdown(&mut self) {
        if let Port::Open(serving) = std::mem::replace(&mut self.port, Port::Closed) {
            let _ = serving.stop.send(());
            let _ = serving.port_closed.await;
            self.sockets.reset_all();
            // Ends with the last connection. A panic in it was reported where it happened.
            let _ = serving.task.await;
        } else {
            self.sockets.reset_all();
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // The sender that goes with it stops the server.
        self.sockets.reset_all();
    }
}
