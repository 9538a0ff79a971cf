//! The binary: its one line, its flags, its end.

use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::time::timeout;
use uuid::Uuid;

use crate::common::{DEADLINE, Request, TOKEN};

fn program(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_simulator"));
    command.args(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
    command
}

/// Waits for the line that tells the base URL.
async fn address(child: &mut Child) -> std::net::SocketAddr {
    let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
    let line = timeout(DEADLINE, lines.next_line()).await.expect("in time").expect("a line").expect("a line");
    let address = line.strip_prefix("simulator listening on http://").expect("the line");
    address.strip_suffix("/v1-beta").expect("the base path").parse().expect("an address")
}

#[tokio::test]
async fn it_serves_until_it_is_told_to_stop() {
    for signal in ["-TERM", "-INT"] {
        let organization = Uuid::new_v4();
        let token = format!("{TOKEN}:{organization}");
        let limit = r#"{"requests_per_second": 0}"#;
        let mut child = program(&["--token", &token, "--auto-create", "false", "--limit", limit])
            .env("SIMULATOR_CLIENTS", format!("one:a:b:{organization},two:c:{organization}"))
            .spawn()
            .expect("a process");
        let address = address(&mut child).await;
        for (id, secret, status) in [("one", "a:b", 200), ("two", "c", 200), ("two", "a:b", 401)] {
            assert_eq!(Request::token(id, secret).send(address).await.expect("an answer").status, status);
        }
        let guest = Uuid::new_v4();
        let patch = Request::patch(organization, guest, true);
        assert_eq!(patch.send(address).await.expect("an answer").status, 404);
        let add = Request::post(
            "/_control/connections",
            &serde_json::json!({"target": organization, "guest": guest}),
        );
        assert_eq!(add.send(address).await.expect("an answer").status, 201);
        let patch = Request::patch(organization, guest, true);
        assert_eq!(patch.send(address).await.expect("an answer").status, 429, "the limit lets none through");
        let pid = child.id().expect("a running process").to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().await.expect("kill runs").success());
        let status = timeout(DEADLINE, child.wait()).await.expect("in time").expect("an end");
        assert!(status.success(), "{signal}: {status}");
    }
}

#[tokio::test]
async fn it_does_not_repeat_secrets_that_it_can_not_read() {
    for arguments in [["--client", "id:hush"], ["--token", "hush:no-uuid"]] {
        let mut child = program(&arguments).spawn().expect("a process");
        let status = timeout(DEADLINE, child.wait()).await.expect("in time").expect("an end");
        let mut text = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut text).await.expect("text");
        assert!(!status.success() && text.contains(" 1 is not ") && !text.contains("hush"), "{text}");
    }
}
