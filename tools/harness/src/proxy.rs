//! A TCP proxy that does to connections what networks do: cuts, silence, delay. No help of the system is needed.

use std::io::{Error, ErrorKind};
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

use crate::DEADLINE;

/// Pieces under way in one direction before the sender has to wait.
const PIECES_MAX: usize = 64;

/// The largest piece that is passed on at once.
const PIECE_LENGTH_MAX: usize = 16 * 1024;

/// Which bytes are held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Those of the client.
    ToTarget,
    /// Those of the target.
    ToClient,
    /// All.
    Both,
}

/// How new connections are received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Door {
    Open,
    /// Nothing listens.
    Closed,
    /// They come to be, and nothing is done with them.
    Unattended,
}

#[derive(Debug, Clone)]
struct Plan {
    target: SocketAddr,
    /// The address from which it is connected to.
    source: Ipv4Addr,
    door: Door,
    frozen: Option<Direction>,
    /// Connections below this number are dead to both sides, which do not know.
    stranded_below: usize,
    /// Connections below this number are closed.
    cut_below: usize,
    /// Whether they are closed by a reset.
    by_reset: bool,
    delay: Duration,
}

impl Plan {
    fn holds(&self, number: usize, direction: Direction) -> bool {
        number < self.stranded_below
            || self.frozen.is_some_and(|frozen| frozen == Direction::Both || frozen == direction)
    }
}

/// A proxy on a free loopback port before a target. Dropping it closes everything.
pub struct FaultProxy {
    address: SocketAddr,
    plan: watch::Sender<Plan>,
    begun: Arc<AtomicUsize>,
    alive: watch::Sender<usize>,
    heard: watch::Sender<usize>,
    accepting: JoinHandle<()>,
}

impl FaultProxy {
    /// Starts a proxy that does no harm yet. Must be called within a runtime.
    #[must_use]
    pub fn start(target: SocketAddr) -> Self {
        Self::start_from(target, Ipv4Addr::UNSPECIFIED)
    }

    /// The same, connecting to its target from this loopback address, by which the target knows it.
    #[must_use]
    pub fn start_from(target: SocketAddr, source: Ipv4Addr) -> Self {
        // Bound and never listening, it keeps the port while the door is closed.
        let place = socket("127.0.0.1:0".parse().expect("an address"));
        let address = place.local_addr().expect("an address");
        let plan = Plan {
            target,
            source,
            door: Door::Open,
            frozen: None,
            stranded_below: 0,
            cut_below: 0,
            by_reset: false,
            delay: Duration::ZERO,
        };
        let plan = watch::Sender::new(plan);
        let (begun, alive) = (Arc::new(AtomicUsize::new(0)), watch::Sender::new(0));
        let heard = watch::Sender::new(0);
        let listener = listen(address);
        let house = House {
            plan: plan.subscribe(),
            begun: begun.clone(),
            alive: alive.clone(),
            heard: heard.clone(),
        };
        let accepting = tokio::spawn(async move { house.receive(place, listener).await });
        Self { address, plan, begun, alive, heard, accepting }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The same as an AMQP address of the usual virtual host.
    #[must_use]
    pub fn amqp_uri(&self) -> String {
        format!("amqp://{}/%2f", self.address)
    }

    /// Sends new connections elsewhere.
    pub fn set_target(&self, target: SocketAddr) {
        self.plan.send_modify(|plan| plan.target = target);
    }

    /// Closes every connection, as a process that ends does.
    pub fn cut(&self) {
        self.end_all(false);
    }

    /// Closes every connection by a reset.
    pub fn reset(&self) {
        self.end_all(true);
    }

    fn end_all(&self, by_reset: bool) {
        let begun = self.begun.load(Ordering::SeqCst);
        self.plan.send_modify(|plan| {
            plan.cut_below = begun;
            plan.by_reset = by_reset;
        });
    }

    /// New connections are refused. Those that are there go on.
    pub fn refuse(&self) {
        self.plan.send_modify(|plan| plan.door = Door::Closed);
    }

    /// New connections come to be and hear nothing.
    pub fn leave_unattended(&self) {
        self.plan.send_modify(|plan| plan.door = Door::Unattended);
    }

    /// New connections are passed on again.
    pub fn accept(&self) {
        self.plan.send_modify(|plan| plan.door = Door::Open);
    }

    /// Holds the bytes of all connections, old and new, without closing any.
    pub fn freeze(&self, direction: Direction) {
        self.plan.send_modify(|plan| plan.frozen = Some(direction));
    }

    /// Holds the bytes of the connections that are there; new ones work. What a router does that forgets them.
    pub fn strand(&self) {
        let begun = self.begun.load(Ordering::SeqCst);
        self.plan.send_modify(|plan| plan.stranded_below = begun);
    }

    /// Lets everything flow again that was held.
    pub fn thaw(&self) {
        self.plan.send_modify(|plan| {
            plan.frozen = None;
            plan.stranded_below = 0;
        });
    }

    /// Every byte arrives this much later from now on.
    pub fn delay(&self, delay: Duration) {
        self.plan.send_modify(|plan| plan.delay = delay);
    }

    /// How many connections there were, those that have ended included.
    #[must_use]
    pub fn begun(&self) -> usize {
        self.begun.load(Ordering::SeqCst)
    }

    /// How many bytes clients have sent, those that are held included.
    #[must_use]
    pub fn heard(&self) -> usize {
        *self.heard.borrow()
    }

    /// Waits until clients have sent more than that.
    pub async fn heard_more(&self, than: usize) {
        let mut heard = self.heard.subscribe();
        let reached = timeout(DEADLINE, heard.wait_for(|heard| *heard > than)).await.is_ok();
        assert!(reached, "no more than {than} bytes");
    }

    /// Waits until `count` connections are there.
    pub async fn connected(&self, count: usize) {
        let mut alive = self.alive.subscribe();
        let reached = timeout(DEADLINE, alive.wait_for(|alive| *alive == count)).await.is_ok();
        assert!(reached, "{} connections instead of {count}", *self.alive.borrow());
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut();
    }
}

/// What receives connections.
struct House {
    plan: watch::Receiver<Plan>,
    begun: Arc<AtomicUsize>,
    alive: watch::Sender<usize>,
    heard: watch::Sender<usize>,
}

impl House {
    async fn receive(mut self, place: TcpSocket, listener: TcpListener) {
        let mut listener = Some(listener);
        loop {
            let door = self.plan.borrow_and_update().door;
            listener = match (door, listener.take()) {
                (Door::Closed, _) => None,
                (_, Some(listener)) => Some(listener),
                (_, None) => Some(listen(place.local_addr().expect("an address"))),
            };
            tokio::select! {
                changed = self.plan.changed() => if changed.is_err() { return },
                Some(client) = accept(listener.as_ref()), if door == Door::Open => self.connect(client),
            }
        }
    }

    fn connect(&self, client: TcpStream) {
        let number = self.begun.fetch_add(1, Ordering::SeqCst);
        let (plan, alive, heard) = (self.plan.clone(), self.alive.clone(), self.heard.clone());
        alive.send_modify(|alive| *alive += 1);
        tokio::spawn(async move {
            carry(client, (plan, heard), number).await;
            alive.send_modify(|alive| *alive -= 1);
        });
    }
}

async fn accept(listener: Option<&TcpListener>) -> Option<TcpStream> {
    let (stream, _) = listener?.accept().await.ok()?;
    Some(stream)
}

fn socket(address: SocketAddr) -> TcpSocket {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.set_reuseaddr(true).expect("an option");
    socket.bind(address).expect("a loopback port");
    socket
}

fn listen(address: SocketAddr) -> TcpListener {
    socket(address).listen(128).expect("a listener")
}

async fn connect(target: SocketAddr, source: Ipv4Addr) -> Result<TcpStream, Error> {
    if source.is_unspecified() {
        return TcpStream::connect(target).await;
    }
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((source, 0)))?;
    socket.connect(target).await
}

/// Carries one connection until it ends or is cut.
async fn carry(
    client: TcpStream,
    (plan, heard): (watch::Receiver<Plan>, watch::Sender<usize>),
    number: usize,
) {
    let (target, source) = {
        let plan = plan.borrow();
        (plan.target, plan.source)
    };
    let Ok(server) = connect(target, source).await else { return };
    // What is small must not wait for more: delays are this proxy's to add.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let (mut client_in, mut client_out) = client.into_split();
    let (mut server_in, mut server_out) = server.into_split();
    let both = async {
        let hear = |length: usize| heard.send_modify(|heard| *heard += length);
        let to_target = Way { plan: plan.clone(), number, direction: Direction::ToTarget };
        let to_client = Way { plan: plan.clone(), number, direction: Direction::ToClient };
        let there = pump(&mut client_in, &mut server_out, to_target, &hear);
        let back = pump(&mut server_in, &mut client_out, to_client, &|_| ());
        // An error of one direction ends both; a direction that ended well leaves the other one open.
        let _ = tokio::try_join!(there, back);
    };
    let by_reset = {
        let mut plan = plan.clone();
        tokio::select! {
            () = both => false,
            cut = plan.wait_for(|plan| number < plan.cut_below) => cut.is_ok_and(|plan| plan.by_reset),
        }
    };
    if by_reset {
        for half in [client_out, server_out] {
            // If it is gone already, there is nothing to reset.
            let _ = half.as_ref().set_zero_linger();
            // Dropped, it would say good-bye first.
            half.forget();
        }
    }
}

/// One direction of a connection.
struct Way {
    plan: watch::Receiver<Plan>,
    number: usize,
    direction: Direction,
}

/// Passes on what comes, as late as is wanted and not while it is held. The end of a side is news too, and held alike.
async fn pump(
    from: &mut OwnedReadHalf,
    to: &mut OwnedWriteHalf,
    way: Way,
    hear: &(dyn Fn(usize) + Sync),
) -> Result<(), Error> {
    let Way { plan, number, direction } = way;
    let (pieces_in, mut pieces) = mpsc::channel::<(Instant, Result<Vec<u8>, Error>)>(PIECES_MAX);
    let delays = plan.clone();
    let reading = async move {
        let mut buffer = vec![0; PIECE_LENGTH_MAX];
        loop {
            let piece = from.read(&mut buffer).await.map(|length| buffer[..length].to_vec());
            hear(piece.as_ref().map_or(0, Vec::len));
            let is_last = piece.as_ref().is_ok_and(Vec::is_empty) || piece.is_err();
            let due = Instant::now() + delays.borrow().delay;
            if pieces_in.send((due, piece)).await.is_err() || is_last {
                return Ok(());
            }
        }
    };
    let writing = async move {
        let mut plan = plan;
        while let Some((due, piece)) = pieces.recv().await {
            sleep_until(due).await;
            let free = plan.wait_for(|plan| !plan.holds(number, direction)).await;
            free.map_err(|_| Error::from(ErrorKind::ConnectionAborted))?;
            to.write_all(&piece?).await?;
        }
        to.shutdown().await
    };
    tokio::try_join!(reading, writing).map(|_| ())
}
