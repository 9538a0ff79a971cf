//! What the program's commands say where nothing can be done.

use harness::Upstream;
use tokio::net::TcpListener;

use super::support::{PROGRAM, run};

#[tokio::test]
async fn what_cannot_be_done_is_explained() {
    let upstream = Upstream::start().await;
    let setup = upstream.setup(PROGRAM).env("GCA_ADMIN__TOKEN", "another-token-than-that-of-the-command");
    let adapter = setup.start_ready().await;
    let (listen, id) = (adapter.admin.to_string(), upstream.requester.to_string());
    let cases = [
        (vec!["forget"], 2, "--guest"),
        (vec!["forget", "--guest", &id, "--organization", &id], 2, "cannot be used"),
        (vec!["forget", "--guest", &id], 1, "401"),
        (vec!["audit"], 1, "401"),
    ];
    for (arguments, code, text) in cases {
        let output = run(&setup, &listen, &arguments).await;
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {said}");
        assert!(said.contains(text), "{arguments:?}: {said}");
    }
    // Nobody listens there.
    let free = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let output = run(&setup, &free, &["audit"]).await;
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains(&free) && said.contains("must be running"), "{said}");
}
