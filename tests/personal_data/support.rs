//! Requests to the admin door, the program's commands, and a search through the store's files.

use std::net::SocketAddr;
use std::process::{Command, Output};

use harness::{Adapter, DEADLINE, Setup, Upstream};
use serde_json::{Value, json};
use simulator::Rule;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

pub const PROGRAM: &str = env!("CARGO_BIN_EXE_guest-connection-adapter");

pub const TOKEN: &str = "0123456789abcdef-admin-token";

/// Stands in every body of the API, and nowhere else.
pub const MARKER: &str = "marker-of-a-person";

/// An answer of the admin door.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub head: String,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Sends `text` as it is, and reads until the door closes the connection.
pub async fn raw(address: SocketAddr, text: &str) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(DEADLINE, exchange).await.expect("an answer");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default();
    Answer { status, head: head.to_lowercase(), body: body.to_owned() }
}

/// A request with these header lines.
pub async fn request(address: SocketAddr, line: &str, headers: &[&str], body: &str) -> Answer {
    let headers: String = headers.iter().flat_map(|header| [*header, "\r\n"]).collect();
    let length = body.len();
    let fixed = format!("host: {address}\r\nconnection: close\r\ncontent-length: {length}\r\n");
    raw(address, &format!("{line} HTTP/1.1\r\n{fixed}{headers}\r\n{body}")).await
}

pub fn bearer(token: &str) -> String {
    format!("authorization: Bearer {token}")
}

/// Asks with the token for the bodies of a guest to be erased.
pub async fn forget(adapter: &Adapter, guest: Uuid) -> Value {
    let body = json!({ "guest_organization_id": guest }).to_string();
    let answer = request(adapter.admin, "POST /v1/forget", &[&bearer(TOKEN)], &body).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Every body that the API answers with holds the marker.
pub fn mark_bodies(upstream: &Upstream) {
    let body = json!({"status": "connected", "archived": true, "guest_name": MARKER, "guest_email": MARKER});
    upstream.simulator.script(Rule::patch().status(200).json(body));
}

/// Whether the store's files hold `text`.
pub fn store_holds(setup: &Setup, text: &str) -> bool {
    let folder = setup.store();
    let entries = std::fs::read_dir(folder.parent().unwrap()).unwrap();
    let files = entries.map(|entry| std::fs::read(entry.unwrap().path()).unwrap());
    files.into_iter().any(|bytes| bytes.windows(text.len()).any(|window| window == text.as_bytes()))
}

/// Waits until they hold it no more.
pub async fn gone_from_store(setup: &Setup, text: &str) {
    let gone = async {
        while store_holds(setup, text) {
            harness::look_again().await;
        }
    };
    if timeout(DEADLINE, gone).await.is_err() {
        let entries = std::fs::read_dir(setup.store().parent().unwrap()).unwrap();
        let files = entries.map(|entry| entry.unwrap().path()).map(|path| {
            let bytes = std::fs::read(&path).unwrap();
            let found: Vec<_> =
                bytes.windows(text.len()).enumerate().filter(|(_, w)| *w == text.as_bytes()).collect();
            let places: Vec<_> = found.iter().map(|(place, _)| *place).take(20).collect();
            format!("{}: {} bytes, {} times at {places:?}", path.display(), bytes.len(), found.len())
        });
        panic!("the store still holds {text}: {:#?}", files.collect::<Vec<_>>());
    }
}

/// Runs the program with the adapter's configuration and token.
pub async fn run(setup: &Setup, listen: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(PROGRAM);
    command.args(arguments).args(["--config", "adapter.toml"]).current_dir(setup.directory());
    command.env("GCA_ADMIN__TOKEN", TOKEN).env("GCA_ADMIN__LISTEN", listen);
    tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
}
