//! Principals, organisations and files of keys that change while calls go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use harness::adapter::secret_file;
use harness::{DEADLINE, look_again};
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::{Code, Status};
use uuid::Uuid;

use crate::support::{Client, House, Issuer, archive, not_permitted, reason, set, unauthenticated};

/// Calls without end, each of which must be answered well.
pub struct Load {
    pub token: Arc<std::sync::Mutex<String>>,
    done: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<Result<(), Status>>,
}

impl Load {
    pub fn start(mut client: Client, organization: harness::Organization, token: String) -> Self {
        let token = Arc::new(std::sync::Mutex::new(token));
        let (done, stop): (Arc<AtomicU64>, Arc<AtomicBool>) = Default::default();
        let (current, count, stopped) = (token.clone(), done.clone(), stop.clone());
        let task = tokio::spawn(async move {
            while !stopped.load(Ordering::Relaxed) {
                let token = current.lock().unwrap().clone();
                let key = Uuid::new_v4().to_string();
                archive(&mut client, &token, organization.archive(Uuid::new_v4(), &key)).await?;
                count.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        });
        Self { token, done, stop, task }
    }

    /// Waits until a few more calls are answered.
    pub async fn goes_on(&self) {
        let target = self.done.load(Ordering::Relaxed) + 5;
        let reached = async {
            while self.done.load(Ordering::Relaxed) < target && !self.task.is_finished() {
                look_again().await;
            }
        };
        timeout(DEADLINE, reached).await.expect("calls go on");
    }

    pub async fn end(self) {
        self.goes_on().await;
        self.stop.store(true, Ordering::Relaxed);
        timeout(DEADLINE, self.task).await.expect("in time").expect("joined").expect("no call failed");
    }
}

/// Waits until the adapter has taken so many changes.
async fn changed(house: &House, count: usize) {
    let is_change = |line: &&String| line.contains("the organisations have changed");
    let seen =
        house.adapter.log().wait_until(DEADLINE, |lines| lines.iter().filter(is_change).count() >= count);
    seen.await.unwrap_or_else(|lines| panic!("no change:\n{}", lines.join("\n")));
}

#[tokio::test]
async fn principals_come_and_go_without_a_restart() {
    let house = House::start("").await;
    let mut client = house.adapter.client().await;
    let (late, second) = (house.issuer.token("late"), house.issuer.token("second"));
    let call = || house.organization(0).archive(Uuid::new_v4(), &Uuid::new_v4().to_string());
    assert_eq!(reason(&archive(&mut client, &late, call()).await.unwrap_err()), unauthenticated());
    assert_eq!(reason(&archive(&mut client, &second, call()).await.unwrap_err()), not_permitted());
    let line = "principals.late = { jwt_subjects = [\"late\"], organizations = [\"test\"] }";
    let wider = "principals.second = { jwt_subjects = [\"second\"], organizations = [\"test\", \"test-1\"] }";
    let more = house.setup.clone().config(line).config(wider);
    more.write();
    changed(&house, 1).await;
    archive(&mut client, &late, call()).await.expect("it is known now");
    archive(&mut client, &second, call()).await.expect("it may now");
    house.setup.write();
    changed(&house, 2).await;
    assert_eq!(reason(&archive(&mut client, &late, call()).await.unwrap_err()), unauthenticated());
    assert_eq!(reason(&archive(&mut client, &second, call()).await.unwrap_err()), not_permitted());
    house.end().await;
}

#[tokio::test]
async fn an_organisation_that_is_added_later_is_one_of_all() {
    let house = House::start("").await;
    let mut client = house.adapter.client().await;
    let other = harness::Organization::numbered(2, Uuid::now_v7());
    house.upstream.simulator.register_client(&other.client_id, &other.client_secret, other.id);
    house.setup.clone().organization(&other).write();
    changed(&house, 1).await;
    let call = || other.archive(Uuid::new_v4(), &Uuid::new_v4().to_string());
    archive(&mut client, &house.issuer.token("operator"), call()).await.expect("all of them");
    let refused = archive(&mut client, &house.issuer.token("first"), call()).await.unwrap_err();
    assert_eq!(reason(&refused), not_permitted());
    house.end().await;
}

#[tokio::test]
async fn losing_all_principals_opens_nothing() {
    let house = House::start("").await;
    let mut client = house.adapter.client().await;
    let call = || house.organization(0).archive(Uuid::new_v4(), &Uuid::new_v4().to_string());
    let names = ["first", "second", "reader", "operator"];
    let bare =
        names.iter().fold(house.setup.clone(), |setup, name| setup.without(&format!("principals.{name}")));
    bare.write();
    changed(&house, 1).await;
    let refused = client.archive_guest_connection(call()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    let refused = archive(&mut client, &house.issuer.token("first"), call()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    house.setup.write();
    changed(&house, 2).await;
    archive(&mut client, &house.issuer.token("first"), call()).await.expect("it is known again");
    house.end().await;
}

#[tokio::test]
async fn keys_rotate_in_their_file_and_no_call_fails() {
    let house = House::start("").await;
    let next = Issuer::ec("key-2");
    let client = house.adapter.client().await;
    let load = Load::start(client, house.organization(0).clone(), house.issuer.token("first"));
    load.goes_on().await;
    house.replace_keys(&set(&[&house.issuer, &next]));
    changed(&house, 1).await;
    *load.token.lock().unwrap() = next.token("first");
    load.goes_on().await;
    // A call may have taken the old token from its place just before.
    load.goes_on().await;
    house.replace_keys(&set(&[&next]));
    changed(&house, 2).await;
    load.end().await;
    let refused = house.archive(&house.issuer.token("first"), "k").await.unwrap_err();
    assert_eq!(reason(&refused), unauthenticated());
    house.end().await;
}

#[tokio::test]
async fn a_file_of_keys_at_fault_changes_nothing() {
    let house = House::start("").await;
    for bad in ["{\"keys\": []}", "not a key", "{\"keys\": 1}", &house.issuer.pair.serialize_pem()] {
        house.replace_keys(bad);
        let part = |value: &serde_json::Value| value["parts"]["organizations"].clone();
        let value = house.adapter.readiness(|_, value| part(value)["status"] == "degraded").await;
        let detail = part(&value)["detail"].as_str().unwrap().to_owned();
        assert!(detail.contains("jwt.keys_file"), "{detail}");
        house.archive(&house.issuer.token("first"), &Uuid::new_v4().to_string()).await.expect("as before");
        house.replace_keys(&set(&[&house.issuer]));
        house.adapter.readiness(|_, value| part(value)["status"] == "ready").await;
    }
    house.end().await;
}

#[tokio::test]
async fn what_is_wrong_with_the_section_is_told_at_the_start() {
    let upstream = harness::Upstream::start_with(2).await;
    let issuer = Issuer::rsa("k");
    let good = crate::support::setup(&upstream, &set(&[&issuer]), "");
    let private = secret_file(good.directory(), "private.pem", &issuer.pair.serialize_pem());
    for (lines, key) in [
        ("jwt.algorithms = [\"none\"]".to_owned(), "jwt.algorithms"),
        ("jwt.algorithms = [\"HS256\"]".to_owned(), "jwt.algorithms"),
        ("jwt.algorithms = []".to_owned(), "jwt.algorithms"),
        ("jwt.audience = []".to_owned(), "jwt.audience"),
        ("jwt.issuer = \"\"".to_owned(), "jwt.issuer"),
        ("jwt.leeway = \"10m\"".to_owned(), "jwt.leeway"),
        ("jwt.jwks_url = \"https://idp.example.org/keys\"".to_owned(), "jwt: must have either"),
        (format!("jwt.keys_file = \"{}\"", private.display()), "holds a private key"),
        ("jwt.keys_file = \"nowhere.json\"".to_owned(), "jwt.keys_file"),
        ("jwt.secret = \"x\"".to_owned(), "jwt.secret"),
    ] {
        let (status, log) = good.clone().config(&lines).start_in_vain().await;
        assert_eq!(status.code(), Some(2), "{lines}: {log}");
        assert!(log.contains(key), "{lines}: {log}");
    }
    let open = good.clone().without("jwt.keys_file").config("jwt.jwks_url = \"http://idp.example.org/keys\"");
    let (status, log) = open.start_in_vain().await;
    assert!(status.code() == Some(2) && log.contains("must begin with https"), "{log}");
    let without =
        ["jwt.keys_file", "jwt.issuer", "jwt.audience"].iter().fold(good, |setup, key| setup.without(key));
    let (status, log) = without.start_in_vain().await;
    assert!(status.code() == Some(2) && log.contains("needs the section `jwt`"), "{log}");
}

/// The page's example is a configuration that does.
#[tokio::test]
async fn the_example_of_the_page_is_a_good_configuration() {
    let page = include_str!("../../docs/security.md");
    let example = page.split("```toml\n").find(|part| part.contains("[jwt]")).expect("an example");
    let example = example.split("```").next().unwrap();
    let place = tempfile::tempdir().unwrap();
    let secret = secret_file(place.path(), "secret", "s3cret");
    let organization = format!(
        "[organizations.acme]\nid = \"{}\"\nclient_id = \"c\"\nclient_secret_file = \"{}\"\n",
        Uuid::now_v7(),
        secret.display()
    );
    let file = secret_file(place.path(), "adapter.toml", &format!("{organization}{example}"));
    let config = guest_connection_adapter::config::load(Some(&file), []).expect("a good configuration");
    assert!(config.jwt.is_some() && config.principals.len() == 1);
}
