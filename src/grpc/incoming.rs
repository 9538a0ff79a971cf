//! Takes connections in: how many, how many from one address, and their handshakes.
//!
//! Handshakes run beside one another and have a deadline. When too many are under way the oldest gives way: an honest one
//! takes milliseconds, so that those which hold their places are the silent ones. A connection counts against the
//! total only after its handshake, so that strangers cannot use it up where client certificates are required.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use futures::Stream;
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, UpDownCounter};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;

use super::connection::Connection;
use super::guard::Guard;
use super::peer::{Claim, Peer, Proof};
use super::records;
use crate::telemetry::catalogue as metric;
use crate::tls::{Identity, names};

/// The ALPN name of HTTP/2. A client of gRPC that speaks TLS offers it.
pub const PROTOCOL: &[u8] = b"h2";

/// After a fault of the listener itself, such as a want of file descriptors, which passes as connections close.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(50);

/// How connections are taken in.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Connections at once.
    pub connections_max: usize,
    /// Connections of one address at once, handshakes included.
    pub connections_per_address_max: usize,
    /// Handshakes at once.
    pub handshakes_max: usize,
    /// The time for a handshake, and after it for the first words of HTTP/2.
    pub begin_timeout: Duration,
    /// The time after which a connection is cut off, whatever is under way on it.
    pub life_max: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            connections_max: 1024,
            connections_per_address_max: 256,
            handshakes_max: 256,
            begin_timeout: Duration::from_secs(10),
            life_max: Duration::from_secs(60 * 60),
        }
    }
}

/// Where connections come from.
#[derive(Debug)]
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// What the server is known by, if it speaks TLS. The last value counts for new connections.
    pub identity: Option<watch::Receiver<Identity>>,
}

struct Metrics {
    open: UpDownCounter<i64>,
    refused: Counter<u64>,
}

static METRICS: LazyLock<Metrics> = LazyLock::new(|| Metrics {
    open: metric::CONNECTIONS.up_down_counter(),
    refused: metric::CONNECTIONS_REFUSED.counter(),
});

/// Counts a connection that was refused or cut off.
pub(super) fn count_refused(reason: &'static str) {
    METRICS.refused.add(1, &[KeyValue::new("reason", reason)]);
}

/// How many there are. Cloning shares it.
#[derive(Debug, Clone)]
struct Census {
    settings: Settings,
    counts: Arc<Mutex<Counts>>,
}

#[derive(Debug, Default)]
struct Counts {
    total: usize,
    addresses: HashMap<IpAddr, usize>,
    /// Connections by their age, of which some have ended or are proved since.
    unproved: VecDeque<Claim>,
}

impl Counts {
    /// Makes the oldest connection give way on which nobody has called. Whether there was one.
    fn displace(&mut self) -> bool {
        while let Some(oldest) = self.unproved.pop_front() {
            if oldest.is_unproved() {
                oldest.cut();
                return true;
            }
        }
        false
    }
}

/// Whom an address belongs to, as far as that can be told: a host has a whole network of 64 bits in IPv6.
fn host(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6([a, b, c, d, 0, 0, 0, 0].into())
        }
        address @ IpAddr::V4(_) => address,
    }
}

impl Census {
    fn with<T>(&self, work: impl FnOnce(&mut Counts) -> T) -> T {
        work(&mut self.counts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A place among those of the address.
    fn arrive(&self, address: IpAddr) -> Option<Place> {
        let address = host(address);
        self.with(|counts| {
            let count = counts.addresses.entry(address).or_default();
            if *count >= self.settings.connections_per_address_max {
                return None;
            }
            *count += 1;
            Some(Place { census: self.clone(), address, is_open: false })
        })
    }
}

/// A connection's place; dropping it gives it back.
#[derive(Debug)]
pub struct Place {
    census: Census,
    address: IpAddr,
    is_open: bool,
}

impl Place {
    /// Takes a place among all. If there is none, one on which nobody has called yet has to give it up, so that whoever comes
    /// with nothing to show can take as many as there are and keep nobody out.
    fn open(&mut self, proof: &Proof) -> bool {
        let max = self.census.settings.connections_max;
        let mut is_displacing = false;
        self.is_open = self.census.with(|counts| {
            is_displacing = counts.total >= max && counts.displace();
            let is_room = counts.total < max || is_displacing;
            if is_room {
                counts.total += 1;
                counts.unproved.push_back(proof.claim());
                if counts.unproved.len() > 2 * max {
                    counts.unproved.retain(Claim::is_unproved);
                }
            }
            is_room
        });
        if is_displacing {
            count_refused("displaced");
        }
        METRICS.open.add(i64::from(self.is_open), &[]);
        self.is_open
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        METRICS.open.add(-i64::from(self.is_open), &[]);
        self.census.with(|counts| {
            counts.total -= usize::from(self.is_open);
            if let Some(count) = counts.addresses.get_mut(&self.address) {
                *count -= 1;
                if *count == 0 {
                    counts.addresses.remove(&self.address);
                }
            }
        });
    }
}

/// The connections that come to `listener`, ready for HTTP/2. Dropping it closes the listener and ends handshakes.
pub fn connections(
    listener: Listener,
    settings: Settings,
) -> impl Stream<Item = Result<Connection, io::Error>> + Send {
    let census = Census { settings, counts: Arc::default() };
    let state = Incoming { listener, census, handshakes: JoinSet::new(), oldest: VecDeque::new() };
    futures::stream::unfold(state, |mut state| async {
        let connection = state.next().await;
        Some((Ok(connection), state))
    })
}

struct Incoming {
    listener: Listener,
    census: Census,
    handshakes: JoinSet<Option<Connection>>,
    /// Handshakes by their age.
    oldest: VecDeque<AbortHandle>,
}

impl Incoming {
    async fn next(&mut self) -> Connection {
        loop {
            tokio::select! {
                accepted = self.listener.socket.accept() => match accepted {
                    Ok((socket, address)) => {
                        if let Some(connection) = self.accept(socket, address) {
                            return connection;
                        }
                    }
                    Err(fault) => pause_after(&fault).await,
                },
                Some(ended) = self.handshakes.join_next() => {
                    // One that was ended for another's sake is an error here.
                    if let Ok(Some(connection)) = ended {
                        return connection;
                    }
                }
            }
        }
    }

    /// Begins with a connection. Yields it if no handshake is needed.
    fn accept(&mut self, socket: TcpStream, address: SocketAddr) -> Option<Connection> {
        let Some(mut place) = self.census.arrive(address.ip()) else {
            count_refused("address");
            records::AddressFull { address }.log();
            return None;
        };
        prepare(&socket);
        let Settings { begin_timeout, life_max, .. } = self.census.settings;
        let Some(identity) = &self.listener.identity else {
            let peer = Peer { address: Some(address), ..Peer::default() };
            return open(&mut place, &peer.proof)
                .then(|| Connection::plain(Guard::new(socket, begin_timeout, life_max), peer, place));
        };
        let acceptor = TlsAcceptor::from(identity.borrow().config.clone());
        self.oldest.retain(|handshake| !handshake.is_finished());
        if self.oldest.len() >= self.census.settings.handshakes_max
            && let Some(oldest) = self.oldest.pop_front()
        {
            oldest.abort();
            count_refused("handshake_displaced");
        }
        let handshake = self.handshakes.spawn(async move {
            let shaken = timeout(begin_timeout, acceptor.accept(socket)).await;
            let Ok(shaken) = shaken else {
                count_refused("handshake_timeout");
                records::HandshakeSlow { address }.log();
                return None;
            };
            let stream = match shaken {
                Ok(stream) if stream.get_ref().1.alpn_protocol() == Some(PROTOCOL) => stream,
                Ok(_) => {
                    count_refused("protocol");
                    records::ProtocolMissing { address }.log();
                    return None;
                }
                Err(fault) => {
                    count_refused("handshake");
                    records::HandshakeFailed { address, error: &fault }.log();
                    return None;
                }
            };
            let certificates = stream.get_ref().1.peer_certificates();
            let names = certificates.and_then(|chain| chain.first()).map(|own| names::of(own));
            let names = names.unwrap_or_default().into();
            let peer = Peer { address: Some(address), names, ..Peer::default() };
            open(&mut place, &peer.proof)
                .then(|| Connection::secure(Guard::new(stream, begin_timeout, life_max), peer, place))
        });
        self.oldest.push_back(handshake);
        None
    }
}

fn open(place: &mut Place, proof: &Proof) -> bool {
    let is_open = place.open(proof);
    if !is_open {
        count_refused("total");
        records::Full.log();
    }
    is_open
}

fn prepare(socket: &TcpStream) {
    // A connection that is gone already is noticed when it is read.
    let _ = socket.set_nodelay(true);
}

async fn pause_after(fault: &io::Error) {
    let of_the_connection = [io::ErrorKind::ConnectionAborted, io::ErrorKind::ConnectionReset];
    if of_the_connection.contains(&fault.kind()) {
        return;
    }
    records::NotAccepted { error: fault }.log();
    sleep(ACCEPT_RETRY_DELAY).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_one_network_of_addresses() {
        let of = |text: &str| host(text.parse().unwrap());
        assert_eq!(of("2001:db8:1:2:3:4:5:6"), of("2001:db8:1:2:ffff::1"));
        assert_ne!(of("2001:db8:1:2::1"), of("2001:db8:1:3::1"));
        assert_eq!(of("::ffff:192.0.2.1"), of("192.0.2.1"));
        assert_ne!(of("192.0.2.1"), of("192.0.2.2"));
    }
}
