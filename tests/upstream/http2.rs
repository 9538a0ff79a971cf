//! HTTP/2, frame by frame: what is certainly not processed, and what may have been.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use futures::future::join_all;
use guest_connection_adapter::domain::obstacle::Obstacle;
use guest_connection_adapter::domain::reply::Reply;
use guest_connection_adapter::mycreditapp::MyCreditApp;
use guest_connection_adapter::service::ports::Upstream as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use crate::peer::{REQUESTER, organization, patch};
use crate::tls::{Authority, secure};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const GOAWAY: u8 = 7;

const END_STREAM: u8 = 1;
const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

/// `:status: 200`, as HPACK has it in its table.
const STATUS_200: &[u8] = &[0x88];

const MAX_CONCURRENT_STREAMS: [u8; 6] = [0, 3, 0, 0, 0, 1];

/// What an end does with a request that it has read to its end.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Act {
    Answer,
    Reset(u32),
    /// GOAWAY, naming as the last stream that of the request plus `beyond`; then it answers, or closes.
    GoAway {
        beyond: i64,
        code: u32,
        answer: bool,
    },
    /// Does not answer it, and is well otherwise.
    Hold,
    /// Reads and says nothing any more, and does not answer PING either.
    Die,
}

struct Connection {
    stream: TlsStream<TcpStream>,
}

impl Connection {
    async fn begin(acceptor: &TlsAcceptor, socket: TcpStream, settings: &[u8]) -> Option<Self> {
        let mut stream = acceptor.accept(socket).await.ok()?;
        let mut preface = [0; PREFACE.len()];
        stream.read_exact(&mut preface).await.ok()?;
        assert_eq!(preface, PREFACE);
        let mut connection = Self { stream };
        connection.write(SETTINGS, 0, 0, settings).await;
        Some(connection)
    }

    async fn write(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        let mut frame = vec![length[1], length[2], length[3], kind, flags];
        frame.extend(stream.to_be_bytes());
        frame.extend(payload);
        // The other side may have gone.
        let _ = self.stream.write_all(&frame).await;
        let _ = self.stream.flush().await;
    }

    /// Kind, flags, stream and payload of the next frame.
    async fn read(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; usize::try_from(length).unwrap()];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
    }

    /// The stream of the next request, read to its end.
    async fn request(&mut self) -> Option<u32> {
        loop {
            let (kind, flags, stream, payload) = self.read().await?;
            match kind {
                SETTINGS if flags & ACK == 0 => self.write(SETTINGS, ACK, 0, &[]).await,
                PING if flags & ACK == 0 => self.write(PING, ACK, 0, &payload).await,
                DATA | HEADERS if flags & END_STREAM != 0 => return Some(stream),
                _ => {}
            }
        }
    }

    async fn answer(&mut self, stream: u32) {
        self.write(HEADERS, END_HEADERS, stream, STATUS_200).await;
        self.write(DATA, END_STREAM, stream, br#"{"archived": true}"#).await;
    }

    /// Does it; whether the connection is to go on.
    async fn act(&mut self, act: Act, stream: u32) -> bool {
        match act {
            Act::Answer => self.answer(stream).await,
            Act::Reset(code) => self.write(RST_STREAM, 0, stream, &code.to_be_bytes()).await,
            Act::GoAway { beyond, code, answer } => {
                let last = u32::try_from(i64::from(stream) + beyond).unwrap();
                let payload = [last.to_be_bytes(), code.to_be_bytes()].concat();
                self.write(GOAWAY, 0, 0, &payload).await;
                if answer {
                    self.answer(stream).await;
                }
                if beyond >= 0 {
                    let _ = self.stream.shutdown().await;
                    return false;
                }
            }
            Act::Hold => {}
            Act::Die => std::future::pending().await,
        }
        true
    }
}

/// Serves with `acts`, one for each request in the order of arrival, and tells of each with the number of its connection.
async fn serve(
    authority: &Authority,
    settings: &'static [u8],
    acts: Vec<Act>,
) -> (SocketAddr, mpsc::UnboundedReceiver<usize>) {
    let acceptor = authority.server("127.0.0.1", &[b"h2"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (seen, requests) = mpsc::unbounded_channel();
    let acts = std::sync::Arc::new(std::sync::Mutex::new(acts.into_iter()));
    tokio::spawn(async move {
        for number in 0.. {
            let Ok((socket, _)) = listener.accept().await else { return };
            let (acceptor, seen, acts) = (acceptor.clone(), seen.clone(), acts.clone());
            tokio::spawn(async move {
                let Some(mut connection) = Connection::begin(&acceptor, socket, settings).await else {
                    return;
                };
                while let Some(stream) = connection.request().await {
                    let _ = seen.send(number);
                    let act = acts.lock().unwrap().next().unwrap_or(Act::Answer);
                    if !connection.act(act, stream).await {
                        return;
                    }
                }
            });
        }
    });
    (address, requests)
}

async fn send(upstream: &MyCreditApp) -> Reply {
    let authorization = upstream.authorize(organization(REQUESTER), false).await.unwrap();
    upstream.patch(patch(), authorization).await
}

fn is_answered(reply: &Reply) -> bool {
    matches!(reply, Reply::Answered(answer) if answer.status == 200 && answer.body.is_some())
}

fn received(requests: &mut mpsc::UnboundedReceiver<usize>) -> Vec<usize> {
    let mut all = Vec::new();
    while let Ok(number) = requests.try_recv() {
        all.push(number);
    }
    all
}

#[tokio::test]
async fn requests_share_a_connection() {
    let authority = Authority::new();
    let (address, mut requests) = serve(&authority, &[], Vec::new()).await;
    let upstream = MyCreditApp::new(secure(address, &authority)).unwrap();
    for _ in 0..3 {
        assert!(is_answered(&send(&upstream).await));
    }
    assert_eq!(received(&mut requests), [0, 0, 0]);
}

type Check<'a> = &'a dyn Fn(&Reply) -> bool;

#[tokio::test]
async fn what_the_other_side_says_it_did_not_process_is_unreachable_and_the_rest_unanswered() {
    const NO_ERROR: u32 = 0;
    const INTERNAL_ERROR: u32 = 2;
    const REFUSED_STREAM: u32 = 7;
    let refused = |reply: &Reply| matches!(reply, Reply::Unreachable(Obstacle::StreamRefused));
    let unanswered = |reply: &Reply| matches!(reply, Reply::Unanswered);
    let go_away = |beyond, code, answer| Act::GoAway { beyond, code, answer };
    let mut cases: Vec<(Act, Check<'_>)> = vec![
        (Act::Reset(REFUSED_STREAM), &refused),
        (go_away(-1, NO_ERROR, false), &refused),
        (go_away(-1, INTERNAL_ERROR, false), &refused),
        (go_away(0, NO_ERROR, true), &is_answered),
        (go_away(0, NO_ERROR, false), &unanswered),
        (go_away(0, INTERNAL_ERROR, false), &unanswered),
        (go_away(1000, INTERNAL_ERROR, false), &unanswered),
        (Act::Die, &unanswered),
    ];
    // NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, STREAM_CLOSED, CANCEL, ENHANCE_YOUR_CALM, HTTP_1_1_REQUIRED, unknown.
    cases.extend([0, 1, 2, 5, 8, 11, 13, 99].map(|code| (Act::Reset(code), &unanswered as Check<'_>)));
    let authority = Authority::new();
    for (act, expected) in cases {
        let (address, mut requests) = serve(&authority, &[], vec![Act::Answer, act]).await;
        let upstream = MyCreditApp::new(secure(address, &authority)).unwrap();
        assert!(is_answered(&send(&upstream).await));
        let reply = send(&upstream).await;
        assert!(expected(&reply), "{act:?}: {reply:?}");
        assert_eq!(received(&mut requests), [0, 0], "sent once: {act:?}");
        // The next one finds a connection that works.
        assert!(is_answered(&send(&upstream).await), "after {act:?}");
    }
}

#[tokio::test]
async fn a_first_request_on_a_connection_can_be_refused_too() {
    let authority = Authority::new();
    for act in [Act::Reset(7), Act::GoAway { beyond: -1, code: 0, answer: false }] {
        let (address, _requests) = serve(&authority, &[], vec![act]).await;
        let upstream = MyCreditApp::new(secure(address, &authority)).unwrap();
        let reply = send(&upstream).await;
        assert!(matches!(reply, Reply::Unreachable(Obstacle::StreamRefused)), "{act:?}: {reply:?}");
    }
}

/// Written or not when the GOAWAY comes: it was not processed.
#[tokio::test]
async fn a_connection_that_is_given_up_from_the_start_processes_nothing() {
    let authority = Authority::new();
    let acceptor = authority.server("127.0.0.1", &[b"h2"]);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let upstream = MyCreditApp::new(secure(listener.local_addr().unwrap(), &authority)).unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let Some(mut connection) = Connection::begin(&acceptor, socket, &[]).await else { continue };
            connection.write(GOAWAY, 0, 0, &[0; 8]).await;
            while connection.read().await.is_some() {}
        }
    });
    for _ in 0..5 {
        let reply = send(&upstream).await;
        assert!(matches!(reply, Reply::Unreachable(Obstacle::StreamRefused | Obstacle::Unsent)), "{reply:?}");
    }
}

#[tokio::test]
async fn a_dead_connection_takes_one_attempt_with_it() {
    let authority = Authority::new();
    let (address, mut requests) = serve(&authority, &[], vec![Act::Answer, Act::Die]).await;
    let mut settings = secure(address, &authority);
    settings.attempt_timeout = Duration::from_secs(2);
    let upstream = MyCreditApp::new(settings).unwrap();
    assert!(is_answered(&send(&upstream).await));
    let started = Instant::now();
    assert!(matches!(send(&upstream).await, Reply::Unanswered));
    assert!(started.elapsed() < Duration::from_secs(2), "the PING is missed before the attempt is over");
    assert!(is_answered(&send(&upstream).await));
    assert_eq!(received(&mut requests), [0, 0, 1]);
}

#[tokio::test]
async fn requests_wait_for_their_turn_within_the_deadline() {
    let authority = Authority::new();
    let (address, mut requests) = serve(&authority, &MAX_CONCURRENT_STREAMS, Vec::new()).await;
    let upstream = MyCreditApp::new(secure(address, &authority)).unwrap();
    assert!(is_answered(&send(&upstream).await), "now the limit is known");
    let replies = join_all((0..8).map(|_| send(&upstream))).await;
    assert!(replies.iter().all(is_answered), "{replies:?}");
    assert_eq!(received(&mut requests), [0; 9]);

    // The one before never ends: those behind it end with their deadlines.
    let (address, _requests) =
        serve(&authority, &MAX_CONCURRENT_STREAMS, vec![Act::Answer, Act::Hold, Act::Hold, Act::Hold]).await;
    let upstream = MyCreditApp::new(secure(address, &authority)).unwrap();
    assert!(is_answered(&send(&upstream).await));
    let started = Instant::now();
    let replies = join_all((0..3).map(|_| send(&upstream))).await;
    assert!(started.elapsed() < Duration::from_millis(1500));
    assert!(replies.iter().all(|reply| matches!(reply, Reply::Unanswered)), "{replies:?}");
}
