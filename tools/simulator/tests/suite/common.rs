//! A raw HTTP/1.1 client, which can be as wrong as a test needs it, and sees the socket as it is.

use std::fmt::Write as _;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use simulator::{Config, Simulator};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use uuid::Uuid;

/// Nothing in these tests may take longer.
pub const DEADLINE: Duration = Duration::from_secs(10);
pub const TOKEN: &str = "test-token";

/// A request that keeps to the contract until a test changes it.
#[derive(Clone)]
pub struct Request {
    pub method: String,
    pub path: String,
    pub headers: Vec<(String, String)>,
    pub body: String,
}

impl Request {
    /// A PATCH in the Self scenario.
    pub fn patch(requester: Uuid, guest: Uuid, archived: bool) -> Self {
        let headers = [
            ("authorization", format!("Bearer {TOKEN}")),
            ("requester-organization-id", requester.to_string()),
            ("target-organization-id", requester.to_string()),
            ("content-type", "application/json".to_owned()),
        ];
        Self {
            method: "PATCH".to_owned(),
            path: format!("/v1-beta/guest-connections/{guest}"),
            headers: headers.map(|(name, value)| (name.to_owned(), value)).to_vec(),
            body: format!(r#"{{"archived":{archived}}}"#),
        }
    }

    pub fn token(client_id: &str, client_secret: &str) -> Self {
        Self::post(
            "/v1-beta/oauth2/token",
            &serde_json::json!({"client_id": client_id, "client_secret": client_secret}),
        )
    }

    pub fn post(path: &str, body: &Value) -> Self {
        Self {
            method: "POST".to_owned(),
            path: path.to_owned(),
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            body: body.to_string(),
        }
    }

    pub fn bare(method: &str, path: &str) -> Self {
        Self { method: method.to_owned(), path: path.to_owned(), headers: Vec::new(), body: String::new() }
    }

    /// Replaces a header.
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn without(mut self, name: &str) -> Self {
        self.headers.retain(|(have, _)| have != name);
        self
    }

    pub fn with_body(mut self, body: &str) -> Self {
        body.clone_into(&mut self.body);
        self
    }

    pub fn with_path(mut self, path: &str) -> Self {
        path.clone_into(&mut self.path);
        self
    }

    pub fn with_method(mut self, method: &str) -> Self {
        method.clone_into(&mut self.method);
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut text = format!("{} {} HTTP/1.1\r\nhost: simulator\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            let _ = write!(text, "{name}: {value}\r\n");
        }
        let _ = write!(text, "content-length: {}\r\n\r\n{}", self.body.len(), self.body);
        text.into_bytes()
    }

    /// Sends the request on a connection of its own, and leaves the answer to be read.
    pub async fn open(&self, address: SocketAddr) -> io::Result<Connection> {
        let mut stream = TcpStream::connect(address).await?;
        stream.write_all(&self.bytes()).await?;
        Ok(Connection { stream, buffer: Vec::new() })
    }

    /// Sends the request and reads the whole answer.
    pub async fn send(&self, address: SocketAddr) -> io::Result<Answer> {
        let exchange = async { self.open(address).await?.answer().await };
        tokio::time::timeout(DEADLINE, exchange).await.expect("an answer in time")
    }
}

pub struct Connection {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// Status line and headers, in lower case.
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("a JSON body")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
    }
}

impl Connection {
    /// Reads on; the end of the stream is an error.
    pub async fn more(&mut self) -> io::Result<usize> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            count => Ok(count),
        }
    }

    /// Reads status line and headers.
    pub async fn head(&mut self) -> io::Result<Answer> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8_lossy(&self.buffer[..end]).to_lowercase();
                let body = self.buffer.split_off(end + 4);
                let status =
                    head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
                return Ok(Answer { status, head, body });
            }
            self.more().await?;
        }
    }

    /// Reads an answer whose length is announced.
    pub async fn answer(&mut self) -> io::Result<Answer> {
        let mut answer = self.head().await?;
        let length = answer.header("content-length").map_or(0, |length| length.parse().expect("a length"));
        self.buffer = std::mem::take(&mut answer.body);
        while self.buffer.len() < length {
            self.more().await?;
        }
        answer.body = std::mem::take(&mut self.buffer);
        Ok(answer)
    }
}

/// A simulator that knows one organisation, by `TOKEN` and by the client `id` with the secret `secret`.
pub async fn start(config: Config) -> (Simulator, Uuid) {
    let organization = Uuid::new_v4();
    let simulator = Simulator::start(config).await.expect("a free port");
    simulator.register_token(TOKEN, organization);
    simulator.register_client("id", "secret", organization);
    (simulator, organization)
}
