//! A node that speaks TLS, users of it, and certificates.

use std::ops::Deref;
use std::path::{Path, PathBuf};

use harness::adapter::{replace_file, secret_file};
use harness::{Adapter, Node};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use serde_json::Value;
use tokio::sync::{Mutex, MutexGuard};
use uuid::Uuid;

/// A certificate authority of the test's own.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM form.
pub struct Pair {
    pub certificate: String,
    pub key: String,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        // Authorities are told apart by their names first.
        params.distinguished_name.push(DnType::CommonName, Uuid::new_v4().to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    pub fn server(&self, is_expired: bool) -> Pair {
        let mut params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        if is_expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.signed(&params)
    }

    pub fn client(&self, user: &str) -> Pair {
        let mut params = CertificateParams::new([]).unwrap();
        params.distinguished_name.push(DnType::CommonName, user);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.signed(&params)
    }

    fn signed(&self, params: &CertificateParams) -> Pair {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        Pair { certificate: certificate.pem(), key: key.serialize_pem() }
    }
}

/// The node, its authority, and where its certificates lie.
pub struct Place {
    pub node: Node,
    pub authority: Authority,
    folder: PathBuf,
}

static PLACE: Mutex<Option<Place>> = Mutex::const_new(None);

/// A turn with the node.
pub struct Turn(MutexGuard<'static, Option<Place>>);

impl Deref for Turn {
    type Target = Place;

    fn deref(&self) -> &Place {
        self.0.as_ref().expect("started")
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // It may have certificates or users that the next one does not expect.
            self.0.take();
        }
    }
}

impl Place {
    /// The node that the tests here use in turn.
    pub async fn turn() -> Turn {
        let mut place = PLACE.lock().await;
        if place.is_none() {
            let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("amqp_access");
            std::fs::create_dir_all(&folder).unwrap();
            let authority = Authority::new();
            replace_file(&folder.join("ca.pem"), &authority.pem());
            write_pair(&folder, &authority.server(false));
            let node = Node::start_with_tls(&folder).await;
            *place = Some(Self { node, authority, folder });
        }
        Turn(place)
    }

    /// Where the node speaks TLS, by the name of its host.
    pub fn address(&self, host: &str) -> String {
        format!("amqps://{host}:{}/%2f", self.node.tls_port())
    }

    /// Gives the node another certificate.
    pub async fn serve(&self, pair: &Pair) {
        write_pair(&self.folder, pair);
        self.node.eval("ssl:clear_pem_cache().").await;
    }

    /// Adds a user who may do what the three patterns say: configure, write, read.
    pub async fn user(&self, name: &str, password: &str, patterns: [&str; 3]) {
        self.node
            .eval(&format!(
                "rabbit_auth_backend_internal:add_user(<<\"{name}\">>, <<\"{password}\">>, <<\"test\">>)."
            ))
            .await;
        self.permit(name, patterns).await;
    }

    /// Changes what a user may do.
    pub async fn permit(&self, name: &str, [configure, write, read]: [&str; 3]) {
        let expression = format!(
            "rabbit_auth_backend_internal:set_permissions(<<\"{name}\">>, <<\"/\">>, <<\"{configure}\">>, \
             <<\"{write}\">>, <<\"{read}\">>, <<\"test\">>)."
        );
        assert_eq!(self.node.eval(&expression).await, "ok");
    }

    /// Lets a user write messages with such routing keys alone to an exchange.
    pub async fn permit_keys(&self, name: &str, exchange: &str, pattern: &str) {
        let expression = format!(
            "rabbit_auth_backend_internal:set_topic_permissions(<<\"{name}\">>, <<\"/\">>, <<\"{exchange}\">>, \
             <<\"{pattern}\">>, <<\"^$\">>, <<\"test\">>)."
        );
        assert_eq!(self.node.eval(&expression).await, "ok");
    }

    /// Changes a user's password.
    pub async fn change_password(&self, name: &str, password: &str) {
        self.node.ctl(&["change_password", name, password]).await;
    }
}

/// Everything.
pub const ALL: [&str; 3] = [".*"; 3];

fn write_pair(folder: &Path, pair: &Pair) {
    replace_file(&folder.join("certificate.pem"), &pair.certificate);
    replace_file(&folder.join("key.pem"), &pair.key);
}

/// Lines of configuration with the authority's and, if there is one, a client's certificate, in files below `folder`.
pub fn tls_lines(folder: &Path, authority: &Authority, client: Option<&Pair>) -> String {
    let ca = secret_file(folder, "ca.pem", &authority.pem());
    let ca = format!("amqp.ca_file = \"{}\"", ca.display());
    let Some(client) = client else { return ca };
    let certificate = secret_file(folder, "client.pem", &client.certificate);
    let key = secret_file(folder, "client-key.pem", &client.key);
    let (certificate, key) = (certificate.display(), key.display());
    format!("{ca}\namqp.certificate_file = \"{certificate}\"\namqp.key_file = \"{key}\"")
}

/// Lines of configuration with a user and the password, in a file `password` below `folder`.
pub fn user_lines(folder: &Path, user: &str, password: &str) -> String {
    let password = secret_file(folder, "password", password);
    format!("amqp.username = \"{user}\"\namqp.password_file = \"{}\"", password.display())
}

/// Waits until the part is not ready and says why, in words that hold `text`.
pub async fn not_ready(adapter: &Adapter, part: &str, text: &str) {
    let is = |status: u16, body: &Value| {
        let part = &body["parts"][part];
        status == 503
            && part["status"] == "not_ready"
            && part["detail"].as_str().is_some_and(|detail| detail.contains(text))
    };
    adapter.readiness(is).await;
}
