//! Certificates, ends that speak TLS, and what comes of those that cannot be trusted.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use guest_connection_adapter::domain::obstacle::Obstacle;
use guest_connection_adapter::domain::reply::Reply;
use guest_connection_adapter::mycreditapp::{self, Credentials, MyCreditApp, Settings};
use guest_connection_adapter::service::ports::Upstream as _;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use uuid::Uuid;

use crate::peer::{REQUESTER, answer, base_url, organization, patch, request, settings};

/// A certificate authority of the test's own, and its certificate as a file.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    directory: TempDir,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).unwrap();
        // Authorities are told apart by their names first.
        params.distinguished_name.push(DnType::CommonName, Uuid::new_v4().to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let authority = Self { issuer, directory: tempfile::tempdir().unwrap() };
        std::fs::write(authority.file(), authority.issuer.pem()).unwrap();
        authority
    }

    /// For `upstream.ca_file`.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("ca.pem")
    }

    /// An end that proves to be `name` and speaks `protocols`.
    pub fn server(&self, name: &str, protocols: &[&[u8]]) -> TlsAcceptor {
        self.certified(&CertificateParams::new([name.to_owned()]).unwrap(), protocols)
    }

    /// The same with a certificate that was good once.
    pub fn expired(&self, name: &str) -> TlsAcceptor {
        let mut params = CertificateParams::new([name.to_owned()]).unwrap();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.certified(&params, &[])
    }

    fn certified(&self, params: &CertificateParams, protocols: &[&[u8]]) -> TlsAcceptor {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).unwrap(),
            )
            .unwrap();
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        TlsAcceptor::from(Arc::new(config))
    }
}

/// Settings for an end behind TLS, known by its address.
pub fn secure(address: SocketAddr, authority: &Authority) -> Settings {
    let mut settings = settings(address, Credentials::StaticToken("static.jwt".into()));
    base_url(&mut settings).set_scheme("https").unwrap();
    settings.ca_file = Some(authority.file());
    settings
}

/// Answers every request behind TLS with a 200 and, to a request for a token, a token.
pub async fn serve(acceptor: TlsAcceptor) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((socket, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(socket).await else { return };
                while let Some(request) = request(&mut stream).await {
                    let body = if request.starts_with("POST ") {
                        r#"{"access_token": "t", "expires_in": 60}"#
                    } else {
                        r#"{"archived": true}"#
                    };
                    stream.write_all(&answer("200 OK", "", body)).await.unwrap();
                }
            });
        }
    });
    address
}

/// Sends `bytes` to whoever connects, whatever they say.
pub async fn blurt(bytes: &'static [u8]) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                // Read first: what is closed with bytes unread is reset, and the answer may be lost.
                let mut hello = [0; 4096];
                let _ = tokio::io::AsyncReadExt::read(&mut socket, &mut hello).await;
                let _ = socket.write_all(bytes).await;
                let _ = socket.shutdown().await;
                while tokio::io::AsyncReadExt::read(&mut socket, &mut hello).await.is_ok_and(|read| read > 0)
                {
                }
            });
        }
    });
    address
}

/// A fatal alert, `protocol_version`: what an end says that only speaks older versions.
pub const TOO_NEW: &[u8] = &[21, 3, 1, 0, 2, 2, 70];

/// What a web server says to a client that speaks TLS on the port for plain HTTP.
pub const PLAIN: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";

/// Every way in which a connection is not secure, and what it is told as.
pub async fn insecure(authority: &Authority) -> Vec<(Obstacle, SocketAddr)> {
    vec![
        (Obstacle::TlsExpired, serve(authority.expired("127.0.0.1")).await),
        (Obstacle::TlsWrongHost, serve(authority.server("elsewhere.example", &[])).await),
        (Obstacle::TlsUnknownAuthority, serve(Authority::new().server("127.0.0.1", &[])).await),
        (Obstacle::TlsVersion, blurt(TOO_NEW).await),
        (Obstacle::TlsAbsent, blurt(PLAIN).await),
        (Obstacle::Tls, blurt(b"").await),
    ]
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_beside_the_systems() {
    let authority = Authority::new();
    let address = serve(authority.server("127.0.0.1", &[b"http/1.1"])).await;
    let upstream = MyCreditApp::new(secure(address, &authority)).unwrap();
    let authorization = upstream.authorize(organization(REQUESTER), false).await.unwrap();
    let reply = upstream.patch(patch(), authorization).await;
    assert!(matches!(&reply, Reply::Answered(answer) if answer.status == 200), "{reply:?}");
}

#[tokio::test]
async fn each_failure_of_tls_is_told_from_the_others() {
    let authority = Authority::new();
    for (obstacle, address) in insecure(&authority).await {
        let upstream = MyCreditApp::new(secure(address, &authority)).unwrap();
        let authorization = upstream.authorize(organization(REQUESTER), false).await.unwrap();
        let reply = upstream.patch(patch(), authorization).await;
        match obstacle {
            // One that hangs up in the midst may be anything.
            Obstacle::Tls => assert!(matches!(reply, Reply::Unreachable(_)), "{reply:?}"),
            obstacle => {
                assert!(
                    matches!(reply, Reply::Unreachable(found) if found == obstacle),
                    "{obstacle:?}: {reply:?}"
                );
            }
        }
    }
}

#[test]
fn a_file_of_authorities_without_use_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let damaged = "-----BEGIN CERTIFICATE-----\nbm90IGEgY2VydGlmaWNhdGU=\n-----END CERTIFICATE-----\n";
    for (name, content, expected) in [
        ("missing.pem", None, "cannot be read"),
        ("empty.pem", Some(""), "holds no certificate"),
        ("other.pem", Some("not PEM at all"), "holds no certificate"),
        ("damaged.pem", Some(damaged), "cannot be read"),
    ] {
        let path = directory.path().join(name);
        if let Some(content) = content {
            std::fs::write(&path, content).unwrap();
        }
        let token = Credentials::StaticToken("static.jwt".into());
        let mut settings = settings("127.0.0.1:1".parse().unwrap(), token);
        settings.ca_file = Some(path);
        let Err(error) = MyCreditApp::new(settings) else { panic!("{name} was taken") };
        assert!(matches!(error, mycreditapp::Error::Roots(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains(name) && text.contains(expected), "{text}");
    }
}
