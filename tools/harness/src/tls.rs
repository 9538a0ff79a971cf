//! Certificates made on the spot, and clients of gRPC that speak TLS.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use hyper_util::rt::TokioIo;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType, date_time_ymd,
};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};
use tower::service_fn;
use uuid::Uuid;

use crate::adapter::{Setup, replace_file};

/// The name that servers are known by here.
pub const SERVER: &str = "adapter.example";

/// A certificate authority.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key.
pub struct Issued {
    /// The certificate.
    pub certificate: CertificateDer<'static>,
    /// The same in PEM form.
    pub certificate_pem: String,
    /// The key in PEM form.
    pub key_pem: String,
}

impl Authority {
    /// Makes one with a name of its own.
    #[must_use]
    pub fn new() -> Self {
        let mut params = CertificateParams::new([]).expect("no names");
        params.distinguished_name.push(DnType::CommonName, Uuid::new_v4().to_string());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("an authority"))
    }

    /// Its certificate in PEM form.
    #[must_use]
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// A certificate for [`SERVER`].
    #[must_use]
    pub fn server(&self) -> Issued {
        self.issue(&Self::params(SERVER))
    }

    /// A certificate with one name, a URI if it looks like one.
    #[must_use]
    pub fn client(&self, name: &str) -> Issued {
        self.issue(&Self::params(name))
    }

    /// A certificate with one name that was good once.
    #[must_use]
    pub fn expired(&self, name: &str) -> Issued {
        let mut params = Self::params(name);
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(2021, 1, 1);
        self.issue(&params)
    }

    /// What a certificate with one name is made from.
    #[must_use]
    pub fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::new([]).expect("no names");
        params.subject_alt_names.push(if name.contains("://") {
            SanType::URI(name.try_into().expect("ASCII"))
        } else {
            SanType::DnsName(name.try_into().expect("ASCII"))
        });
        params
    }

    /// A certificate made from `params`.
    #[must_use]
    pub fn issue(&self, params: &CertificateParams) -> Issued {
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("a certificate");
        Issued {
            certificate: certificate.der().clone(),
            certificate_pem: certificate.pem(),
            key_pem: key.serialize_pem(),
        }
    }
}

impl Default for Authority {
    fn default() -> Self {
        Self::new()
    }
}

/// Where an adapter's files for TLS lie, below the directory of its setup.
#[must_use]
pub fn certificate_file(directory: &Path) -> PathBuf {
    directory.join("certificate.pem")
}

/// The key's file.
#[must_use]
pub fn key_file(directory: &Path) -> PathBuf {
    directory.join("key.pem")
}

/// The file with the authorities of client certificates.
#[must_use]
pub fn client_ca_file(directory: &Path) -> PathBuf {
    directory.join("client_ca.pem")
}

/// Puts a certificate and its key in the place of those that are there.
pub fn replace(directory: &Path, issued: &Issued) {
    replace_file(&key_file(directory), &issued.key_pem);
    replace_file(&certificate_file(directory), &issued.certificate_pem);
}

/// Lets an adapter speak TLS, and ask for certificates of `clients`.
#[must_use]
pub fn secured(setup: Setup, server: &Issued, clients: Option<&Authority>) -> Setup {
    let directory = setup.directory().to_owned();
    replace(&directory, server);
    let (certificate, key) = (certificate_file(&directory), key_file(&directory));
    let setup = setup.config(&format!(
        "grpc.certificate_file = \"{}\"\ngrpc.key_file = \"{}\"",
        certificate.display(),
        key.display()
    ));
    let Some(clients) = clients else { return setup };
    let file = client_ca_file(&directory);
    replace_file(&file, &clients.pem());
    setup.config(&format!("grpc.client_ca_file = \"{}\"", file.display()))
}

/// A client that speaks TLS.
#[derive(Clone)]
pub struct TlsClient {
    config: Arc<ClientConfig>,
    server: &'static str,
}

impl TlsClient {
    /// One that trusts the servers of `authority`, and shows a certificate if it has one.
    #[must_use]
    pub fn new(authority: &Authority, own: Option<&Issued>) -> Self {
        Self::with(authority, own, &[b"h2"], rustls::ALL_VERSIONS)
    }

    /// The same with its ALPN names and versions.
    #[must_use]
    pub fn with(
        authority: &Authority,
        own: Option<&Issued>,
        protocols: &[&[u8]],
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.0.der().clone()).expect("an authority");
        let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots);
        let mut config = match own {
            None => builder.with_no_client_auth(),
            Some(own) => {
                let key: PrivateKeyDer<'_> = KeyPair::from_pem(&own.key_pem)
                    .expect("a key")
                    .serialize_der()
                    .try_into()
                    .expect("PKCS#8");
                builder.with_client_auth_cert(vec![own.certificate.clone()], key).expect("a pair")
            }
        };
        config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
        Self { config: Arc::new(config), server: SERVER }
    }

    /// The same, looking for a server of another name.
    #[must_use]
    pub fn looking_for(self, server: &'static str) -> Self {
        Self { server, ..self }
    }

    /// A connection. With TLS 1.3 a server says only after this that it does not take the client's certificate.
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn connect(&self, address: SocketAddr) -> io::Result<TlsStream<TcpStream>> {
        let socket = TcpStream::connect(address).await?;
        // Else a call, which is written in two parts, waits for the other end's delayed acknowledgement: 40 ms.
        socket.set_nodelay(true)?;
        let name = ServerName::try_from(self.server).expect("a name");
        TlsConnector::from(self.config.clone()).connect(name, socket).await
    }

    /// A channel on one connection, which is made at once and made again when it is lost.
    ///
    /// # Errors
    /// It cannot be made.
    pub async fn channel(&self, address: SocketAddr) -> Result<Channel, tonic::transport::Error> {
        let client = self.clone();
        let connector = service_fn(move |_| {
            let client = client.clone();
            async move { client.connect(address).await.map(TokioIo::new) }
        });
        // The scheme keeps tonic from TLS of its own.
        Endpoint::from_shared(format!("http://{address}"))
            .expect("an address")
            .connect_with_connector(connector)
            .await
    }
}
