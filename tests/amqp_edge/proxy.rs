//! A TCP proxy before the broker, whose connections can be cut.

use std::sync::Arc;

use guest_connection_adapter::amqp::Address;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

pub struct Proxy {
    pub address: Address,
    cut: Arc<Notify>,
}

impl Proxy {
    pub async fn before(address: &Address) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let (host, upstream_port) = (address.host.clone(), address.port);
        let cut = Arc::new(Notify::new());
        let cuts = Arc::clone(&cut);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut broker =
                    TcpStream::connect((host.as_str(), upstream_port)).await.expect("the broker");
                let cuts = Arc::clone(&cuts);
                tokio::spawn(async move {
                    tokio::select! {
                        () = cuts.notified() => {}
                        _ = copy_bidirectional(&mut client, &mut broker) => {}
                    }
                });
            }
        });
        Self { address: Address { host: "127.0.0.1".to_owned(), port, ..address.clone() }, cut }
    }

    /// Cuts every connection.
    pub fn cut(&self) {
        self.cut.notify_waiters();
    }
}
